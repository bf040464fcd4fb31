// Replication connections: PostgreSQL's own tools through the gate, and every way in which such a session ends.

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

const (
	forSQL      = "replication=database"
	forWAL      = "replication=true"
	identify    = "IDENTIFY_SYSTEM"
	toolsLimit  = 60 * time.Second
	walsenders  = "select count(*) from pg_stat_activity where backend_type = 'walsender'"
	manySenders = "20"
)

// startReplicating runs a gate before a cluster of its own, on which app may replicate, physically too, and other may not.
func startReplicating(t *testing.T, conf gateConf, settings map[string]string) *gate {
	t.Helper()
	all := map[string]string{"wal_level": "logical", "max_wal_senders": manySenders, "wal_keep_size": "64MB"}
	maps.Copy(all, settings)
	conf.Cluster = harness.Postgres(t, local.Options{Settings: all,
		HBA: []string{"host all all all scram-sha-256", "host replication app all scram-sha-256"}})
	if err := conf.Cluster.Exec(t.Context(), "postgres", "alter role app replication"); err != nil {
		t.Fatal(err)
	}
	return startGate(t, conf)
}

// replica is a script on a replication connection to acme's database.
func (g *gate) replica(t *testing.T, listener string, options ...string) *script {
	t.Helper()
	return g.script(t, listener, append([]string{forSQL, "dbname=" + g.database}, options...)...)
}

// streaming is one that has begun to stream WAL, which it need not acknowledge for a while.
func (g *gate) streaming(t *testing.T, options ...string) *script {
	t.Helper()
	s := g.script(t, harness.Transaction, append([]string{forWAL}, options...)...)
	s.say(query("START_REPLICATION " + value(t, g.direct(t), "select pg_current_wal_lsn()")))
	if got := s.next(); got != "*pgproto3.CopyBothResponse" {
		t.Fatalf("START_REPLICATION: %s", got)
	}
	return s
}

// toEOF reads until the gate closes.
func toEOF(t *testing.T, s *script) {
	t.Helper()
	_ = s.conn.SetReadDeadline(time.Now().Add(harness.Patience))
	if _, err := io.Copy(io.Discard, s.conn); err != nil {
		t.Errorf("the end of the connection: %v", err)
	}
}

// awaitEnded waits until so many replication sessions have ended for a reason.
func (g *gate) awaitEnded(t *testing.T, reason string, n int) {
	t.Helper()
	harness.Eventually(t, harness.Patience, fmt.Sprintf("%d ended: %s", n, reason), func() bool {
		return g.logged("session ended", "mode", "replication", "reason", reason) == n
	})
}

// awaitSenders waits until the cluster has so many walsenders.
func (g *gate) awaitSenders(t *testing.T, n string) {
	t.Helper()
	watch := g.direct(t)
	harness.Eventually(t, harness.Patience, n+" walsenders", func() bool { return value(t, watch, walsenders) == n })
	closeConn(watch)
}

// tool runs one of PostgreSQL's programs against a listener; interrupt, if any, says when it gets SIGINT.
func (g *gate) tool(t *testing.T, listener string, env, options []string, interrupt func(out *bytes.Buffer), name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), toolsLimit)
	defer cancel()
	dsn := g.dsn(listener, options...)
	if slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "sslmode=") }) {
		dsn = strings.Replace(dsn, "sslmode=disable ", "", 1)
	}
	cmd := exec.CommandContext(ctx, harness.Program(t, name), append([]string{"-d", dsn}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if interrupt != nil {
		interrupt(&out)
		_ = cmd.Process.Signal(syscall.SIGINT)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out.String())
	}
	return out.String()
}

