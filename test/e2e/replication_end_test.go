// How replication sessions end: by their clients, their servers, their machines, and us.

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// TestReplicaLeaves: with a client its server connection goes, whatever it was doing, and nothing else is left behind.
func TestReplicaLeaves(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true}, nil)
	g.replica(t, harness.Session).conn.Close()
	g.awaitSenders(t, "0")
	harness.Eventually(t, harness.Patience, "it is gone", func() bool { return g.logged("session ended") == 1 })
	goroutines, fds := g.Goroutines(t), g.FDs(t)

	asleep := func(s *script) *script {
		s.say(query("select pg_sleep(300)"))
		g.awaitRunning(t, "select pg_sleep(300)")
		return s
	}
	const soon = 20 * time.Second // a second or two; if nobody ended it, it would be the five minutes of the query, or never
	for name, start := range map[string]func(options ...string) *script{
		"idle":       func(o ...string) *script { return g.replica(t, harness.Session, o...) },
		"streaming":  func(o ...string) *script { return g.streaming(t, o...) },
		"in a query": func(o ...string) *script { return asleep(g.replica(t, harness.Session, o...)) },
	} {
		for _, sslmode := range []string{"disable", "require"} {
			for _, how := range []string{"FIN", "RST", "Terminate"} {
				s := start("sslmode=" + sslmode)
				tcp := rawConn(s.conn)
				switch how {
				case "RST":
					_ = tcp.SetLinger(0)
				case "Terminate":
					s.Send(&pgproto3.Terminate{})
					_ = s.Flush()
				}
				tcp.Close()
				watch := g.direct(t)
				harness.Eventually(t, soon, fmt.Sprintf("the server connection ends: %s, %s, %s", name, sslmode, how), func() bool { return value(t, watch, walsenders) == "0" })
				closeConn(watch)
			}
		}
	}
	harness.Eventually(t, harness.Patience, "nothing is left behind", func() bool {
		return g.Goroutines(t) <= goroutines && g.FDs(t) <= fds && g.metric("postern_client_connections", "tenant", "acme") == 0
	})
}

// rawConn is the TCP connection below, perhaps in TLS.
func rawConn(c net.Conn) *net.TCPConn {
	if inner, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = inner.NetConn()
	}
	return c.(*net.TCPConn)
}

// TestKilledBackup kills pg_basebackup in the middle.
func TestKilledBackup(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	cmd := exec.Command(harness.Program(t, "pg_basebackup"), "-d", g.dsn(harness.Session), "-D", filepath.Join(t.TempDir(), "copy"), "-X", "none", "-c", "fast", "--max-rate=64k")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "the copy has begun", func() bool { return g.metric("postern_bytes_total", "tenant", "acme", "direction", "out") > 100<<10 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	g.awaitSenders(t, "0")
	g.awaitEnded(t, "client_closed", 1)
}

// TestReplicaHalfCloses: a client that sends no more still gets its answer.
func TestReplicaHalfCloses(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	s := g.replica(t, harness.Session)
	s.say(query("select pg_sleep(0.2), 42"))
	if err := rawConn(s.conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, _ := s.tryHear(2); got != "T D:,42 C:SELECT_1 Z:I EOF" {
		t.Error(got)
	}
	g.awaitEnded(t, "client_closed", 1)
}

// TestReplicaLosesServer: the server's last words come through, and then the end does.
func TestReplicaLosesServer(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	told, stream := g.replica(t, harness.Session), g.streaming(t)
	do(t, g.direct(t), "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'walsender' and state = 'idle'")
	if got, _ := told.tryHear(1); got != "E:57P01! EOF" {
		t.Error(got)
	}
	g.awaitEnded(t, "server_lost", 1)
	harness.Crash(t, g.cluster)
	toEOF(t, stream)
	g.awaitEnded(t, "server_lost", 2)
	// Nobody answers: it is tried for as long as server_connect, and told.
	began := time.Now()
	_, err := pgconn.Connect(t.Context(), g.dsn(harness.Session, forWAL))
	wantState(t, err, "57P03")
	if took := time.Since(began); took < 5*time.Second || took > 40*time.Second {
		t.Errorf("told after %v", took)
	}
}

// TestReplicaIsDrained: a standby sees its connection close, at once, and connects to the next process.
func TestReplicaIsDrained(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true, Timeouts: harness.Map{"drain": "60s"}}, nil)
	plain, secret, idle := g.streaming(t), g.streaming(t, "sslmode=require"), g.replica(t, harness.Session)
	began := time.Now()
	g.Signal(t, syscall.SIGTERM)
	for _, s := range []*script{plain, secret, idle} {
		toEOF(t, s)
		s.conn.Close()
	}
	if code := g.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("ended after %v", took)
	}
	g.awaitEnded(t, "drain", 3)
}

