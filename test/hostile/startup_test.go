// The S rows: startup packets, requests for encryption, cancel requests. TLS itself is in tls_test.go.

package hostile

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// startupRow is a row that is refused before anybody is asked for a password.
func startupRow(id, name string, play func(*peer)) row {
	return row{id: id, name: name, play: play, moves: []string{refusal("startup")}}
}

// askedRow is a row in which acme, or who looks like it, asks for the password.
func askedRow(id, name, tenant string, pieces ...[]byte) row {
	r := row{id: id, name: name, play: asked(pieces...)}
	if tenant != "" {
		r.moves = []string{login(tenant, "aborted")}
	}
	return r
}

// wrongRow is a whole login that ends as a wrong password does, under this role's name.
func wrongRow(id, name, tenant, role string, startup []byte) row {
	r := row{id: id, name: name, play: func(p *peer) { p.t.Helper(); p.send(startup); p.wrongPassword(role) }}
	if tenant != "" {
		r.moves = []string{login(tenant, "failed")}
	} else {
		r.moves = []string{refusal("tenant")}
	}
	return r
}

func TestStartup(t *testing.T) {
	t.Parallel()
	user := []string{"user", "app.acme"}
	with := func(kv ...string) []byte { return startup(v30, append(user[:2:2], kv...)...) }
	many := user[:2:2]
	for i := range 900 {
		many = append(many, fmt.Sprintf("a%d", i), "1")
	}
	rows := []row{
		{id: "S01", name: "connect, then FIN", play: func(p *peer) {
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			p.fin()
		}},
		{id: "S01", name: "connect, then FIN, without a header", on: plain, play: func(p *peer) {
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			p.fin()
		}},
		startupRow("S04", "length 0", silent(be32(0))),
		startupRow("S05", "length 3", silent(be32(3))),
		startupRow("S06", "length 4", silent(be32(4))),
		startupRow("S07", "length 7", silent(be32(7), []byte("abc"))),
		startupRow("S08", "length 10005", silent(be32(10005), be32(v30))),
		startupRow("S09", "length 2 GiB - 1", silent(be32(0x7fffffff), be32(v30))),
		startupRow("S10", "length -1", silent(be32(0xffffffff), be32(v30))),
		startupRow("S11", "HTTP", silent([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))),
		startupRow("S12", "protocol 2.0", func(p *peer) {
			p.send(packet(2<<16, make([]byte, 288)))
			p.arm()
			const want = "EFATAL:  unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n\x00"
			if got, err := p.br.ReadString(0); got != want {
				p.t.Errorf("answer %q, %v; want %q, as protocol 2 has it", got, err, want)
			}
			p.fin()
		}),
		{id: "S13", name: "protocol 3.2", play: asked(startup(v32, user...)), moves: []string{login("acme", "aborted")}},
		negotiated("S13", "protocol 3.99", startup(3<<16|99, user...), v32),
		negotiated("S13", "protocol 3.9999", startup(3<<16|9999, user...), v32),
		negotiated("S13", "protocol 3.1, which never was", startup(3<<16|1, user...), v30),
		startupRow("S14", "protocol 4.0", refused("0A000", startup(4<<16, user...))),
		startupRow("S15", "protocol 1234.5681", refused("0A000", startup(1234<<16|5681, user...))),
		negotiated("S16", "_pq_ options", with("_pq_.foo", "1", "_pq_.bar", "2"), v30, "_pq_.foo", "_pq_.bar"),
		startupRow("S17", "no user", refused("28000", startup(v30, "database", "postgres"))),
		startupRow("S17", "nothing at all", refused("28000", startup(v30))),
		startupRow("S18", "empty user", refused("28000", startup(v30, "user", "", "database", "postgres"))),
		startupRow("S18", "a tenant and no user", refused("28000", startup(v30, "user", ".acme"))),
		startupRow("S19", "no final terminator", refused("08P01", packet(v30, pairs(user...)))),
		startupRow("S19", "no body", refused("08P01", packet(v30, nil))),
		startupRow("S20", "bytes behind the terminator", refused("08P01", packet(v30, append(append(pairs(user...), 0), "x"...)))),
		startupRow("S20", "another pair behind the terminator", refused("08P01", packet(v30, append(append(pairs(user...), 0), "user\x00root\x00\x00"...)))),
		startupRow("S21", "a name without a value", refused("08P01", packet(v30, append(pairs(user...), "database\x00"...)))),
		startupRow("S22", "two users", refused("08P01", with("user", "app.globex"))),
		startupRow("S22", "two databases", refused("08P01", with("database", "a", "database", "b"))),
		startupRow("S22", "two options", refused("08P01", with("options", "-c a.b=1", "options", "reference=globex"))),
		wrongRow("S23", "a user that is not UTF-8", "acme", "\xff\xfe", startup(v30, "user", "\xff\xfe.acme")),
		wrongRow("S24", "a user with a line break", "acme", "a\n{\"level\":\"ERROR\"}", startup(v30, "user", "a\n{\"level\":\"ERROR\"}.acme")),
		wrongRow("S24", "a user with an escape sequence", "acme", "\x1b[31mroot", startup(v30, "user", "\x1b[31mroot.acme")),
		wrongRow("S24", "a user with DEL and C1", "acme", "a\x7f\u009bb", startup(v30, "user", "a\x7f\u009bb.acme")),
		wrongRow("S24", "a tenant with an escape sequence", "", "app", startup(v30, "user", "app.\x1b[31m\x7f\n")),
		askedRow("S25", "900 parameters", "acme", startup(v30, many...)),
		wrongRow("S26", "a user of 300 characters", "acme", strings.Repeat("x", 300)[:63], startup(v30, "user", strings.Repeat("x", 300)+".acme")),
		wrongRow("S26", "app and more, to be cut off", "acme", ("app" + strings.Repeat(" ", 300))[:63], startup(v30, "user", "app"+strings.Repeat(" ", 300)+".acme")),
		wrongRow("S26", "a tenant of 300 characters", "", "app", startup(v30, "user", "app."+strings.Repeat("x", 300))),
		startupRow("S27", "replication=bogus", refused("22023", with("replication", "bogus"))),
		askedRow("S27", "replication=true", "acme", with("replication", "true")),
		askedRow("S27", "replication=database", "acme", with("replication", "database")),
		askedRow("S28", "options with search_path", "acme", with("options", "-c search_path=evil")),
		askedRow("S28", "options with role", "acme", with("options", "-c role=postgres")),
		startupRow("S28", "a switch that is none of ours", refused("0A000", with("options", "-f s"))),
		startupRow("S28", "-c and nothing", refused("42601", with("options", "-c"))),
		{id: "S28", name: "two references", play: refused("08004", with("options", "reference=acme project=globex")), moves: []string{refusal("tenant")}},
		askedRow("S29", "an unknown setting", "acme", with("no_such_setting", "1")),
		askedRow("S30", "a database that does not exist", "acme", with("database", "no_such_database")),
		wrongRow("S31", "a user that does not exist", "acme", "ghost", startup(v30, "user", "ghost.acme")),
		wrongRow("S31", "a tenant that does not exist", "", "app", startup(v30, "user", "app.ghost")),
		wrongRow("S32", "the console's database", "acme", "app", with("database", "postern")),
		wrongRow("S32", "the console's old database", "acme", "app", with("database", "pgbouncer")),

		startupRow("S33", "SSLRequest and a plaintext startup", refused("08P01", join(sslRequest, appStartup()))),
		startupRow("S34", "SSLRequest twice at once", refused("08P01", join(sslRequest, sslRequest))),
		startupRow("S34", "SSLRequest twice", func(p *peer) {
			p.send(sslRequest)
			p.byteAnswer('S')
			p.send(sslRequest)
			p.arm()
			_, _ = p.br.ReadByte() // crypto/tls may send an alert record first
			for p.br.Buffered() > 0 {
				_, _ = p.br.ReadByte()
			}
			p.silence()
		}),
		startupRow("S34", "SSLRequest with a body", refused("0A000", packet(codeSSL, []byte("x")))),
		{id: "S36", name: "GSSENCRequest, then plaintext", play: func(p *peer) {
			p.send(gssRequest)
			p.byteAnswer('N')
			p.send(appStartup())
			p.auth(10)
		}, moves: []string{login("acme", "aborted")}},
		startupRow("S37", "GSSENCRequest twice", func(p *peer) {
			p.send(gssRequest)
			p.byteAnswer('N')
			p.send(gssRequest)
			p.fatal("0A000")
		}),
		startupRow("S37", "GSSENCRequest in vain, for ever", func(p *peer) {
			for range 100 {
				p.send(gssRequest)
			}
			p.arm()
			if b, _ := p.br.Peek(1); len(b) == 1 && b[0] == 'N' { // the segments came one by one
				_, _ = p.br.ReadByte()
				p.fatal("0A000")
				return
			}
			p.fatal("08P01") // they came together
		}),
		startupRow("S38", "GSSENCRequest and a plaintext startup", refused("08P01", join(gssRequest, appStartup()))),

		{id: "S42", name: "cancel without a key", play: silent(packet(codeCancel, nil)), moves: []string{cancel("unknown")}},
		{id: "S42", name: "cancel with a key of 3 bytes", play: silent(packet(codeCancel, make([]byte, 7))), moves: []string{cancel("unknown")}},
		{id: "S42", name: "cancel with a key of 8 bytes", play: silent(packet(codeCancel, make([]byte, 12))), moves: []string{cancel("unknown")}},
		{id: "S42", name: "cancel with a key of 256 bytes", play: silent(packet(codeCancel, make([]byte, 260))), moves: []string{cancel("unknown")}},
		{id: "S42", name: "cancel with a key of 257 bytes", play: silent(packet(codeCancel, make([]byte, 261))), moves: []string{cancel("unknown")}},
		{id: "S44", name: "cancel with a key that nobody has", play: silent(packet(codeCancel, []byte("\x12\x34\x56\x78keys"))), moves: []string{cancel("unknown")}},
		{id: "S45", name: "startup byte by byte", play: func(p *peer) {
			for _, b := range appStartup() {
				p.send([]byte{b})
			}
			p.auth(10)
		}, moves: []string{login("acme", "aborted")}},
		{id: "S50", name: "TLS required, and none asked for", play: refused("28000", startup(v30, "user", "app.secure")), moves: []string{refusal("tls")}},
		{id: "S50", name: "TLS required, and an unknown user", play: refused("28000", startup(v30, "user", "ghost.secure")), moves: []string{refusal("tls")}},
		{id: "S46", name: "no tenant named", play: refused("08004", startup(v30, "user", "app")), moves: []string{refusal("tenant")}},
		{id: "S46", name: "a dot and no tenant", play: refused("08004", startup(v30, "user", "app.")), moves: []string{refusal("tenant")}},
	}
	g := startGate(t, gateOptions{})
	g.guard(t, 0, func() { g.run(t, rows) })
}

