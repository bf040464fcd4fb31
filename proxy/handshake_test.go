// What a handshake decides, on bytes as they come: who is answered what, and as what it is counted.

package proxy

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// door is a gate without a listener, whose handshakes a test begins by hand.
type door struct {
	t    *testing.T
	gate *Gate
	log  *bytes.Buffer // to be read only while no handshake runs

	taken int64 // places, by fill

	registry  *prometheus.Registry
	directory *tenants.Directory
}

func newDoor(t *testing.T) *door {
	t.Helper()
	verifier, err := scram.NewVerifier("right", scram.DefaultIterations, nil)
	if err != nil {
		t.Fatal(err)
	}
	only, err := netrestrict.Compile([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]*tenants.User{"app": {Name: "app", Verifier: tenants.NewSecret(verifier.Encode()), ServerUser: "app"}}
	room := tenants.Pool{Size: 1, MaxClients: 9, MaxServers: 1}
	directory, err := tenants.NewDirectory(
		&tenants.Tenant{ID: "acme", Database: "app", Users: users, Pool: room},
		&tenants.Tenant{ID: "picky", Database: "app", Users: users, Pool: room, Allow: only},
		&tenants.Tenant{ID: "secure", Database: "app", Users: users, Pool: room, RequireTLS: true},
		&tenants.Tenant{ID: "full", Database: "app", Users: users, Pool: tenants.Pool{Size: 1}},
		&tenants.Tenant{ID: "guessed", Database: "app", Users: users, Pool: room},
		&tenants.Tenant{ID: "busy", Database: "app", Databases: []string{"crowded"}, Pool: tenants.Pool{Size: 1, MaxClients: 9, MaxServers: 1, MaxDatabaseClients: 1},
			Users: map[string]*tenants.User{"app": {Name: "app", Verifier: users["app"].Verifier, ServerUser: "app", MaxClients: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	d := &door{t: t, log: new(bytes.Buffer), registry: prometheus.NewRegistry(), directory: directory}
	d.gate, err = New(Options{Directory: directory, Log: slog.New(slog.NewTextHandler(d.log, nil)), Registerer: d.registry, Loops: 1,
		NoIOUring: true, Timeouts: Timeouts{Login: time.Minute, ProxyHeader: time.Minute, ServerConnect: time.Second},
		Session: tenants.Timeouts{QueryWait: new(time.Minute)}, Limits: Limits{Clients: 9, Handshakes: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.gate.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.gate.Close)
	d.gate.throttle.with(func(th throttle) {
		for range netrestrict.DefaultTenantFailures {
			th.Failed(time.Now(), "guessed", netip.MustParseAddr("127.0.0.1"))
		}
	})
	return d
}

// visit has a client talk to a handshake, and returns when that has ended.
func (d *door) visit(l *Listener, client func(net.Conn)) {
	d.t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	defer ln.Close()
	ours, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	theirs, err := ln.Accept()
	if err != nil {
		d.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		h := newAcceptor(d.gate, l, nil).handshake(theirs.(*net.TCPConn))
		defer h.close()
		h.run()
	}()
	_ = ours.SetDeadline(time.Now().Add(patience))
	client(ours)
	ours.Close()
	<-over
}

// refusals are the counters of postern_refusals_total that are not 0.
func (d *door) refusals() map[string]int { return counted(d.t, d.registry, "postern_refusals_total") }

// counted are the counters of a family that are not 0, by the value of their only label.
func counted(t *testing.T, from prometheus.Gatherer, family string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := int(m.GetCounter().GetValue()); n > 0 {
				out[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return out
}

// packet is a startup packet.
func packet(code uint32, body string) string {
	n := len(body) + 8
	return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), byte(code >> 24), byte(code >> 16), byte(code >> 8), byte(code)}) + body
}

func hello(params ...string) string {
	return packet(pgwire.Version30, strings.Join(params, "\x00")+"\x00\x00")
}

func TestHandshakes(t *testing.T) {
	d := newDoor(t)
	const ssl, gss = pgwire.CodeSSL, pgwire.CodeGSSENC
	plain, header := &Listener{Name: "plain"}, &Listener{Name: "header", ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	stranger := &Listener{Name: "stranger", ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	from := "PROXY TCP4 198.51.100.7 192.0.2.1 40000 5432\r\n"
	for _, c := range []struct {
		name   string
		at     *Listener
		says   string
		hears  string // bytes before messages as they are, a message by its type, an error by its code
		reason string // "": not counted
	}{
		{"nothing", plain, "", "", ""},
		{"not the protocol", plain, "GET / HTTP/1.1\r\n\r\n", "", "startup"},
		{"half a packet", plain, "\x00\x00\x00\x09\x00", "", "startup"},
		{"TLS that is not offered, unasked", plain, "\x16\x03\x01\x00\x05hello", "", "startup"},
		{"a known user", plain, hello("user", "app.acme"), "R", ""},
		{"an unknown user", plain, hello("user", "nobody.acme"), "R", ""},
		{"an unknown tenant", plain, hello("user", "app.nowhere"), "R", ""},
		{"no TLS", plain, packet(ssl, "") + "", "N", ""},
		{"GSS, then TLS", plain, packet(gss, ""), "N", ""},
		{"TLS with something behind", plain, packet(ssl, "") + hello("user", "app.acme"), "E08P01", "startup"},
		{"GSS with something behind", plain, packet(gss, "") + hello("user", "app.acme"), "E08P01", "startup"},
		{"TLS with a body", plain, packet(ssl, "x"), "E0A000", "startup"},
		{"protocol 2", plain, packet(2<<16, "\x00"), "Eunsupported", "startup"},
		{"protocol 4", plain, packet(4<<16, "\x00"), "E0A000", "startup"},
		{"protocol 3.9", plain, packet(3<<16|9, "user\x00app.acme\x00\x00"), "vR", ""},
		{"an option of the protocol's", plain, hello("user", "app.acme", "_pq_.new", "1"), "vR", ""},
		{"no end", plain, packet(pgwire.Version30, "user"), "E08P01", "startup"},
		{"no user", plain, hello("database", "app"), "E28000", "startup"},
		{"a tenant alone", plain, hello("user", ".acme"), "E28000", "startup"},
		{"no tenant", plain, hello("user", "app"), "E08004", "tenant"},
		{"two tenants", plain, hello("user", "app", "options", "reference=acme -c reference=picky"), "E08004", "tenant"},
		{"one by options", plain, hello("user", "app", "options", "reference=acme"), "R", ""},
		{"an address that may not", plain, hello("user", "app.picky"), "E28000", "address"},
		{"without TLS", plain, hello("user", "app.secure"), "E28000", "tls"},
		{"without room", plain, hello("user", "app.full"), "E53300", "limit"},
		{"after ten guesses", plain, hello("user", "app.guessed"), "E53400", "throttle"},
		{"after ten guesses, elsewhere", plain, hello("user", "app.acme"), "R", ""},
		{"a cancel of nobody", plain, packet(pgwire.CodeCancel, "\x00\x00\x00\x01\x00\x00\x00\x02"), "", ""},
		{"a header that is missing", header, hello("user", "app.acme"), "", "proxy_header"},
		{"a header", header, from + hello("user", "app.picky"), "R", ""},
		{"a header from nowhere", stranger, from + hello("user", "app.picky"), "", "proxy_header"},
		{"a health check", header, "PROXY UNKNOWN\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := d.refusals()
			var heard string
			d.visit(c.at, func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.says)
				_ = conn.(*net.TCPConn).CloseWrite()
				answer, err := io.ReadAll(conn)
				if err != nil && len(answer) == 0 && c.hears != "" {
					t.Error(err)
				}
				heard = spell(answer)
			})
			if heard != c.hears {
				t.Errorf("heard %s, want %s", heard, c.hears)
			}
			want := before
			if c.reason != "" {
				want[c.reason]++
			}
			if got := d.refusals(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
	for _, tt := range d.gate.runtimeTenants() {
		if tt.id == "secure" || tt.id == "picky" && tt.counters.loginsAborted.Load() != 1 {
			t.Errorf("%s was touched by who may not come in", tt.id)
		}
	}
	if got := d.gate.denials.of("picky").refused[reasonAddress].Load(); got != 1 {
		t.Errorf("%d refusals are counted for the tenant", got)
	}
}

// spell tells what a handshake has answered.
func spell(answer []byte) (out string) {
	for len(answer) > 0 {
		if answer[0] == 'N' && len(answer) < 5 || answer[0] == 'N' && answer[1] != 0 {
			out, answer = out+"N", answer[1:]
			continue
		}
		if len(answer) < 5 || answer[1] != 0 { // protocol 2 has no lengths
			word, _, _ := strings.Cut(strings.TrimPrefix(string(answer[1:]), "FATAL:  "), " ")
			return out + string(answer[0]) + word
		}
		n := int(answer[3])<<8 | int(answer[4])
		out += string(answer[0])
		if answer[0] == pgwire.ErrorResponse {
			out += pgwire.ParseError(answer[5 : n+1]).Code
		}
		answer = answer[n+1:]
	}
	return out
}

// TestAdmission is the order of the questions before the password, and that the tenant is touched by the last one only.
func TestAdmission(t *testing.T) {
	only, err := netrestrict.Compile([]netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	strict := &tenants.Tenant{ID: "acme", RequireTLS: true, Allow: only, Pool: tenants.Pool{MaxClients: 2}}
	certified := &tenants.Tenant{ID: "acme", ClientCAs: x509.NewCertPool(), Allow: only, Pool: tenants.Pool{MaxClients: 2}}
	open := &tenants.Tenant{ID: "acme", Pool: tenants.Pool{MaxClients: 2}}
	in, out := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.7")
	for name, c := range map[string]struct {
		conf   *tenants.Tenant
		secure bool
		addr   netip.Addr
		all    int64 // of 5
		own    int64 // of 2
		want   error
		asked  bool
	}{
		"everything is wrong": {strict, false, out, 5, 2, deny(denyTLS), false},
		"TLS is there":        {strict, true, out, 5, 2, deny(denyAddress, out, "acme"), false},
		"the address, too":    {strict, true, in, 5, 2, deny(denyClients), false},
		"room in all":         {strict, true, in, 4, 2, deny(denyTenantClients), true},
		"room for the tenant": {strict, true, in, 4, 1, nil, true},
		"nothing is asked":    {open, false, out, 0, 0, nil, true},

		"no TLS for a certificate":          {certified, false, out, 5, 2, deny(denyTLS), false},
		"a certificate, from elsewhere":     {certified, true, out, 5, 2, deny(denyAddress, out, "acme"), false},
		"a certificate is wanted, from all": {certified, true, in, 5, 2, deny(denyNoCertificate), false},
	} {
		asked := false
		a := admission{conf: c.conf, secure: c.secure, who: netrestrict.Who{Address: c.addr}, clients: c.all, most: 5, shown: identity{asked: true}}
		err := a.judge(func() int64 { asked = true; return c.own })
		if fmt.Sprint(err) != fmt.Sprint(c.want) || asked != c.asked {
			t.Errorf("%s: %v, tenant asked: %v; want %v, %v", name, err, asked, c.want, c.asked)
		}
	}
}

// TestFailedLogins: the client hears the same, whatever was wrong; the log has the cause, behind the answer.
func TestFailedLogins(t *testing.T) {
	d := newDoor(t)
	for user, cause := range map[string]string{"app.acme": "wrong_password", "nobody.acme": "unknown_user", "app.nowhere": "unknown_tenant"} {
		role, tenant, _ := strings.Cut(user, ".")
		var code, message string
		d.visit(&Listener{Name: "plain"}, func(conn net.Conn) {
			_, _ = io.WriteString(conn, hello("user", user))
			_, _ = readMessage(t, conn)
			c := scram.NewClient(scram.Credentials{Password: "wrong"}, scram.ChannelBinding{}, false, scram.ClientOptions{})
			first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
			_, _ = conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(first)), first...))
			_, body := readMessage(t, conn)
			final, err := c.Final(body[4:])
			if err != nil {
				t.Error(err)
			}
			_, _ = conn.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(final)), final...))
			_, body = readMessage(t, conn)
			e := pgwire.ParseError(body)
			code, message = e.Code, e.Message
		})
		if code != "28P01" || message != fmt.Sprintf("password authentication failed for user %q", role) {
			t.Errorf("%s: told %s %s", user, code, message)
		}
		if line := fmt.Sprintf("tenant=%s user=%s cause=%s sqlstate=28P01", tenant, role, cause); !strings.Contains(d.log.String(), line) {
			t.Errorf("%s: no %s in %s", user, line, d.log)
		}
	}
	if got := d.refusals(); got["tenant"] != 1 || len(got) != 1 {
		t.Errorf("counted %v, want the unknown tenant", got)
	}
	acme := d.gate.tenant("acme")
	if n := acme.counters.loginsFailed.Load(); n != 2 {
		t.Errorf("%d failed logins of the tenant", n)
	}
}
