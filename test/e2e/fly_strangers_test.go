// Strangers cost no call of Fly's API, whatever they say.

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// shout writes bytes and reads until the gate ends the connection, or says nothing for a while.
func shout(t *testing.T, address string, b []byte) {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(b)
	_, _ = io.Copy(io.Discard, conn)
}

// startupPacket is a startup message with a version.
func startupPacket(version uint32, params ...string) []byte {
	var body []byte
	for _, p := range params {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, version), body...)
}

// TestFlyStrangers: an address that is refused, a wrong password, a scan, nonsense of every kind and cancel requests are no
// reason to call the API, and whoever proves who it is is.
func TestFlyStrangers(t *testing.T) {
	t.Parallel()
	const v3 = 3 << 16
	authority := harness.Certificates(t)
	pair := authority.Issue(t, "localhost", "127.0.0.1")
	g := newFly(t, fakefly.Options{}, "acme", "secure")
	acme, secure := g.tenants[0], g.tenants[1]
	acme.tenant["allow_list"] = []string{"127.0.0.0/8"}
	acme.tenant["databases"] = []string{g.database}
	secure.tenant["require_tls"] = true
	g.serve(t, harness.Map{"tls": harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}}})
	if n := g.api.Count("", ""); n != 2 || g.api.Count(fakefly.Get, "") != 2 {
		t.Fatalf("%d calls at the start for two machines", n)
	}
	goroutines, descriptors := g.Goroutines(t), g.FDs(t)

	refused := func(f *flyTenant, code string, options ...string) {
		t.Helper()
		_, err := f.login(t.Context(), "transaction", options...)
		wantState(t, err, code)
	}
	refused(acme, "28P01", "password=wrong")
	refused(acme, "28P01", "password=wrong", "sslmode=require")
	refused(acme, "28P01", "user=nobody.acme")
	refused(acme, "28P01", "user=app.nobody")
	refused(acme, "08004", "user=app")
	refused(acme, "08004", "options='-creference=secure -creference=acme'", "user=app")
	refused(secure, "28000")
	refused(acme, "3D000", "dbname=nobodys")
	refused(acme, "28P01", "replication=database", "password=wrong")
	_, err := g.from(t, "transaction", "198.51.100.9")
	wantState(t, err, "28000")

	plain, behind := g.Addr(t, "transaction"), g.Addr(t, "transaction"+proxied)
	ssl := []byte{0, 0, 0, 8, 4, 210, 22, 47}
	var strangers sync.WaitGroup
	for _, b := range [][]byte{
		nil,
		[]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		[]byte("\x16\x03\x01\x00\x05hello"),
		[]byte("SSH-2.0-OpenSSH_9.6\r\n"),
		bytes.Repeat([]byte{0}, 5000),
		bytes.Repeat([]byte{255}, 5000),
		append(bytes.Clone(ssl), "not TLS"...),
		append(bytes.Clone(ssl), startupPacket(v3, "user", "app.acme")...),
		{0, 0, 0, 8, 4, 210, 22, 48}, // GSSENCRequest, and no more
		startupPacket(v3, "user", "app.acme"),
		startupPacket(v3, "user", "app.acme", "database", g.database)[:20],
		startupPacket(2<<16, "user", "app.acme"),
		startupPacket(v3),
		append(startupPacket(v3, "user", "app.acme"), "p\x00\x00\x00\x08junk"...),
		append(startupPacket(v3, "user", "app.acme"), "Q\x00\x00\x00\x0dselect 1\x00"...),
		header(1, "127.0.0.9"),
		header(2, "127.0.0.9"),
		append(header(2, "198.51.100.9"), startupPacket(v3, "user", "app.acme")...),
		append(header(2, "127.0.0.9"), header(2, "127.0.0.9")...),
	} {
		strangers.Go(func() { shout(t, plain, b) })
		strangers.Go(func() { shout(t, behind, b) })
	}
	for range 50 { // a scan
		conn, err := net.Dial("tcp4", g.Addr(t, "session"))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	for _, conf := range []*tls.Config{
		{RootCAs: authority.Pool, ServerName: "localhost"},                                     // no ALPN
		{RootCAs: authority.Pool, ServerName: "localhost", NextProtos: []string{"h2"}},         // another's
		{RootCAs: authority.Pool, ServerName: "localhost", NextProtos: []string{"postgresql"}}, // and then nonsense
		{RootCAs: authority.Pool, ServerName: "localhost", MaxVersion: tls.VersionTLS11},       // too old
		{InsecureSkipVerify: true, ServerName: "other.example", NextProtos: []string{"postgresql"}},
	} {
		strangers.Go(func() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp4", plain, conf)
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(conn, "nonsense nonsense")
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	strangers.Wait()
	for i := range 20 {
		_ = g.sendCancel("transaction", uint32(i), []byte{1, 2, 3, byte(i)})
	}
	_ = g.sendCancel("session", 7, bytes.Repeat([]byte{7}, 32))
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/v1/tenants/acme/machine"} {
		_, _ = g.Admin(t, http.MethodGet, path, nil)
	}

	if n := g.api.Count("", ""); n != 2 {
		t.Errorf("%d calls of the API, of which none has a cause: %+v", n-2, g.api.Calls())
	}
	if acme.State() != "stopped" || acme.Starts()+secure.Starts() != 0 || g.metric("postern_wakes_total") != 0 {
		t.Errorf("somebody was woken")
	}
	harness.Eventually(t, harness.Patience, "nothing is left over", func() bool {
		return g.Goroutines(t) <= goroutines+2 && g.FDs(t) <= descriptors+1
	})

	// With wake: query a proven client is no cause either, once its greeting is known: its query is.
	acme.enter(t, "transaction").must(t, "select 1", "1")
	acme.sleep(t)
	calls := g.api.Count("", "")
	again := acme.enter(t, "transaction", "sslmode=require")
	if n := g.api.Count("", "") - calls; n != 0 {
		t.Errorf("%d calls for a login", n)
	}
	again.must(t, "select 1", "1")
	if acme.Starts() != 2 || secure.Starts() != 0 {
		t.Errorf("%d and %d starts", acme.Starts(), secure.Starts())
	}
}

// TestFlyThrottled: who guesses passwords and is throttled wakes nobody, with the right one neither.
func TestFlyThrottled(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	var last string
	for range 60 {
		_, err := f.login(t.Context(), "transaction", "password=wrong")
		if last = sqlstate(err); last == "53400" {
			break
		}
	}
	if last != "53400" {
		t.Fatalf("never throttled: %s", last)
	}
	_, err := f.login(t.Context(), "transaction")
	wantState(t, err, "53400")
	if n := g.api.Count("", ""); n != 1 || f.Starts() != 0 {
		t.Errorf("%d calls, %d starts", n, f.Starts())
	}
	// Others are none the worse for it.
	conf, err := pgconn.ParseConfig(g.dsn("transaction"+proxied, "connect_timeout=30"))
	if err != nil {
		t.Fatal(err)
	}
	conf.DialFunc = harness.ProxyDialer{Header: header(2, "198.51.100.9")}.DialContext
	conn, err := pgconn.ConnectConfig(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(context.Background())
	if f.Starts() != 1 {
		t.Errorf("%d starts", f.Starts())
	}
}
