// Every client, in every pool mode, over every transport, with and without a PROXY header.

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// transport is how a client protects its connection.
type transport struct {
	name    string
	options []string // of libpq's syntax
}

var (
	plain   = transport{"plain", []string{"sslmode=disable"}}
	overTLS = transport{"tls", []string{"sslmode=verify-full", "channel_binding=require"}}
	direct  = transport{"direct", []string{"sslmode=verify-full", "channel_binding=require", "sslnegotiation=direct"}}
)

// headers are the PROXY protocol versions; 0 is none.
var headers = []byte{0, 1, 2}

// visit is one cell of the matrix.
type visit struct {
	g         *gate
	mode      string
	transport transport
	port      string // of the listener, or of a relay that puts the header first
}

// dsn is in libpq's syntax. The name leads to the same address in all cells, so that certificates can be verified.
func (v visit) dsn() string {
	all := []string{"host=localhost", "hostaddr=127.0.0.1", "port=" + v.port, "user=app.acme", "password=pw-app", "connect_timeout=20"}
	return strings.Join(append(append(all, v.transport.options...), v.ca()...), " ")
}

func (v visit) ca() []string {
	if v.transport.name == plain.name {
		return nil
	}
	return []string{"sslrootcert=" + v.g.ca.CAFile}
}

// goDSN is the same for drivers that have no hostaddr or no channel binding.
func (v visit) goDSN(without ...string) string {
	var kept []string
	for _, option := range strings.Split(v.dsn(), " ") {
		name, _, _ := strings.Cut(option, "=")
		if name != "hostaddr" && !slices.Contains(without, name) {
			kept = append(kept, option)
		}
	}
	return strings.Join(kept, " ")
}

var matrixClients = []struct {
	name       string
	transports []transport
	visit      func(*testing.T, visit)
}{
	{"psql15", []transport{plain, overTLS}, func(t *testing.T, v visit) { visitPSQL(t, v, nil) }},
	{"psql18", []transport{plain, overTLS, direct}, func(t *testing.T, v visit) { visitPSQL(t, v, harness.LibpqEnv(t)) }},
	{"pgx", []transport{plain, overTLS, direct}, visitPGX},
	{"pq", []transport{plain, overTLS}, visitPQ},
	{"pq", []transport{direct}, visitPQWithoutALPN},
	{"pgbench15-simple", []transport{plain, overTLS}, func(t *testing.T, v visit) { visitPgbench(t, v, "simple", nil) }},
	{"pgbench15-extended", []transport{plain, overTLS}, func(t *testing.T, v visit) { visitPgbench(t, v, "extended", nil) }},
	{"pgbench18-simple", []transport{direct}, func(t *testing.T, v visit) { visitPgbench(t, v, "simple", harness.LibpqEnv(t)) }},
	{"pgbench18-extended", []transport{direct}, func(t *testing.T, v visit) { visitPgbench(t, v, "extended", harness.LibpqEnv(t)) }},
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true, PoolSize: 8})
	initPgbench(t, g)
	t.Run("cells", func(t *testing.T) {
		for _, mode := range modes {
			for _, version := range headers {
				listener := mode
				if version != 0 {
					listener += proxied
				}
				port := g.port(listener)
				if version != 0 {
					port = relayed(t, g.Addr(t, listener), version)
				}
				for _, client := range matrixClients {
					for _, over := range client.transports {
						v := visit{g, mode, over, port}
						t.Run(fmt.Sprintf("%s/v%d/%s/%s", mode, version, over.name, client.name), func(t *testing.T) {
							t.Parallel()
							client.visit(t, v)
						})
					}
				}
			}
		}
	})
	harness.Eventually(t, harness.Patience, "a session is known by the address of its PROXY header", func() bool {
		return g.logged("session ended", "client", behind+":40000", "tls", true) > 0
	})
	if n := g.metric("postern_proxy_headers_total", "result", "ok"); n == 0 {
		t.Error("no PROXY header was counted")
	}
	// Whatever they did, they left the pool whole.
	if v := value(t, g.connect(t, "transaction"), "select 'whole'"); v != "whole" {
		t.Error(v)
	}
}

// bigRow and bigRows make 5 MB together.
const (
	bigRow  = 5000
	bigRows = 1000
)

var bigQuery = fmt.Sprintf("select repeat('x', %d) from generate_series(1, %d)", bigRow, bigRows)

// behind is whom the PROXY headers of the matrix name.
const behind = "198.51.100.7"

