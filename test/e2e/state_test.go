// Session state: what clients have set is theirs, wherever they are served, and nobody else's.

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

const settings = "select concat_ws('|', current_setting('application_name'), current_setting('search_path'), current_setting('statement_timeout')," +
	" current_setting('TimeZone'), current_setting('DateStyle'), current_setting('extra_float_digits'))"

// TestStartupParameters gives each client its own, on fewer servers than clients.
func TestStartupParameters(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		g := startGate(t, gateConf{PoolSize: size})
		type user struct {
			s    *script
			want string
		}
		users := []user{{g.script(t, "transaction"), value(t, g.connect(t, "transaction"), settings)}} // sets nothing
		for i := range 6 {
			zone := []string{"Asia/Tokyo", "Europe/Berlin", "UTC"}[i%3]
			style := []string{"German", "SQL, DMY"}[i%2]
			s := g.script(t, "transaction", fmt.Sprintf("application_name=app%d", i), fmt.Sprintf("timezone=%s", zone), fmt.Sprintf("datestyle='%s'", style),
				fmt.Sprintf(`options='-c search_path=s%d,\\ public -c statement_timeout=%ds --extra_float_digits=%d'`, i, 10+i, i%3))
			if style == "German" {
				style = "German, DMY"
			}
			if s.params["TimeZone"] != zone || s.params["DateStyle"] != style || s.params["application_name"] != fmt.Sprintf("app%d", i) {
				t.Errorf("client %d was greeted with %v", i, s.params)
			}
			users = append(users, user{s, fmt.Sprintf("app%d|s%d, public|%ds|%s|%s|%d", i, i, 10+i, zone, style, i%3)})
		}
		var all errgroup.Group
		for i, u := range users {
			all.Go(func() error {
				for range 40 {
					got, err := u.s.try(1, query("select md5(v) = md5('"+u.want+"'), v from ("+settings+" as v) x"))
					if err != nil || got != "T D:t,"+clip(u.want)+" C:SELECT_1 Z:I" {
						return fmt.Errorf("pool of %d, client %d: got %s (%v), want %s", size, i, got, err, u.want)
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestBadStartupParameters fail the login, as they would with Postgres, and nobody else's.
func TestBadStartupParameters(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	for _, mode := range []string{"session", "transaction"} {
		for option, code := range map[string]string{
			"timezone=Nowhere/Land": "22023", "options='-c nonsense.=1'": "42602", "options='-c unknown_setting=1'": "42704", "options='-c statement_timeout=soon'": "22023",
			"options='-c ignore_system_indexes=on'": "55P02", "options='-c Local_preload_libraries=auto_explain'": "55P02",
		} {
			conn, err := connectBriefly(g, mode, option)
			if got := sqlstate(err); got != code {
				t.Errorf("%s, %s: got %s, want %s", mode, option, got, code)
			}
			if conn != nil {
				_ = conn.Close(t.Context())
			}
			s := g.script(t, mode)
			s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
			s.conn.Close()
		}
	}
}

// TestSetFollows changes reported settings in a session whose server others use in between.
func TestSetFollows(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2} {
		g := startGate(t, gateConf{PoolSize: size})
		a, b := g.script(t, "transaction"), g.script(t, "transaction")
		own := b.params["TimeZone"]
		a.want("C:SET S:TimeZone=Asia/Tokyo Z:I", 1, query("set timezone to 'Asia/Tokyo'"))
		b.want("T D:"+own+" C:SHOW Z:I", 1, query("show timezone"))
		b.want("C:SET S:TimeZone=Europe/Paris Z:I", 1, query("set timezone to 'Europe/Paris'"))
		a.want("T D:Asia/Tokyo C:SHOW Z:I", 1, query("show timezone"))

		// Both servers of a larger pool.
		b.want("C:BEGIN Z:T", 1, query("begin"))
		if size > 1 {
			a.want("T D:Asia/Tokyo C:SHOW Z:I", 1, query("show timezone"))
		}
		b.want("T D:Europe/Paris C:SHOW Z:T C:ROLLBACK Z:I", 2, query("show timezone"), query("rollback"))

		// A SET that is rolled back is taken back, and one for the transaction only ends with it.
		a.want("C:BEGIN Z:T C:SET S:TimeZone=UTC Z:T C:ROLLBACK S:TimeZone=Asia/Tokyo Z:I", 3, query("begin"), query("set timezone to 'UTC'"), query("rollback"))
		b.want("T D:Europe/Paris C:SHOW Z:I", 1, query("show timezone"))
		a.want("T D:Asia/Tokyo C:SHOW Z:I", 1, query("show timezone"))
		a.want("C:BEGIN Z:T C:SET S:TimeZone=UTC Z:T C:COMMIT S:TimeZone=Asia/Tokyo Z:I", 3, query("begin"), query("set local timezone to 'UTC'"), query("commit"))
		a.want("T D:Asia/Tokyo C:SHOW Z:I", 1, query("show timezone"))

		// The extended protocol, application_name, DateStyle and RESET.
		a.want("1 2 C:SET S:application_name=renamed Z:I", 1, parse("", "set application_name to 'renamed'"), bind(""), execute(), syncUp())
		a.want("C:SET S:DateStyle=German, DMY Z:I", 1, query("set datestyle to 'german'"))
		b.want("T D:,ISO, MDY C:SELECT_1 Z:I", 1, query("select current_setting('application_name'), current_setting('datestyle')"))
		a.want("T D:renamed,German, DMY C:SELECT_1 Z:I", 1, query("select current_setting('application_name'), current_setting('datestyle')"))
		a.want("C:RESET S:TimeZone="+own+" Z:I", 1, query("reset timezone"))
		b.want("T D:Europe/Paris C:SHOW Z:I", 1, query("show timezone"))
		a.want("T D:"+own+" C:SHOW Z:I", 1, query("show timezone"))
	}
}

// remain is state that outlives a transaction, and how another session on the same backend would see it.
type remain struct{ name, leave, seen, clean string }

var remains = []remain{
	{"set", "set work_mem to '1MB'", "show work_mem", "4MB"},
	{"set twice over", "select 1; set statement_timeout to 12345", "show statement_timeout", "0"},
	{"set role", "set role other", "select current_user", "app"},
	{"set_config", "select set_config('work_mem', '2MB', false)", "show work_mem", "4MB"},
	{"custom setting", "set my.own to 'secret'", "select coalesce(current_setting('my.own', true), '')", ""},
	{"temporary table", "create temp table t_left(a int)", "select count(*) from pg_class where relname = 't_left'", "0"},
	{"select into temp", "select 1 as a into temp t_into", "select count(*) from pg_class where relname = 't_into'", "0"},
	{"listen", "listen loudly", "select count(*) from pg_listening_channels()", "0"},
	{"advisory lock", "select pg_advisory_lock(4711)", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "0"},
	{"tried advisory lock", "select pg_try_advisory_lock_shared(4711)", "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()", "0"},
	{"prepare", "prepare mine as select 1", "select count(*) from pg_prepared_statements", "0"},
	{"cursor with hold", "begin; declare held cursor with hold for select 1; commit", "select count(*) from pg_cursors", "0"},
	{"session characteristics", "set session characteristics as transaction read only", "show default_transaction_read_only", "off"},
	{"session authorization", "set session authorization app", "select current_user", "app"},
	{"seed", "select setseed(0.5)", seeded, "0"},
	{"seed as a parameter", "set seed to 0.5", seeded, "0"},
	{"seed for the transaction", "select set_config('seed', '0.5', true)", seeded, "0"},
	{"sequence", "select nextval('numbers')", "select count(*) from (select lastval()) x", "E:55000"},
	{"serial column", "insert into numbered default values", "select currval('numbered_id_seq')", "E:55000"},
}

// seeded is 1 where the next random number is the first one after setseed(0.5).
const seeded = "select count(*) from (select random() r) x where r between 0.98516 and 0.98517"

// TestRemains leaves state behind in every mode and protocol and looks with another client on the same backend: after its
// owner has left, and, where the tenant has it reset, while its owner is still there.
func TestRemains(t *testing.T) {
	t.Parallel()
	reset := harness.Map{}
	for _, kind := range []string{"set", "listen", "temp", "advisory_lock", "cursor", "prepare", "load", "sequence", "seed"} {
		reset[kind] = "reset"
	}
	for name, state := range map[string]harness.Map{"kept": nil, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) {
				if state != nil {
					m["state"] = state
				}
			}})
			g.leaveRemains(t, state != nil)
		})
	}
}

