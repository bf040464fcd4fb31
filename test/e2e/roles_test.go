// Roles that only Postgres knows (auth_query): they log in as Postgres would have it, and nobody learns who exists.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// asker is the role that lists roles.
const asker, askerPassword = "postern_auth", "c4nary-asker"

// setUpRoles does what an operator does: it runs the SQL that postern prints.
func setUpRoles(t *testing.T, exec func(sql string)) {
	t.Helper()
	out, err := execCommand(t, "verifier", "--auth-query-sql").Output()
	if err != nil {
		t.Fatal(err)
	}
	exec(string(out))
	exec(fmt.Sprintf("alter role %s password '%s'", asker, askerPassword))
}

func execCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), harness.Binary(t), args...)
}

// roleGate is a gate whose tenant acme lists app, and leaves all others to its server.
type roleGate struct {
	*gate
	sql func(string)
}

func startRoleGate(t *testing.T, c *local.Cluster, conf gateConf) *roleGate {
	t.Helper()
	conf.Cluster = c
	dir := harness.Dir(t)
	write(t, filepath.Join(dir, "asker.password"), []byte(askerPassword+"\n"))
	change := conf.Tenant
	conf.Tenant = func(m harness.Map) {
		m["users"] = m["users"].([]harness.Map)[:1] // app
		m["auth_query"] = harness.Map{"user": asker, "password_file": filepath.Join(dir, "asker.password")}
		if change != nil {
			change(m)
		}
	}
	g := &roleGate{gate: startGate(t, conf)}
	g.sql = func(sql string) {
		t.Helper()
		if err := c.Exec(t.Context(), g.database, sql); err != nil {
			t.Fatal(err)
		}
	}
	setUpRoles(t, g.sql)
	return g
}

// as logs in, from an address.
func (g *gate) as(t *testing.T, from, listener, role, password string) (*pgx.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conf := configOf(t, g.dsn(listener+proxied, "user="+role+".acme", "password="+password))
	at := netip.AddrPortFrom(netip.MustParseAddr(from), 4000)
	conf.DialFunc = harness.ProxyDialer{Header: harness.V2(at, at)}.DialContext
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err == nil {
		t.Cleanup(func() { closeConn(conn) })
	}
	return conn, err
}

// TestRolesThatPostgresKnows: they come and stay out as at Postgres itself, from the first login on.
func TestRolesThatPostgresKnows(t *testing.T) {
	t.Parallel()
	for name, cluster := range map[string]func(*testing.T) *local.Cluster{
		"PostgreSQL of the system": func(t *testing.T) *local.Cluster { return harness.OwnPostgres(t) },
		"PostgreSQL 18":            func(t *testing.T) *local.Cluster { return harness.Postgres18(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startRoleGate(t, cluster(t), gateConf{})
			g.sql(`create role late login password 'pw'; create role "O'Neil; drop""" login password 'pw';
				create role past login password 'pw' valid until '2020-01-01'; create role future login password 'pw' valid until '2200-01-01';
				create role eternal login password 'pw' valid until 'infinity';
				create role nologin password 'pw' nologin; create role bare login;
				create role one login password 'pw' connection limit 1; create role zero login password 'pw' connection limit 0;
				create role boss superuser login password 'pw';
				set password_encryption = md5; create role old login password 'pw'`)
			const from = "198.51.100.1"
			conn, err := g.as(t, from, "transaction", "late", "pw")
			if err != nil {
				t.Fatalf("the first login of all: %v", err)
			}
			if who := value(t, conn, "select session_user || ' in ' || current_database()"); who != "late in "+g.database {
				t.Errorf("the session is %s", who)
			}
			for _, role := range []string{`O'Neil; drop"`, "future", "eternal", harness.Other} {
				password := "pw"
				if role == harness.Other {
					password = harness.OtherPassword
				}
				conf := configOf(t, g.dsn("session"))
				conf.User, conf.Password = role+".acme", password
				if got := value(t, connectConfig(t, conf), "select session_user"); got != role {
					t.Errorf("%s is %s", role, got)
				}
			}
			g.connect(t, "session") // who is listed

			var first string // what all are told
			for i, role := range []string{"nobody", "past", "nologin", "bare", "old", "boss", asker, "late"} {
				password := "pw"
				switch role {
				case asker:
					password = askerPassword
				case "late":
					password = "wrong"
				}
				_, err := g.as(t, fmt.Sprint("198.51.100.", 10+i), "session", role, password)
				wantState(t, err, "28P01")
				text := strings.ReplaceAll(serverWords(err), `"`+role+`"`, `"?"`)
				if i == 0 {
					first = text
				}
				if text != first {
					t.Errorf("%s is told %s\nand nobody %s", role, text, first)
				}
			}

			if _, err := g.as(t, from, "session", "one", "pw"); err != nil {
				t.Error(err)
			}
			for _, role := range []string{"one", "zero"} {
				_, err := g.as(t, from, "session", role, "pw")
				wantState(t, err, "53300")
			}
			if log := g.Log().String(); strings.Contains(log, askerPassword) || strings.Contains(log, "SCRAM-SHA-256$") {
				t.Error("a secret is in the log")
			}
		})
	}
}