// TestBaseBackup copies a cluster in every mode, in plaintext and in TLS, with either libpq, and verifies the copy.
func TestBaseBackup(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true}, nil)
	do(t, g.direct(t), "create table big as select repeat(md5(i::text), 30) from generate_series(1, 20000) i")
	for _, tc := range []struct {
		listener, sslmode string
		env               []string
	}{
		{harness.Session, "disable", nil},
		{harness.Transaction, "require", nil},
		{harness.Statement, "require", harness.LibpqEnv(t)},
	} {
		dir := filepath.Join(t.TempDir(), "copy")
		g.tool(t, tc.listener, tc.env, []string{"sslmode=" + tc.sslmode}, nil, "pg_basebackup", "-D", dir, "-X", "stream", "-c", "fast", "--no-sync")
		verify, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_verifybackup")
		if err != nil || len(verify) == 0 {
			t.Fatalf("no pg_verifybackup: %v", err)
		}
		if out, err := exec.Command(verify[len(verify)-1], dir).CombinedOutput(); err != nil {
			t.Errorf("%s, %s: %v\n%s", tc.listener, tc.sslmode, err, out)
		}
	}
	g.awaitEnded(t, "terminated", 6) // two connections each
	for _, e := range g.Log().Find("session ended", harness.Map{"mode": "replication", "tls": true, "database": "replication", "user": "app"}) {
		if e["bytes_out"].(float64) > 20e6 {
			return
		}
	}
	t.Error("no line of the log tells of 20 MB")
}

// TestReceiveWAL streams a few segments and is interrupted.
func TestReceiveWAL(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	dir := t.TempDir()
	g.tool(t, harness.Transaction, nil, nil, func(*bytes.Buffer) {
		g.awaitSenders(t, "1")
		for range 3 {
			do(t, g.direct(t), "create table if not exists t (x int); insert into t values (1); select pg_switch_wal()")
		}
		harness.Eventually(t, toolsLimit, "three segments", func() bool {
			whole, _ := filepath.Glob(filepath.Join(dir, strings.Repeat("?", 24)))
			return len(whole) >= 3
		})
	}, "pg_receivewal", "-D", dir, "--no-sync")
	g.awaitSenders(t, "0")
	g.awaitEnded(t, "terminated", 1)
}

// TestLogicalDecoding makes a slot, reads changes from it, and drops it.
func TestLogicalDecoding(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true}, nil)
	do(t, g.direct(t), "create table t (x int)")
	file := filepath.Join(t.TempDir(), "changes")
	run := func(interrupt func(*bytes.Buffer), args ...string) {
		t.Helper()
		g.tool(t, harness.Transaction, nil, []string{"dbname=" + g.database, "sslmode=require"}, interrupt, "pg_recvlogical", append([]string{"--slot=s"}, args...)...)
	}
	run(nil, "--create-slot", "--plugin=test_decoding")
	run(func(*bytes.Buffer) {
		do(t, g.direct(t), "insert into t values (4711)")
		harness.Eventually(t, toolsLimit, "the change is there", func() bool {
			got, _ := os.ReadFile(file)
			return bytes.Contains(got, []byte("INSERT: x[integer]:4711"))
		})
	}, "--start", "--file="+file, "--fsync-interval=1", "--status-interval=1")
	run(nil, "--drop-slot")
	if n := value(t, g.direct(t), "select count(*) from pg_replication_slots"); n != "0" {
		t.Errorf("%s slots are left", n)
	}
}

