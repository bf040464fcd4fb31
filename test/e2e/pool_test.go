// The pool: its limits, who is served next, how long one waits, and what becomes of servers.

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// backends counts what app has open on the server.
func backends(t *testing.T, watch *pgx.Conn) string {
	t.Helper()
	return value(t, watch, "select count(*) from pg_stat_activity where usename in ('app', 'other') and datname = current_database()")
}

// holders opens n transactions and leaves them open.
func (g *gate) holders(t *testing.T, n int) (all []*script) {
	t.Helper()
	for range n {
		s := g.script(t, "transaction")
		s.want("C:BEGIN Z:T", 1, query("begin"))
		all = append(all, s)
	}
	return all
}

func (g *gate) waiting(n int) func() bool {
	return func() bool { return g.metric("postern_waiting_clients", "tenant", "acme") == float64(n) }
}

// TestPoolSize never has more servers than allowed, for a pool and for the tenant.
func TestPoolSize(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["pool"] = harness.Map{"size": 3, "max_servers": 4} }})
	watch := g.direct(t)
	held := g.holders(t, 3)
	waiter := g.script(t, "transaction")
	waiter.say(query("select 'served'"))
	harness.Eventually(t, harness.Patience, "the fourth waits", g.waiting(1))
	if n := backends(t, watch); n != "3" {
		t.Errorf("%s servers, pool_size is 3", n)
	}

	// Another user has a pool of its own; together they have four.
	others := strings.ReplaceAll(g.dsn("transaction"), "app", "other")
	other := connectConfig(t, configOf(t, others))
	do(t, other, "begin")
	second := scriptAs(t, others)
	second.say(query("select 'other'"))
	harness.Eventually(t, harness.Patience, "the fifth waits", g.waiting(2))
	if n := backends(t, watch); n != "4" {
		t.Errorf("%s servers, max_servers is 4", n)
	}
	held[0].want("C:COMMIT Z:I", 1, query("commit"))
	if got := waiter.hear(1); got != "T D:served C:SELECT_1 Z:I" {
		t.Error(got)
	}
	if got := second.hear(1); got != "T D:other C:SELECT_1 Z:I" {
		t.Error(got)
	}
	// PostgreSQL may still show one that was told to end beside the one in its place.
	harness.Eventually(t, harness.Patience, "no more than max_servers", func() bool { return backends(t, watch) <= "4" })
}

// TestFirstComeFirstServed queues six clients one after the other.
func TestFirstComeFirstServed(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	held := g.holders(t, 1)[0]
	held.want("C:CREATE_SEQUENCE Z:T", 1, query("create sequence turn"))
	var queue []*script
	for range 6 {
		queue = append(queue, g.script(t, "transaction"))
	}
	for i := range queue {
		queue[i].say(query("select nextval('turn')"))
		harness.Eventually(t, harness.Patience, "one more waits", g.waiting(i+1))
	}
	held.want("C:COMMIT Z:I", 1, query("commit"))
	for i, s := range queue {
		if got, want := s.hear(1), fmt.Sprintf("T D:%d C:SELECT_1 Z:I", i+1); got != want {
			t.Errorf("client %d: %s", i+1, got)
		}
	}
}

func TestMaxClients(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["pool"] = harness.Map{"max_clients": 2} }, Limits: harness.Map{"clients": 100}})
	one, two := g.script(t, "transaction"), g.script(t, "session")
	_, err := connectBriefly(g, "transaction")
	wantState(t, err, "53300")
	two.conn.Close()
	harness.Eventually(t, harness.Patience, "there is room again", func() bool {
		conn, err := connectBriefly(g, "transaction")
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
	one.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	if n := g.metric("postern_refusals_total", "reason", "limit"); n < 1 {
		t.Errorf("%v refusals counted", n)
	}
}

func TestMaxClientsInAll(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Limits: harness.Map{"clients": 1}})
	one := g.script(t, "transaction")
	_, err := connectBriefly(g, "session")
	wantState(t, err, "53300")
	one.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}

// TestQueryWait gives up after the configured time; who is served in time notices nothing.
func TestQueryWait(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1, Timeouts: harness.Map{"query_wait": "4s"}})
	held := g.holders(t, 1)[0]
	late := g.script(t, "transaction")
	began := time.Now()
	late.say(query("select 1"))
	if got := late.hear(1); got != "E:53300! EOF" {
		t.Error(got)
	}
	if waited := time.Since(began); waited < 3900*time.Millisecond || waited > 30*time.Second {
		t.Errorf("waited %v, query_wait is 4s", waited)
	}
	inTime := g.script(t, "transaction")
	inTime.say(query("select 'in time'"))
	harness.Eventually(t, harness.Patience, "it waits", g.waiting(1))
	held.want("C:COMMIT Z:I", 1, query("commit"))
	if got := inTime.hear(1); got != "T D:in time C:SELECT_1 Z:I" {
		t.Error(got)
	}
}

// TestWaitingNotice comes after five seconds, once.
func TestWaitingNotice(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1, Timeouts: harness.Map{"query_wait": "7s"}})
	g.holders(t, 1)
	waiter := g.script(t, "transaction")
	began := time.Now()
	waiter.say(query("select 1"))
	if got := waiter.next(); got != longWait {
		t.Fatal(got)
	}
	if waited := time.Since(began); waited < 4900*time.Millisecond {
		t.Errorf("told after %v", waited)
	}
	if got := waiter.hear(1); got != "E:53300! EOF" {
		t.Error(got)
	}
}

