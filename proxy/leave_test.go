// Clients that leave in each state in which they are not read: they are noticed.

package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
)

// leaver is a client in some state, which is about to leave.
type leaver struct {
	*bench
	client, server net.Conn
}

func (l *leaver) say(parts ...[]byte) {
	l.t.Helper()
	if _, err := l.client.Write(bytes.Join(parts, nil)); err != nil {
		l.t.Fatal(err)
	}
	l.settle()
}

func (l *leaver) round(ask, answer, told []byte) {
	l.t.Helper()
	l.asks(l.client, l.server, ask, ask, answer, told)
	l.settle()
}

// blockedStates are the ways to be without attention, and what was asked for that must be done if a goodbye follows.
func blockedStates() map[string]struct {
	mode  poolMode
	reach func(*leaver)
	owed  []byte
} {
	type state = struct {
		mode  poolMode
		reach func(*leaver)
		owed  []byte
	}
	query := pgwire.AppendQuery(nil, "select 1")
	large := pgwire.AppendQuery(nil, string(bytes.Repeat([]byte("x"), 400<<10)))
	ready := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	sessionServer := func(l *leaver) { l.round(query, ready, ready) }
	return map[string]state{
		"waits for a server": {transactionMode, func(l *leaver) {
			for range 2 {
				server := l.server
				if l.counts().Active > 0 {
					server = l.bench.server()
				}
				other := l.bench.client(sessionMode)
				l.asks(other, server, query, query, ready, ready)
			}
			l.say(query)
		}, nil},
		"waits for a server, and more is to come": {transactionMode, func(l *leaver) {
			for range 2 {
				server := l.server
				if l.counts().Active > 0 {
					server = l.bench.server()
				}
				other := l.bench.client(sessionMode)
				l.asks(other, server, query, query, ready, ready)
			}
			huge := pgwire.AppendHeader(nil, pgwire.Query, 100<<20)
			go l.client.Write(append(huge, make([]byte, 3<<20)...))
			l.until("it waits", func() bool { return l.tenant.clients[0].books.Waiting() })
		}, nil},
		"its server takes nothing": {sessionMode, func(l *leaver) {
			sessionServer(l)
			l.say(large)
		}, large},
		"its server takes nothing, in the middle of a message": {sessionMode, func(l *leaver) {
			sessionServer(l)
			l.say(large[:len(large)-10])
		}, nil},
		"its server takes nothing, and more is to come": {sessionMode, func(l *leaver) {
			sessionServer(l)
			huge := pgwire.AppendHeader(nil, pgwire.Query, 100<<20)
			go l.client.Write(append(huge, make([]byte, 3<<20)...))
			l.until("it is blocked", func() bool { return l.tenant.clients[0].blocked() })
		}, nil},
		"its server takes nothing, in a COPY": {transactionMode, func(l *leaver) {
			copyIn := pgwire.AppendQuery(nil, "copy t from stdin")
			copying := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
			l.round(copyIn, copying, copying)
			row := append(pgwire.AppendHeader(nil, pgwire.CopyData, 1000), bytes.Repeat([]byte("y"), 1000)...)
			l.say(bytes.Repeat(row, 400))
		}, nil},
		"as many answers are owed as may be": {transactionMode, func(l *leaver) {
			bind := pgwire.AppendBind(nil, "", "")
			l.say(pgwire.AppendParse(nil, "", "select 1"), bytes.Repeat(bind, link.MaxOutstanding+10))
		}, nil},
		"its parameters are being set": {transactionMode, func(l *leaver) {
			l.left("TimeZone", "Europe/Berlin")
			l.say(query)
		}, query},
		"it has not read all, so that its end is a reset": {transactionMode, func(l *leaver) {
			l.split(l.server, pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "TimeZone", Value: "Europe/Berlin"}), 0)
			l.say(query)
		}, query},
		"its next statement waits": {statementMode, func(l *leaver) { l.say(query, query) }, bytes.Repeat(query, 2)},
		"a transaction is rolled back": {statementMode, func(l *leaver) {
			begun := tagged(nil, "BEGIN")
			l.round(pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(bytes.Clone(begun), 'T'), append(begun, errStatement.Append(nil)...))
			l.say(query)
		}, query},
		"it reads nothing": {sessionMode, func(l *leaver) {
			l.asks(l.client, l.server, query, query, nil, nil)
			row := append(pgwire.AppendHeader(nil, pgwire.DataRow, 1000), bytes.Repeat([]byte("z"), 1000)...)
			go l.server.Write(bytes.Repeat(row, 20000))
			for full := false; !full; {
				l.tenant.call(func() { full = l.tenant.clients[0].conn.Pending() > 0 })
			}
		}, nil},
	}
}