// TestReplicationGreeting: what a client came with is on its server, who greets it with everything but its key.
func TestReplicationGreeting(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{Tenant: func(m harness.Map) { m["client_address"] = "guc" }}, nil)
	for _, mode := range modes {
		out := g.tool(t, mode, nil, []string{"dbname=" + g.database, forSQL}, nil, "psql", "-X", "-A", "-t", "-c", identify)
		if !strings.HasSuffix(out, "|"+g.database+"\n") {
			t.Errorf("%s: psql printed %q", mode, out)
		}
		conn, err := pgconn.Connect(t.Context(), g.dsn(mode, forSQL, "application_name=standby", "options='-c search_path=a,b -c geqo=off'", "max_protocol_version=3.2", "dbname="+g.database))
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"search_path": "a,b", "geqo": "off", "application_name": "standby", "postern.client_address": "127.0.0.1"} {
			got, err := conn.Exec(t.Context(), "SHOW "+name).ReadAll()
			if err != nil || string(got[0].Rows[0][0]) != want {
				t.Errorf("%s: %s is %v (%v), want %s", mode, name, got, err, want)
			}
		}
		if !strings.HasPrefix(conn.ParameterStatus("server_version"), "15") || conn.ParameterStatus("application_name") != "standby" {
			t.Errorf("%s: greeted with %q, %q", mode, conn.ParameterStatus("server_version"), conn.ParameterStatus("application_name"))
		}
		if n := len(conn.SecretKey()); n != 32 || conn.PID()>>31 != 0 {
			t.Errorf("%s: a key of %d bytes, process %d", mode, n, conn.PID())
		}
		gone, cancel := context.WithTimeout(t.Context(), harness.Patience)
		_ = conn.Close(gone)
		cancel()
	}
	// Neither taken from a pool nor given to one.
	g.awaitSenders(t, "0")
	harness.Eventually(t, harness.Patience, "no server connection is left", func() bool {
		return g.metric("postern_server_connections", "tenant", "acme") == 0
	})
}

// TestReplicationRefused: who may not replicate is told why, and a role is not a setting.
func TestReplicationRefused(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, map[string]string{"max_wal_senders": "2"})
	dsn := g.dsn(harness.Transaction, "dbname="+g.database)
	other := strings.NewReplacer("app.acme", "other.acme", "pw-app", harness.OtherPassword).Replace(dsn)
	// PostgreSQL takes a walsender's slot before it says no, and gives it back when that process has ended.
	for _, tc := range []struct{ dsn, code, text string }{
		{strings.Replace(dsn, "pw-app", "wrong", 1) + " " + forSQL, "28P01", "password authentication failed"},
		{other + " " + forSQL, "42501", "must be superuser or replication role to start walsender"},
		{other + " " + forWAL, "28000", "does not allow replication connections for this user"}, // not in pg_hba.conf
		{dsn + " dbname=nowhere " + forSQL, "3D000", `database "nowhere" does not exist`},
		{dsn + " " + forSQL + " options='-c user=postgres'", "42704", `unrecognized configuration parameter "user"`},
		{dsn + " " + forWAL + " options='-c replication=off'", "42704", "replication"},
		{dsn + " " + forSQL + " options='-c nonsense=1'", "42704", `unrecognized configuration parameter "nonsense"`},
		{dsn + " replication=maybe", "22023", "replication"},
	} {
		var err error
		harness.Eventually(t, harness.Patience, "a walsender's slot", func() bool {
			_, err = pgconn.Connect(t.Context(), tc.dsn)
			return sqlstate(err) != "53300"
		})
		if got := sqlstate(err); got != tc.code || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %s: %s", tc.dsn, err, tc.code, tc.text)
		}
	}
	var taken []*pgconn.PgConn
	defer func() {
		for _, conn := range taken {
			_ = conn.Close(t.Context())
		}
	}()
	harness.Eventually(t, harness.Patience, "two replication connections", func() bool {
		conn, err := pgconn.Connect(t.Context(), dsn+" "+forSQL)
		if err != nil {
			wantState(t, err, "53300")
			return false
		}
		taken = append(taken, conn)
		return len(taken) == 2
	})
	_, err := pgconn.Connect(t.Context(), dsn+" "+forSQL)
	wantState(t, err, "53300")
	if v := value(t, g.connect(t, "transaction"), "select 1"); v != "1" {
		t.Error(v)
	}
}

// TestReplicationOfSomeDatabases: a tenant with a list of databases has no physical replication, which reads all of them.
func TestReplicationOfSomeDatabases(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{Tenant: func(m harness.Map) { m["databases"] = []string{m["database"].(string)} }}, nil)
	_, err := pgconn.Connect(t.Context(), g.dsn(harness.Session, forWAL))
	wantState(t, err, "28000")
	_, err = pgconn.Connect(t.Context(), g.dsn(harness.Session, forSQL, "dbname=postgres"))
	wantState(t, err, "3D000")
	g.replica(t, harness.Session).want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}

