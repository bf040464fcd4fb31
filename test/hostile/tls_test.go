// The S rows that need TLS.

package hostile

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// config is a client's that is in order: it knows the certificate and says what it speaks.
func (g *gate) config(serverName string) *tls.Config {
	return &tls.Config{RootCAs: g.roots, ServerName: serverName, NextProtos: []string{"postgresql"}}
}

// anyName is for server names that no certificate is for; only what the gate makes of them matters.
func anyName(serverName string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: serverName, NextProtos: []string{"postgresql"}}
}

// secure does the TLS handshake over what the peer has, and returns the peer inside.
func (p *peer) secure(c *tls.Config) (*peer, error) {
	session := tls.Client(p.Conn, c)
	_ = session.SetDeadline(time.Now().Add(patience))
	if err := session.Handshake(); err != nil {
		return nil, err
	}
	_ = session.SetDeadline(time.Time{})
	return over(p, session), nil
}

// over is the peer with something between it and its socket.
func over(p *peer, c net.Conn) *peer { return &peer{t: p.t, Conn: c, br: bufio.NewReader(c)} }

// direct begins with TLS at once.
func direct(c *tls.Config, play func(*peer)) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		inside, err := p.secure(c)
		if err != nil {
			p.t.Fatal(err)
		}
		play(inside)
	}
}

// requested asks for TLS first, in whatever pieces come before it.
func requested(c *tls.Config, play func(*peer)) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(sslRequest)
		p.byteAnswer('S')
		direct(c, play)(p)
	}
}