func (g *gate) leaveRemains(t *testing.T, reset bool) {
	t.Helper()
	do(t, g.direct(t), "grant other to app; "+numbers)
	for _, mode := range []string{"transaction", "statement", "session"} {
		for _, r := range remains {
			if mode == "statement" && r.name == "cursor with hold" {
				continue
			}
			for _, extended := range []bool{false, true} {
				if extended && r.name == "cursor with hold" || extended && r.name == "set twice over" {
					continue // several statements
				}
				// A server that is not clean within a second is closed: on a busy computer that happens, but not always.
				for try := 1; !g.leaves(t, r, mode, extended, reset); try++ {
					if try == 3 {
						t.Errorf("%s mode, extended %t, %s: the backend was not reset but replaced", mode, extended, r.name)
						break
					}
				}
			}
		}
	}
}

// leaves has a client leave something behind, and says whether the next one, who must not see it, got the same server.
func (g *gate) leaves(t *testing.T, r remain, mode string, extended, reset bool) bool {
	t.Helper()
	a := g.script(t, mode)
	defer a.conn.Close()
	a.say(query("select pg_backend_pid()"))
	backend := a.hear(1)
	if extended {
		a.say(parse("", r.leave), bind(""), execute(), syncUp())
	} else {
		a.say(query(r.leave))
	}
	if got, err := a.tryHear(1); err != nil || !endsIdle(got) {
		t.Fatalf("%s: %s (%v)", r.leave, got, err)
	}
	if mode == "session" || !reset {
		a.conn.Close()
	}
	b := g.script(t, "transaction")
	defer b.conn.Close()
	b.say(query(r.seen))
	want := "T D:" + r.clean + " C:"
	if strings.HasPrefix(r.clean, "E:") {
		want = "T " + r.clean
	}
	if got := b.hear(1); !strings.HasPrefix(got, want) {
		t.Errorf("%s mode, extended %t, %s: %s", mode, extended, r.name, got)
	}
	b.say(query("select pg_backend_pid()"))
	return b.hear(1) == backend
}