// serverWords is all that a client was told.
func serverWords(err error) string {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%+v", *e)
}

// TestRolesThatChange: a new password, a new role and one that is taken away are learned from the next login that fails, which is not
// held against anybody.
func TestRolesThatChange(t *testing.T) {
	t.Parallel()
	g := startRoleGate(t, harness.OwnPostgres(t), gateConf{File: harness.Map{"auth": harness.Map{"mock_secret_file": "mock.key", "throttle": harness.Map{"tenant_failures": 2}}}})
	g.sql(`create role late login password 'first'; create role gone login password 'pw'`)
	const from = "198.51.100.1"
	fails := func(role, password string) {
		t.Helper()
		_, err := g.as(t, from, "session", role, password)
		wantState(t, err, "28P01")
	}
	works := func(from, role, password string) *pgx.Conn {
		t.Helper()
		conn, err := g.as(t, from, "session", role, password)
		if err != nil {
			t.Fatalf("%s with %q: %v", role, password, err)
		}
		return conn
	}
	stays := works(from, "late", "first")
	goes := works(from, "gone", "pw")

	g.sql(`alter role late password 'second'`)
	fails("late", "second")
	works("198.51.100.2", "late", "second")
	fails("late", "first") // one failure of two that block
	works(from, "late", "second")
	if got := value(t, stays, "select 1"); got != "1" { // a new password ends no session
		t.Error(got)
	}

	g.sql(`create role young login password 'pw'`)
	fails("young", "pw")
	fails("nobody", "pw") // the first failure, since that of young is forgiven
	works(from, "young", "pw")

	g.sql(`alter role gone nologin`)
	fails("nobody", "pw")
	_, err := tryValue(t.Context(), goes, "select 1")
	for deadline := time.Now().Add(harness.Patience); err == nil && time.Now().Before(deadline); {
		_, err = tryValue(t.Context(), goes, "select pg_sleep(0.01)")
	}
	wantState(t, err, "57P01")
	fails("gone", "pw")
	if got := value(t, stays, "select 1"); got != "1" {
		t.Error(got)
	}
}

// TestServersSeeNoNames: whoever is tried, the server that is asked sees one question, which is the same each time.
func TestServersSeeNoNames(t *testing.T) {
	t.Parallel()
	cluster := harness.Postgres(t, local.Options{Settings: map[string]string{"log_line_prefix": "%u>", "log_connections": "on"}})
	g := startRoleGate(t, cluster, gateConf{})
	g.sql(fmt.Sprintf(`alter role %s set log_statement = 'all'; create role late login password 'pw'`, asker))
	if _, err := g.as(t, "198.51.100.1", "session", "late", "pw"); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"str4nger", "late", "str4nger'; select 1; --", `str4nger"`, "str4nger\\", harness.App, asker} {
		conf := configOf(t, g.dsn("session"+proxied, "search_path=str4nger", "application_name=str4nger"))
		conf.User, conf.Password = name+".acme", "str4nger"
		at := netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:1", 10+i))
		conf.DialFunc = harness.ProxyDialer{Header: harness.V2(at, at)}.DialContext
		_, err := pgx.ConnectConfig(t.Context(), conf)
		wantState(t, err, "28P01")
	}
	if _, err := g.as(t, "198.51.100.1", "session", "late", "pw"); err != nil { // which waits for the list that the last one has asked for
		t.Fatal(err)
	}
	log, err := os.ReadFile(cluster.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "str4nger") {
		t.Error("the server has seen what strangers said")
	}
	asked := 0
	for line := range strings.Lines(string(log)) {
		if said, ok := strings.CutPrefix(line, asker+">LOG:  statement: "); ok {
			asked++
			if !strings.HasPrefix(said, "SELECT r.rolname, r.rolpassword, pg_catalog.date_part(") {
				t.Errorf("the server was asked %s", said)
			}
		}
	}
	if asked < 2 || asked > 8 {
		t.Errorf("the server was asked %d times", asked)
	}
}

