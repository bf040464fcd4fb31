// Messages in pieces: split at every byte, both ways; and servers that die or say too much in the middle.

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a gate without listeners, whose clients and servers are sockets
// that the test holds the other ends of.
type bench struct {
	t      *testing.T
	gate   *Gate
	tenant *tenant
	tcp    bool // sockets are such, with small buffers
}

func newBench(t *testing.T, change ...func(*Options)) *bench {
	t.Helper()
	conf := &tenants.Tenant{ID: "acme", Database: "app", Users: map[string]*tenants.User{"app": {Name: "app", ServerUser: "app"}},
		Pool: tenants.Pool{Size: 2, MaxClients: 100, MaxServers: 2}}
	log := slog.New(slog.DiscardHandler)
	directory, err := tenants.NewDirectory(conf)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Listeners: []Listener{{Name: "a", Network: "tcp4", Address: "127.0.0.1:0"}}, Directory: directory, Log: log, Registerer: prometheus.NewRegistry(), Loops: 1,
		Timeouts: Timeouts{Login: time.Second, ServerConnect: time.Second},
		Session:  tenants.Timeouts{QueryWait: new(10 * time.Second)}, Limits: Limits{Clients: 1000, Handshakes: 10}}
	for _, c := range change {
		c(&o)
	}
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	g.freshFor = time.Hour // servers are not asked what is new, unless a test wants it
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return &bench{t: t, gate: g, tenant: g.tenant("acme")}
}

// pair returns a non-blocking descriptor for a loop and the test's end of it.
func (b *bench) pair() (fd int, conn net.Conn) {
	b.t.Helper()
	if b.tcp {
		return b.tcpPair()
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		b.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "")
	conn, err = net.FileConn(f)
	f.Close()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	return fds[0], &far{conn, b}
}

// far is the test's end of a connection. All that could answer is in this
// process, so a read need not wait for what cannot come any more.
type far struct {
	net.Conn
	bench *bench
}

// restFor is how long a loop with nothing to do may still have something to
// say: what the gate does by the clock, or in a goroutine, it does by then.
const restFor = 4 * sweepPeriod

// errSilent is instead of waiting: the loop has dealt with everything.
var errSilent = errors.New("nothing comes any more")