func endsIdle(heard string) bool { return len(heard) > 3 && heard[len(heard)-3:] == "Z:I" }

// TestRefusedRemains leaves nothing to others where the tenant does not want it, whether it was seen before it was sent or not.
func TestRefusedRemains(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1, Tenant: func(m harness.Map) {
		m["state"] = harness.Map{"set": "refuse", "listen": "refuse", "temp": "refuse", "advisory_lock": "refuse", "prepare": "refuse"}
	}})
	for _, r := range []struct {
		leave   string
		refused bool
		seen    string
	}{
		{"/* a comment */ set work_mem to '1MB'", true, "show work_mem"},
		{"-- name: x\nlisten loudly", true, "select count(*) from pg_listening_channels()"},
		{"/* a */ prepare mine as select 1", true, "select count(*) from pg_prepared_statements where from_sql"},
		{"set work_mem to '1MB'; select length('" + strings.Repeat("x", 100_000) + "')", true, "show work_mem"},
		{"do $$ begin execute 'create te' || 'mp table t_done(a int)'; end $$", false, "select count(*) from pg_class where relname = 't_done'"},
		{"do $$ begin execute 'set my.' || 'own = 1'; end $$", false, "select count(*) from (select current_setting('my.own', true) v) x where v <> ''"},
		{"set work_mem to '1MB'; select length('" + strings.Repeat("x", 2<<20) + "')", false, "show work_mem"},
	} {
		a, b := g.script(t, "transaction"), g.script(t, "transaction")
		b.say(query(r.seen))
		want := b.hear(1)
		a.say(query(r.leave))
		if got := a.hear(1); strings.Contains(got, "E:0A000") != r.refused || !endsIdle(got) {
			t.Errorf("%s: %s", clip(r.leave), got)
		}
		b.say(query(r.seen))
		if got := b.hear(1); got != want {
			t.Errorf("%s: another sees %s", clip(r.leave), got)
		}
		a.conn.Close()
		b.conn.Close()
	}
}

// TestTrackedSurvivesReset keeps a client's settings though its server was reset.
func TestTrackedSurvivesReset(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	a := g.script(t, "transaction", "application_name=keeper", "options='-c search_path=kept -c work_mem=3MB'")
	a.want("C:SET S:TimeZone=Asia/Tokyo Z:I", 1, query("set timezone to 'Asia/Tokyo'"))
	a.want("C:LISTEN Z:I", 1, query("listen somewhere"))
	for range 3 {
		a.want("T D:keeper,kept,3MB,Asia/Tokyo C:SELECT_1 Z:I", 1,
			query("select current_setting('application_name'), current_setting('search_path'), current_setting('work_mem'), current_setting('timezone')"))
	}
}

// TestSettingsUnderLoad has many clients change their settings at random, each knowing what it should see.
func TestSettingsUnderLoad(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 3})
	zones := []string{"UTC", "Asia/Tokyo", "Europe/Paris", "America/Lima"}
	var all errgroup.Group
	for n := range 12 {
		s := g.script(t, "transaction", fmt.Sprintf("application_name=start%d", n))
		random := rand.New(rand.NewPCG(1, uint64(n)))
		zone, name := s.params["TimeZone"], s.params["application_name"]
		all.Go(func() error {
			for i := range 150 {
				say, want := "", ""
				switch random.IntN(6) {
				case 0:
					zone = zones[random.IntN(len(zones))]
					say = "set timezone to '" + zone + "'"
				case 1:
					name = fmt.Sprintf("n%d-%d", n, i)
					say = "set application_name to '" + name + "'"
				case 2:
					say = "begin; set timezone to 'Asia/Kolkata'; rollback"
				case 3:
					say = "set work_mem to '1MB'" // untracked
				default:
					say = "select current_setting('timezone'), current_setting('application_name'), pg_sleep(0.001)"
					want = fmt.Sprintf("T D:%s,%s, C:SELECT_1 Z:I", zone, name)
				}
				got, err := s.try(1, query(say))
				if err != nil || !endsIdle(got) || want != "" && got != want {
					return fmt.Errorf("client %d, step %d, %s: got %s (%v), want %s", n, i, say, got, err, want)
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}
