package proxy

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
)

// timed returns a client with timeouts.
func (b *bench) timed(timeouts sessionTimeouts) net.Conn {
	b.t.Helper()
	conn := b.client(transactionMode)
	b.limit(timeouts)
	return conn
}

// limit gives the newest client timeouts.
func (b *bench) limit(timeouts sessionTimeouts) {
	b.tenant.loop.Call(func() {
		b.tenant.clients[len(b.tenant.clients)-1].timeouts = &timeouts
		b.tenant.timed++
	})
}

// late looks at the clocks as they would stand after a while, and reports whether the server's query was cancelled.
func (b *bench) late(after time.Duration) (late bool) {
	b.t.Helper()
	b.settle()
	b.tenant.loop.Call(func() {
		b.tenant.sweepTimeouts(b.tenant.loop.Now().Add(after))
		for s := range b.tenant.servers {
			late = late || s.clocks.late
		}
	})
	return late
}

// TestAQueryTakesTimeOnlyWhileAnswersAreOwed: a client that asked for what there is by a Flush may think, and what it asks for
// next has all the time of a query.
func TestAQueryTakesTimeOnlyWhileAnswersAreOwed(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.timed(sessionTimeouts{query: time.Second, idleTransaction: time.Second})
	flush := pgwire.AppendHeader(nil, pgwire.Flush, 0)
	ask := func(what string, message, answer []byte) {
		t.Helper()
		message = slices.Concat(message, flush)
		if _, err := client.Write(message); err != nil {
			t.Fatal(err)
		}
		b.settle()
		buf := make([]byte, len(message))
		if _, err := server.Read(buf); err != nil {
			t.Fatal(err)
		}
		if b.late(900 * time.Millisecond) {
			t.Errorf("%s: cancelled though there is time", what)
		}
		if !b.late(1100 * time.Millisecond) {
			t.Errorf("%s: not cancelled", what)
		}
		b.asks(client, server, nil, nil, answer, answer)
		if b.late(time.Minute) {
			t.Errorf("%s: cancelled after it was answered", what)
		}
	}
	ask("parse", pgwire.AppendParse(nil, "", "select pg_sleep(1)"), empty("1"))
	ask("bind", pgwire.AppendBind(nil, "", ""), empty("2"))
	ask("execute", pgwire.AppendExecute(nil, ""), tagged(nil, "SELECT 1"))
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "57014", Message: "canceled"}).Append(nil)
	ask("execute that fails", pgwire.AppendExecute(nil, ""), failed)
	sync, ready := pgwire.AppendSync(nil), pgwire.AppendReady(nil, 'I')
	b.asks(client, server, sync, sync, ready, ready)
}

// TestIdleInATransaction is who is told that the server is ready and asks for nothing.
func TestIdleInATransaction(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.timed(sessionTimeouts{idleTransaction: time.Second})
	begin, begun := pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
	b.asks(client, server, begin, begin, begun, begun)
	b.late(900 * time.Millisecond)
	parse, parsed := pgwire.AppendHeader(pgwire.AppendParse(nil, "s", "select 1"), pgwire.Flush, 0), empty("1")
	if _, err := client.Write(parse); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if _, err := server.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	b.asks(client, server, nil, nil, parsed, parsed)
	b.late(time.Minute) // as with Postgres, it is not idle before it says Sync
	sync, ready := pgwire.AppendSync(nil), pgwire.AppendReady(nil, 'T')
	b.asks(client, server, sync, sync, ready, ready)
	b.late(1100 * time.Millisecond)
	if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "25P03" {
		t.Errorf("got %q %q, want to be told of the timeout", typ, body)
	}
}

// TestIdleInAMessage: the beginning of a message keeps nobody, with a server and without.
func TestIdleInAMessage(t *testing.T) {
	query := pgwire.AppendQuery(nil, "select 1")
	for name, sends := range map[string][]byte{"nothing": nil, "half a header": query[:3], "half a message": query[:9]} {
		for _, mode := range []poolMode{sessionMode, transactionMode} {
			t.Run(fmt.Sprintf("%s in mode %d", name, mode), func(t *testing.T) {
				b := newBench(t)
				b.server()
				client := b.client(mode)
				b.limit(sessionTimeouts{clientIdle: time.Second})
				if _, err := client.Write(sends); err != nil {
					t.Fatal(err)
				}
				b.late(900 * time.Millisecond)
				b.tenant.call(func() {
					if n := len(b.tenant.clients); n != 1 {
						t.Fatal("ended though there is time")
					}
				})
				b.late(1100 * time.Millisecond)
				if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "57P05" {
					t.Errorf("got %q %q, want to be told of the timeout", typ, body)
				}
			})
		}
	}
}

// TestASyncIsNotIdle: it is answered without a server, and is a request all the same.
func TestASyncIsNotIdle(t *testing.T) {
	b := newBench(t)
	b.server()
	client := b.client(transactionMode)
	b.limit(sessionTimeouts{clientIdle: time.Second})
	b.tenant.call(func() { b.tenant.clients[0].quiet = b.tenant.loop.Now().Add(-time.Minute) })
	if _, err := client.Write(pgwire.AppendSync(nil)); err != nil {
		t.Fatal(err)
	}
	expect(t, client, pgwire.AppendReady(nil, 'I'), "answer")
	b.late(900 * time.Millisecond)
	b.tenant.call(func() {
		if len(b.tenant.clients) != 1 {
			t.Error("ended as idle")
		}
	})
}
