// Cancel requests that a balancer sends to another node than the session's.

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// sendCancelTo sends a CancelRequest to an address, and returns when its connection is closed there.
func sendCancelTo(t *testing.T, address string, pid uint32, secret []byte) {
	t.Helper()
	if err := harness.SendCancel(address, pid, secret); err != nil {
		t.Fatal(err)
	}
}

// sleeper is a session and what becomes of the query that it runs.
type sleeper struct {
	*pgx.Conn
	ended chan error
}

// sleeps has a session run a query that takes so many seconds, which is its name, too.
func (g *gate) sleeps(t *testing.T, conn *pgx.Conn, seconds int) sleeper {
	t.Helper()
	s := sleeper{conn, make(chan error, 1)}
	text := fmt.Sprintf("select pg_sleep(%d)", seconds)
	go func() {
		_, err := conn.PgConn().Exec(context.Background(), text).ReadAll()
		s.ended <- err
	}()
	g.awaitRunning(t, text)
	return s
}

// still fails if the query has ended.
func (s sleeper) still(t *testing.T, what string) {
	t.Helper()
	select {
	case err := <-s.ended:
		t.Fatalf("%s has hit another client's query: %v", what, err)
	default:
	}
}

func (s sleeper) cancelled(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.ended:
		wantState(t, err, "57014")
	case <-time.After(harness.Patience):
		t.Fatal("not cancelled")
	}
	if v := value(t, s.Conn, "select 7"); v != "7" {
		t.Error(v)
	}
}

// TestCancelsFromAnywhere: by keys of both protocols, in session and transaction mode, whichever node a balancer chooses; by psql and pgx,
// too. It is judged by its true address, and hits nobody else.
func TestCancelsFromAnywhere(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b", "c")
	a, b := all[0], all[1]
	other, err := a.from(t, "session", "198.51.100.9")
	if err != nil {
		t.Fatal(err)
	}
	bystander := a.sleeps(t, other, 500)
	seconds := 300
	for _, mode := range []string{"session", "transaction"} {
		for _, options := range [][]string{nil, {"max_protocol_version=3.2", "min_protocol_version=3.2"}} {
			conn := a.connect(t, mode, options...)
			front := turns(t, mode, "198.51.100.7", b, all[2], a)
			for range 3 {
				seconds++
				s := a.sleeps(t, conn, seconds)
				sendCancelTo(t, front.Addr(), conn.PgConn().PID(), conn.PgConn().SecretKey())
				s.cancelled(t)
			}
			bystander.still(t, mode)
		}
	}
	harness.Eventually(t, harness.Patience, "what became of them is counted", func() bool {
		return a.metric("postern_cancels_total", "result", "sent") == 12 && b.metric("postern_cancels_total", "result", "forwarded") == 4
	})

	// Drivers connect to the same address again: here psql meets b, and its cancel c.
	front := turns(t, "transaction", "198.51.100.7", b, all[2])
	host, port, err := net.SplitHostPort(front.Addr())
	if err != nil {
		t.Fatal(err)
	}
	dsn := a.dsn("transaction", "host="+host, "port="+port)
	cmd := exec.Command(harness.Program(t, "psql"), "-X", "-A", "-t", "-d", dsn)
	cmd.Env = os.Environ()
	cmd.Stdin = strings.NewReader("select pg_sleep(280);\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.awaitRunning(t, "select pg_sleep(280);")
	_ = cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql: %v\n%s", err, out.String())
	}
	conn := connectConfig(t, configOf(t, dsn))
	s := a.sleeps(t, conn, 281)
	if err := conn.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.cancelled(t)

	// The address in the PROXY header counts, at the node that has the session.
	a.api(t, a.Token, "PATCH", "/v1/tenants/acme?confirm=true", harness.Map{"allow_list": []string{"198.51.100.0/24", "127.0.0.1"}}).want(t, 200)
	a.everywhere(t, "acme")
	s = a.sleeps(t, a.connect(t, "session"), 282)
	pid, secret := s.PgConn().PID(), s.PgConn().SecretKey()
	sendCancelTo(t, turns(t, "session", "203.0.113.9", b).Addr(), pid, secret)
	s.still(t, "a stranger")
	refusals, _ := a.api(t, a.Token, "GET", "/v1/tenants/acme/refusals", nil).want(t, 200).body["refusals"].([]any)
	if len(refusals) != 1 || refusals[0].(map[string]any)["address"] != "203.0.113.9" {
		t.Errorf("a has refused %v", refusals)
	}
	wrong := append([]byte{}, secret...)
	wrong[0] ^= 1
	sendCancelTo(t, turns(t, "session", "198.51.100.7", b).Addr(), pid, wrong)
	s.still(t, "a wrong key")
	sendCancelTo(t, turns(t, "session", "198.51.100.7", b).Addr(), pid, secret)
	s.cancelled(t)
	bystander.still(t, "one of all")
	sendCancelTo(t, turns(t, "session", "198.51.100.7", b).Addr(), other.PgConn().PID(), other.PgConn().SecretKey())
	bystander.cancelled(t)
}

// TestACancelForAFrozenNode costs its sender two seconds, and nobody else anything: neither does it hit when the node goes on.
func TestACancelForAFrozenNode(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	all := w.fellows("a", "b", "c")
	a, b, c := all[0], all[1], all[2]
	frozen, awake := a.sleeps(t, a.connect(t, "session"), 400), c.sleeps(t, c.connect(t, "transaction"), 401)
	a.Freeze(t)
	thaw := func() { _ = syscall.Kill(a.PID(), syscall.SIGCONT) }
	defer thaw()
	front := turns(t, "session", "198.51.100.7", b).Addr()
	over := make(chan struct{})
	go func() {
		defer close(over)
		sendCancelTo(t, front, frozen.PgConn().PID(), frozen.PgConn().SecretKey())
	}()
	sendCancelTo(t, front, awake.PgConn().PID(), awake.PgConn().SecretKey())
	awake.cancelled(t)
	<-over
	if n := b.metric("postern_cancels_total", "result", "lost"); n != 1 {
		t.Errorf("%v were lost", n)
	}
	thaw()
	harness.Eventually(t, harness.Patience, "it serves again", func() bool { code, _ := a.readyz(t); return code == 200 })
	if conn := a.connect(t, "session"); value(t, conn, "select 1") != "1" {
		t.Error("it does not serve")
	}
	frozen.still(t, "one that came too late")
	if n := a.metric("postern_cancels_total", "result", "sent"); n != 0 {
		t.Errorf("%v were sent", n)
	}
	sendCancelTo(t, front, frozen.PgConn().PID(), frozen.PgConn().SecretKey())
	frozen.cancelled(t)
}
