// Clients of tenants that are served in other regions: what names the tenant early is passed on, byte for byte, and nothing else is.

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

// lane is a stream between two nodes of a test.
type lane struct {
	*net.TCPConn
	left chan struct{}
}

func (l *lane) Left() <-chan struct{} { return l.left }

func (l *lane) Abort() {
	_ = l.SetLinger(0)
	_ = l.Close()
}

// lanes lead to nodes, each of which is a function.
type lanes struct {
	t     *testing.T
	names []string
	serve func(node string, s *lane)

	mu      sync.Mutex
	running sync.WaitGroup
	asked   string // tenant and regions, last
}

func (l *lanes) Nodes(tenant string, regions []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = tenant + " in " + strings.Join(regions, ",")
	return l.names
}

func (l *lanes) Open(_ context.Context, node string) (Stream, error) {
	if node == "away" {
		return nil, errors.New("it does not answer")
	}
	near, far := sockets(l.t)
	l.running.Go(func() {
		defer far.Close()
		l.serve(node, &lane{far, make(chan struct{})})
	})
	return &lane{near, make(chan struct{})}, nil
}

// sockets are the two ends of a TCP connection.
func sockets(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// resident is a tenant that is served in region "there", and "here" is where the door is. Its address of Flycast's is fdaa:0:1::3.
func resident(t *testing.T, to *lanes) *door {
	t.Helper()
	d := newDoor(t)
	acme, _ := d.directory.Tenant("acme")
	conf := *acme
	conf.ID, conf.Residency.Ingress, conf.Flycast = "resident", []string{"there", "far"}, netip.MustParseAddr("fdaa:0:1::3")
	if err := d.directory.Put(&conf); err != nil {
		t.Fatal(err)
	}
	d.gate.opts.Region, d.gate.opts.TenantDomain = "here", "db.test"
	if to != nil {
		d.gate.opts.Streams = to
	}
	d.gate.opts.Listeners = []Listener{{Name: "plain"}}
	return d
}

// witness answers as a node that serves, and writes down what it has heard behind the header.
func witness(heard *bytes.Buffer, peer *proxyproto.Peer) func(string, *lane) {
	return func(node string, s *lane) {
		br := bufio.NewReader(s)
		p, listener, err := proxyproto.ReadPassed(br, netip.MustParseAddrPort("192.0.2.9:1"))
		if err != nil {
			heard.WriteString(err.Error())
			return
		}
		if node != "b" {
			_, _ = s.Write([]byte{answerDraining})
			_, _ = io.Copy(io.Discard, s)
			return
		}
		*peer = p
		heard.WriteString(listener + ": ")
		_, _ = s.Write([]byte{answerServed})
		_, _ = io.Copy(heard, br)
		_, _ = io.WriteString(s, "pong")
		_ = s.CloseWrite()
	}
}

// TestPassOn tells what is passed on of what names a tenant in plain text, and what is not.
func TestPassOn(t *testing.T) {
	plain := &Listener{Name: "plain"}
	header := &Listener{Name: "header", ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	mine := hello("user", "app.resident", "database", "app")
	flycast := "PROXY TCP6 2001:db8::7 fdaa:0:1::3 40000 5432\r\n"
	for _, c := range []struct {
		name   string
		at     *Listener
		nodes  string
		says   string
		passed string
		hears  string // in the words of spell, unless it is passed on: then it hears "pong"
		reason string
	}{
		{"a startup message", plain, "b", mine + "more", "plain: " + mine + "more", "", ""},
		{"behind a question for GSS", plain, "b", packet(pgwire.CodeGSSENC, ""), "", "N", ""},
		{"replication", plain, "b", hello("user", "app.resident", "replication", "true"), "plain: " + hello("user", "app.resident", "replication", "true"), "", ""},
		{"an unknown user", plain, "b", hello("user", "nobody.resident"), "plain: " + hello("user", "nobody.resident"), "", ""},
		{"nodes that do not take it, first", plain, "away draining b", mine, "plain: " + mine, "", ""},
		{"a destination", header, "b", flycast + hello("user", "app"), "header: " + hello("user", "app"), "", ""},
		{"a destination, and what is no startup message", header, "b", flycast + "\x16\x03\x01garbage", "header: \x16\x03\x01garbage", "", ""},
		{"nobody's node", plain, "", mine, "", "E57P03", "region"},
		{"nobody's node that takes it", plain, "away draining", mine, "", "E57P03", "region"},
		{"nobody's node, and a destination", header, "", flycast + mine, "", "", "region"},
		{"another tenant", plain, "b", hello("user", "app.acme"), "", "R", ""},
		{"two tenants", plain, "b", hello("user", "app.resident", "options", "reference=acme -c reference=resident"), "", "E08004", "tenant"},
		{"a cancel request", plain, "b", packet(pgwire.CodeCancel, "\x00\x00\x00\x01\x00\x00\x00\x02"), "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got bytes.Buffer
			var peer proxyproto.Peer
			to := &lanes{t: t, names: strings.Fields(c.nodes), serve: witness(&got, &peer)}
			d := resident(t, to)
			var heard []byte
			d.visit(c.at, func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.says)
				_ = conn.(*net.TCPConn).CloseWrite()
				heard, _ = io.ReadAll(conn)
			})
			to.running.Wait()
			if c.passed != "" {
				if got.String() != c.passed || string(heard) != "pong" {
					t.Errorf("passed on %q, heard %q", got.String(), heard)
				}
				client, destination := "127.0.0.1", "invalid AddrPort"
				if c.at == header {
					client, destination = "2001:db8::7", "[fdaa:0:1::3]:5432"
				}
				if peer.Client.Addr().String() != client || peer.Destination.String() != destination {
					t.Errorf("of %+v", peer)
				}
				if to.asked != "resident in there,far" {
					t.Errorf("asked for %s", to.asked)
				}
				eventually(t, "nobody is left", func() bool { return d.gate.clients.Load() == 0 })
			} else if got.Len() > 0 || spell(heard) != c.hears {
				t.Errorf("passed on %q, heard %q", got.String(), spell(heard))
			}
			want := map[string]int{}
			if c.reason != "" {
				want[c.reason] = 1
			}
			if got := d.refusals(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}

// TestPassOnTLS: a client that says by TLS's server name whom it wants has its handshake with the other node, whose certificate it sees; one that
// says it inside is told where to go.
func TestPassOnTLS(t *testing.T) {
	here, there := newIssuer(t, "here"), newIssuer(t, "there")
	of := func(i *issuer) *tls.Certificate {
		cert, key := i.issue(func(c *x509.Certificate) {
			c.ExtKeyUsage, c.DNSNames = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"resident.db.test", "acme.db.test"}
		})
		return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
	}
	own, theirs := of(here), of(there)
	var plaintext bytes.Buffer
	serve := func(_ string, s *lane) {
		br := bufio.NewReader(s)
		if _, _, err := proxyproto.ReadPassed(br, netip.MustParseAddrPort("192.0.2.9:1")); err != nil {
			t.Error(err)
			return
		}
		_, _ = s.Write([]byte{answerServed})
		if first, _ := br.Peek(1); first[0] != recordHandshake {
			if code, _, err := pgwire.ReadPacket(br); code != pgwire.CodeSSL || err != nil {
				t.Errorf("%d, %v", code, err)
			}
			_, _ = s.Write([]byte{'S'})
		}
		c := tls.Server(&readAhead{Conn: s, br: br, most: 1 << 20}, &tls.Config{Certificates: []tls.Certificate{*theirs}, NextProtos: []string{alpn}})
		_, _ = io.Copy(&plaintext, c)
		_, _ = io.WriteString(c, "pong")
		_ = c.Close()
	}
	for _, c := range []struct {
		name, server string
		direct       bool
		nodes        []string
		says         string
		hears        string
		by           *issuer // whose certificate it sees
	}{
		{"after asking", "resident.db.test", false, []string{"b"}, "ping", "pong", there},
		{"at once", "resident.db.test", true, []string{"b"}, "ping", "pong", there},
		{"in capitals", "RESIDENT.db.test", true, []string{"away", "b"}, "ping", "pong", there},
		{"inside", "", false, []string{"b"}, hello("user", "app.resident"), "E08004", here},
		{"inside, at once", "", true, []string{"b"}, hello("user", "app.resident"), "E08004", here},
		{"another tenant", "acme.db.test", true, []string{"b"}, hello("user", "app"), "R", here},
		{"nobody's node", "resident.db.test", false, nil, "ping", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			plaintext.Reset()
			to := &lanes{t: t, names: c.nodes, serve: serve}
			d := resident(t, to)
			d.gate.opts.Certificate = func(*tls.ClientHelloInfo) *tls.Certificate { return own }
			var heard []byte
			var handshake error
			d.visit(&Listener{Name: "plain"}, func(conn net.Conn) {
				if !c.direct {
					_, _ = io.WriteString(conn, packet(pgwire.CodeSSL, ""))
					if answer := make([]byte, 1); !read(conn, answer) || answer[0] != 'S' {
						t.Fatalf("answered %q", answer)
					}
				}
				conf := &tls.Config{ServerName: c.server, NextProtos: []string{alpn}, Time: func() time.Time { return certNow }}
				if conf.RootCAs = trusting(here.cert); c.by != nil {
					conf.RootCAs = trusting(c.by.cert)
				}
				conf.InsecureSkipVerify = c.server == ""
				s := tls.Client(conn, conf)
				if handshake = s.Handshake(); handshake != nil {
					return
				}
				_, _ = io.WriteString(s, c.says)
				_ = s.CloseWrite()
				heard, _ = io.ReadAll(s)
			})
			to.running.Wait()
			if (handshake != nil) != (c.by == nil) {
				t.Fatal(handshake)
			}
			if c.hears == "pong" {
				if plaintext.String() != c.says || string(heard) != "pong" {
					t.Errorf("passed on %q, heard %q", plaintext.String(), heard)
				}
			} else if spell(heard) != c.hears || plaintext.Len() > 0 {
				t.Errorf("passed on %q, heard %s", plaintext.String(), spell(heard))
			}
			if c.hears == "E08004" && !bytes.Contains(heard, []byte("HConnect to host resident.db.test, ")) {
				t.Errorf("the hint is missing in %q", heard)
			}
		})
	}
}

func read(from io.Reader, into []byte) bool {
	_, err := io.ReadFull(from, into)
	return err == nil
}

// TestWhoMayNotConnectHearsOfNoRegion: where the startup message names a tenant of other regions, bans and addresses are judged first, whether it would
// be passed on or told where to go.
func TestWhoMayNotConnectHearsOfNoRegion(t *testing.T) {
	network := netip.MustParsePrefix("203.0.113.0/24")
	ban := func(d *door) {
		d.gate.ApplyBan(Ban{Tenant: "resident", Address: netip.MustParsePrefix("127.0.0.1/32"), Left: time.Hour, Manual: true})
	}
	change := func(f func(*tenants.Tenant)) func(*door) {
		return func(d *door) {
			old, _ := d.directory.Tenant("resident")
			conf := *old
			f(&conf)
			if err := d.directory.Put(&conf); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		with  func(*door)
		hears string
	}{
		"nothing": {func(*door) {}, "E08004"},
		"a ban":   {ban, "E53400"},
		"another network": {change(func(conf *tenants.Tenant) {
			var err error
			if conf.Allow, err = netrestrict.Compile([]netip.Prefix{network}); err != nil {
				t.Fatal(err)
			}
		}), "E28000"},
		"no TLS": {change(func(conf *tenants.Tenant) { conf.RequireTLS = true }), "E28000"},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			to := &lanes{t: t, names: []string{"b"}, serve: witness(&got, new(proxyproto.Peer))}
			for _, streams := range []*lanes{nil, to} {
				d := resident(t, streams)
				c.with(d)
				var heard []byte
				d.visit(&Listener{Name: "plain"}, func(conn net.Conn) {
					_, _ = io.WriteString(conn, hello("user", "app.resident"))
					_ = conn.(*net.TCPConn).CloseWrite()
					heard, _ = io.ReadAll(conn)
				})
				to.running.Wait()
				switch passed := streams != nil && c.hears == "E08004"; {
				case passed && string(heard) != "pong":
					t.Errorf("it is passed on, and hears %q", heard)
				case !passed && (spell(heard) != c.hears || got.Len() > 0):
					t.Errorf("it hears %q, want %s; passed on was %q", heard, c.hears, got.String())
				case !passed && c.hears != "E08004" && bytes.Contains(heard, []byte("there")):
					t.Errorf("regions are in %q", heard)
				}
			}
		})
	}
}

