// Limits over several nodes that die, stand still or lose the store, with Postgres as the oracle; and limits of clients.

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// holds has n clients of a node open transactions, and waits until all have their server.
func (w *sharing) holds(g *gate, n int) (all []*script) {
	w.t.Helper()
	for range n {
		s := g.script(w.t, "transaction")
		s.say(query("begin"))
		all = append(all, s)
	}
	for i, s := range all {
		if got := s.hear(1); got != "C:BEGIN Z:T" {
			w.t.Fatalf("client %d of %d: %s", i+1, n, got)
		}
	}
	return all
}

func commit(all []*script) {
	for _, s := range all {
		s.want("C:COMMIT Z:I", 1, query("commit"))
	}
}

// walk has a client of a node work until stop is called. It must not meet an error.
func (w *sharing) walk(g *gate) (goesOn, stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, ended := g.connect(w.t, "transaction"), make(chan struct{})
	var served atomic.Int64
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if _, err := conn.PgConn().Exec(context.Background(), "select pg_sleep(0.005)").ReadAll(); err != nil {
				w.t.Errorf("a client of a healthy node: %v", err)
				return
			}
			served.Add(1)
		}
	}()
	goesOn = func() {
		w.t.Helper()
		before := served.Load()
		harness.Eventually(w.t, harness.Patience, "a client of a healthy node goes on", func() bool { return served.Load() > before+5 })
	}
	w.t.Cleanup(cancel)
	return goesOn, func() {
		cancel()
		<-ended
	}
}

// portions sums up what the store has of a scope, by node.
func (w *sharing) portions(rows *pgx.Conn, tenant, scope string) string {
	w.t.Helper()
	return value(w.t, rows, fmt.Sprintf(`SELECT coalesce(string_agg(node || ':' || servers, ' ' ORDER BY node), '') FROM postern.portions WHERE tenant = '%s' AND scope = '%s' AND servers > 0`, tenant, scope))
}

// TestALimitWhileNodesFail: the busy node is killed, and one stands still. Clients of the others meet no error, Postgres sees no connection
// above the limit, and those who live have all of it again.
func TestALimitWhileNodesFail(t *testing.T) {
	t.Parallel()
	const limit = 6
	w := newSharing(t, limit, "a", "b", "c")
	a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
	rows := w.connect()
	goesOn, stop := w.walk(b)
	goesOn()
	w.holds(a, limit-2)
	goesOn()
	a.Signal(t, syscall.SIGKILL)
	a.Wait(t)
	goesOn()
	if got := w.portions(rows, "acme", ""); !strings.Contains(got, "a:4") {
		t.Errorf("the dead node's is not kept for it: %s", got)
	}
	if harness.Long() {
		harness.Eventually(t, 4*time.Minute, "it is handed on", func() bool { return !strings.Contains(w.portions(rows, "acme", ""), "a:") })
	} else {
		harness.Eventually(t, harness.Patience, "the store knows that it is silent", func() bool {
			return value(t, rows, "SELECT clock_timestamp() - seen > '5 s' FROM postern.nodes WHERE name = 'a'") == "t"
		})
		w.command("forget-node", "a") // which comes to the same
	}
	since := time.Now()
	held := w.holds(c, limit-1)
	t.Logf("the living have all of a dead node's after %v", time.Since(since))
	stop()
	commit(held)
	held = w.holds(b, limit)
	commit(held[1:])
	moved := w.holds(c, limit-1)
	w.nodes = w.nodes[1:]

	// One stands still, with all but one of them, which are open at Postgres: nobody may have them. Nothing of it is lost.
	c.Freeze(t)
	thaw := func() { _ = syscall.Kill(c.PID(), syscall.SIGCONT) }
	t.Cleanup(thaw)
	commit(held[:1])
	goesOn, stop = w.walk(b)
	_, stopToo := w.walk(b) // which could use another one
	goesOn()
	harness.Eventually(t, harness.Patience, "the store knows that it is silent", func() bool {
		return value(t, rows, "SELECT clock_timestamp() - seen > '5 s' FROM postern.nodes WHERE name = 'c'") == "t"
	})
	if harness.Long() { // for longer than it takes to hand on what nobody has
		harness.Eventually(t, 4*time.Minute, "it was silent for long", func() bool {
			return value(t, rows, "SELECT clock_timestamp() - seen > '180 s' FROM postern.nodes WHERE name = 'c'") == "t"
		})
	}
	goesOn()
	if got := w.portions(rows, "acme", ""); got != "b:1 c:5" {
		t.Errorf("while it stands still the portions are %s", got)
	}
	thaw()
	commit(moved)
	goesOn()
	t.Log("what stood still goes on")
	stop()
	stopToo()
	commit(w.holds(b, limit))
	commit(w.holds(c, limit))
	w.refused()
}