// TestReplicaIsRevoked: what ends a session's right ends the session.
func TestReplicaIsRevoked(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	second := harness.Postgres(t)
	for _, tc := range []struct {
		reason string
		acme   harness.Map
	}{
		{"address_revoked", g.changed("allow_list", []string{"198.51.100.0/24"})},
		{"user_removed", g.changed("users", []harness.Map{g.tenant["users"].([]harness.Map)[1]})},
		{"database_revoked", g.changed("databases", []string{g.database})},
		{"tls_required", g.changed("require_tls", true)},
		{"retired", g.changed("upstream", upstreamOf(second))},
		{"tenant_removed", nil},
	} {
		s, bystander := g.streaming(t), g.replica(t, harness.Session)
		other := g.changed("pool", harness.Map{"size": 3})
		g.reload(other) // which is nobody's affair
		bystander.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
		closeReplica(bystander)
		if tc.acme == nil {
			tc.acme = g.changed("id", "another")
		}
		g.reload(tc.acme)
		toEOF(t, s)
		g.awaitEnded(t, tc.reason, 1)
		g.awaitSenders(t, "0")
		g.reload(g.tenant)
	}
}

// TestReplicaAndItsMachine: it wakes the machine, keeps it awake, and lets it sleep.
func TestReplicaAndItsMachine(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	g := startMachineGate(t, harness.Map{"wake": "query"}, func(_, file harness.Map) {
		file["machines"] = harness.Map{"local": harness.Map{"dir": dir}}
	})
	_, err := pgconn.Connect(t.Context(), g.dsn("transaction", forSQL, "dbname=app"))
	wantState(t, err, "42501") // it is awake, and says that app may not yet
	if w := g.wakes(); w != 1 {
		t.Errorf("%v wakes", w)
	}
	inside := g.holders(t, 1)[0] // keeps it awake for who goes past the gate
	asSuperuser(t, filepath.Join(dir, "acme"), "alter role app replication")
	inside.want("C:COMMIT Z:I", 1, query("commit"))
	inside.conn.Close()
	g.awaitMachine(t, "asleep")

	before := g.wakes()
	s := g.replicaOf(t)
	if w := g.wakes(); w != before+1 {
		t.Errorf("%v wakes after %v", w, before)
	}
	if got := g.machine(t).AwakeBecause; !slices.Equal(got, []string{"1 replication connection"}) {
		t.Errorf("awake because of %v", got)
	}
	sleeps := g.suspends()
	<-time.After(3 * time.Second) // three times suspend_after: idle as it is, it is a reason to be awake
	if s := g.suspends(); s != sleeps {
		t.Errorf("%v suspends", s-sleeps)
	}
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))

	// A pause closes it; who comes meanwhile is held, or leaves.
	g.post(t, "/v1/tenants/acme/pause", 200)
	toEOF(t, s)
	g.awaitEnded(t, "paused", 1)
	impatient, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := pgconn.Connect(impatient, g.dsn("session", forSQL, "dbname=app"))
		left <- err
	}()
	waits := func() bool {
		return g.metric("postern_client_connections", "tenant", "acme", "state", "replication") == 1
	}
	harness.Eventually(t, harness.Patience, "it waits", waits)
	cancel()
	<-left
	harness.Eventually(t, harness.Patience, "it is not waited for", func() bool { return !waits() })
	held := make(chan *script, 1)
	go func() {
		s, _ := hijack(t.Context(), g.dsn("session", forSQL, "dbname=app"))
		held <- s
	}()
	harness.Eventually(t, harness.Patience, "it is held", waits)
	g.post(t, "/v1/tenants/acme/resume", 200)
	if s = <-held; s == nil {
		t.Fatal("it was not served after the pause")
	}
	s.t = t
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))

	closeReplica(s)
	g.awaitMachine(t, "asleep")

	// A machine that is killed is woken for who comes next.
	s = g.replicaOf(t)
	if err := syscall.Kill(g.postmaster(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	toEOF(t, s)
	s = g.replicaOf(t)
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	closeReplica(s)
	g.awaitMachine(t, "asleep")
}

func (g *gate) replicaOf(t *testing.T) *script {
	t.Helper()
	return g.script(t, "transaction", forSQL, "dbname=app", "connect_timeout=60")
}

// asSuperuser runs SQL on a running cluster that the gate has made.
func asSuperuser(t *testing.T, dir, sql string) {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(dir, "superuser.password"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	port := strings.Split(string(pid), "\n")[3]
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%s user=postgres dbname=postgres sslmode=disable password=%s", port, strings.TrimSpace(string(password))))
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	do(t, conn, sql)
}