// relayed is the port of a load balancer, for clients that cannot send a header themselves.
func relayed(t *testing.T, target string, version byte) string {
	t.Helper()
	address := harness.ProxyRelay(t, target, func(netip.AddrPort) []byte { return header(version, behind) })
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// visitPSQL goes through a script with psql and compares what it prints.
func visitPSQL(t *testing.T, v visit, env []string) {
	table, dir := harness.Unique("psql"), t.TempDir()
	in, file := filepath.Join(dir, "in.copy"), filepath.Join(dir, "out.copy")
	if err := os.WriteFile(in, []byte("1\tone\n2\ttwo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := []string{
		"select 6*7;",
		"select 1/0;",
		"create table " + table + "(a int, b text);",
		`\copy ` + table + ` from ` + in,
		"select string_agg(b, ',' order by a) from " + table + ";",
		`\copy (select * from ` + table + ` order by a) to ` + file,
		`select count(*) from ` + table + ` \; select sum(a) from ` + table + `;`,
	}
	if v.mode != "statement" {
		script = append(script, "begin;", "delete from "+table+";", "rollback;", "select count(*) from "+table+";",
			"begin;", "select 1/0;", "select 2;", "commit;")
	}
	script = append(script, "drop table "+table+";", `\echo :SERVER_VERSION_NUM`)
	cmd := exec.CommandContext(t.Context(), harness.Program(t, "psql"), "-X", "-q", "-A", "-t", "-d", v.dsn())
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(strings.Join(script, "\n") + "\n")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("psql: %v\n%s", err, stderr.String())
	}
	want := []string{"42", "one,two", "2", "3"}
	errorsWanted := 1
	if v.mode != "statement" {
		want = append(want, "2")
		errorsWanted = 3 // the second in its transaction, and what was refused after it
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	if version := lines[len(lines)-1]; !strings.HasPrefix(version, "15") {
		t.Errorf("server version %q", version)
	}
	if got := lines[:len(lines)-1]; !slices.Equal(got, want) {
		t.Errorf("psql printed %q, want %q\n%s", got, want, stderr.String())
	}
	if n := strings.Count(stderr.String(), "ERROR:"); n != errorsWanted {
		t.Errorf("%d errors, want %d:\n%s", n, errorsWanted, stderr.String())
	}
	if out, err := os.ReadFile(file); err != nil || string(out) != "1\tone\n2\ttwo\n" {
		t.Errorf("copied out %q, %v", out, err)
	}
	cmd = exec.CommandContext(t.Context(), harness.Program(t, "psql"), "-X", "-q", "-A", "-t", "-d", v.dsn(), "-c", bigQuery)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil || len(out) != (bigRow+1)*bigRows {
		t.Errorf("large result: %d bytes, %v", len(out), err)
	}
}

// visitPGX uses pgx's default mode, and both of its modes for poolers. Over TLS pgx demands that the channel is bound, as the
// connection string says; TestChannelBindingRequired shows that it would not go on without.
func visitPGX(t *testing.T, v visit) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		conf, err := pgx.ParseConfig(v.goDSN())
		if err != nil {
			t.Fatal(err)
		}
		conf.DefaultQueryExecMode = mode
		conf.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
		conn := connectConfig(t, conf)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var sum int
		if err := conn.QueryRow(ctx, "select $1::int + $2::int", 40, 2).Scan(&sum); err != nil || sum != 42 {
			t.Fatalf("%v: parameters: %d, %v", mode, sum, err)
		}
		_, err = conn.Exec(ctx, "select 1/$1::int", 0)
		wantState(t, err, "22012")
		if v.mode != "statement" {
			pgxTransaction(ctx, t, conn)
		}
		var size, rows int
		result, err := conn.Query(ctx, bigQuery)
		if err != nil {
			t.Fatal(err)
		}
		for result.Next() {
			size += len(result.RawValues()[0])
			rows++
		}
		if err := result.Err(); err != nil || size != bigRow*bigRows || rows != bigRows {
			t.Fatalf("large result: %d bytes in %d rows, %v", size, rows, err)
		}
		pgxCopy(ctx, t, conn)
	}
}

func pgxTransaction(ctx context.Context, t *testing.T, conn *pgx.Conn) {
	t.Helper()
	table := harness.Unique("pgx")
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "create table "+table+"(a int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "insert into "+table+" values ($1)", 7); err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(ctx, "select nothing from "+table)
	wantState(t, err, "42703")
	_, err = tx.Exec(ctx, "select 1")
	wantState(t, err, "25P02")
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if got := value(t, conn, "select to_regclass('"+table+"') is null"); got != "t" {
		t.Errorf("the table outlived its transaction: %s", got)
	}
}

func pgxCopy(ctx context.Context, t *testing.T, conn *pgx.Conn) {
	t.Helper()
	table := harness.Unique("pgxcopy")
	do(t, conn, "create table "+table+"(a int, b text)")
	tag, err := conn.PgConn().CopyFrom(ctx, strings.NewReader("1\tone\n2\ttwo\n"), "copy "+table+" from stdin")
	if err != nil || tag.RowsAffected() != 2 {
		t.Fatalf("copy in: %v, %v", tag, err)
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &out, "copy (select * from "+table+" order by a) to stdout"); err != nil || out.String() != "1\tone\n2\ttwo\n" {
		t.Fatalf("copy out: %q, %v", out.String(), err)
	}
	do(t, conn, "drop table "+table)
}
