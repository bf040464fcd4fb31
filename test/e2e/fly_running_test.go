// What goes wrong with Fly's API or a machine while the machine runs, and while clients wait for it.

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// lastWake is what the API says of the reason and the result of the last wake.
func (f *flyTenant) lastWake(t *testing.T) string {
	t.Helper()
	got := f.g.machine(t)
	return got.LastWake.Reason + " " + got.LastWake.Result
}

// TestFlyDies costs those whose transactions it ran, and nobody else.
func TestFlyDies(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{Boot: 200 * time.Millisecond}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	idle, inside, running := f.enter(t, "transaction"), f.enter(t, "transaction"), f.enter(t, "transaction")
	idle.must(t, "select 1", "1")
	inside.must(t, "begin; select 1", "1")
	ended := make(chan error, 1)
	go func() {
		_, err := running.ask(t.Context(), "select pg_sleep(600)")
		ended <- err
	}()
	g.awaitRunning(t, "select pg_sleep(600)")
	f.Exit()
	wantState(t, <-ended, "08006")
	if _, err := inside.ask(t.Context(), "select 1"); sqlstate(err) != "08006" {
		t.Errorf("inside: %v", err)
	}
	idle.must(t, "select 2", "2")
	f.enter(t, "session").must(t, "select 3", "3")
	if f.starts() != 2 || f.wakes("ok") != 2 || f.lastWake(t) != "stopped ok" {
		t.Errorf("%d starts, %v wakes, the last %s", f.starts(), f.wakes("ok"), f.lastWake(t))
	}
}

// TestFlyStoppedBehindOurBack between two transactions: the client never learns of it.
func TestFlyStoppedBehindOurBack(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	client := f.enter(t, "transaction")
	for i := range 3 {
		client.must(t, fmt.Sprintf("select %d", i), fmt.Sprint(i))
		f.byAnotherHand(t, "stop")
		f.WaitFor("stopped")
	}
	client.must(t, "select 4", "4")
	if f.starts() != 4 || f.wakes("ok") != 4 || f.lastWake(t) != "stopped ok" {
		t.Errorf("%d starts, %v wakes, the last %s", f.starts(), f.wakes("ok"), f.lastWake(t))
	}
	if n := g.logged("session ended"); n != 0 {
		t.Errorf("%d sessions ended", n)
	}

	// Gone for good it is told at once, and counted.
	f.Destroy()
	began := time.Now()
	_, err := client.ask(t.Context(), "select 5")
	wantUnavailable(t, "of a machine that is gone", err, flyLog)
	if took := time.Since(began); took > 20*time.Second || f.starts() != 4 {
		t.Errorf("told after %v and %d starts", took, f.starts())
	}
	f.awaits(t, "failed")
	if n := g.metric("postern_machine_calls_total", "provider", "fly", "op", "get", "result", "ok"); n == 0 {
		t.Error("no call is counted")
	}
}

