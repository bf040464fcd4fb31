// Session state in transaction mode: parameters follow the client, other state keeps its server, and nobody sees another's.

package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// pair is two clients of a pool with two servers, of which a third holds one in turns, so that they change servers.
type pair struct {
	g    *gate
	a, b *script
	c    *script
}

func newPair(t *testing.T, g *gate, options ...string) pair {
	t.Helper()
	return pair{g, g.script(t, "transaction", options...), g.script(t, "transaction", options...), g.script(t, "transaction")}
}

// shuffle has the next lease be of another server: the last one used is taken.
func (p pair) shuffle(do func()) {
	p.g.t.Helper()
	p.c.want("C:BEGIN Z:T", 1, query("begin"))
	do()
	p.c.want("C:COMMIT Z:I", 1, query("commit"))
}

func trackGate(t *testing.T, tenant harness.Map) *gate {
	t.Helper()
	return startGate(t, gateConf{PoolSize: 2, Tenant: func(m harness.Map) {
		for key, value := range tenant {
			m[key] = value
		}
	}})
}

func shows(value string) string { return "T D:" + value + " C:SHOW Z:I" }

func TestTrackedParameters(t *testing.T) {
	t.Parallel()
	g := trackGate(t, nil)
	watch := g.direct(t)
	clerk := harness.Unique("clerk")
	do(t, watch, "create role "+clerk+"; grant "+clerk+" to app")
	p := newPair(t, g)
	p.a.want("C:SET Z:I", 1, query("set work_mem = '7MB'"))
	p.a.want("C:SET Z:I", 1, query("set app.uid = 'alice'"))
	p.b.want("T D:bob C:SELECT_1 Z:I", 1, query("select set_config('app.uid', 'bob', false)"))
	p.b.want("C:SET Z:I", 1, query("set search_path = \"Mixed Case\", public"))
	p.a.want("C:SET Z:I", 1, query("set role "+clerk))
	check := func() {
		t.Helper()
		p.a.want(shows("7MB"), 1, query("show work_mem"))
		p.b.want(shows("4MB"), 1, query("show work_mem"))
		p.a.want(shows("alice"), 1, query("show app.uid"))
		p.b.want(shows("bob"), 1, query("show app.uid"))
		p.a.want("T D:"+clerk+" C:SELECT_1 Z:I", 1, query("select current_user"))
		p.b.want("T D:app C:SELECT_1 Z:I", 1, query("select current_user"))
		p.b.want(shows(`"Mixed Case", public`), 1, query("show search_path"))
	}
	check()
	p.shuffle(check)
	for _, s := range []*script{p.a, p.b} {
		s.want("C:RESET Z:I", 1, query("reset role"))
	}
	p.shuffle(func() { p.a.want("T D:app C:SELECT_1 Z:I", 1, query("select current_user")) })

	// What is rolled back, or only for a transaction, was never set.
	p.a.want("C:BEGIN Z:T C:SET Z:T C:ROLLBACK Z:I", 3, query("begin"), query("set work_mem = '9MB'"), query("rollback"))
	p.a.want("C:BEGIN C:SET C:COMMIT Z:I", 1, query("begin; set local work_mem = '9MB'; commit"))
	p.a.want("C:BEGIN C:SAVEPOINT C:SET C:ROLLBACK C:SET C:COMMIT Z:I", 1,
		query("begin; savepoint s; set work_mem = '8MB'; rollback to s; set app.uid = 'eve'; commit"))
	p.shuffle(func() {
		p.a.want(shows("7MB"), 1, query("show work_mem"))
		p.a.want(shows("eve"), 1, query("show app.uid"))
		p.b.want(shows("bob"), 1, query("show app.uid"))
	})
	// A newcomer sees nothing of it.
	fresh := g.script(t, "transaction")
	fresh.want(shows("4MB"), 1, query("show work_mem"))
	fresh.want("T D: C:SELECT_1 Z:I", 1, query("select current_setting('app.uid', true)"))
	if n := g.metric("postern_pins_total", "tenant", "acme"); n != 0 {
		t.Errorf("%v pins", n)
	}
}