// TestReplicationLimits: no more than ten, which are clients like others, and leave the pools alone.
func TestReplicationLimits(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{Tenant: func(m harness.Map) { m["pool"] = harness.Map{"max_servers": 1, "max_clients": 12} }}, nil)
	var all []*script
	for range 10 {
		all = append(all, g.replica(t, harness.Transaction))
	}
	_, err := pgconn.Connect(t.Context(), g.dsn("transaction", forSQL))
	wantState(t, err, "53300")
	if v := value(t, g.connect(t, "transaction"), "select 1"); v != "1" {
		t.Error(v)
	}
	g.script(t, "transaction")
	_, err = pgconn.Connect(t.Context(), g.dsn("transaction"))
	wantState(t, err, "53300") // max_clients
	for _, what := range []string{"postern_client_connections", "postern_server_connections"} {
		harness.Eventually(t, harness.Patience, "ten "+what, func() bool { return g.metric(what, "tenant", "acme", "state", "replication") == 10 })
	}
	closeReplica(all[0])
	g.awaitEnded(t, "terminated", 1)
	g.replica(t, harness.Transaction)
}

// closeReplica says goodbye.
func closeReplica(s *script) {
	s.Send(&pgproto3.Terminate{})
	_ = s.Flush()
	s.conn.Close()
}

// TestReplicationCancel reaches the session's own server, by its own key.
func TestReplicationCancel(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true}, nil)
	for i, options := range [][]string{nil, {"max_protocol_version=3.2"}, {"sslmode=require"}} {
		s := g.replica(t, modes[i], options...)
		text := fmt.Sprintf("select pg_sleep(60+%d)", i)
		s.say(query(text))
		g.awaitRunning(t, text)
		wrong := slices.Clone(s.secret)
		wrong[0] ^= 1
		for _, key := range [][]byte{wrong, s.secret} {
			if err := g.sendCancel(modes[(i+1)%3], s.pid, key); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.hear(1); got != "T E:57014 Z:I" {
			t.Error(got)
		}
		s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	}
	harness.Eventually(t, harness.Patience, "three were sent, three unknown", func() bool {
		return g.metric("postern_cancels_total", "result", "sent") == 3 && g.metric("postern_cancels_total", "result", "unknown") == 3
	})
}

// TestReplicationRecords: libpq's asynchronous API, which the tools use, hangs on TLS records above 8 KiB.
func TestReplicationRecords(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{TLS: true}, nil)
	conf, err := pgconn.ParseConfig(strings.Replace(g.dsn(harness.Session, forSQL, "dbname="+g.database), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	seen := &records{skip: len("S")}
	conf.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		seen.Conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return seen, err
	}
	conn, err := pgconn.ConnectConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	got, err := conn.Exec(t.Context(), "select repeat('x', 1000000)").ReadAll()
	if err != nil || len(got[0].Rows[0][0]) != 1000000 {
		t.Errorf("a long answer: %v", err)
	}
	gone, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	_ = conn.Close(gone)
	const overhead = 256 + 1
	if seen.longest < 8<<10 || seen.longest > 8<<10+overhead {
		t.Errorf("the longest record has %d bytes", seen.longest)
	}
}

// records measures the TLS records that are read from a connection.
type records struct {
	net.Conn
	skip    int    // bytes before the next header
	head    []byte // of the next record, as far as it has come
	longest int
}

func (r *records) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	for b := p[:n]; len(b) > 0; {
		if m := min(r.skip, len(b)); m > 0 {
			r.skip, b = r.skip-m, b[m:]
			continue
		}
		r.head, b = append(r.head, b[0]), b[1:]
		if len(r.head) == 5 { // type, version, length
			r.skip = int(r.head[3])<<8 | int(r.head[4])
			r.longest, r.head = max(r.longest, r.skip), r.head[:0]
		}
	}
	return n, err
}