// TestFloorsWithoutTheStore: a node without a portion has one server, and no more; others keep what they have. When the store is back it gets more.
func TestFloorsWithoutTheStore(t *testing.T) {
	t.Parallel()
	const limit, nodes = 12, 3
	w := newSharingOf(t, sharingConf{limit: limit, maxNodes: nodes}, "a", "b", "c")
	for _, g := range w.nodes { // each knows how the server greets
		g.connect(t, "transaction")
	}
	held := w.holds(w.nodes[0], limit-nodes)
	rows := w.connect()
	harness.Eventually(t, harness.Patience, "one node has all", func() bool { return w.portions(rows, "acme", "") == "a:9" })
	closeConn(rows)
	if err := w.cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	watch, err := w.upstream.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(watch)
	open := func() string {
		return value(t, watch, fmt.Sprintf("select count(*) from pg_stat_activity where usename = '%s'", w.role))
	}
	var waiting []*script
	for _, g := range w.nodes[1:] {
		floor := w.holds(g, 1)
		held = append(held, floor...)
		s := g.script(t, "transaction")
		s.say(query("begin"))
		waiting = append(waiting, s)
		harness.Eventually(t, harness.Patience, "one more waits", func() bool { return g.metric("postern_waiting_clients", "tenant", "acme") == 1 })
	}
	age := w.nodes[1].metric("postern_directory_age_seconds") // it has tried again meanwhile, every second
	harness.Eventually(t, harness.Patience, "time passes", func() bool { return w.nodes[1].metric("postern_directory_age_seconds") > age+3 })
	if got := open(); got != "11" {
		t.Errorf("%s connections are open, want nine and two floors", got)
	}
	if err := w.cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	commit(held)
	for _, s := range waiting {
		if got := s.hear(1); got != "C:BEGIN Z:T" {
			t.Error(got)
		}
	}
	commit(waiting)
	commit(w.holds(w.nodes[1], limit-nodes))
	w.refused()
}

// TestStrangersAndPortions (only in long runs: what nobody has is handed on after two minutes). A node dies whose connections Postgres still
// has: those are kept for it until they end, however many connections other roles and young ones of its own role there are.
func TestStrangersAndPortions(t *testing.T) {
	t.Parallel()
	if !harness.Long() {
		return
	}
	const limit = 6
	w := newSharing(t, limit+1, "a", "b")
	a, b := w.nodes[0], w.nodes[1]
	rows := w.connect()
	held := w.holds(a, 3)
	held[0].say(query("select pg_sleep(400)")) // Postgres does not notice that its client is gone
	harness.Eventually(t, harness.Patience, "it has three", func() bool { return w.portions(rows, "acme", "") == "a:3" })
	a.Signal(t, syscall.SIGKILL)
	a.Wait(t)
	w.nodes = w.nodes[1:]
	for range 4 { // which are nobody's affair
		conn, err := w.upstream.Connect(t.Context(), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
	}
	goesOn, stop := w.walk(b)
	waiter := b.script(t, "transaction")
	waiter.say(query("begin"))
	// There is always another one of the role's, which is not old.
	config := configOf(t, fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='of the server' dbname=postgres sslmode=disable", w.upstream.Port(), w.role))
	direct, since := connectConfig(t, config), time.Now()
	harness.Eventually(t, 4*time.Minute, "two of three are handed on", func() bool {
		if time.Since(since) > 10*time.Second {
			closeConn(direct)
			direct, since = connectConfig(t, config), time.Now()
		}
		got := w.portions(rows, "acme", "")
		return strings.HasPrefix(got, "a:1") || !strings.Contains(got, "a:")
	})
	if got := w.portions(rows, "acme", ""); !strings.HasPrefix(got, "a:1") {
		t.Errorf("one of them is still at work, and the portions are %s", got)
	}
	goesOn()
	w.postgres(fmt.Sprintf("select pg_terminate_backend(pid) from pg_stat_activity where usename = '%s' and query like '%%pg_sleep(400)%%'", w.role))
	harness.Eventually(t, 2*time.Minute, "the last one is handed on", func() bool { return !strings.Contains(w.portions(rows, "acme", ""), "a:") })
	stop()
	waiter.want("C:BEGIN Z:T", 1)
	w.refused()
}

// TestClientsOverNodes: however they come, all nodes together have no more clients than the limit; and all of it can be at one of them.
func TestClientsOverNodes(t *testing.T) {
	t.Parallel()
	const clients = 6
	w := newSharingOf(t, sharingConf{limit: 4, pool: harness.Map{"max_clients": clients}}, "a", "b", "c")
	come := func(g *gate) (*pgx.Conn, error) {
		return pgx.ConnectConfig(t.Context(), configOf(t, g.dsn("transaction")))
	}
	rows := w.connect()
	var last, next []*pgx.Conn
	for i, g := range w.nodes {
		for n := range clients {
			if len(last) > 0 { // one leaves there, one comes here
				closeConn(last[0])
				last = last[1:]
			}
			conn, err := come(g)
			if i > 0 {
				for end := time.Now().Add(harness.Patience); err != nil && sqlstate(err) == "53300" && time.Now().Before(end); conn, err = come(g) {
				}
			}
			if err != nil {
				t.Fatalf("client %d of node %d: %v; portions %s", n, i, err, value(t, rows, "SELECT json_agg(p) FROM postern.portions p WHERE tenant LIKE '%/clients'"))
			}
			defer closeConn(conn)
			next = append(next, conn)
		}
		last, next = next, nil
	}
	for _, g := range w.nodes[1:] {
		_, err := come(g)
		wantState(t, err, "53300")
	}
	harness.Eventually(t, harness.Patience, "one node has the limit", func() bool { return w.portions(rows, "acme/clients", "") == "c:6" })
	// Who is there stays without the store, and where nobody is an even part of the limit may come.
	if err := w.cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "one comes to a node without any", func() bool {
		conn, err := come(w.nodes[0])
		if err == nil {
			closeConn(conn)
		}
		return err == nil
	})
	for _, conn := range last {
		if err := conn.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