// TestResetGoesBackToTheStartupPacket, as in Postgres, and so does DISCARD ALL.
func TestResetGoesBackToTheStartupPacket(t *testing.T) {
	t.Parallel()
	g := trackGate(t, nil)
	p := newPair(t, g, "options='-c work_mem=5MB -c app.uid=zoe'")
	for _, reset := range []string{"reset work_mem", "reset all", "discard all", "set work_mem to default"} {
		p.a.want("C:SET C:SET Z:I", 1, query("set work_mem = '6MB'; set app.uid = 'x'"))
		p.shuffle(func() { p.a.want(shows("6MB"), 1, query("show work_mem")) })
		if got, err := p.a.try(1, query(reset)); err != nil || !strings.HasSuffix(got, "Z:I") {
			t.Fatal(got, err)
		}
		p.a.want(shows("5MB"), 1, query("show work_mem"))
		p.shuffle(func() { p.a.want(shows("5MB"), 1, query("show work_mem")) })
		p.b.want(shows("5MB"), 1, query("show work_mem"))
		p.b.want(shows("zoe"), 1, query("show app.uid"))
	}
}

// TestResetInSessionMode, where the server stays the client's.
func TestResetInSessionMode(t *testing.T) {
	t.Parallel()
	g := trackGate(t, nil)
	s := g.script(t, "session", "options='-c work_mem=5MB -c app.uid=zoe'")
	for _, reset := range []string{"reset work_mem", "reset all", "discard all"} {
		s.want("C:SET C:SET Z:I", 1, query("set work_mem = '6MB'; set random_page_cost = 3"))
		if got, err := s.try(1, query(reset)); err != nil || !strings.HasSuffix(got, "Z:I") {
			t.Fatal(got, err)
		}
		s.want(shows("5MB"), 1, query("show work_mem"))
		s.want(shows("zoe"), 1, query("show app.uid"))
		want := map[string]string{"reset work_mem": "3"}[reset]
		if want == "" {
			want = "4"
		}
		s.want(shows(want), 1, query("show random_page_cost"))
	}
}

// TestApplicationNameToDefault, which is what the session came with, in both modes and whatever else it came with.
func TestApplicationNameToDefault(t *testing.T) {
	t.Parallel()
	g := trackGate(t, harness.Map{"client_address": "guc"})
	for _, mode := range []string{"session", "transaction"} {
		s := g.script(t, mode, "application_name=mine")
		ask := func(text string) string { // without what is reported
			t.Helper()
			got, err := s.try(1, query(text))
			if err != nil || !strings.HasSuffix(got, "Z:I") {
				t.Fatal(got, err)
			}
			return strings.Join(slices.DeleteFunc(strings.Fields(got), func(m string) bool { return strings.HasPrefix(m, "S:") }), " ")
		}
		address := ask("show postern.client_address")
		for _, reset := range []string{"set application_name to default", "select set_config('application_name', null, false)", "reset all"} {
			ask("set application_name = 'other'")
			ask(reset)
			if got := ask("show application_name"); got != shows("mine") {
				t.Errorf("%s: after %s: %s", mode, reset, got)
			}
		}
		ask("set postern.client_address = '6.6.6.6'")
		if got := ask("show postern.client_address"); got != address || !strings.Contains(got, "127.0.0.1") {
			t.Errorf("%s: the client says that it is at %s; it is at %s", mode, got, address)
		}
	}
}

