// Who may come in, and what happens to those inside when that changes.

package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// from is a login by way of a PROXY header that names the client.
func (g *gate) from(t *testing.T, listener, client string) (*pgx.Conn, error) {
	t.Helper()
	conf := configOf(t, g.dsn(listener+proxied))
	conf.DialFunc = harness.ProxyDialer{Header: header(2, client)}.DialContext
	conn, err := pgx.ConnectConfig(t.Context(), conf)
	if err == nil {
		t.Cleanup(func() { closeConn(conn) })
	}
	return conn, err
}

func TestAllowList(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["allow_list"] = []string{"198.51.100.0/24", "127.0.0.1", "2001:db8::/32"} }})
	for _, c := range []struct {
		client string
		ok     bool
	}{
		{"198.51.100.7", true}, {"127.0.0.1", true}, {"2001:db8::1", true}, {"::ffff:198.51.100.9", true},
		{"203.0.113.5", false}, {"127.0.0.2", false}, {"2001:db9::1", false},
	} {
		conn, err := g.from(t, "transaction", c.client)
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", c.client, err)
			} else if v := value(t, conn, "select 1"); v != "1" {
				t.Errorf("%s: %s", c.client, v)
			}
			continue
		}
		if got := sqlstate(err); got != "28000" {
			t.Errorf("%s: got %s, want 28000", c.client, got)
			continue
		}
		if want := "address " + c.client + ` is not allowed to connect to "acme"`; !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if n := g.metric("postern_refusals_total", "reason", "address"); n != 3 {
		t.Errorf("%v refusals by address, want 3", n)
	}
}

func TestWrongPasswordAndUnknownTellNothing(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	var said []string
	for _, who := range []string{"user=app.acme", "user=nobody.acme", "user=app.nowhere"} {
		_, err := pgconn.Connect(t.Context(), strings.Replace(g.dsn("transaction", "password=wrong"), "user=app.acme", who, 1))
		wantState(t, err, "28P01")
		var e *pgconn.PgError
		if !asPG(err, &e) {
			t.Fatal(err)
		}
		said = append(said, strings.Replace(e.Message, `"nobody"`, `"app"`, 1)+e.Detail+e.Hint)
	}
	if said[0] != said[1] || said[0] != said[2] {
		t.Errorf("answers differ: %q", said)
	}
}

// TestReload changes who is allowed, by a changed file and by SIGHUP.
func TestReload(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true, Tenant: func(m harness.Map) { m["allow_list"] = []string{"198.51.100.0/24"} }})
	_, err := g.from(t, "session", "203.0.113.5")
	wantState(t, err, "28000")

	g.reload(g.changed("allow_list", []string{"203.0.113.0/24"}))
	if _, err := g.from(t, "session", "203.0.113.5"); err != nil {
		t.Fatalf("after the file changed: %v", err)
	}
	_, err = g.from(t, "session", "198.51.100.7")
	wantState(t, err, "28000")

	certificates, tenants := g.reloads("tls", "ok"), g.reloads("tenants", "ok")
	g.Signal(t, syscall.SIGHUP)
	harness.Eventually(t, harness.Patience, "SIGHUP reloads", func() bool {
		return g.reloads("tls", "ok") > certificates && g.reloads("tenants", "ok") > tenants
	})
}

// TestBadFilesKeepTheOld breaks the tenants and the certificate while the gate runs.
func TestBadFilesKeepTheOld(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true})
	failed := g.reloads("tenants", "failed")
	if ok := g.metric("postern_directory_last_reload_success"); ok != 1 {
		t.Fatalf("success gauge %v before", ok)
	}
	g.Write(t, "tenants.yaml", []byte("tenants:\n  - id: acme\n    surprise: 1\n"))
	harness.Eventually(t, harness.Patience, "the bad file is counted", func() bool { return g.reloads("tenants", "failed") > failed })
	if ok := g.metric("postern_directory_last_reload_success"); ok != 0 {
		t.Errorf("success gauge %v after a bad file", ok)
	}
	if v := value(t, g.connect(t, "transaction"), "select 1"); v != "1" {
		t.Error(v)
	}
	g.reload(g.tenant)
	if ok := g.metric("postern_directory_last_reload_success"); ok != 1 {
		t.Errorf("success gauge %v after a good file", ok)
	}

	first := g.shownSerial(t)
	tlsFailed := g.reloads("tls", "failed")
	write(t, g.pair.CertFile, []byte("no certificate"))
	harness.Eventually(t, harness.Patience, "the bad pair is counted", func() bool { return g.reloads("tls", "failed") > tlsFailed })
	if serial := g.shownSerial(t); serial != first {
		t.Errorf("certificate %s with a bad pair on disk, was %s", serial, first)
	}
	second := g.ca.Issue(t, "localhost")
	replace(t, g.pair.CertFile, second.CertFile)
	replace(t, g.pair.KeyFile, second.KeyFile)
	harness.Eventually(t, harness.Patience, "the new pair is used", func() bool { return g.shownSerial(t) != first })
}