// TestServersAge closes servers that are idle for too long or too old, and only when nobody uses them.
func TestServersAge(t *testing.T) {
	t.Parallel()
	t.Run("server_idle", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{Timeouts: harness.Map{"server_idle": "3s"}})
		watch := g.direct(t)
		held := g.holders(t, 3)
		for _, s := range held[1:] {
			s.want("C:COMMIT Z:I", 1, query("commit"))
		}
		if n := backends(t, watch); n != "3" {
			t.Fatalf("%s servers", n)
		}
		harness.Eventually(t, harness.Patience, "only the server in use is left", func() bool { return backends(t, watch) == "1" })
		held[0].want("C:COMMIT Z:I", 1, query("commit"))
		harness.Eventually(t, harness.Patience, "none is left", func() bool { return backends(t, watch) == "0" })
		held[1].want("T D:1 C:SELECT_1 Z:I", 1, query("select 1")) // the clients are still there
	})
	t.Run("server_lifetime", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{PoolSize: 1, Timeouts: harness.Map{"server_lifetime": "6s"}})
		a, b := g.connect(t, "transaction"), g.connect(t, "transaction")
		first := value(t, a, "select pg_backend_pid()")
		do(t, b, "begin")
		if got := value(t, b, "select pg_backend_pid()"); got != first {
			t.Errorf("the server was replaced at once")
		}
		value(t, b, "select pg_sleep(6.1)")
		if got := value(t, b, "select pg_backend_pid()"); got != first {
			t.Errorf("the server was replaced within a transaction")
		}
		do(t, b, "commit")
		if got := value(t, a, "select pg_backend_pid()"); got == first {
			t.Errorf("a server above its lifetime was lent")
		}
	})
}

// TestAbandoned are clients that vanish: on a message boundary their server is cleaned and kept, else it is closed.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"transaction", "session"} {
		g := startGate(t, gateConf{PoolSize: 1})
		first := g.connect(t, mode)
		do(t, first, "create table t(a int)")
		backend := value(t, first, "select pg_backend_pid()")
		closeConn(first)
		late := 0 // a server that is not clean within a second is closed: on a busy computer that happens, and is tried again
		for name, leave := range map[string]func(*script){
			"in a transaction": func(s *script) {
				s.want("C:BEGIN Z:T C:INSERT_0_1 Z:T", 2, query("begin"), query("insert into t values (1)"))
			},
			"in a failed transaction": func(s *script) {
				s.want("C:BEGIN Z:T E:22012 Z:E", 2, query("begin"), query("select 1/0"))
			},
			"while a query runs": func(s *script) {
				s.say(query("insert into t select 1 from pg_sleep(30)"))
				g.awaitRunning(t, "insert into t select 1 from pg_sleep(30)")
			},
			"before Sync": func(s *script) {
				s.say(parse("", "insert into t values (1)"), bind(""), execute(), flush())
				if got := s.next() + s.next() + s.next(); got != "12C:INSERT_0_1" {
					t.Error(got)
				}
			},
			"in COPY": func(s *script) {
				s.say(query("copy t from stdin"), copyData("1\n"))
				if got := s.next(); got != "G" {
					t.Error(got)
				}
			},
		} {
			for kept := false; !kept; {
				s := g.script(t, mode)
				leave(s)
				began := time.Now()
				s.conn.Close()
				next := g.connect(t, mode)
				got := value(t, next, "select pg_backend_pid()")
				took := time.Since(began)
				if rows := value(t, next, "select count(*) from t"); rows != "0" {
					t.Errorf("%s, %s: %s rows were left behind", mode, name, rows)
				}
				closeConn(next)
				kept, backend = got == backend, got
				switch {
				case kept:
				case took < time.Second || late == 10:
					t.Errorf("%s, %s: the server was closed", mode, name)
					kept = true
				default:
					late++
				}
			}
		}
		if n := g.logged("server connection lost"); n > late {
			t.Errorf("%d servers were given up, %d for a reason", n, late)
		}

		s := g.script(t, mode)
		if s.say(query("copy t from stdin")); s.next() != "G" {
			t.Fatal("no COPY")
		}
		half, err := copyData("1\n2\n3\n").Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.conn.Write(half[:len(half)-5]); err != nil {
			t.Fatal(err)
		}
		watch := g.direct(t)
		s.conn.Close()
		harness.Eventually(t, harness.Patience, mode+": a server in the middle of a message is closed", func() bool {
			return value(t, watch, "select count(*) from pg_stat_activity where pid = "+backend) == "0"
		})
		if n := g.logged("server connection lost"); n > late {
			t.Error("it was not closed at once, but when it was not clean in time")
		}
		next := g.connect(t, mode)
		if got := value(t, next, "select count(*) from t"); got != "0" {
			t.Errorf("%s rows were left behind", got)
		}
	}
}

// TestLongCleaningEndsIt closes a server whose abandoned work does not end within a second.
func TestLongCleaningEndsIt(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), "create function stubborn() returns void language plpgsql as $$ begin loop begin perform pg_sleep(10); exception when query_canceled then end; end loop; end $$")
	s := g.script(t, "transaction")
	s.say(query("select stubborn()"))
	g.awaitRunning(t, "select stubborn()")
	began := time.Now()
	s.conn.Close()
	g.script(t, "transaction").want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the pool's only place was taken for %v", took)
	}
	do(t, g.direct(t), "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select stubborn()'")
}