// TestSettingsOfASuperuser, some of which nobody else could set, and who it has made itself.
func TestSettingsOfASuperuser(t *testing.T) {
	t.Parallel()
	cluster := harness.PostgresOf(t, 17)
	if err := cluster.Exec(t.Context(), "postgres", "alter role app superuser; create role clerk; grant clerk to other"); err != nil {
		t.Fatal(err)
	}
	g := startGate(t, gateConf{Cluster: cluster, PoolSize: 1, Tenant: func(m harness.Map) {
		m["users"] = []harness.Map{{"name": harness.App, "verifier": harness.Verifier(t, cluster, harness.App)}}
	}})
	a, b := g.script(t, "transaction"), g.script(t, "transaction")
	look := query("select session_user, current_user, current_setting('log_min_duration_statement'), current_setting('session_replication_role')")
	own := "app,app,-1,origin"
	for _, step := range []struct{ sql, want string }{
		{"set session authorization other", "other,other,-1,origin"},
		{"set role clerk", "other,clerk,-1,origin"},
		{"set work_mem = '7MB'", "other,clerk,-1,origin"},
		{"reset session authorization", own},
		{"set log_min_duration_statement = 77777", "app,app,77777ms,origin"},
		{"set session_replication_role = replica", "app,app,77777ms,replica"},
		{"set role clerk", "app,clerk,77777ms,replica"},
		{"set role none", "app,app,77777ms,replica"},
		{"set session authorization other", "other,other,77777ms,replica"},
		{"set session authorization default", "app,app,77777ms,replica"},
		{"reset log_min_duration_statement", "app,app,-1,replica"},
	} {
		if got, err := a.try(1, query(step.sql)); err != nil || !strings.HasPrefix(got, "C:") {
			t.Fatalf("%s: %s, %v", step.sql, got, err)
		}
		for range 2 {
			b.want("T D:"+own+" C:SELECT_1 Z:I", 1, look)
			a.want("T D:"+step.want+" C:SELECT_1 Z:I", 1, look)
		}
	}
}

// TestSettingsThatCannotBeTakenBack, because they were made as somebody else, cost the server and no other client.
func TestSettingsThatCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	boss := harness.Unique("boss")
	do(t, g.direct(t), "create role "+boss+" superuser; grant "+boss+" to app")
	a, b := g.script(t, "transaction"), g.script(t, "transaction")
	a.want("C:SET C:SET C:RESET Z:I", 1, query("set role "+boss+"; set log_min_duration_statement = 77777; reset role"))
	b.want(shows("-1"), 1, query("show log_min_duration_statement"))
	if got, err := a.try(1, query("select 1")); err != nil || !strings.HasPrefix(got, "E:42501!") {
		t.Errorf("what it could not set as itself: %s, %v", got, err)
	}
	b.want(shows("-1"), 1, query("show log_min_duration_statement"))
}

// TestPins: state that cannot move keeps its server, until it is gone.
func TestPins(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ make, use, want, end string }{
		"temp":          {"create temp table mine as select 42 as x", "select x from mine", "T D:42 C:SELECT_1 Z:I", "drop table mine"},
		"advisory_lock": {"select pg_advisory_lock(4711)", "select pg_try_advisory_lock(4711)", "T D:t C:SELECT_1 Z:I", "select pg_advisory_unlock_all()"},
		"cursor":        {"declare c cursor with hold for select 1 union all select 2", "fetch c", "T D:1 C:FETCH_1 Z:I", "close c"},
		"prepare":       {"prepare p as select 42", "execute p", "T D:42 C:SELECT_1 Z:I", "deallocate p"},
		"listen":        {"listen news", "select pg_listening_channels()", "T D:news C:SELECT_1 Z:I", "unlisten news"},
		"do":            {"do $$ begin create temp table mine (x int); end $$", "select x from mine", "T C:SELECT_0 Z:I", "discard temp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := trackGate(t, nil)
			p := newPair(t, g)
			if got, err := p.a.try(1, query(tc.make)); err != nil || !strings.HasSuffix(got, "Z:I") || strings.Contains(got, "E:") {
				t.Fatal(got, err)
			}
			busy := func(n float64) func() bool {
				return func() bool { return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == n }
			}
			harness.Eventually(t, harness.Patience, "it keeps its server", busy(1))
			p.shuffle(func() { p.a.want(tc.want, 1, query(tc.use)) })
			if got, _ := p.b.try(1, query(tc.use)); got == tc.want && name != "advisory_lock" {
				t.Errorf("another client sees it: %s", got)
			}
			if got, err := p.a.try(1, query(tc.end)); err != nil || strings.Contains(got, "E:") {
				t.Fatal(got, err)
			}
			harness.Eventually(t, harness.Patience, "it gives its server back", busy(0))
			if n := g.metric("postern_pins_total", "tenant", "acme"); n < 1 {
				t.Errorf("%v pins counted", n)
			}

			// Who leaves with it leaves nothing behind.
			if got, err := p.a.try(1, query(tc.make)); err != nil || strings.Contains(got, "E:") {
				t.Fatal(got, err)
			}
			p.a.conn.Close()
			harness.Eventually(t, harness.Patience, "its server is free again", busy(0))
			for range 3 {
				if got, _ := p.b.try(1, query(tc.use)); got == tc.want && name != "advisory_lock" {
					t.Errorf("another client sees it: %s", got)
				}
			}
		})
	}
}

