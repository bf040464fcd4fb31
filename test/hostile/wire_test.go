// The hostile client: bytes out, messages in, and how the connection ended.

package hostile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// patience is how long an answer or an end may take, on a computer that is busy with other things. It is far below the
// time-outs of the gates under test, so that a connection that is merely left to run into one counts as hanging. Where a
// time-out is what is tested, it is shorter.
const patience = 30 * time.Second

// peer is one connection of a client to the gate.
type peer struct {
	t testing.TB
	net.Conn
	br *bufio.Reader
}

// send writes each piece by itself. The gate may have closed already: what it answered is judged, not this.
func (p *peer) send(pieces ...[]byte) {
	for _, b := range pieces {
		_, _ = p.Write(b)
	}
}

// byteAnswer reads the one-byte answer to a request for encryption.
func (p *peer) byteAnswer(want byte) {
	p.t.Helper()
	p.arm()
	if got, err := p.br.ReadByte(); err != nil || got != want {
		p.t.Fatalf("answer to a request for encryption: %q, %v; want %q", got, err, want)
	}
}

func (p *peer) arm() { _ = p.SetReadDeadline(time.Now().Add(patience)) }

// message reads one message.
func (p *peer) message() (kind byte, body []byte, err error) {
	p.arm()
	var head [5]byte
	if _, err := io.ReadFull(p.br, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > 1<<20 {
		return 0, nil, errors.New("a message of impossible length")
	}
	body = make([]byte, n-4)
	_, err = io.ReadFull(p.br, body)
	return head[0], body, err
}

// want reads messages of the given kinds and returns the last one's body.
func (p *peer) want(kinds string) (body []byte) {
	p.t.Helper()
	for _, k := range []byte(kinds) {
		kind, b, err := p.message()
		if err != nil {
			p.t.Fatalf("waiting for %q: %v", k, err)
		}
		if kind != k {
			p.t.Fatalf("message %q %q, want %q", kind, b, k)
		}
		body = b
	}
	return body
}

// until reads messages until one of the given kind.
func (p *peer) until(kind byte) (body []byte) {
	p.t.Helper()
	for {
		k, b, err := p.message()
		switch {
		case err != nil:
			p.t.Fatalf("waiting for %q: %v", kind, err)
		case k == kind:
			return b
		case k == 'E':
			p.t.Fatalf("waiting for %q: error %v", kind, fields(b))
		}
	}
}

// auth reads one authentication request and checks its kind (10: SASL, 11: challenge, 12: the server's proof, 0: ok).
func (p *peer) auth(code uint32) (data []byte) {
	p.t.Helper()
	kind, body, err := p.message()
	if err != nil {
		p.t.Fatalf("waiting for authentication request %d: %v", code, err)
	}
	if kind == 'E' {
		p.t.Fatalf("waiting for authentication request %d: error %v", code, fields(body))
	}
	if kind != 'R' || len(body) < 4 || binary.BigEndian.Uint32(body) != code {
		p.t.Fatalf("message %q %q, want authentication request %d", kind, body, code)
	}
	return body[4:]
}

// fatal reads a FATAL error with this SQLSTATE, and an orderly end behind it: FIN, never RST, which would destroy an
// answer that the client has not read yet.
func (p *peer) fatal(code string) map[byte]string {
	p.t.Helper()
	e := fields(p.want("E"))
	if e['C'] != code || e['S'] != "FATAL" || e['V'] != "FATAL" {
		p.t.Fatalf("error %v, want FATAL %s", e, code)
	}
	p.fin()
	return e
}

// fin waits for an orderly end without another byte.
func (p *peer) fin() {
	p.t.Helper()
	p.arm()
	if b, err := p.br.ReadByte(); err != io.EOF {
		p.t.Fatalf("read %q, %v; want the end of the connection", b, err)
	}
}

// silence waits for the end of the connection without a byte. Where nothing is said, nothing can be lost by a reset.
func (p *peer) silence() {
	p.t.Helper()
	p.arm()
	if b, err := p.br.ReadByte(); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
		p.t.Fatalf("read %q, %v; want the end of the connection", b, err)
	}
}

// fields splits an ErrorResponse.
func fields(body []byte) map[byte]string {
	out := make(map[byte]string)
	for len(body) > 1 && body[0] != 0 {
		value, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok {
			break
		}
		out[body[0]] = string(value)
		body = rest
	}
	return out
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// join concatenates pieces into one segment.
func join(pieces ...[]byte) []byte { return bytes.Join(pieces, nil) }

// message builds a message of a kind.
func message(kind byte, body []byte) []byte {
	return join([]byte{kind}, be32(uint32(len(body)+4)), body)
}

// claimed builds a message that lies about its length.
func claimed(kind byte, length uint32, body []byte) []byte {
	return join([]byte{kind}, be32(length), body)
}

func query(text string) []byte { return message('Q', []byte(text+"\x00")) }

// packet builds a startup-phase packet.
func packet(code uint32, body []byte) []byte {
	return join(be32(uint32(len(body)+8)), be32(code), body)
}

const (
	v30        = 3 << 16
	v32        = 3<<16 | 2
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

var (
	sslRequest = packet(codeSSL, nil)
	gssRequest = packet(codeGSS, nil)
	terminate  = message('X', nil)
)

// pairs encodes names and values, each with its terminator, and none behind them.
func pairs(kv ...string) []byte {
	if len(kv) == 0 {
		return nil
	}
	return []byte(strings.Join(kv, "\x00") + "\x00")
}

// startup builds a well-formed startup message.
func startup(code uint32, kv ...string) []byte {
	return packet(code, append(pairs(kv...), 0))
}

// appStartup is what the good user of tenant acme sends.
func appStartup() []byte { return startup(v30, "user", "app.acme", "database", "postgres") }

// freshClient is a client address that nobody had before, so that no row inherits another's failed logins.
func (g *gate) freshClient() netip.AddrPort {
	n := g.clients.Add(1)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18 + byte(n>>16&1), byte(n >> 8), byte(n)}), 40000)
}

// dial connects to a listener and sends nothing.
func (g *gate) dial(t testing.TB, listener string) *peer {
	t.Helper()
	return dialTo(t, g.Addr(t, listener))
}

// dialTo is a client of anybody's.
func dialTo(t testing.TB, address string) *peer {
	t.Helper()
	c, err := net.DialTimeout("tcp4", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peer{t: t, Conn: c, br: bufio.NewReader(c)}
}

// connect is dial behind a header that names this client.
func (g *gate) connect(t testing.TB, client netip.AddrPort) *peer {
	t.Helper()
	p := g.dial(t, behindProxy)
	p.send(harness.V2(client, somewhere(client)))
	return p
}

// login is a session of user app of a tenant, ready for queries.
func (g *gate) login(t testing.TB, tenant string, client netip.AddrPort) *peer {
	t.Helper()
	p := g.connect(t, client)
	p.send(startup(v30, "user", "app."+tenant, "database", "postgres"))
	p.prove(&scramClient{password: canaryRight})
	p.until('Z')
	return p
}

// selectOne asks the simplest question.
func (p *peer) selectOne() {
	p.t.Helper()
	p.send(query("select 1"))
	p.want("TDCZ")
}

// quit ends a session in order.
func (p *peer) quit() {
	p.t.Helper()
	p.send(terminate)
	p.fin()
}