// TestNotPassedOn: without other nodes, and for a client that another node has passed on, a tenant of other regions is refused.
func TestNotPassedOn(t *testing.T) {
	says := hello("user", "app.resident")
	alone := resident(t, nil)
	alone.gate.opts.TenantDomain = ""
	var heard []byte
	alone.visit(&Listener{Name: "plain"}, func(conn net.Conn) {
		_, _ = io.WriteString(conn, says)
		heard, _ = io.ReadAll(conn)
	})
	if spell(heard) != "E08004" || !bytes.Contains(heard, []byte("HConnect to a node in one of these regions: there, far.")) {
		t.Errorf("alone: %q", heard)
	}

	var got bytes.Buffer
	to := &lanes{t: t, names: []string{"b"}, serve: witness(&got, new(proxyproto.Peer))}
	d := resident(t, to)
	near, far := sockets(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		d.gate.Serve(t.Context(), "a", &lane{far, make(chan struct{})})
		far.Close()
	}()
	header, err := proxyproto.Header(proxyproto.Direct(netip.MustParseAddrPort("198.51.100.7:4")), "plain")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = near.Write(append(header, says...))
	_ = near.CloseWrite()
	heard, _ = io.ReadAll(near)
	<-served
	if len(heard) == 0 || heard[0] != answerServed || spell(heard[1:]) != "E08004" || got.Len() > 0 {
		t.Errorf("from a: %q, and b hears %q", heard, got.String())
	}
}

// TestRegionRevoked: a session ends when its tenant may not be served here any more.
func TestRegionRevoked(t *testing.T) {
	conf := &tenants.Tenant{ID: "acme", Users: map[string]*tenants.User{"app": {Name: "app"}}}
	at := func(region string) standing {
		return standing{peer: &proxyproto.Peer{}, region: region, user: "app", database: "app"}
	}
	if got := at("here").revoked(conf, time.Now()); got != "" {
		t.Error(got)
	}
	conf.Residency.Ingress = []string{"there"}
	if got := at("here").revoked(conf, time.Now()); got != "region_revoked" {
		t.Error(got)
	}
	if got := at("there").revoked(conf, time.Now()); got != "" {
		t.Error(got)
	}
}
