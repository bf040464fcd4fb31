// The admin console, used by psql and pgx: who may use it, what it shows, what its commands do to real clients.

package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// consoleUser may use the console of withConsole.
const consoleUser, consolePassword = "ops", "pw-ops"

// withConsole is a configuration with a console on the listener private.
func withConsole(t *testing.T) harness.Map {
	t.Helper()
	v, err := scram.NewVerifier(consolePassword, scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	listener := func(name, mode string) harness.Map {
		return harness.Map{"name": name, "address": "127.0.0.1:0", "pool_mode": mode, "proxy_protocol": "off"}
	}
	private := listener("private", "transaction")
	private["console"] = true
	return harness.Map{
		"listeners": []harness.Map{listener(harness.Session, "session"), listener(harness.Transaction, "transaction"), private},
		"admin": harness.Map{"address": "127.0.0.1:0", "token_file": "admin.token",
			"console_users": []harness.Map{{"name": consoleUser, "verifier": v.Encode()}}},
		"timeouts": harness.Map{"drain": "5s"},
	}
}

// startConsoleGate runs a gate with a console and the tenant acme on the shared cluster.
func startConsoleGate(t *testing.T, change func(file, tenant harness.Map)) *gate {
	t.Helper()
	g := &gate{t: t, cluster: harness.Postgres(t)}
	g.database = harness.Database(t, g.cluster)
	g.tenant = harness.Acme(t, g.cluster, g.database)
	file := withConsole(t)
	if change != nil {
		change(file, g.tenant)
	}
	g.Gate = harness.Postern(t, harness.GateConfig{Config: file, Tenants: []harness.Map{g.tenant}})
	t.Cleanup(func() {
		if log := g.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return g
}

// consoleDSN is how ops reaches the console. options are more key=value pairs, of which the last of a key wins.
func (g *gate) consoleDSN(listener string, options ...string) string {
	return strings.Join(append([]string{"host=127.0.0.1", "port=" + g.port(listener), "user=" + consoleUser, "password=" + consolePassword,
		"dbname=postern", "sslmode=disable", "connect_timeout=60"}, options...), " ")
}

// console logs in to the console with pgx.
func (g *gate) console(t *testing.T) *pgx.Conn {
	t.Helper()
	conf, err := pgx.ParseConfig(g.consoleDSN("private"))
	if err != nil {
		t.Fatal(err)
	}
	return connectConfig(t, conf)
}

// show runs a SHOW in the simple protocol and returns its rows by column.
func show(t *testing.T, conn *pgx.Conn, what string) (rows []map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, "SHOW "+what).ReadAll()
	if err != nil {
		t.Fatalf("SHOW %s: %v", what, err)
	}
	for _, values := range results[0].Rows {
		row := make(map[string]string)
		for i, f := range results[0].FieldDescriptions {
			row[f.Name] = string(values[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// row is the only one whose column has a value.
func row(t *testing.T, rows []map[string]string, column, value string) map[string]string {
	t.Helper()
	var found map[string]string
	for _, r := range rows {
		if r[column] == value {
			if found != nil {
				t.Fatalf("%s is %s more than once in %v", column, value, rows)
			}
			found = r
		}
	}
	if found == nil {
		t.Fatalf("%s is never %s in %v", column, value, rows)
	}
	return found
}

// want compares some columns of a row.
func wantRow(t *testing.T, got, want map[string]string) {
	t.Helper()
	some := make(map[string]string)
	for column := range want {
		some[column] = got[column]
	}
	if diff := cmp.Diff(want, some); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// tag runs a control command and returns its command tag.
func tag(t *testing.T, conn *pgx.Conn, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	results, err := conn.PgConn().Exec(ctx, command).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return results[0].CommandTag.String()
}

// refused runs a command that fails, and tries whether the session stays.
func refused(t *testing.T, conn *pgx.Conn, command, code, text string) {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), command).ReadAll()
	var e *pgconn.PgError
	if !asPG(err, &e) || e.Code != code || e.Severity != "ERROR" || !strings.Contains(e.Message, text) {
		t.Errorf("%q: %v; want ERROR %s with %q", command, err, code, text)
	}
	if got := value(t, conn, "show version"); !strings.HasPrefix(got, "Postern ") {
		t.Errorf("after %q the version is %q", command, got)
	}
}

// TestConsoleLogin: console users only, with their password, where the console is, and nobody else anywhere.
func TestConsoleLogin(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	for _, name := range []string{"postern", "pgbouncer"} {
		out, err := g.psql(t, g.consoleDSN("private", "dbname="+name), "show version")
		if err != nil || !strings.HasPrefix(out, "Postern ") {
			t.Errorf("psql in %s: %v: %s", name, err, out)
		}
	}
	for _, c := range []struct {
		name, dsn, code, text string
	}{
		{"a wrong password", g.consoleDSN("private", "password=wrong"), "28P01", `password authentication failed for user "ops"`},
		{"nobody", g.consoleDSN("private", "user=nobody"), "28P01", `password authentication failed for user "nobody"`},
		{"a tenant's user", g.dsn("private", "dbname=postern"), "28P01", `password authentication failed for user "app.acme"`},
		{"a tenant's user by options", g.dsn("private", "user=app", "dbname=postern", "options=reference=acme"), "28P01", `"app"`},
		{"replication", g.consoleDSN("private", "replication=database"), "0A000", "replicate"},
		{"another listener", g.consoleDSN("transaction"), "08004", "names no tenant"},
		{"another case", g.consoleDSN("private", "dbname=Postern"), "08004", "names no tenant"},
		{"another database", g.consoleDSN("private", "dbname=other"), "08004", "names no tenant"},
		{"a tenant's user elsewhere", g.dsn("transaction", "dbname=postern"), "3D000", `database "postern" does not exist`},
	} {
		conn, err := pgconn.Connect(t.Context(), c.dsn)
		if err == nil {
			conn.Close(t.Context())
		}
		var e *pgconn.PgError
		if !asPG(err, &e) || e.Code != c.code || e.Severity != "FATAL" || !strings.Contains(e.Message, c.text) {
			t.Errorf("%s: %v; want FATAL %s with %q", c.name, err, c.code, c.text)
		}
	}

	// A tenant's database of that name is one like any other, elsewhere.
	owner := g.direct(t)
	do(t, owner, "drop database if exists pgbouncer")
	do(t, owner, "create database pgbouncer")
	t.Cleanup(func() {
		_ = g.cluster.Exec(context.Background(), "postgres", "drop database if exists pgbouncer with (force)")
	})
	if got := value(t, g.connect(t, "transaction", "dbname=pgbouncer"), "select current_database()"); got != "pgbouncer" {
		t.Errorf("in %s", got)
	}
	log := g.Log().String()
	for _, secret := range []string{consolePassword, "SCRAM-SHA-256$"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// psql runs one command and returns what it prints.
func (g *gate) psql(t *testing.T, dsn, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Program(t, "psql"), "-X", "-A", "-t", "-c", command, dsn)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestConsoleGuesses: who guesses passwords of the console is throttled as everywhere.
func TestConsoleGuesses(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	for range 100 {
		_, err := pgconn.Connect(t.Context(), g.consoleDSN("private", "password=guess"))
		if sqlstate(err) == "53400" {
			// Whoever belongs to a tenant is not kept out by it.
			_ = g.connect(t, "private")
			return
		}
		wantState(t, err, "28P01")
	}
	t.Error("never throttled")
}

// TestConsoleShows every number that there is to show, as it is, with each kind of client.
func TestConsoleShows(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, func(_, tenant harness.Map) {
		tenant["pool"] = harness.Map{"size": 2, "max_clients": 50, "max_servers": 7}
	})
	idle := g.connect(t, "transaction", "application_name=resting")
	do(t, idle, "select 1")
	held := g.holders(t, 2)
	waiting := g.script(t, "transaction", "application_name=queueing")
	waiting.say(query("select 'served'"))
	harness.Eventually(t, harness.Patience, "it waits", g.waiting(1))
	c := g.console(t)
	name := "acme/" + g.database

	wantRow(t, row(t, show(t, c, "POOLS"), "database", name), map[string]string{"user": "app", "cl_active": "3", "cl_waiting": "1", "sv_active": "2",
		"sv_idle": "0", "sv_login": "0", "pool_mode": "transaction"})
	wantRow(t, row(t, show(t, c, "DATABASES"), "name", name), map[string]string{"host": "127.0.0.1", "port": fmt.Sprint(g.cluster.Port()),
		"database": name, "force_user": "", "pool_size": "2", "max_connections": "7", "current_connections": "2", "max_client_connections": "50",
		"current_client_connections": "4", "paused": "0", "disabled": "0", "server_lifetime": "3600"})
	wantRow(t, row(t, show(t, c, "TENANTS"), "tenant", "acme"), map[string]string{"machine": "", "clients": "4", "clients_waiting": "1", "clients_pinned": "0",
		"servers": "2", "servers_active": "2", "servers_idle": "0", "paused": "0", "disabled": "0"})
	wantRow(t, row(t, show(t, c, "USERS"), "name", "app.acme"), map[string]string{"current_connections": "2", "current_client_connections": "4"})
	wantRow(t, row(t, show(t, c, "USERS"), "name", "other.acme"), map[string]string{"current_connections": "0", "current_client_connections": "0"})

	clients := show(t, c, "CLIENTS")
	rests, waits := row(t, clients, "application_name", "resting"), row(t, clients, "application_name", "queueing")
	wantRow(t, rests, map[string]string{"type": "C", "user": "app", "database": name, "state": "idle", "addr": "127.0.0.1", "replication": "none", "link": ""})
	wantRow(t, waits, map[string]string{"state": "waiting"})
	if len(clients) != 4 {
		t.Errorf("%d clients", len(clients))
	}
	servers := show(t, c, "SERVERS")
	pids := value(t, g.direct(t), fmt.Sprintf("select string_agg(pid::text, ' ' order by pid) from pg_stat_activity where datname = '%s' and usename = 'app'", g.database))
	for _, s := range servers {
		wantRow(t, s, map[string]string{"type": "S", "state": "active", "database": name, "addr": "127.0.0.1", "port": fmt.Sprint(g.cluster.Port())})
		if !strings.Contains(" "+pids+" ", " "+s["remote_pid"]+" ") {
			t.Errorf("server %s is none of %s", s["remote_pid"], pids)
		}
		wantRow(t, row(t, clients, "link", s["ptr"]), map[string]string{"ptr": s["link"], "remote_pid": s["remote_pid"], "state": "active"})
	}
	if len(servers) != 2 || len(show(t, c, "SOCKETS")) != 6 {
		t.Errorf("%d servers, %d sockets", len(servers), len(show(t, c, "SOCKETS")))
	}
	lists := show(t, c, "LISTS")
	wantRow(t, row(t, lists, "list", "used_clients"), map[string]string{"items": "4"})
	wantRow(t, row(t, lists, "list", "used_servers"), map[string]string{"items": "2"})
	wantRow(t, row(t, lists, "list", "users"), map[string]string{"items": "2"})
	wantRow(t, row(t, show(t, c, "CONFIG"), "key", "max_client_conn"), map[string]string{"value": "100000", "default": "100000", "changeable": "no"})
	wantRow(t, row(t, show(t, c, "STATE"), "key", "active"), map[string]string{"value": "yes"})
	for _, nothing := range []string{"DNS_HOSTS", "DNS_ZONES", "PEERS", "PEER_POOLS", "PINS"} {
		if got := show(t, c, nothing); len(got) != 0 {
			t.Errorf("SHOW %s has %v", nothing, got)
		}
	}

	for _, h := range held {
		h.want("C:COMMIT Z:I", 1, query("commit"))
	}
	if got := waiting.hear(1); got != "T D:served C:SELECT_1 Z:I" {
		t.Error(got)
	}
	stats := row(t, show(t, c, "STATS"), "database", "acme")
	wantRow(t, stats, map[string]string{"total_xact_count": fmt.Sprint(int(g.metric("postern_transactions_total", "tenant", "acme"))),
		"total_query_count": fmt.Sprint(int(g.metric("postern_queries_total", "tenant", "acme"))), "total_requests": stats["total_query_count"],
		"total_received": fmt.Sprint(int(g.metric("postern_bytes_total", "tenant", "acme", "direction", "in")))})
	if stats["total_xact_count"] != "4" || stats["total_server_assignment_count"] < "4" {
		t.Errorf("stats are %v", stats)
	}
	wantRow(t, row(t, show(t, c, "TOTALS"), "name", "total_xact_count"), map[string]string{"value": "4"})
	refused(t, c, "show fds", "0A000", "not available")
	refused(t, c, "show nothing", "42601", "invalid command 'show nothing', use SHOW HELP;")
	refused(t, c, "set verbose = 1", "0A000", "settings cannot be changed")
	refused(t, c, "suspend", "0A000", "not available")

	// A client that keeps its server says why.
	pinned := g.script(t, "transaction")
	pinned.want("C:LISTEN Z:I", 1, query("listen news"))
	harness.Eventually(t, harness.Patience, "it is pinned", func() bool { return len(show(t, c, "PINS")) == 1 })
	wantRow(t, show(t, c, "PINS")[0], map[string]string{"tenant": "acme", "user": "app", "database": g.database, "kinds": "listen"})
}

// TestConsoleExtended: pgx asks in its own way, with prepared statements and binary results.
func TestConsoleExtended(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, nil)
	_ = g.connect(t, "transaction")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		c := g.console(t)
		for range 2 { // the second time from the cache
			rows, err := c.Query(t.Context(), "SHOW POOLS", mode)
			if err != nil {
				t.Fatalf("%v: %v", mode, err)
			}
			got, err := pgx.CollectRows(rows, pgx.RowToMap)
			if err != nil || len(got) != 1 || got[0]["user"] != "app" || got[0]["cl_active"] != int32(1) {
				t.Errorf("%v: %v, %v", mode, got, err)
			}
		}
		var sent float64
		if err := c.QueryRow(t.Context(), "SHOW TOTALS", mode).Scan(nil, &sent); err != nil {
			t.Errorf("%v: a numeric: %v", mode, err)
		}
		if _, err := c.Exec(t.Context(), "RELOAD", mode); err != nil {
			t.Errorf("%v: RELOAD: %v", mode, err)
		}
		_, err := c.Exec(t.Context(), "REBOOT", mode)
		wantState(t, err, "42601")
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// TestConsoleOverTLS: SCRAM-SHA-256-PLUS, and everything else through TLS.
func TestConsoleOverTLS(t *testing.T) {
	t.Parallel()
	ca := harness.Certificates(t)
	pair := ca.Issue(t, "localhost")
	g := startConsoleGate(t, func(file, _ harness.Map) {
		file["tls"] = harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}}
	})
	held := g.holders(t, 1)[0]
	out, err := g.psql(t, g.consoleDSN("private", "sslmode=require", "channel_binding=require"), "show clients")
	if err != nil || !strings.Contains(out, "acme/"+g.database) {
		t.Errorf("psql: %v: %s", err, out)
	}
	c := g.console(t)
	conf, err := pgx.ParseConfig(g.consoleDSN("private", "sslmode=require"))
	if err != nil {
		t.Fatal(err)
	}
	secure := connectConfig(t, conf)
	done := make(chan error, 1)
	go func() { // a wait reads ahead, and the session goes on after it
		_, err := secure.PgConn().Exec(context.Background(), "PAUSE acme").ReadAll()
		done <- err
	}()
	harness.Eventually(t, harness.Patience, "it is paused", func() bool { return show(t, c, "TENANTS")[0]["paused"] == "1" })
	held.want("C:COMMIT Z:I", 1, query("commit"))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := tag(t, secure, "RESUME acme"); got != "RESUME" {
		t.Error(got)
	}
}

// TestConsoleBounds what a session may send, and how many there may be; they take no place of a client's.
func TestConsoleBounds(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, func(file, _ harness.Map) { file["limits"] = harness.Map{"clients": 1, "handshakes": 20} })
	_ = g.script(t, "transaction")
	before := g.Goroutines(t)
	for _, c := range []struct {
		name  string
		bytes []byte
		code  string // "": closed without a word
	}{
		{"a long query", append([]byte{'Q', 0, 0, 0xff, 0xff}, make([]byte, 100)...), "54000"},
		{"an impossible length", []byte{'Q', 0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"no type of message", []byte{'?', 0, 0, 0, 4}, "08P01"},
		{"half a message", []byte{'Q', 0, 0, 0, 40, 's'}, ""},
		{"nothing", nil, ""},
	} {
		s := scriptAs(t, g.consoleDSN("private"))
		if _, err := s.conn.Write(c.bytes); err != nil {
			t.Fatal(err)
		}
		if c.code != "" {
			if got, _ := s.tryHear(1); !strings.Contains(got, c.code) {
				t.Errorf("%s: %q", c.name, got)
			}
		}
		s.conn.Close()
	}
	harness.Eventually(t, harness.Patience, "nothing is left of them", func() bool { return g.Goroutines(t) <= before })

	var all []*script
	for range 32 {
		all = append(all, scriptAs(t, g.consoleDSN("private")))
	}
	_, err := pgconn.Connect(t.Context(), g.consoleDSN("private"))
	wantState(t, err, "53300")
	all[0].conn.Close()
	harness.Eventually(t, harness.Patience, "there is room again", func() bool {
		conn, err := pgconn.Connect(t.Context(), g.consoleDSN("private"))
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
	all[1].want("E:42601 Z:I", 1, query("show nothing at all"))
}