// TestLeaversAreNoticed in every state, though the bytes that they have left behind are not read: their server does not stay
// theirs, and they count no more. What was asked for before a Terminate is done first.
func TestLeaversAreNoticed(t *testing.T) {
	ways := map[string]func(*net.TCPConn) error{
		"closes": func(c *net.TCPConn) error { return c.Close() },
		"resets": func(c *net.TCPConn) error {
			_ = c.SetLinger(0)
			return c.Close()
		},
		"half-closes": func(c *net.TCPConn) error { return c.CloseWrite() },
		"says goodbye and closes": func(c *net.TCPConn) error {
			_, _ = c.Write(pgwire.AppendTerminate(nil))
			return c.Close()
		},
	}
	for name, state := range blockedStates() {
		for way, leave := range ways {
			polite := way == "says goodbye and closes"
			if polite && state.owed == nil {
				continue
			}
			t.Run(name+", and "+way, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				b.tcp = true
				l := &leaver{bench: b, server: b.server()}
				l.client = b.client(state.mode)
				state.reach(l)
				var me *client
				b.tenant.call(func() { me = b.tenant.clients[0] })
				if err := leave(l.client.(*net.TCPConn)); err != nil {
					t.Fatal(err)
				}
				var answers sync.WaitGroup
				defer answers.Wait()
				defer l.server.Close()
				var seen bytes.Buffer
				if polite {
					for range 3 {
						b.settle()
						time.Sleep(20 * time.Millisecond) // it may be noticed now, and must not be taken for gone
					}
					answers.Go(func() { answering(recording{l.server, &seen}) })
				}
				var left bool
				var n pool.Counts
				for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
					b.tenant.call(func() { left, n = me.gone(), b.tenant.books.Counts() })
					if left && n.Waiting == 0 && (n.Active == 0 || strings.HasPrefix(name, "waits for a server")) {
						break
					}
				}
				if !left || n.Waiting > 0 || !strings.HasPrefix(name, "waits for a server") && n.Active > 0 {
					t.Fatalf("gone: %v, and %+v", left, n)
				}
				if polite {
					b.tenant.call(func() {
						if me.reason != "terminated" {
							t.Errorf("its goodbye was not heard: it left as %q", me.reason)
						}
					})
					l.server.Close()
					b.gate.Close()
					answers.Wait()
					if !bytes.Contains(seen.Bytes(), state.owed) && bytes.Count(seen.Bytes(), state.owed[:len(state.owed)/2]) < 2 {
						t.Errorf("what was asked for did not reach the server: it read %d bytes", seen.Len())
					}
				}
			})
		}
	}
}

// recording keeps what is read.
type recording struct {
	net.Conn
	seen *bytes.Buffer
}

func (r recording) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.seen.Write(p[:n])
	return n, err
}

// answering is a server that succeeds in everything, and has nothing that anybody could have left.
func answering(server net.Conn) {
	for {
		var head [pgwire.HeaderSize]byte
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, server, int64(binary.BigEndian.Uint32(head[1:])-4)); err != nil {
			return
		}
		var out []byte
		switch head[0] {
		case pgwire.Query:
			out = pgwire.AppendReady(tagged(nil, "OK"), 'I')
		case pgwire.Execute:
			row := "\x00\x03\x00\x00\x00\x04none\xff\xff\xff\xff\xff\xff\xff\xff"
			out = tagged(append(pgwire.AppendHeader(out, pgwire.DataRow, len(row)), row...), "SELECT 1")
		case pgwire.Parse:
			out = empty("1")
		case pgwire.Bind:
			out = empty("2")
		case pgwire.Close:
			out = empty("3")
		case pgwire.Sync:
			out = pgwire.AppendReady(nil, 'I')
		}
		if _, err := server.Write(out); err != nil {
			return
		}
	}
}

// TestWhatWasReadAheadGoesOn when the server takes it again, byte for byte, and takes no more memory than it may.
func TestWhatWasReadAheadGoesOn(t *testing.T) {
	const size = 24 << 20
	text := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	row := append(pgwire.AppendHeader(nil, pgwire.CopyData, 91), text[:91]...)
	copying := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
	copyIn := pgwire.AppendQuery(nil, "copy t from stdin")
	for name, c := range map[string]struct{ before, answer, ask []byte }{
		"one message":   {copyIn, copying, append(pgwire.AppendHeader(nil, pgwire.CopyData, size), text...)},
		"many messages": {copyIn, copying, bytes.Repeat(row, size/len(row))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			server := b.server()
			client := b.client(transactionMode)
			b.asks(client, server, c.before, c.before, c.answer, c.answer)
			var writer sync.WaitGroup
			writer.Go(func() { _, _ = client.Write(c.ask) })
			defer writer.Wait()
			defer client.Close()
			me := b.tenant.clients[0]
			b.until("it is read ahead", func() bool { return len(me.in) >= aheadMost })
			b.settle()
			b.tenant.call(func() {
				if n := len(me.in); n > aheadMost+loop.ScratchSize || b.tenant.pending != int64(cap(me.in)) {
					t.Errorf("%d bytes are held, and %d count", n, b.tenant.pending)
				}
			})
			expect(t, server, c.ask, "all of it")
			b.until("nothing is held", func() bool { return len(me.in) == 0 && b.tenant.pending == 0 })
		})
	}
}
