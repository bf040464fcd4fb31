// The console beside PgBouncer's own, and under the eyes of an exporter made for that.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// oracleVersion is the PgBouncer whose columns were reviewed: with another one, its columns must still all be there.
const oracleVersion = "PgBouncer 1.18.0"

// newer are the columns that PgBouncer has got since, up to 1.25, and at the end those that only we have.
var newer = map[string][]string{
	"DATABASES": {"server_lifetime", "load_balance_hosts", "max_client_connections", "current_client_connections", "reserve_pool"},
	"POOLS":     {"load_balance_hosts"},
	"CLIENTS":   {"replication", "prepared_statements", "id"},
	"SERVERS":   {"replication", "prepared_statements", "id"},
	"SOCKETS":   {"replication", "prepared_statements", "id"},
	"USERS": {"pool_size", "reserve_pool_size", "max_user_connections", "current_connections", "max_user_client_connections",
		"current_client_connections"},
	"STATS": {"total_server_assignment_count", "total_client_parse_count", "total_server_parse_count", "total_bind_count",
		"avg_server_assignment_count", "avg_client_parse_count", "avg_server_parse_count", "avg_bind_count", "total_requests"},
	"STATS_TOTALS":   {"server_assignment_count", "client_parse_count", "server_parse_count", "bind_count"},
	"STATS_AVERAGES": {"server_assignment_count", "client_parse_count", "server_parse_count", "bind_count"},
}

// renamed are columns that have another name since.
var renamed = map[string]string{"reserve_pool:23": "reserve_pool_size:23"}

// widened are columns that have another type with us: a 32-bit number of bytes ends at 2 GiB.
var widened = map[string]string{"memtotal:20": "memtotal:23"}

// TestConsoleLooksLikePgBouncer compares columns, their types, command tags and rows' names with the real one's.
func TestConsoleLooksLikePgBouncer(t *testing.T) {
	t.Parallel()
	theirs := startPgBouncer(t)
	ours := startConsoleGate(t, nil).console(t)
	reviewed := value(t, theirs, "show version") == oracleVersion
	for _, what := range strings.Fields(`CONFIG DATABASES POOLS CLIENTS SERVERS SOCKETS ACTIVE_SOCKETS LISTS USERS DNS_HOSTS DNS_ZONES STATS STATS_TOTALS
		STATS_AVERAGES TOTALS MEM VERSION`) {
		they, we := columnsOf(t, theirs, what), columnsOf(t, ours, what)
		added := newer[strings.TrimPrefix(what, "ACTIVE_")]
		var kept []string
		for _, column := range we {
			if name, _, _ := strings.Cut(column, ":"); !slices.Contains(added, name) {
				if old, ok := widened[column]; ok {
					column = old
				}
				kept = append(kept, column)
			}
		}
		for i, column := range they {
			if now, ok := renamed[column]; ok {
				they[i] = now
			}
		}
		if reviewed {
			if diff := cmp.Diff(they, kept); diff != "" {
				t.Errorf("SHOW %s (-PgBouncer +Postern)\n%s", what, diff)
			}
			continue
		}
		for _, column := range they {
			name, _, _ := strings.Cut(column, ":")
			if !slices.ContainsFunc(we, func(c string) bool { return strings.HasPrefix(c, name+":") }) {
				t.Errorf("SHOW %s has no %s", what, name)
			}
		}
	}
	// Rows that programs find by name.
	for what, added := range map[string][]string{
		"LISTS":  {"peers", "peer_pools"},
		"TOTALS": {"server_assignment_count", "client_parse_count", "server_parse_count", "bind_count"},
	} {
		they, we := firsts(t, theirs, what), firsts(t, ours, what)
		we = slices.DeleteFunc(we, func(name string) bool {
			_, bare, _ := strings.Cut(name, "_")
			return reviewed && (slices.Contains(added, name) || slices.Contains(added, bare))
		})
		if diff := cmp.Diff(they, we); reviewed && diff != "" {
			t.Errorf("rows of SHOW %s (-PgBouncer +Postern)\n%s", what, diff)
		}
	}
	for _, command := range []string{"reload", "reconnect", "wait_close", "show help", "set client_encoding = 'UTF8'"} {
		if they, we := tag(t, theirs, command), tag(t, ours, command); they != we {
			t.Errorf("%s: PgBouncer says %s, we %s", command, they, we)
		}
	}
	for _, command := range []string{"bogus", "show", "show bogus", "show stats x", "begin", "show version; show version", "pause nobody", "kill", "resume",
		"disable", "enable nobody", "pause pgbouncer", "disable pgbouncer", "set verbose"} {
		they, we := message(t, theirs, command), message(t, ours, command)
		if they != we {
			t.Errorf("%s: PgBouncer says %q, we %q", command, they, we)
		}
	}
}

// columnsOf are the names and types of a SHOW's columns.
func columnsOf(t *testing.T, conn *pgx.Conn, what string) (list []string) {
	t.Helper()
	results := conn.PgConn().Exec(t.Context(), "SHOW "+what)
	if results.NextResult() { // which also knows the columns of no rows
		for _, f := range results.ResultReader().FieldDescriptions() {
			list = append(list, fmt.Sprintf("%s:%d", f.Name, f.DataTypeOID))
		}
	}
	if err := results.Close(); err != nil {
		t.Fatalf("SHOW %s: %v", what, err)
	}
	return list
}

