// Timeouts of sessions: what each ends, what it spares, and who may set it.

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// TestQueryTimeout cancels the query, and the session goes on, inside its transaction, too.
func TestQueryTimeout(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"query": "3s"}})
	for _, mode := range modes {
		s := g.script(t, mode)
		if got := strings.Join(strings.Fields(s.ask(t, "select pg_sleep(60)")), " "); !strings.Contains(got, "E:57014") || !strings.HasSuffix(got, "Z:I") {
			t.Errorf("%s: %s", mode, got)
		}
		s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	}
	s := g.script(t, "transaction")
	s.want("C:BEGIN Z:T", 1, query("begin"))
	if got := s.ask(t, "select pg_sleep(60)"); !strings.Contains(got, "E:57014") || !strings.HasSuffix(got, "Z:E") {
		t.Error(got)
	}
	s.want("C:ROLLBACK Z:I", 1, query("rollback"))
	// What is quick enough takes as many as it wants, and waiting is no query.
	for range 3 {
		s.want("T D: C:SELECT_1 Z:I", 1, query("select pg_sleep(1.1)"))
	}
}

// ask returns all of the answer to a query.
func (s *script) ask(t *testing.T, sql string) string {
	t.Helper()
	got, err := s.try(1, query(sql))
	if err != nil && got == "" {
		t.Fatal(err)
	}
	return got
}

// TestTransactionTimeouts ends sessions as Postgres would, and their transactions.
func TestTransactionTimeouts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		timeouts harness.Map
		inside   string // is done inside the transaction
		code     string
	}{
		"idle inside":  {harness.Map{"idle_transaction": "3s"}, "select 1", "25P03"},
		"too long":     {harness.Map{"transaction": "3s"}, "select 1", "25P04"},
		"running":      {harness.Map{"transaction": "3s"}, "select pg_sleep(60)", "25P04"},
		"longest wins": {harness.Map{"transaction": "3s", "idle_transaction": "30s"}, "select 1", "25P04"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, gateConf{Timeouts: tc.timeouts})
			watch := g.direct(t)
			do(t, watch, "create table seen (x int); grant all on seen to app")
			for _, mode := range []string{"session", "transaction"} {
				spared := g.script(t, mode)
				s := g.script(t, mode)
				s.want("C:BEGIN Z:T", 1, query("begin"))
				s.want("C:INSERT_0_1 Z:T", 1, query("insert into seen values (1)"))
				s.say(query(tc.inside))
				var heard string
				for !strings.Contains(heard, "E:") {
					next, err := s.tryNext()
					if err != nil {
						t.Fatalf("%s: heard %q, then %v", mode, heard, err)
					}
					heard += " " + next
				}
				if !strings.Contains(heard, tc.code) {
					t.Errorf("%s: heard %s", mode, heard)
				}
				harness.Eventually(t, harness.Patience, "it was rolled back", func() bool {
					return value(t, watch, "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and (state like 'idle in%' or state = 'active' and query like '%pg_sleep(60)%')") == "0"
				})
				if got := value(t, watch, "select count(*) from seen"); got != "0" {
					t.Errorf("%s: %s rows were committed", mode, got)
				}
				spared.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1")) // idle outside of a transaction
			}
		})
	}
}

// TestClientIdleTimeout ends who does nothing between two transactions, or only begins to.
func TestClientIdleTimeout(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"client_idle": "4s"}})
	for _, mode := range modes {
		idle, begins, busy := g.script(t, mode), g.script(t, mode), g.script(t, mode)
		busy.say(query("select pg_sleep(6)"))
		if _, err := begins.conn.Write([]byte("Q\x00\x00\x00\x64select")); err != nil {
			t.Fatal(err)
		}
		if got, _ := begins.tryNext(); !strings.Contains(got, "57P05") {
			t.Errorf("%s, in a message: %s", mode, got)
		}
		if got, _ := idle.tryNext(); !strings.Contains(got, "57P05") {
			t.Errorf("%s: %s", mode, got)
		}
		if got := busy.hear(1); got != "T D: C:SELECT_1 Z:I" {
			t.Errorf("%s: %s", mode, got)
		}
	}
}

// TestWhoseTimeout: the user's wins over the tenant's, that over the process's.
func TestWhoseTimeout(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"query": "30s"}, Tenant: func(m harness.Map) {
		m["timeouts"] = harness.Map{"query": "1s"}
		users := m["users"].([]harness.Map)
		users[1]["timeouts"] = harness.Map{"query": "0s"}
	}})
	app := g.script(t, "transaction")
	if got := app.ask(t, "select pg_sleep(60)"); !strings.Contains(got, "57014") {
		t.Error(got)
	}
	other := scriptAs(t, strings.ReplaceAll(g.dsn("transaction"), "app", "other"))
	other.want("T D: C:SELECT_1 Z:I", 1, query("select pg_sleep(3)"))
}

// TestReloadedTimeouts: a session that is there already has them from its next statement on.
func TestReloadedTimeouts(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"query": "30s"}})
	for _, mode := range modes {
		s := g.script(t, mode)
		s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
		g.reload(g.changed("timeouts", harness.Map{"query": "1s"}))
		if got := s.ask(t, "select pg_sleep(60)"); !strings.Contains(got, "57014") {
			t.Errorf("%s: %s", mode, got)
		}
		g.reload(g.changed("timeouts", harness.Map{"query": "0s"}))
		s.want("T D: C:SELECT_1 Z:I", 1, query("select pg_sleep(2)"))
		g.reload(g.changed("timeouts", harness.Map{"idle_transaction": "1s"}))
		if mode == "statement" {
			continue
		}
		s.want("C:BEGIN Z:T", 1, query("begin"))
		if got, err := s.tryNext(); !strings.Contains(got, "25P03") {
			t.Errorf("%s: %s (%v)", mode, got, err)
		}
	}
}

// TestTimeoutsOfServers: a tenant's and a user's own, for waiting, idling and growing old.
func TestTimeoutsOfServers(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"query_wait": "90s", "server_idle": "1h", "server_lifetime": "1h"}, Tenant: func(m harness.Map) {
		m["pool"] = harness.Map{"size": 1}
		m["timeouts"] = harness.Map{"query_wait": "1s"}
		m["users"].([]harness.Map)[1]["timeouts"] = harness.Map{"server_idle": "1s"}
	}})
	watch := g.direct(t)
	count := func(user string) string {
		return value(t, watch, "select count(*) from pg_stat_activity where usename = '"+user+"' and datname = current_database()")
	}
	g.holders(t, 1)
	waits := g.script(t, "transaction")
	waits.say(query("select 1"))
	if got, err := waits.tryNext(); !strings.Contains(got, "53300") {
		t.Errorf("heard %s (%v)", got, err)
	}
	other := scriptAs(t, strings.ReplaceAll(g.dsn("transaction"), "app", "other"))
	other.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	harness.Eventually(t, 10*time.Second, "the user's idle server is closed", func() bool { return count("other") == "0" })
	if got := count("app"); got != "1" {
		t.Errorf("%s servers of the other user", got)
	}
	delete(g.tenant["users"].([]harness.Map)[1], "timeouts")
	g.reload(g.changed("timeouts", harness.Map{"server_lifetime": "1s"}))
	other.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	harness.Eventually(t, 10*time.Second, "the tenant's old server is closed", func() bool { return count("other") == "0" })
}