// TestACursorClosedByProtocol keeps its server no longer: to Postgres it is a portal.
func TestACursorClosedByProtocol(t *testing.T) {
	t.Parallel()
	g := trackGate(t, nil)
	s := g.script(t, "transaction")
	keeps := func(n float64) func() bool {
		return func() bool { return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == n }
	}
	s.want("C:DECLARE_CURSOR Z:I", 1, query("declare c cursor with hold for select 1"))
	s.want("3 Z:I", 1, &pgproto3.Close{ObjectType: 'P', Name: "another"}, syncUp())
	s.want("T D:1 C:FETCH_1 Z:I", 1, query("fetch 1 from c"))
	harness.Eventually(t, harness.Patience, "it keeps its server", keeps(1))
	s.want("3 Z:I", 1, &pgproto3.Close{ObjectType: 'P', Name: "c"}, syncUp())
	harness.Eventually(t, harness.Patience, "it gives its server back", keeps(0))
}

// TestATemporaryReplicationSlot keeps its server, where alone it can be used, and ends with its client: DISCARD ALL leaves it.
func TestATemporaryReplicationSlot(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{PoolSize: 2}, nil)
	watch := g.direct(t)
	p := newPair(t, g)
	p.a.want("T D:mine C:SELECT_1 Z:I", 1, query("select slot_name from pg_create_logical_replication_slot('mine', 'test_decoding', true)"))
	p.shuffle(func() {
		p.a.want("T D:0 C:SELECT_1 Z:I", 1, query("select count(*) from pg_logical_slot_get_changes('mine', null, null)"))
	})
	if n := value(t, watch, "select count(*) from pg_replication_slots"); n != "1" {
		t.Errorf("%s slots", n)
	}
	p.a.conn.Close()
	harness.Eventually(t, harness.Patience, "the slot is gone", func() bool { return value(t, watch, "select count(*) from pg_replication_slots") == "0" })
}

// TestListen delivers notifications to a client that is between transactions.
func TestListen(t *testing.T) {
	t.Parallel()
	g := trackGate(t, nil)
	p := newPair(t, g)
	p.a.want("C:LISTEN Z:I", 1, query("listen news"))
	p.b.want("C:NOTIFY Z:I", 1, query("notify news, 'hello'"))
	if got, err := p.a.tryNext(); err != nil || !strings.Contains(got, "A:news") {
		t.Errorf("heard %q, %v", got, err)
	}
	p.b.want("C:NOTIFY Z:I", 1, query("notify news"))
	if got, err := p.a.tryNext(); err != nil || !strings.Contains(got, "A:news") {
		t.Errorf("heard %q, %v", got, err)
	}
}

