// Tenants that are served in some regions alone: a client may come to any node.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// abroad is nodes a and c in region near, and b in region far, where acme is served.
func abroad(t *testing.T) (a, b, c *gate, ca string) {
	t.Helper()
	w := newStoreWorld(t)
	w.command("init")
	w.acme["residency"] = harness.Map{"ingress": []string{"far"}}
	w.acme["allow_list"] = []string{"198.51.100.0/24"}
	w.acme["client_address"] = "guc"
	w.load(w.acme, w.globex)
	authority := harness.Certificates(t)
	pair := authority.Issue(t, "acme.db.test", "127.0.0.1")
	in := func(region string) func(harness.Map) {
		return func(file harness.Map) {
			file["region"] = region
			file["tls"] = harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}, "tenant_domain": "db.test"}
		}
	}
	w.fellows()
	a, b, c = w.fellow("a", in("near")), w.fellow("b", in("far")), w.fellow("c", in("near"))
	w.acquainted(a, b, c)
	return a, b, c, authority.CAFile
}

// TestServedElsewhere: what may not be served at the node that a client meets is served at one where it may be, by the client's own address.
func TestServedElsewhere(t *testing.T) {
	t.Parallel()
	a, b, c, ca := abroad(t)
	conn, err := a.from(t, "session", "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	if got := value(t, conn, "select current_setting('postern.client_address')"); got != "198.51.100.7" {
		t.Errorf("Postgres is told %s", got)
	}
	page := a.api(t, a.Token, "GET", "/v1/tenants/acme/sessions", nil).want(t, 200).body["sessions"].([]any)
	if s := page[0].(map[string]any); len(page) != 1 || s["node"] != "b" || s["client_address"] != "198.51.100.7" || s["listener"] != "session"+proxied || s["tls"] != false {
		t.Errorf("sessions are %v", page)
	}
	if n := a.metric("postern_cluster_streams", "direction", "out"); n != 1 || a.metric("postern_passed_clients_total", "result", "ok") != 1 || b.metric("postern_cluster_streams", "direction", "in") != 1 {
		t.Errorf("%v streams", n)
	}
	_, err = a.from(t, "session", "203.0.113.5")
	if wantState(t, err, "28000"); !strings.Contains(err.Error(), "address 203.0.113.5 is not allowed") {
		t.Error(err)
	}
	// Who may not connect learns that where it came, and nothing of regions.
	if at, of := a.metric("postern_refusals_total", "reason", "address"), b.metric("postern_refusals_total", "reason", "address"); at != 1 || of != 0 {
		t.Errorf("a has refused %v, b %v", at, of)
	}
	closeConn(c.mustLogin(t, "globex")) // who is served everywhere

	// Still encrypted, where TLS's server name says who it is.
	host, port, err := net.SplitHostPort(turns(t, "transaction", "198.51.100.7", a).Addr())
	if err != nil {
		t.Fatal(err)
	}
	tls := fmt.Sprintf("host=acme.db.test hostaddr=%s port=%s user=app password=pw-app sslmode=verify-full channel_binding=require sslrootcert=%s", host, port, ca)
	cmd := exec.Command(harness.Program(t, "psql"), "-X", "-A", "-t", "-d", tls, "-c", "select current_setting('postern.client_address')")
	cmd.Env = os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "198.51.100.7" {
		t.Errorf("psql: %s, %v", out, err)
	}
	_, err = pgx.ConnectConfig(t.Context(), configOf(t, fmt.Sprintf("host=127.0.0.1 port=%s user=app.acme password=pw-app sslmode=require", port)))
	var told *pgconn.PgError
	if wantState(t, err, "08004"); !errors.As(err, &told) || !strings.Contains(told.Hint, "host acme.db.test") {
		t.Errorf("%+v", told)
	}

	carriesMuch(t, a, b, conn)

	sleeping := b.sleeps(t, conn, 555)
	sendCancelTo(t, turns(t, "session", "198.51.100.7", c).Addr(), conn.PgConn().PID(), conn.PgConn().SecretKey())
	sleeping.cancelled(t)

	// It is moved: who is connected has to come again, and nobody is left who may serve it.
	a.api(t, a.Token, "PATCH", "/v1/tenants/acme?confirm=true", harness.Map{"residency": harness.Map{"ingress": []string{"nowhere"}}}).want(t, 200)
	ends(t, conn, "57P01")
	_, err = a.from(t, "session", "198.51.100.7")
	wantState(t, err, "57P03")
	_, err = b.from(t, "session", "198.51.100.7")
	wantState(t, err, "57P03")
}

// carriesMuch has a result and a COPY go both ways that nothing on the way could hold.
func carriesMuch(t *testing.T, a, b *gate, conn *pgx.Conn) {
	t.Helper()
	const rows, width = 32 << 10, 1 << 10
	before := a.RSS(t)
	// A client that does not read has the server wait, through both nodes.
	reader := conn.PgConn().Exec(t.Context(), fmt.Sprintf("select repeat('x', %d) from generate_series(1, %d)", width, 4*rows))
	watch := b.direct(t)
	harness.Eventually(t, harness.Patience, "the server waits for the client", func() bool {
		return value(t, watch, "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'ClientWrite'") == "1"
	})
	if grown := a.RSS(t) - before; grown > 32<<20 {
		t.Errorf("a has taken %d bytes more", grown)
	}
	n := 0
	for reader.NextResult() {
		for r := reader.ResultReader(); r.NextRow(); n++ {
		}
	}
	if err := reader.Close(); err != nil || n != 4*rows {
		t.Errorf("%d rows, %v", n, err)
	}
	value(t, conn, "create temp table copied (v text)")
	tag, err := conn.PgConn().CopyFrom(t.Context(), io.LimitReader(lines(strings.Repeat("y", width-1)+"\n"), rows*width), "copy copied from stdin")
	if err != nil || tag.RowsAffected() != rows {
		t.Errorf("%v, %v", tag, err)
	}
}

// lines repeats a line for ever.
type lines string

func (l lines) Read(p []byte) (n int, err error) {
	for n+len(l) <= len(p) {
		n += copy(p[n:], l)
	}
	return n, nil
}

// TestServedElsewhereEnds: a node that drains has its clients sent away between two transactions, also by the node that serves them; one that is lost
// ends them.
func TestServedElsewhereEnds(t *testing.T) {
	t.Parallel()
	a, b, c, _ := abroad(t)
	login := func(g *gate) *pgx.Conn {
		conn, err := g.from(t, "transaction", "198.51.100.7")
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	idle, busy, stays := login(c), login(c), login(a)
	value(t, busy, "begin")
	c.Signal(t, syscall.SIGTERM)
	ends(t, idle, "57P01")
	value(t, busy, "select 1")
	value(t, busy, "commit")
	ends(t, busy, "57P01")
	if code := c.Wait(t); code != 0 {
		t.Errorf("c has ended with %d", code)
	}
	value(t, stays, "select 1")

	running := make(chan error, 1)
	go func() { _, err := tryValue(context.Background(), stays, "select pg_sleep(556)"); running <- err }()
	b.awaitRunning(t, "select pg_sleep(556)")
	b.Signal(t, syscall.SIGKILL)
	b.Wait(t)
	if err := <-running; err == nil || strings.Contains(err.Error(), "context") {
		t.Errorf("after its node was killed: %v", err)
	}
	_, err := a.from(t, "transaction", "198.51.100.7")
	wantState(t, err, "57P03")
	if n := a.metric("postern_cluster_streams", "direction", "out"); n != 0 {
		t.Errorf("%v streams", n)
	}
}