// roleMachine is the gate of a tenant whose machine has gone to sleep after its roles were listed.
func roleMachine(t *testing.T) (g *gate, sql func(string)) {
	t.Helper()
	dir := harness.Dir(t)
	write(t, filepath.Join(dir, "asker.password"), []byte(askerPassword+"\n"))
	var machines string
	g = startMachineGate(t, harness.Map{"suspend_after": "2s"}, func(tenant, file harness.Map) {
		tenant["auth_query"] = harness.Map{"user": asker, "password_file": filepath.Join(dir, "asker.password")}
		machines = file["machines"].(harness.Map)["local"].(harness.Map)["dir"].(string)
	})
	return g, func(sql string) {
		t.Helper()
		password, err := os.ReadFile(filepath.Join(machines, "acme", "superuser.password"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := os.ReadFile(filepath.Join(machines, "acme", "data", "postmaster.pid"))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%s user=postgres dbname=app sslmode=disable password=%s",
			strings.Split(string(pid), "\n")[3], strings.TrimSpace(string(password))))
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
		do(t, conn, sql)
	}
}

// TestRolesOfAMachineThatSleeps: while it does, what it has listed last judges, and only a password that is right wakes it.
func TestRolesOfAMachineThatSleeps(t *testing.T) {
	t.Parallel()
	g, sql := roleMachine(t)
	const from = "198.51.100.1"
	_, err := g.as(t, from, "transaction", "late", "pw") // of whom nothing is known, as of all others
	wantState(t, err, "28P01")
	if g.wakes() != 0 || g.postmaster(t) != 0 {
		t.Fatalf("a stranger has woken it: %v wakes", g.wakes())
	}
	keeper := g.connect(t, "session")
	do(t, keeper, "select 1")
	setUpRoles(t, sql)
	sql(`create role late login password 'pw'`)
	harness.Eventually(t, harness.Patience, "the list is asked for again", func() bool {
		conn, err := g.as(t, from, "transaction", "late", "pw")
		if err == nil {
			do(t, conn, "select 1")
			closeConn(conn)
		}
		return err == nil
	})
	closeConn(keeper)
	g.awaitMachine(t, "asleep")
	before := g.wakes()
	for i, c := range [][2]string{{"late", "wrong"}, {"nobody", "pw"}, {asker, askerPassword}, {harness.App, "wrong"}} {
		_, err := g.as(t, fmt.Sprint("198.51.100.", 10+i), "transaction", c[0], c[1])
		wantState(t, err, "28P01")
	}
	if got := g.machine(t); g.wakes() != before || got.State != "asleep" {
		t.Fatalf("strangers have woken it: %v wakes before, %v now, it is %s", before, g.wakes(), got.State)
	}
	conn, err := g.as(t, from, "transaction", "late", "pw")
	if err != nil {
		t.Fatal(err)
	}
	if got := value(t, conn, "select session_user"); got != "late" {
		t.Errorf("the session is %s's", got)
	}
	if g.wakes() != before+1 {
		t.Errorf("%v wakes, %v before", g.wakes(), before)
	}
}

// TestRolesOfAStore: a restart knows what was listed before, although the server is down, and no file or row shows it.
func TestRolesOfAStore(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	upstream := harness.OwnPostgres(t)
	database := harness.Database(t, upstream)
	setUpRoles(t, func(sql string) {
		t.Helper()
		if err := upstream.Exec(t.Context(), database, sql); err != nil {
			t.Fatal(err)
		}
	})
	if err := upstream.Exec(t.Context(), database, `create role late login password 'pw'`); err != nil {
		t.Fatal(err)
	}
	acme := harness.Acme(t, upstream, database)
	write(t, filepath.Join(w.dir, "asker.password"), []byte(askerPassword+"\n"))
	acme["auth_query"] = harness.Map{"user": asker, "password_file": "asker.password"}
	w.command("init")
	w.load(acme)
	run := func() *gate {
		g := &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: harness.Map{"tenants": w.tenants, "timeouts": harness.Map{"server_connect": "1s", "drain": "5s"}}})}
		t.Cleanup(func() {
			if log := g.Log().String(); t.Failed() {
				t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-4000):])
			}
		})
		return g
	}
	first := run()
	if _, err := first.as(t, "198.51.100.1", "session", "late", "pw"); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "the list is kept", func() bool {
		conn, err := w.cluster.Connect(t.Context(), w.database)
		if err != nil {
			t.Fatal(err)
		}
		defer closeConn(conn)
		return value(t, conn, `select count(*) from postern.roles where tenant = 'acme' and position('SCRAM' in encode(sealed, 'escape')) = 0`) == "1"
	})
	first.Stop(t)
	harness.Crash(t, upstream)

	second := run()
	_, err := second.as(t, "198.51.100.1", "session", "late", "wrong")
	wantState(t, err, "28P01")
	_, err = second.as(t, "198.51.100.2", "session", "nobody", "pw")
	wantState(t, err, "28P01")
	if _, err = second.as(t, "198.51.100.3", "session", "late", "pw"); err == nil || sqlstate(err) == "28P01" {
		t.Errorf("the right password: %v", err)
	}
	for _, g := range []*gate{first, second} {
		if log := g.Log().String(); strings.Contains(log, askerPassword) || strings.Contains(log, "SCRAM-SHA-256$") {
			t.Error("a secret is in the log")
		}
	}
}