// TestFlyWithoutItsAPI: a machine that runs needs nobody's API, neither for open sessions nor for new connections.
func TestFlyWithoutItsAPI(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	inside, session := f.enter(t, "transaction"), f.enter(t, "session")
	inside.must(t, "begin; select 1", "1")
	session.must(t, "select 1", "1")
	remove := g.api.Inject(fakefly.Fault{Lost: fakefly.LostBefore})
	calls := g.api.Count("", "")
	logins := g.metric("postern_server_logins_total", "tenant", "acme", "result", "ok")
	var all []*flyClient
	for i := range 5 {
		c := f.enter(t, []string{"transaction", "session"}[i%2])
		c.must(t, "begin; select 2", "2")
		all = append(all, c)
	}
	inside.must(t, "select 3; commit", "")
	session.must(t, "select 3", "3")
	if n := g.api.Count("", "") - calls; n != 0 {
		t.Errorf("%d calls", n)
	}
	if n := g.metric("postern_server_logins_total", "tenant", "acme", "result", "ok") - logins; n < 4 {
		t.Errorf("%v new server connections: the test tests nothing", n)
	}

	// A backend that dies, and even a connection that breaks, says nothing about the machine.
	g.awaitMachine(t, "ready")
	watch := g.direct(t)
	do(t, watch, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'app' and datname = current_database()")
	f.enter(t, "transaction").must(t, "select 4", "4")
	if got := g.machine(t); got.State != "ready" {
		t.Errorf("the machine is %s", got.State)
	}
	remove()
	for _, c := range append(all, inside, session) {
		c.leave()
	}
	f.sleep(t)
}

// TestFlyToken: a token that is not valid any more is told like any failure, and its successor is found in the file.
func TestFlyToken(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	f.enter(t, "transaction").must(t, "select 1", "1")
	f.sleep(t)

	// Revoked, and nobody has told the gate.
	const second, third = "fo1_second-token-of-the-fake", "fm2_third-token-of-the-fake"
	g.api.SetToken(second, false)
	err := f.visit(t.Context(), "transaction")
	wantUnavailable(t, "with a revoked token", err, flyLog)
	if f.starts() != 1 || f.wakes("auth") != 1 {
		t.Errorf("%d starts, %v wakes ended with auth", f.starts(), f.wakes("auth"))
	}
	harness.Eventually(t, harness.Patience, "there is one line about it", func() bool { return g.logged("machine call failed", "kind", "auth") == 1 })
	g.api.SetToken(second, true)
	f.recovers(t)
	f.sleep(t)

	// Replaced in time it is not even noticed.
	g.api.SetToken(third, true)
	f.enter(t, "transaction").must(t, "select 1", "1")
	if f.wakes("auth") != 1 || f.wakes("ok") != 3 || f.starts() != 3 {
		t.Errorf("%v and %v wakes, %d starts", f.wakes("auth"), f.wakes("ok"), f.starts())
	}
	_, page := g.Admin(t, http.MethodGet, "/metrics", nil)
	for _, token := range []string{fakefly.DefaultToken, second, third} {
		if g.Log().Contains(token) || bytes.Contains(page, []byte(token)) {
			t.Errorf("%s is in the log or the metrics", token)
		}
	}
}

// TestFlyTooSlow: who is logged in is told after five seconds that it waits, and everybody when timeouts.wake is over.
func TestFlyTooSlow(t *testing.T) {
	t.Parallel()
	const limit = 7 * time.Second
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, harness.Map{"timeouts": harness.Map{"wake": limit.String(), "drain": "5s"}})
	in := f.enter(t, "transaction")
	in.must(t, "select 1", "1")
	f.sleep(t)
	release := f.vm.hold()
	defer release()

	ends := f.crowd(t, []*flyClient{in})
	for range cap(ends) {
		end := <-ends
		wantUnavailable(t, end.who, end.err, flyMoment)
		if end.took < limit-50*time.Millisecond || end.took > limit+30*time.Second {
			t.Errorf("%s: told after %v", end.who, end.took)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if !slices.Equal(in.notices, []string{"the database is starting: waiting for it"}) {
		t.Errorf("notices: %q", in.notices)
	}
	if f.starts() != 2 || f.wakes("slow") != 1 {
		t.Errorf("%d starts, %v slow wakes", f.starts(), f.wakes("slow"))
	}
	release()
	f.recovers(t)
	if f.starts() != 2 {
		t.Errorf("%d starts: it was starting already", f.starts())
	}
}

// greetedConn tells when the gate has accepted the password.
type greetedConn struct {
	net.Conn
	seen []byte
	ok   chan struct{}
}

func (c *greetedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.seen != nil {
		if c.seen = append(c.seen, b[:n]...); bytes.Contains(c.seen, []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")) {
			c.seen = nil
			close(c.ok)
		}
	}
	return n, err
}

// TestFlyWaiting: two hundred clients wait for a machine. They hold no place among the handshakes, who leaves is not waited
// for, and all others are served by one start.
func TestFlyWaiting(t *testing.T) {
	t.Parallel()
	const clients, leavers, handshakes = 200, 100, 5
	g := newFly(t, fakefly.Options{}, "acme", "globex")
	f, globex := g.tenants[0], g.tenants[1]
	g.serve(t, harness.Map{"limits": harness.Map{"handshakes": handshakes}, "timeouts": harness.Map{"wake": "3m", "drain": "5s"}})
	globex.enter(t, "transaction").must(t, "select 1", "1")
	goroutines, descriptors := g.Goroutines(t), g.FDs(t)
	release := f.vm.hold()
	defer release()

	come := func(ctx context.Context, i int, listener string, entered chan<- error) error {
		conf, err := pgconn.ParseConfig(g.dsn(listener, "connect_timeout=200"))
		if err != nil {
			return err
		}
		ok := make(chan struct{})
		conf.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			// One address may not have all places: each client has its own.
			conn, err := harness.ProxyDialer{Header: header(2, fmt.Sprintf("198.51.100.%d", 1+i))}.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &greetedConn{Conn: conn, seen: []byte{}, ok: ok}, nil
		}
		done := make(chan error, 1)
		go func() {
			conn, err := pgconn.ConnectConfig(ctx, conf)
			if err == nil {
				_, err = (&flyClient{PgConn: conn}).ask(ctx, "select 1")
				(&flyClient{PgConn: conn}).leave()
			}
			done <- err
		}()
		select {
		case <-ok:
			entered <- nil
			return <-done
		case err := <-done:
			if err == nil {
				err = errors.New("served before its password was accepted")
			}
			entered <- err
			return err
		}
	}
	impatient, leave := context.WithCancel(t.Context())
	defer leave()
	entered, ends := make(chan error), make(chan error, clients)
	for i := range clients {
		ctx := t.Context()
		if i < leavers {
			ctx = impatient
		}
		go func() { ends <- come(ctx, i, []string{"transaction", "session"}[i%2]+proxied, entered) }()
		if err := <-entered; err != nil { // one after the other: each holds a place until it is in
			t.Fatalf("client %d: %v", i, err)
		}
	}
	harness.Eventually(t, harness.Patience, "all wait", g.waiting(clients))
	for range 2 * handshakes {
		began := time.Now()
		if err := globex.visit(t.Context(), "transaction"); err != nil {
			t.Fatalf("a neighbour: %v", err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("a neighbour was served after %v", took)
		}
	}
	if n := g.metric("postern_refusals_total", "reason", "limit"); n != 0 {
		t.Errorf("%v connections refused", n)
	}
	leave()
	for range leavers {
		if err := <-ends; !errors.Is(err, context.Canceled) {
			t.Errorf("one that leaves: %v", err)
		}
	}
	harness.Eventually(t, harness.Patience, "nobody waits for those who left", g.waiting(clients-leavers))
	release()
	for range clients - leavers {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	if f.starts() != 1 || f.wakes("ok") != 1 {
		t.Errorf("%d starts, %v wakes", f.starts(), f.wakes("ok"))
	}

	// All leave: the wake ends for nobody, and the machine can sleep again.
	f.sleep(t)
	release = f.vm.hold()
	defer release()
	alone, leave := context.WithCancel(t.Context())
	defer leave()
	go func() { ends <- come(alone, 0, "session"+proxied, entered) }()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "one waits", g.waiting(1))
	leave()
	<-ends
	harness.Eventually(t, harness.Patience, "nobody waits", g.waiting(0))
	release()
	f.awaits(t, "ready")
	f.sleep(t)
	if f.starts() != 2 || f.wakes("ok") != 2 {
		t.Errorf("%d starts, %v wakes", f.starts(), f.wakes("ok"))
	}
	harness.Eventually(t, harness.Patience, "nothing is left over", func() bool {
		return g.Goroutines(t) <= goroutines+2 && g.FDs(t) <= descriptors+1
	})
	harness.Eventually(t, harness.Patience, "sessions ended because their clients left", func() bool {
		return g.logged("session ended", "reason", "client_closed") >= leavers
	})
}