// firsts are the values of the first column.
func firsts(t *testing.T, conn *pgx.Conn, what string) (list []string) {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), "SHOW "+what).ReadAll()
	if err != nil {
		t.Fatalf("SHOW %s: %v", what, err)
	}
	for _, row := range results[0].Rows {
		list = append(list, string(row[0]))
	}
	return list
}

// message is the text of a command's error.
func message(t *testing.T, conn *pgx.Conn, command string) string {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), command).ReadAll()
	if err == nil {
		t.Errorf("%s works", command)
		return ""
	}
	text := err.Error()
	text = strings.TrimPrefix(text, "ERROR: ")
	if i := strings.LastIndex(text, " (SQLSTATE"); i >= 0 {
		text = text[:i]
	}
	return strings.TrimSpace(text)
}

// startPgBouncer runs the system's PgBouncer until the test ends, and logs in to its console.
func startPgBouncer(t *testing.T) *pgx.Conn {
	t.Helper()
	const program = "/usr/sbin/pgbouncer"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: scripts/install-exporter.sh installs it", err)
	}
	dir, port := harness.Dir(t), harness.FreePort()
	ini := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\napp = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = any\nadmin_users = ops\n", port)
	if err := os.WriteFile(ini, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-q", ini)
	if os.Getuid() == 0 { // as which it does not run
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	runUntilEnd(t, cmd)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=ops dbname=pgbouncer sslmode=disable", port)
	var conn *pgx.Conn
	harness.Eventually(t, harness.Patience, "PgBouncer answers", func() (ok bool) {
		var err error
		conn, err = pgx.Connect(t.Context(), dsn)
		return err == nil
	})
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// runUntilEnd starts a program and ends it with the test.
func runUntilEnd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, &out)
		}
	})
}

// TestConsoleIsScraped by Debian's prometheus-pgbouncer-exporter as it is, again and again over one connection.
func TestConsoleIsScraped(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("prometheus-pgbouncer-exporter")
	if err != nil {
		t.Fatalf("%v: scripts/install-exporter.sh installs it", err)
	}
	g := startConsoleGate(t, func(_, tenant harness.Map) { tenant["pool"] = harness.Map{"size": 3} })
	held := g.holders(t, 3)
	waiting := g.script(t, "transaction")
	waiting.say(query("select 'served'"))
	harness.Eventually(t, harness.Patience, "it waits", g.waiting(1))

	port := harness.FreePort()
	exporter := exec.Command(program, "--host", "127.0.0.1", "--port", strconv.Itoa(port), "--pgbouncer-host", "127.0.0.1",
		"--pgbouncer-port", g.port("private"), "--pgbouncer-user", consoleUser)
	// It takes no password: libpq does.
	exporter.Env = append(os.Environ(), "PGPASSWORD="+consolePassword, "PGSSLMODE=disable", "PYTHONWARNINGS=ignore")
	runUntilEnd(t, exporter)

	url := fmt.Sprintf("http://127.0.0.1:%d/metrics", port)
	var page string
	harness.Eventually(t, harness.Patience, "the exporter answers", func() bool {
		page, err = get(t.Context(), url)
		return err == nil
	})
	database := "acme/" + g.database
	want := func(name, labels string, value float64) {
		t.Helper()
		for line := range strings.Lines(page) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+labels+" "); ok {
				if got, err := strconv.ParseFloat(rest, 64); err != nil || got != value {
					t.Errorf("%s%s is %s, want %v", name, labels, rest, value)
				}
				return
			}
		}
		t.Errorf("no %s%s in\n%s", name, labels, page)
	}
	pool := fmt.Sprintf(`{database="%s",user="app"}`, database)
	want("pgbouncer_active_clients", pool, 3)
	want("pgbouncer_waiting_clients", pool, 1)
	want("pgbouncer_pool_size", fmt.Sprintf(`{database="%s"}`, database), 3)
	want("pgbouncer_reserve_pool", fmt.Sprintf(`{database="%s"}`, database), 0)
	want("pgbouncer_used_clients", "", 4)
	want("pgbouncer_used_servers", "", 3)
	want("pgbouncer_users", "", 2)
	want("pgbouncer_requests_total", `{database="acme"}`, g.metric("postern_queries_total", "tenant", "acme"))
	want("pgbouncer_received_bytes_total", `{database="acme"}`, g.metric("postern_bytes_total", "tenant", "acme", "direction", "in"))

	for _, h := range held {
		h.want("C:COMMIT Z:I", 1, query("commit"))
	}
	_ = waiting.hear(1)
	if page, err = get(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	want("pgbouncer_waiting_clients", pool, 0)
	want("pgbouncer_requests_total", `{database="acme"}`, 7)
	if n := len(g.Log().Find("console session began", nil)); n > 1 {
		t.Errorf("%d sessions", n)
	}
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}