// Read fails once the loop has been at rest for a while.
func (f *far) Read(p []byte) (n int, err error) {
	for at := time.Now(); ; f.bench.settle() {
		if time.Since(at) > restFor {
			return f.now(p)
		}
		_ = f.SetReadDeadline(time.Now().Add(sweepPeriod / 10))
		if n, err = f.Conn.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// now reads what is here.
func (f *far) now(p []byte) (n int, err error) {
	_ = f.SetReadDeadline(time.Time{}) // one that has passed hides what is here
	raw, err := f.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), p)
		return true
	}); e != nil {
		return 0, e
	}
	switch {
	case err == unix.EAGAIN:
		return 0, errSilent
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// silent fails if anything has been said to conn.
func (b *bench) silent(conn net.Conn, what string) {
	b.t.Helper()
	b.settle()
	one := make([]byte, 1)
	if n, err := conn.(*far).now(one); err != errSilent {
		b.t.Fatalf("%s: %q, %v", what, one[:n], err)
	}
}

func (b *bench) tcpPair() (fd int, conn net.Conn) {
	b.t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	defer ln.Close()
	conn, err = net.Dial("tcp4", ln.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	other, err := ln.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	_ = other.(*net.TCPConn).SetWriteBuffer(64 << 10)
	_ = other.(*net.TCPConn).SetReadBuffer(200 << 10)
	fd, err = loop.Detach(other.(*net.TCPConn))
	if err != nil {
		b.t.Fatal(err)
	}
	return fd, conn
}

// server gives the pool of the only user a server.
func (b *bench) server() net.Conn {
	conn, done := b.dialing()
	done()
	return conn
}

// dialing begins to dial a server for that pool, which ends with done.
func (b *bench) dialing() (conn net.Conn, done func()) {
	fd, conn := b.pair()
	t := b.tenant
	s := &server{tenant: t, loop: t.loop}
	t.loop.Call(func() {
		s.pool = t.pool(poolKey{"app", "app"})
		s.books.Owner = s
		t.servers[s] = struct{}{}
		s.pool.books.StartDial(&s.books, t.loop.Now())
	})
	return conn, func() {
		t.loop.Call(func() {
			t.dialed(s, &backend.Conn{PID: 1, Parameters: []pgwire.Param{{Name: "TimeZone", Value: "UTC"}}}, fd, nil)
		})
	}
}

// conf is the tenant's configuration.
func (b *bench) conf() *tenants.Tenant {
	conf, _ := b.gate.opts.Directory.Tenant("acme")
	return conf
}

// client returns a session that has been greeted.
func (b *bench) client(mode poolMode) net.Conn {
	b.t.Helper()
	return b.greeted(b.arrives(mode))
}

// arrives returns a session that has proven its password, with startup parameters.
func (b *bench) arrives(mode poolMode, list ...pgwire.Param) net.Conn {
	b.t.Helper()
	return b.arrivesFrom(proxyproto.Direct(netip.MustParseAddrPort("192.0.2.1:1")), mode, list...)
}

func (b *bench) arrivesFrom(peer proxyproto.Peer, mode poolMode, list ...pgwire.Param) net.Conn {
	b.t.Helper()
	fd, conn := b.pair()
	t := b.tenant
	conf := b.conf()
	at := place{"app", "app"}
	if err := b.gate.reserve(context.Background(), t, conf, at); err != nil {
		b.t.Fatal(err)
	}
	c := &client{tenant: t, place: at, peer: peer, database: "app", mode: mode, started: time.Now(),
		listener: &b.gate.opts.Listeners[0], id: b.gate.ids.Add(1)}
	t.loop.Call(func() { t.admit(c, fd, handover{key: poolKey{"app", "app"}, params: list}) })
	return conn
}

// greeted reads a session's greeting.
func (b *bench) greeted(conn net.Conn) net.Conn {
	b.t.Helper()
	for {
		typ, body := readMessage(b.t, conn)
		if typ == pgwire.ErrorResponse {
			b.t.Fatal(pgwire.ParseError(body))
		}
		if typ == pgwire.ReadyForQuery {
			return conn
		}
	}
}

func readMessage(t *testing.T, r io.Reader) (typ byte, body []byte) {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal(err)
	}
	body = make([]byte, int(head[1])<<24|int(head[2])<<16|int(head[3])<<8|int(head[4])-4)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	return head[0], body
}

// split writes b in two pieces and has the loop deal with the first alone.
func (b *bench) split(w io.Writer, data []byte, at int) {
	b.t.Helper()
	for _, piece := range [][]byte{data[:at], data[at:]} {
		if _, err := w.Write(piece); err != nil {
			b.t.Fatal(err)
		}
		b.settle()
	}
}

// settle waits until the loop has taken its turn with whatever was there: a
// posted function runs before a wait, its events after.
func (b *bench) settle() {
	for range 2 {
		b.tenant.loop.Call(func() {})
	}
}

func expect(t *testing.T, r io.Reader, want []byte, what string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("%s: %v after %q", what, err, got[:n])
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// rounds are requests and their answers as they must pass, byte for byte.
func rounds() map[string][2][]byte {
	complete := func(dst []byte, tag string) []byte {
		return append(append(pgwire.AppendHeader(dst, pgwire.CommandComplete, len(tag)+1), tag...), 0)
	}
	row := func(dst []byte) []byte {
		dst = append(pgwire.AppendHeader(dst, pgwire.RowDescription, 2), 0, 0)
		return append(pgwire.AppendHeader(dst, pgwire.DataRow, 7), 0, 1, 0, 0, 0, 1, '7')
	}
	out := make(map[string][2][]byte)

	simple := complete(row(nil), "SELECT 1")
	simple = (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "by the way"}).Append(simple)
	simple = pgwire.AppendParameterStatus(simple, pgwire.Param{Name: "application_name", Value: ""})
	out["simple"] = [2][]byte{pgwire.AppendQuery(nil, "select 7"), pgwire.AppendReady(simple, 'I')}

	ask := pgwire.AppendParse(nil, "", "select $1::int")
	ask = pgwire.AppendBind(ask, "", "", []byte("7"))
	ask = append(pgwire.AppendHeader(ask, pgwire.Describe, 2), 'P', 0)
	ask = pgwire.AppendSync(pgwire.AppendExecute(ask, ""))
	answer := append(pgwire.AppendHeader(nil, pgwire.ParseComplete, 0), '2', 0, 0, 0, 4)
	answer = complete(row(answer), "SELECT 1")
	out["extended"] = [2][]byte{ask, pgwire.AppendReady(answer, 'I')}

	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "42601", Message: "syntax error"}).Append(nil)
	out["failed"] = [2][]byte{ask, pgwire.AppendReady(failed, 'I')}

	copyIn := pgwire.AppendQuery(nil, "copy t from stdin")
	copyIn = append(pgwire.AppendHeader(copyIn, pgwire.CopyData, 3), "12\n"...)
	copyIn = pgwire.AppendHeader(copyIn, pgwire.CopyDone, 0)
	accepted := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
	out["copy in"] = [2][]byte{copyIn, pgwire.AppendReady(complete(accepted, "COPY 1"), 'I')}
	return out
}