// shownSerial is the serial of the certificate that a new client is shown.
func (g *gate) shownSerial(t *testing.T) string {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp4", g.Addr(g.t, "session"))
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, &tls.Config{RootCAs: g.ca.Pool, ServerName: "localhost", NextProtos: []string{"postgresql"}})
	defer c.Close()
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// revocations are the ways in which an open session loses its right to be.
var revocations = []struct {
	name string
	key  string // of the tenant, "" for the whole of it
	now  any
}{
	{"allow_list", "allow_list", []string{"203.0.113.0/24"}},
	{"user", "users", nil}, // those that are left are filled in
	{"database", "databases", []string{"postgres"}},
	{"require_tls", "require_tls", true},
	{"tenant", "id", "else"},
}

// TestRevoke revokes sessions that are idle, that have an open transaction, and that are reading a large result.
func TestRevoke(t *testing.T) {
	t.Parallel()
	for _, r := range revocations {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, gateConf{})
			idle := g.script(t, "transaction")
			open := g.script(t, "transaction")
			open.want("C:BEGIN Z:T", 1, query("begin"))
			session := g.script(t, "session")
			reading := g.script(t, "transaction")
			// More than all buffers hold, so that it is in the middle whenever it is revoked.
			reading.say(query("select repeat('x', 100000) from generate_series(1, 1000)"))
			if got := reading.next() + reading.next(); !strings.HasPrefix(got, "TD:xxx") {
				t.Fatal(got)
			}

			conf := g.changed(r.key, r.now)
			switch r.key {
			case "users":
				conf["users"] = g.tenant["users"].([]harness.Map)[1:]
			case "databases":
				conf["database"] = "postgres"
			}
			g.reload(conf)
			for name, s := range map[string]*script{"idle": idle, "open": open, "session": session} {
				if got := s.hear(1); got != "E:57P01! EOF" {
					t.Errorf("%s: %s", name, got)
				}
			}
			rows := 0
			for {
				word := reading.next() // framing that is broken fails here
				if strings.HasPrefix(word, "D:") {
					rows++
					continue
				}
				if word != "E:57P01!" || reading.next() != "EOF" {
					t.Errorf("reading: %s after %d rows", word, rows)
				}
				break
			}
			if rows >= 999 {
				t.Error("the reader was not revoked in the middle")
			}
		})
	}
}

// TestChangedUpstream moves a tenant to another cluster while its clients stay.
func TestChangedUpstream(t *testing.T) {
	t.Parallel()
	second := harness.Postgres(t, local.Options{})
	g := startGate(t, gateConf{})
	if err := second.Exec(t.Context(), "postgres", "create database "+g.database+" owner app"); err != nil {
		t.Fatal(err)
	}
	// Its roles are copies of the template's, so the verifiers are the same.
	const where = "select current_setting('port')"
	idle, busy, session := g.connect(t, "transaction"), g.connect(t, "transaction"), g.connect(t, "session")
	old := value(t, idle, where)
	do(t, busy, "begin")
	value(t, busy, where)
	value(t, session, where)
	g.reload(g.changed("upstream", upstreamOf(second)))

	// A lease that runs ends where it began; what begins now is on the new server.
	if got := value(t, busy, where); got != old {
		t.Errorf("a transaction moved to %s", got)
	}
	if got := value(t, session, where); got != old {
		t.Errorf("a session moved to %s", got)
	}
	do(t, busy, "commit")
	for name, c := range map[string]*pgx.Conn{"idle": idle, "busy": busy, "new": g.connect(t, "session")} {
		if got := value(t, c, where); got == old {
			t.Errorf("%s is still on the old server", name)
		}
	}
	closeConn(session)
	watch := g.direct(t)
	harness.Eventually(t, harness.Patience, "no connection to the old server is left", func() bool {
		return value(t, watch, "select count(*) from pg_stat_activity where usename = 'app' and datname = '"+g.database+"'") == "0"
	})
}

func TestUnknownDatabase(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	for _, m := range modes {
		_, err := pgconn.Connect(t.Context(), g.dsn(m, "dbname=nowhere"))
		wantState(t, err, "3D000")
		if !strings.Contains(err.Error(), `database "nowhere" does not exist`) {
			t.Errorf("%s: %v", m, err)
		}
		// A fault of one is nobody else's.
		if v := value(t, g.connect(t, m), "select 1"); v != "1" {
			t.Error(v)
		}
	}
}

func TestRequireTLS(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{TLS: true, Tenant: func(m harness.Map) { m["require_tls"] = true }})
	_, err := pgconn.Connect(t.Context(), g.dsn("session"))
	wantState(t, err, "28000")
	conn, err := pgconn.Connect(t.Context(), strings.Replace(g.dsn("session"), "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(context.Background())
}