func TestStatePolicies(t *testing.T) {
	t.Parallel()
	t.Run("refuse", func(t *testing.T) {
		t.Parallel()
		g := trackGate(t, harness.Map{"state": harness.Map{"set": "refuse", "temp": "refuse", "listen": "refuse", "advisory_lock": "refuse", "prepare": "refuse"}})
		s := g.script(t, "transaction")
		for _, sql := range []string{"set work_mem = '7MB'", "create temp table x ()", "listen x", "select pg_advisory_lock(1)", "prepare p as select 1"} {
			s.want("E:0A000 Z:I", 1, query(sql))
			s.want("E:0A000 Z:I", 1, parse("", sql), bind(""), execute(), syncUp())
		}
		s.want("C:BEGIN Z:T", 1, query("begin"))
		s.want("C:SET Z:T", 1, query("set local work_mem = '7MB'"))
		s.want("E:0A000 Z:E", 1, query("set work_mem = '7MB'"))
		s.want("C:ROLLBACK Z:I", 1, query("rollback"))
		s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	})
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		g := trackGate(t, harness.Map{"state": harness.Map{"set": "reset", "temp": "reset"}})
		s := g.script(t, "transaction")
		s.want("C:SET T D:7MB C:SHOW Z:I", 1, query("set work_mem = '7MB'; show work_mem"))
		s.want(shows("4MB"), 1, query("show work_mem"))
		s.want("C:CREATE_TABLE Z:I", 1, query("create temp table mine (x int)"))
		s.want("E:42P01 Z:I", 1, query("select * from mine"))
		s.want("C:BEGIN Z:T C:SET Z:T", 2, query("begin"), query("set work_mem = '7MB'"))
		s.want("T D:7MB C:SHOW Z:T C:COMMIT Z:I", 2, query("show work_mem"), query("commit"))
		s.want(shows("4MB"), 1, query("show work_mem"))
	})
	t.Run("allow", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) { m["state"] = harness.Map{"set": "allow", "temp": "allow"} }})
		a, b := g.script(t, "transaction"), g.script(t, "transaction")
		a.want("C:SET Z:I", 1, query("set work_mem = '7MB'"))
		a.want("C:CREATE_TABLE Z:I", 1, query("create temp table ours (x int)"))
		b.want(shows("7MB"), 1, query("show work_mem"))
		b.want("T C:SELECT_0 Z:I", 1, query("select * from ours"))
	})
}

// TestResetAlways undoes what a function hides.
func TestResetAlways(t *testing.T) {
	t.Parallel()
	for _, always := range []bool{false, true} {
		g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) { m["server_reset_always"] = always }})
		do(t, g.direct(t), `create function public.sneak() returns void language sql as $$ select pg_catalog.set_config('work_mem', '7MB', false) $$`)
		a, b := g.script(t, "transaction"), g.script(t, "transaction")
		a.want("T D: C:SELECT_1 Z:I", 1, query("select public.sneak()"))
		want := map[bool]string{false: "7MB", true: "4MB"}[always] // the first is a documented limit
		b.want(shows(want), 1, query("show work_mem"))
	}
}

// TestClientAddress: Postgres learns who the client is, with each lease.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	t.Run("guc", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) { m["client_address"] = "guc" }})
		for i := range 2 {
			for _, address := range []string{"203.0.113.7", "2001:db8::7"} {
				conn, err := g.from(t, "transaction", address)
				if err != nil {
					t.Fatal(err)
				}
				if got := value(t, conn, "show postern.client_address"); got != address {
					t.Errorf("%d: %s is shown as %s", i, address, got)
				}
				// It is not for the client to say.
				do(t, conn, "set postern.client_address = '10.0.0.1'")
				if got := value(t, conn, "show postern.client_address"); got != address {
					t.Errorf("%d: %s is shown as %s", i, address, got)
				}
			}
		}
	})
	t.Run("application_name", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) { m["client_address"] = "application_name" }})
		a, b := g.connect(t, "transaction", "application_name=one"), g.connect(t, "transaction", "application_name="+strings.Repeat("x", 70))
		for range 2 {
			if got := value(t, a, "show application_name"); !strings.HasPrefix(got, "one - 127.0.0.1:") {
				t.Error(got)
			}
			if got := value(t, b, "show application_name"); !strings.Contains(got, "x - 127.0.0.1:") || len(got) > 63 {
				t.Error(got)
			}
		}
	})
}

// TestLeastServers: a pool keeps as many servers as it is told, once it has been used.
func TestLeastServers(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"server_idle": "1s"}, Tenant: func(m harness.Map) { m["pool"] = harness.Map{"size": 5, "min": 3} }})
	watch := g.direct(t)
	s := g.script(t, "transaction")
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	harness.Eventually(t, harness.Patience, "it has three servers", func() bool { return backends(t, watch) == "3" })
	held := g.holders(t, 5)
	for _, h := range held {
		h.want("C:COMMIT Z:I", 1, query("commit"))
	}
	harness.Eventually(t, harness.Patience, "it is back to three", func() bool { return backends(t, watch) == "3" })
}