// negotiated is a startup that is answered with the protocol version and the options that will not do.
func negotiated(id, name string, startup []byte, version uint32, options ...string) row {
	return row{id: id, name: name, moves: []string{login("acme", "aborted")}, play: func(p *peer) {
		p.t.Helper()
		p.send(startup)
		got, want := p.want("v"), join(be32(version), be32(uint32(len(options))), pairs(options...))
		if string(got) != string(want) {
			p.t.Errorf("NegotiateProtocolVersion %q, want %q", got, want)
		}
		p.auth(10)
	}}
}

// TestStartupWithoutTLS is what a gate answers that has no certificate.
func TestStartupWithoutTLS(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{withoutTLS: true})
	g.guard(t, 0, func() {
		g.run(t, []row{
			{id: "S33", name: "SSLRequest, N, startup", moves: []string{login("acme", "aborted")}, play: func(p *peer) {
				p.send(sslRequest)
				p.byteAnswer('N')
				p.send(appStartup())
				p.auth(10)
			}},
			startupRow("S33", "SSLRequest and a plaintext startup", refused("08P01", join(sslRequest, appStartup()))),
			startupRow("S34", "SSLRequest twice", func(p *peer) {
				p.send(sslRequest)
				p.byteAnswer('N')
				p.send(sslRequest)
				p.fatal("0A000")
			}),
			startupRow("S39", "direct TLS", silent([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))),
			{id: "S50", name: "TLS required, N, cleartext all the same", moves: []string{refusal("tls")}, play: func(p *peer) {
				p.send(sslRequest)
				p.byteAnswer('N')
				p.send(startup(v30, "user", "app.secure"))
				p.fatal("28000")
			}},
			{id: "S36", name: "GSSENCRequest, N, SSLRequest, N, startup", moves: []string{login("acme", "aborted")}, play: func(p *peer) {
				p.send(gssRequest)
				p.byteAnswer('N')
				p.send(sslRequest)
				p.byteAnswer('N')
				p.send(appStartup())
				p.auth(10)
			}},
		})
	})
}

