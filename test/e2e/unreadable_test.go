// State whose text does not say so in plain words, and state that no reset takes back.

package e2e

import (
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// TestUnreadableRemains looks with another client on the same backend for what a text has left that is written in escapes,
// made up of pieces, or is not a SET to look at, under each policy.
func TestUnreadableRemains(t *testing.T) {
	t.Parallel()
	const locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
	texts := []struct {
		kind, leave string
		refusable   bool // it is seen before it is sent
		seen, clean string
	}{
		{"set", "update pg_settings set setting = '9MB' where name = 'work_mem'", true, "show work_mem", "4MB"},
		{"set", `with x as (select 1) update pg_catalog."pg_settings" set setting = 'other' where name = 'search_path'`, true, "show search_path", `"$user", public`},
		{"set", `select U&"\0073et_config"('work_mem', '9MB', false)`, false, "show work_mem", "4MB"},
		{"set", `select u&"set!005fconfig" uescape '!' ('my.own', '9', false)`, false, "select coalesce(current_setting('my.own', true), '')", ""},
		{"set", "select query_to_xml('select set_' || 'config(''my.own'', ''9'', false)', true, false, '')", false, "select coalesce(current_setting('my.own', true), '')", ""},
		{"set", "select count(*) from ts_stat('select to_tsvector(set_conf' || 'ig(''work_mem'', ''9MB'', false))')", false, "show work_mem", "4MB"},
		{"set", `do E'begin \x73et my.own = 9; end'`, false, "select coalesce(current_setting('my.own', true), '')", ""},
		{"advisory_lock", `select U&"pg\005fadvisory_lock"(4711)`, false, locks, "0"},
		{"advisory_lock", "select query_to_xml('select pg_' || 'advisory_lock(4711)', true, false, '')", false, locks, "0"},
		{"advisory_lock", `select U&"pg\005fadvisory_lock"(4711), 1/(random()::int*0)`, false, locks, "0"},
		{"temp", "create collation pg_temp.mine (locale = 'C')", true, "select count(*) from pg_collation where collnamespace = pg_my_temp_schema()", "0"},
		{"temp", "create operator pg_temp.### (leftarg = int, rightarg = int, function = int4pl)", true, "select count(*) from pg_operator where oprnamespace = pg_my_temp_schema()", "0"},
		{"temp", "create text search configuration pg_temp.mine (copy = simple)", true, "select count(*) from pg_ts_config where cfgnamespace = pg_my_temp_schema()", "0"},
	}
	for _, policy := range []string{"", "pin", "reset", "refuse", "allow"} {
		t.Run("policy "+policy, func(t *testing.T) {
			t.Parallel()
			for i := range 2 * len(texts) {
				tc, extended := texts[i/2], i%2 == 1
				g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) {
					if policy != "" {
						m["state"] = harness.Map{tc.kind: policy}
					}
					if policy == "allow" {
						m["state"] = harness.Map{"set": policy, "seed": policy, "advisory_lock": policy, "temp": policy}
					}
				}})
				a, b := g.script(t, "transaction"), g.script(t, "transaction")
				if extended {
					a.say(parse("", tc.leave), bind(""), execute(), syncUp())
				} else {
					a.say(query(tc.leave))
				}
				got, err := a.tryHear(1)
				if err != nil || !endsIdle(got) || strings.Contains(got, "E:0A000") != (policy == "refuse" && tc.refusable) {
					t.Errorf("extended %t, %s: %s (%v)", extended, tc.leave, got, err)
				}
				if policy == "" || policy == "pin" { // it may keep its server
					a.conn.Close()
				}
				b.say(query(tc.seen))
				if got := b.hear(1); strings.HasPrefix(got, "T D:"+tc.clean+" C:") == (policy == "allow") {
					t.Errorf("extended %t, %s: another sees %s", extended, tc.leave, got)
				}
				a.conn.Close()
				b.conn.Close()
			}
		})
	}
}

// TestBackupsAndOrigins keep their server, which is closed behind them: DISCARD ALL ends neither.
func TestBackupsAndOrigins(t *testing.T) {
	t.Parallel()
	cluster := harness.PostgresOf(t, 17)
	if err := cluster.Exec(t.Context(), "postgres", "alter role app superuser; select pg_replication_origin_create('elsewhere')"); err != nil {
		t.Fatal(err)
	}
	g := startGate(t, gateConf{Cluster: cluster, PoolSize: 3})
	watch := g.direct(t)
	const servers = "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database()" // three at most
	for _, tc := range []struct{ begin, seen, mine, clean string }{
		{"select count(*) from (select pg_replication_origin_session_setup('elsewhere')) x", "select pg_replication_origin_session_is_setup()", "t", "T D:f C:SELECT_1 Z:I"},
		{"select count(*) from (select pg_backup_start('nightly', true)) x", "select count(*) from (select pg_backup_stop(false)) x", "1", "T E:55000 Z:I"},
	} {
		for range 2 {
			p := newPair(t, g)
			p.a.want("T D:1 C:SELECT_1 Z:I", 1, query(tc.begin))
			p.shuffle(func() { p.b.want(tc.clean, 1, query(tc.seen)) })
			p.shuffle(func() { p.a.want("T D:"+tc.mine+" C:SELECT_1 Z:I", 1, query(tc.seen)) })
			there := value(t, watch, servers)
			p.a.conn.Close()
			harness.Eventually(t, harness.Patience, "its server is gone", func() bool {
				return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == 0 && value(t, watch, servers) < there
			})
			p.b.conn.Close()
			p.c.conn.Close()
		}
	}
}

// TestWhatASessionLeavesForEver ends with its server, of which there is one.
func TestWhatASessionLeavesForEver(t *testing.T) {
	t.Parallel()
	cluster := harness.PostgresOf(t, 17)
	if err := cluster.Exec(t.Context(), "postgres", "alter role app superuser; select pg_replication_origin_create('in session')"); err != nil {
		t.Fatal(err)
	}
	g := startGate(t, gateConf{Cluster: cluster, PoolSize: 1})
	const backend = "select pg_backend_pid()"
	for _, text := range []string{"load 'auto_explain'", "select pg_backup_start('nightly', true)",
		"select pg_replication_origin_session_setup('in session')", "select pg_create_physical_replication_slot('s', true, true)"} {
		s := g.script(t, "session")
		mine, err := s.try(1, query(backend))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.try(1, query(text)); err != nil || strings.Contains(got, "E:") {
			t.Fatal(text, got, err)
		}
		s.conn.Close()
		next := g.script(t, "session")
		if theirs, err := next.try(1, query(backend)); err != nil || theirs == mine {
			t.Errorf("%s: the next session has the same server: %s, %v", text, theirs, err)
		}
		next.conn.Close()
	}
}