// fails is a TLS handshake that the gate refuses with this alert.
func fails(c *tls.Config, alert string) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		_, err := p.secure(c)
		if err == nil || !strings.Contains(err.Error(), alert) {
			p.t.Errorf("handshake: %v; want %s", err, alert)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	good := g.config("postern.test")
	without := g.config("postern.test")
	without.NextProtos = nil
	speaks := func(protocols ...string) *tls.Config {
		c := g.config("postern.test")
		c.NextProtos = protocols
		return c
	}
	upTo := func(low, high uint16, suites ...uint16) *tls.Config {
		c := g.config("postern.test")
		c.MinVersion, c.MaxVersion, c.CipherSuites = low, high, suites
		return c
	}
	aborted := []string{login("acme", "aborted")}
	ask := asked(appStartup())
	byName := asked(startup(v30, "user", "app"))
	noTenant := refused("08004", startup(v30, "user", "app"))
	routed := func(id, name, sni string) row {
		return row{id: id, name: name, play: requested(anyName(sni), byName), moves: aborted}
	}
	lost := func(id, name, sni string) row {
		return row{id: id, name: name, play: requested(anyName(sni), noTenant), moves: []string{refusal("tenant")}}
	}
	rows := []row{
		{id: "S33b", name: "SSLRequest, S, TLS", play: requested(good, ask), moves: aborted},
		{id: "S33b", name: "SSLRequest, S, TLS without ALPN", play: requested(without, ask), moves: aborted},
		{id: "S33b", name: "SSLRequest and ClientHello in one segment", moves: aborted, play: func(p *peer) {
			direct(good, ask)(over(p, &pipelined{Conn: p.Conn}))
		}},
		{id: "P04", name: "header, SSLRequest and ClientHello in one segment", on: behindProxy, moves: []string{header("ok"), login("acme", "aborted")}, play: func(p *peer) {
			direct(good, ask)(over(p, &pipelined{Conn: p.Conn, ahead: v2From(g.freshClient())}))
		}},
		startupRow("S35", "SSLRequest inside TLS", requested(good, refused("0A000", sslRequest))),
		startupRow("S35", "SSLRequest inside direct TLS", direct(good, refused("0A000", sslRequest))),
		startupRow("S35", "GSSENCRequest inside TLS", requested(good, refused("0A000", gssRequest))),
		{id: "S36", name: "GSSENCRequest, N, SSLRequest, S, TLS", moves: aborted, play: func(p *peer) {
			p.send(gssRequest)
			p.byteAnswer('N')
			requested(good, ask)(p)
		}},
		startupRow("S34", "TLS inside TLS", requested(good, silent([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")))),
		{id: "S39", name: "direct TLS", play: direct(good, ask), moves: aborted},
		startupRow("S39", "direct TLS without ALPN", fails(without, "remote error: tls:")),
		startupRow("S40", "direct TLS with ALPN h2", fails(speaks("h2"), "no application protocol")),
		startupRow("S40", "direct TLS with ALPN http/1.1", fails(speaks("http/1.1"), "no application protocol")),
		{id: "S40", name: "direct TLS with ALPN h2 and postgresql", play: direct(speaks("h2", "postgresql"), ask), moves: aborted},
		startupRow("S40", "asked-for TLS with ALPN h2", after(sslRequest, func(p *peer) {
			p.byteAnswer('S')
			fails(speaks("h2"), "no application protocol")(p)
		})),
		{id: "S44", name: "cancel inside TLS", play: requested(good, silent(packet(codeCancel, make([]byte, 8)))), moves: []string{cancel("unknown")}},

		routed("S46", "SNI names the tenant", "acme.db.example.com"),
		routed("S46", "SNI names the tenant, in capitals", "ACME.DB.Example.COM"),
		{id: "S46", name: "SNI and the user name the same tenant", play: requested(anyName("acme.db.example.com"), ask), moves: aborted},
		{id: "S46", name: "SNI and the user name different tenants", play: requested(anyName("globex.db.example.com"), refused("08004", appStartup())), moves: []string{refusal("tenant")}},
		{id: "S46", name: "SNI and options name different tenants", moves: []string{refusal("tenant")},
			play: requested(anyName("globex.db.example.com"), refused("08004", startup(v30, "user", "app", "options", "reference=acme")))},
		{id: "S46", name: "direct TLS, SNI and the user name different tenants", play: direct(anyName("globex.db.example.com"), refused("08004", appStartup())), moves: []string{refusal("tenant")}},
		lost("S47", "SNI elsewhere", "acme.db.example.org"),
		lost("S47", "SNI is the domain", "db.example.com"),
		lost("S47", "SNI two labels below the domain", "10.acme.db.example.com"),
		lost("S47", "SNI ends like the domain", "acmedb.example.com"),
		lost("S47", "no SNI", ""),
		lost("S47", "SNI of 255 characters", strings.Repeat("a.", 120)+"db.example.com"),
		lost("S47", "SNI that is not ASCII", "acm\xc3\xa9.example.com"),
		{id: "S47", name: "SNI elsewhere, and the user names a tenant", play: requested(anyName("acme.db.example.org"), ask), moves: aborted},
		{id: "S47", name: "SNI of an unknown tenant", moves: []string{refusal("tenant")}, play: requested(anyName("ghost.db.example.com"), func(p *peer) {
			p.send(startup(v30, "user", "app"))
			p.wrongPassword("app")
		})},

		startupRow("S48", "TLS 1.0", fails(upTo(tls.VersionTLS10, tls.VersionTLS10), "protocol version")),
		startupRow("S48", "TLS 1.1", fails(upTo(tls.VersionTLS10, tls.VersionTLS11), "protocol version")),
		{id: "S48", name: "TLS 1.2", play: direct(upTo(tls.VersionTLS12, tls.VersionTLS12), ask), moves: aborted},
		{id: "S48", name: "TLS 1.3", play: direct(upTo(tls.VersionTLS13, tls.VersionTLS13), ask), moves: aborted},
		startupRow("S48", "RC4 and 3DES only", fails(upTo(tls.VersionTLS12, tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), "handshake failure")),
		startupRow("S48", "ClientHello that claims 16 MiB", alerted([]byte("\x16\x03\x01\x00\x04\x01\xff\xff\xff"))),
		startupRow("S48", "record that claims 64 KiB", alerted([]byte("\x16\x03\x01\xff\xff\x01"))),
		startupRow("S48", "not a ClientHello", alerted([]byte("\x16\x03\x03\x00\x04\x0e\x00\x00\x00"))),
		startupRow("S48", "ClientHello of zeros", alerted(join([]byte("\x16\x03\x01\x00\x44\x01\x00\x00\x40"), make([]byte, 64)))),
		{id: "S48", name: "ClientHello of 16 KiB", play: direct(speaks(slices.Concat([]string{"postgresql"}, slices.Repeat([]string{strings.Repeat("x", 200)}, 80))...), ask), moves: aborted},
		{id: "S48", name: "ClientHello in records of 1 byte", moves: aborted, play: func(p *peer) {
			direct(good, ask)(over(p, &fragmented{Conn: p.Conn}))
		}},
		startupRow("S48", "plaintext inside TLS's stream", func(p *peer) {
			inside, err := p.secure(good)
			if err != nil {
				p.t.Fatal(err)
			}
			p.send(appStartup()) // past the TLS session
			inside.arm()
			if _, err := inside.br.ReadByte(); err == nil {
				p.t.Error("answered")
			}
		}),
		{id: "S50", name: "TLS required, and there", play: requested(good, asked(startup(v30, "user", "app.secure"))), moves: []string{login("secure", "aborted")}},
	}
	g.guard(t, 0, func() { g.run(t, rows) })
}

// alerted sends what TLS cannot make sense of: an alert record may come back, nothing else, and then the end.
func alerted(b []byte) func(*peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send(b)
		_ = p.Conn.(*net.TCPConn).CloseWrite()
		p.arm()
		if got, err := io.ReadAll(p.br); len(got) > 0 && got[0] != 0x15 || errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Errorf("answer %q, %v", got, err)
		}
	}
}

// pipelined sends a request for TLS, and whatever belongs ahead of it, in one segment with the ClientHello, and takes
// the answer out of what comes back.
type pipelined struct {
	net.Conn
	ahead          []byte
	asked, granted bool
}

func (c *pipelined) Write(b []byte) (int, error) {
	if c.asked {
		return c.Conn.Write(b)
	}
	c.asked = true
	if _, err := c.Conn.Write(join(c.ahead, sslRequest, b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *pipelined) Read(b []byte) (int, error) {
	if !c.granted {
		var answer [1]byte
		if _, err := io.ReadFull(c.Conn, answer[:]); err != nil {
			return 0, err
		}
		if answer[0] != 'S' {
			return 0, errors.New("no S")
		}
		c.granted = true
	}
	return c.Conn.Read(b)
}

// fragmented cuts the first record it is given into records of one byte each.
type fragmented struct {
	net.Conn
	done bool
}

func (c *fragmented) Write(b []byte) (int, error) {
	if c.done || len(b) < 5 {
		return c.Conn.Write(b)
	}
	c.done = true
	n := int(binary.BigEndian.Uint16(b[3:])) + 5
	var out bytes.Buffer
	for _, one := range b[5:n] {
		out.Write([]byte{b[0], b[1], b[2], 0, 1, one})
	}
	out.Write(b[n:])
	if _, err := c.Conn.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// TestTLSResumption is S49: no session made under one tenant's name opens another's, because there is none to resume.
func TestTLSResumption(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cache := &tickets{}
			for _, sni := range []string{"acme.db.example.com", "acme.db.example.com", "globex.db.example.com"} {
				c := g.config(sni)
				c.MaxVersion, c.ClientSessionCache = version, cache
				p := g.connect(t, g.freshClient())
				inside, err := p.secure(c)
				if err != nil {
					t.Fatal(err)
				}
				inside.send(startup(v30, "user", "app"))
				inside.auth(10) // by now a ticket would have come
				if inside.Conn.(*tls.Conn).ConnectionState().DidResume {
					t.Errorf("%s resumed a session", sni)
				}
				p.Close()
			}
			if cache.put > 0 {
				t.Errorf("S49: %d tickets in %s", cache.put, tls.VersionName(version))
			}
		}
	})
}

// tickets hands whatever session it has to whoever asks.
type tickets struct {
	put  int
	last *tls.ClientSessionState
}

func (c *tickets) Get(string) (*tls.ClientSessionState, bool) { return c.last, c.last != nil }

func (c *tickets) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		c.put, c.last = c.put+1, s
	}
}
