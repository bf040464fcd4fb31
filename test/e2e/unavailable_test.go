// What clients are told of a server that cannot be had: the truth, and to try again only where that helps.

package e2e

import (
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/test/harness"
)

// momentHint is for what passes by itself.
const momentHint = "Try again in a moment."

// TestRefusedServerLogins: each cause has its own code and words, and none of the server's, which may name our address.
func TestRefusedServerLogins(t *testing.T) {
	t.Parallel()
	own := harness.Postgres(t, local.Options{HBA: []string{"host all other 127.0.0.1/32 reject", "host all all 127.0.0.1/32 scram-sha-256"}})
	g := startGate(t, gateConf{Cluster: own})
	watch := g.direct(t)
	do(t, watch, "create role retired nologin password 'pw-app'")
	users := g.tenant["users"].([]harness.Map)
	as := func(id string, change func(tenant, user harness.Map)) harness.Map {
		tenant, user := g.changed("id", id), maps.Clone(users[0])
		tenant["users"] = []harness.Map{user}
		change(tenant, user)
		return tenant
	}
	g.Write(t, "right.pw", []byte("pw-app\n"))
	g.Write(t, "wrong.pw", []byte("pw-wrong\n"))
	login := func(role, file string) func(harness.Map, harness.Map) {
		return func(_, user harness.Map) { user["upstream"] = harness.Map{"user": role, "password_file": file} }
	}
	another, err := scram.NewVerifier("pw-app", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.reload(as("nologin", login("retired", "right.pw")), as("rejected", login("other", "right.pw")),
		as("differs", func(_, user harness.Map) { user["verifier"] = another.Encode() }),
		as("password", login("app", "wrong.pw")), as("fine", login("app", "right.pw")),
		as("notls", func(tenant, _ harness.Map) {
			tenant["upstream"] = harness.Map{"host": "127.0.0.1", "port": own.Port(), "tls": "require"}
		}))

	for _, c := range []struct{ tenant, code, text, hint string }{
		{"nologin", "28000", "the database does not let this user log in", "LOGIN"},
		{"rejected", "28000", "the database does not let this user log in", "pg_hba.conf"},
		{"differs", "08006", "the database refused the pooler's login", "The verifier differs: copy it from pg_authid."},
		{"password", "08006", "the database refused the pooler's login", "password_file"},
		{"notls", "57P03", "the database is not accepting connections", "log"},
		{"fine", "ok", "", ""},
	} {
		for _, mode := range []string{"transaction", "session"} {
			conn, err := pgconn.Connect(t.Context(), strings.Replace(g.dsn(mode), "app.acme", "app."+c.tenant, 1))
			if err == nil {
				_ = conn.Close(t.Context())
			}
			if got := sqlstate(err); got != c.code {
				t.Errorf("%s, %s: %v, want %s", c.tenant, mode, err, c.code)
				continue
			}
			var e *pgconn.PgError
			if c.code == "ok" || !asPG(err, &e) {
				continue
			}
			if e.Severity != "FATAL" || e.Message != c.text || !strings.Contains(e.Hint, c.hint) || strings.Contains(e.Hint, momentHint) {
				t.Errorf("%s, %s: %s %q, hint %q; want %q, hint %q", c.tenant, mode, e.Severity, e.Message, e.Hint, c.text, c.hint)
			}
			if strings.Contains(e.Message+e.Detail+e.Hint, "127.0.0.1") || strings.Contains(e.Message, "retired") {
				t.Errorf("%s, %s: %q names what is inside", c.tenant, mode, e.Message+e.Detail+e.Hint)
			}
		}
	}
}

// TestServerDownIsNotAFullPool: where no server connection exists, nobody is told that all of them are in use.
func TestServerDownIsNotAFullPool(t *testing.T) {
	t.Parallel()
	own := harness.Postgres(t, local.Options{})
	g := startGate(t, gateConf{Cluster: own, Timeouts: harness.Map{"server_connect": "50s", "query_wait": "7s"}})
	var notices []string
	conf := configOf(t, g.dsn("transaction"))
	conf.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	c := connectConfig(t, conf)
	harness.Crash(t, own)
	_, err := tryValue(t.Context(), c, "select 1")
	var e *pgconn.PgError
	if !asPG(err, &e) || e.Code != "57P03" || e.Message != "the database is not accepting connections" || e.Hint != momentHint {
		t.Errorf("told %v, want 57P03", errText(err))
	}
	if len(notices) != 1 || notices[0] != "the database cannot be reached: trying again" {
		t.Errorf("notices %q", notices)
	}
}