func TestMessagesSplitAtEveryByteInBothDirections(t *testing.T) {
	for name, round := range rounds() {
		for _, mode := range []poolMode{sessionMode, transactionMode, statementMode} {
			t.Run(fmt.Sprint(name, " in mode ", mode), func(t *testing.T) {
				b := newBench(t)
				server := b.server()
				client := b.client(mode)
				ask, answer := round[0], round[1]
				for at := range max(len(ask), len(answer)) {
					b.split(client, ask, min(at, len(ask)))
					expect(t, server, ask, fmt.Sprintf("request split at %d", at))
					b.split(server, answer, min(at, len(answer)))
					expect(t, client, answer, fmt.Sprintf("answer split at %d", at))
				}
				if n := b.counts(); n.Idle+n.Active != 1 || (mode != sessionMode && n.Idle != 1) {
					t.Fatalf("the server was not kept: %+v", n)
				}
			})
		}
	}
}

func (b *bench) counts() (n pool.Counts) {
	b.tenant.loop.Call(func() { n = b.tenant.books.Counts() })
	return n
}

// A server that dies in the middle of a message: what the client was sent of it
// must not be followed by an error that it would take for the rest.
func TestServerThatDiesInsideAMessage(t *testing.T) {
	round := rounds()["simple"]
	for at := range len(round[1]) - 6 {
		b := newBench(t)
		server := b.server()
		client := b.client(transactionMode)
		if _, err := client.Write(round[0]); err != nil {
			t.Fatal(err)
		}
		expect(t, server, round[0], "request")
		if _, err := server.Write(round[1][:at]); err != nil {
			t.Fatal(err)
		}
		b.settle()
		server.Close()
		got, err := io.ReadAll(client)
		if err != nil {
			t.Fatal(err)
		}
		rest := got
		for len(rest) > 0 {
			size, status := pgwire.ServerFrame(rest)
			if status != pgwire.FrameOK || size > len(rest) {
				break
			}
			if rest[0] == pgwire.ErrorResponse {
				if e := pgwire.ParseError(rest[5:size]); e.Code != "08006" {
					t.Fatalf("died at %d: %v", at, e)
				}
			}
			rest = rest[size:]
		}
		if len(rest) > 0 && !bytes.HasPrefix(round[1], got) {
			t.Fatalf("died at %d: an error was put into a message: %q", at, got)
		}
		if len(rest) == 0 && !bytes.Contains(got, []byte("08006")) {
			t.Fatalf("died at %d, between messages as far as the client knows, and it was not told: %q", at, got)
		}
	}
}

// Bytes behind the last answer must reach nobody else.
func TestServerThatSaysTooMuchServesNobodyElse(t *testing.T) {
	round := rounds()["simple"]
	late := append(pgwire.AppendHeader(nil, pgwire.DataRow, 7), 0, 1, 0, 0, 0, 1, '8')
	for name, together := range map[string]bool{"with the answer": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(transactionMode)
			if _, err := client.Write(round[0]); err != nil {
				t.Fatal(err)
			}
			expect(t, server, round[0], "request")
			if together {
				b.split(server, append(bytes.Clone(round[1]), late...), 0)
			} else {
				b.split(server, append(bytes.Clone(round[1]), late...), len(round[1]))
			}
			expect(t, client, round[1], "answer")
			b.settle()
			if n := b.counts(); n.Idle+n.Active != 0 {
				t.Fatalf("the server was kept: %+v", n)
			}
			if _, err := client.Write(pgwire.AppendSync(nil)); err != nil {
				t.Fatal(err)
			}
			expect(t, client, pgwire.AppendReady(nil, 'I'), "the client's session")
		})
	}
}