// TestCancelByAddress is S44 with a key that somebody has: it works for whom the session's tenant lets in, nobody is told
// anything, and require_tls is no matter, since older clients cancel in plaintext.
func TestCancelByAddress(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{timeouts: brief})
	g.guard(t, 2, func() {
		friend, stranger := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("198.51.100.7:40000")
		p := g.connect(t, friend)
		p.send(startup(v32, "user", "app.walled"))
		p.prove(&scramClient{password: canaryRight})
		key := p.until('K')
		p.until('Z')
		if len(key) != 4+32 || key[0]&0x80 != 0 {
			t.Errorf("key of %d bytes, sign bit %#x", len(key), key[0]&0x80)
		}
		wrong := slices.Clone(key)
		wrong[len(wrong)-1] ^= 1
		for _, c := range []struct {
			from  netip.AddrPort
			key   []byte
			moves []string
		}{
			{stranger, key, []string{cancel("refused"), refusal("address")}},
			{friend, wrong, []string{cancel("unknown")}},
			{friend, key[:len(key)-1], []string{cancel("unknown")}},
			{friend, key[:8], []string{cancel("unknown")}},
			{friend, key, []string{cancel("idle")}},
		} {
			before := counters(g.Metrics(t))
			k := g.connect(t, c.from)
			k.send(packet(codeCancel, c.key))
			k.silence()
			g.moved(t, before, append(c.moves, header("ok"))...)
		}
		p.selectOne() // nothing of that concerned it
		p.quit()
	})
}

// TestCancelKeysAreNotGuessed is the rest of S44: whoever tries many keys is not heard any more, and others are.
func TestCancelKeysAreNotGuessed(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateOptions{})
	guesser, other := netip.MustParseAddrPort("10.0.0.1:40000"), netip.MustParseAddrPort("10.0.0.2:40000")
	p := g.connect(t, other)
	p.send(startup(v32, "user", "app.walled"))
	p.prove(&scramClient{password: canaryRight})
	key := p.until('K')
	p.until('Z')
	wrong := slices.Clone(key)
	wrong[len(wrong)-1] ^= 1
	try := func(from netip.AddrPort, key []byte) {
		k := g.connect(t, from)
		k.send(packet(codeCancel, key))
		k.silence()
	}
	for range 100 {
		try(guesser, wrong)
	}
	before := counters(g.Metrics(t))
	try(guesser, key)
	g.moved(t, before, cancel("limit"), header("ok"))
	before = counters(g.Metrics(t))
	try(other, key)
	g.moved(t, before, cancel("idle"), header("ok"))
	p.selectOne()
	p.quit()
}
