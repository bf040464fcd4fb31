// Messages that have begun: they go on to their end, whatever happens meanwhile.

package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// begun are rows of messages that together have each type of a client's, and after which of their bytes the server must say
// something before the rest may come. Bodies end in what cannot be taken for the beginning of a message.
func begun() map[string]struct {
	before, answer, ask []byte
} {
	type row = struct{ before, answer, ask []byte }
	message := func(typ byte, body string) []byte { return append(pgwire.AppendHeader(nil, typ, len(body)), body...) }
	copying := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
	copyIn := pgwire.AppendQuery(nil, "copy t from stdin")
	return map[string]row{
		"query":         {nil, nil, pgwire.AppendQuery(nil, "select 7 as seven")},
		"function call": {nil, nil, message(pgwire.FunctionCall, "\x00\x00\x05\x2e\x00\x00\x00\x00\x00\x00")},
		"extended": {nil, nil, slices.Concat(pgwire.AppendParse(nil, "", "select $1::int"), pgwire.AppendBind(nil, "", "", []byte("7")), message(pgwire.Describe, "P\x00"),
			pgwire.AppendExecute(nil, ""), message(pgwire.Close, "P\x00"), message(pgwire.Flush, ""), pgwire.AppendSync(nil))},
		"copy done": {copyIn, copying, slices.Concat(message(pgwire.CopyData, "12\n"), message(pgwire.CopyDone, ""))},
		"copy fail": {copyIn, copying, slices.Concat(message(pgwire.CopyData, "12\n"), message(pgwire.CopyFail, "no\x00"))},
	}
}

// TestABegunMessageGoesOn: what is missing of a message that the server has the beginning of is what the server waits for. So
// whatever the message is, wherever it was split, and whatever holds the next one back, its rest must go on after a socket that
// was full takes more.
func TestABegunMessageGoesOn(t *testing.T) {
	for name, row := range begun() {
		for _, mode := range []poolMode{sessionMode, transactionMode, statementMode} {
			for _, full := range []bool{false, true} {
				t.Run(fmt.Sprint(name, " in mode ", mode, ", as many answers owed as may be: ", full), func(t *testing.T) {
					for at := 1; at < len(row.ask); at++ {
						if atBoundary(row.ask, at) {
							continue
						}
						begunAt(t, mode, full, row.before, row.answer, row.ask, at)
					}
				})
			}
		}
	}
}

func atBoundary(messages []byte, at int) bool {
	for at > 0 {
		size, _ := pgwire.ClientFrame(messages)
		messages, at = messages[size:], at-size
	}
	return at == 0
}

// firstRound is after what, and which answer, a client of a mode has a server and may say anything.
func firstRound(mode poolMode) (ask, answer []byte) {
	switch mode {
	case sessionMode:
		return pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	case transactionMode:
		return pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
	}
	return pgwire.AppendParse(nil, "", "select 1"), empty("1")
}

func begunAt(t *testing.T, mode poolMode, full bool, before, answer, ask []byte, at int) {
	t.Helper()
	b := newBench(t)
	server := b.server()
	client := b.client(mode)
	defer func() {
		client.Close()
		server.Close()
		b.gate.Close()
	}()
	write := func(w io.Writer, data []byte) {
		t.Helper()
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		b.settle()
	}
	c := b.tenant.clients[0]
	b.tenant.call(func() { c.came = c.pool.sets.Intern([]pgwire.Param{{Name: "datestyle", Value: "ISO"}}) })
	if before == nil {
		before, answer = firstRound(mode)
	}
	write(client, before)
	expect(t, server, before, "what comes before")
	write(server, answer)
	expect(t, client, answer, "its answer")
	write(client, ask[:at])
	begun := true
	b.tenant.call(func() {
		if begun = c.partial > 0; full && begun {
			for c.server.link.Outstanding() < link.MaxOutstanding {
				c.server.link.Sent(link.Entry{Kind: link.Bind})
			}
		}
		c.block() // as after a Write that the socket did not take all of
		c.conn.Again()
	})
	b.settle()
	if full && !begun {
		return // the server does not know of it, and it may wait
	}
	if _, err := client.Write(ask[at:]); err != nil {
		t.Fatal(err)
	}
	b.settle()
	want := ask
	b.tenant.call(func() {
		if full { // up to the end of the message
			n := 0
			for n < at {
				size, _ := pgwire.ClientFrame(ask[n:])
				n += size
			}
			want = ask[:n]
		}
		if c.partial > 0 || !full && c.blocked() && c.conn.Readable() {
			t.Errorf("split at %d: %d bytes of a begun message are waited for, blocked: %v", at, c.partial, c.blocked())
		}
	})
	if !t.Failed() {
		expect(t, server, want, fmt.Sprint("split at ", at))
	}
	if t.Failed() {
		t.FailNow()
	}
}

// TestLargeMessagesGoOn: each type that may be large, to a server whose socket does not take it at once.
func TestLargeMessagesGoOn(t *testing.T) {
	const size = 3 << 20
	large := bytes.Repeat([]byte("x"), size)
	text := string(large)
	for name, row := range map[string]struct{ before, answer, ask []byte }{
		"query":         {nil, nil, pgwire.AppendQuery(nil, text)},
		"parse":         {nil, nil, pgwire.AppendSync(pgwire.AppendParse(nil, "", text))},
		"bind":          {nil, nil, pgwire.AppendSync(pgwire.AppendBind(pgwire.AppendParse(nil, "", "select $1"), "", "", large))},
		"function call": {nil, nil, append(pgwire.AppendHeader(nil, pgwire.FunctionCall, 6+size), append([]byte("\x00\x00\x05\x2e\x00\x00"), large...)...)},
		"copy data": {pgwire.AppendQuery(nil, "copy t from stdin"), append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0),
			append(pgwire.AppendHeader(nil, pgwire.CopyData, size), large...)},
	} {
		for _, mode := range []poolMode{sessionMode, transactionMode, statementMode} {
			t.Run(fmt.Sprint(name, " in mode ", mode), func(t *testing.T) {
				b := newBench(t)
				server := b.server()
				client := b.client(mode)
				b.tenant.call(func() {
					c := b.tenant.clients[0]
					c.came = c.pool.sets.Intern([]pgwire.Param{{Name: "datestyle", Value: "ISO"}})
				})
				if row.before != nil {
					b.split(client, row.before, 0)
					expect(t, server, row.before, "what comes before")
					b.split(server, row.answer, 0)
					expect(t, client, row.answer, "its answer")
				}
				_ = server.SetDeadline(time.Now().Add(patience))
				var writer sync.WaitGroup
				writer.Go(func() { _, _ = client.Write(row.ask) })
				got := make([]byte, len(row.ask))
				n, err := io.ReadFull(server, got)
				if err != nil {
					client.Close() // it may still be writing
					b.gate.Close()
				}
				writer.Wait()
				if err != nil || !bytes.Equal(got, row.ask) {
					t.Fatalf("%d bytes of %d, %v", n, len(got), err)
				}
			})
		}
	}
}

// TestStatementModeRollsBackBetweenMessages: what Postern has to say for itself does not get into the middle of a message.
func TestStatementModeRollsBackBetweenMessages(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(statementMode)
	begin := pgwire.AppendQuery(nil, "begin; copy t from stdin")
	copying := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
	b.split(client, begin, 0)
	expect(t, server, begin, "begin and copy")
	started := append(tagged(nil, "BEGIN"), copying...)
	b.split(server, started, 0)
	expect(t, client, started, "their answers")

	data := append(pgwire.AppendHeader(nil, pgwire.CopyData, 100), bytes.Repeat([]byte("1"), 99)...)
	data = append(data, '\n')
	b.split(client, data[:50], 0)
	expect(t, server, data[:50], "half of the data")
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "22P02", Message: "no"}).Append(nil)
	b.split(server, pgwire.AppendReady(bytes.Clone(failed), 'E'), 0)
	expect(t, client, failed, "the error")
	query := pgwire.AppendQuery(nil, "select 1")
	b.split(client, append(bytes.Clone(data[50:]), query...), 0)
	expect(t, server, append(bytes.Clone(data[50:]), pgwire.AppendQuery(nil, "ROLLBACK")...), "the rest of the data, and then the rollback")
	b.split(server, pgwire.AppendReady(tagged(nil, "ROLLBACK"), 'I'), 0)
	expect(t, server, query, "what the client asks for next")
}

// TestTheMiddleOfAMessageIsNobodyElses: a server that has begun to tell its client something, though that has got its answer, is
// not given to the next one at the end of a message that means nothing.
func TestTheMiddleOfAMessageIsNobodyElses(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client, other := b.client(transactionMode), b.client(transactionMode)
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	data := append(pgwire.AppendHeader(nil, pgwire.CopyData, 100), bytes.Repeat([]byte("1"), 100)...)
	b.split(client, append(bytes.Clone(query), data[:50]...), 0)
	expect(t, server, append(bytes.Clone(query), data[:50]...), "a query, and data that nobody waits for")
	b.split(server, answer, 0)
	expect(t, client, answer, "the answer")
	notice := append(pgwire.AppendHeader(nil, pgwire.NoticeResponse, 3*whole), bytes.Repeat([]byte("n"), 3*whole)...)
	b.split(server, notice[:2*whole], 0)
	expect(t, client, notice[:2*whole], "the beginning of a notice")
	b.split(client, data[50:], 0)
	expect(t, server, data[50:], "the rest of the data")
	if n := b.counts(); n.Idle > 0 {
		t.Errorf("somebody else may have the server: %+v", n)
	}
	b.split(server, notice[2*whole:], 0)
	expect(t, client, notice[2*whole:], "the rest of the notice")
	b.asks(client, server, query, query, answer, answer)
	b.asks(other, server, query, query, answer, answer)
}

// TestNoGoodbyeInsideAMessage: a server whose client has left in the middle of a message hears nothing more. A Terminate could
// be taken for what is missing, and be run.
func TestNoGoodbyeInsideAMessage(t *testing.T) {
	query := pgwire.AppendQuery(nil, "delete from log where true")
	for name, end := range map[string]func(*bench, net.Conn){
		"the client leaves": func(_ *bench, client net.Conn) { client.Close() },
		"the server is given up": func(b *bench, _ net.Conn) {
			b.tenant.call(func() {
				for s := range b.tenant.servers {
					s.lost("test")
				}
			})
		},
		"everything ends": func(b *bench, _ net.Conn) { b.gate.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(sessionMode)
			ask, answer := firstRound(sessionMode)
			b.asks(client, server, ask, ask, answer, answer)
			part := query[:len(query)-2]
			b.split(client, part, 0)
			end(b, client)
			_ = server.SetDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(server)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, part) {
				t.Fatalf("the server got %q, want %q and no more", got, part)
			}
		})
	}
}

// TestCancelOfALargeQueryThatWaits: not all of it is read while it waits for a server, and it is cancelled all the same. The
// rest of it is dropped when it comes.
func TestCancelOfALargeQueryThatWaits(t *testing.T) {
	b := newBench(t)
	ask, answer := firstRound(sessionMode)
	for range 2 {
		server := b.server()
		b.asks(b.client(sessionMode), server, ask, ask, answer, answer)
	}
	var c *client
	conn := b.client(transactionMode)
	b.tenant.call(func() { c = b.tenant.clients[2] })
	large := pgwire.AppendQuery(nil, string(bytes.Repeat([]byte("x"), 2*maxQuery)))
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = conn.Write(append(large, pgwire.AppendSync(nil)...)) })
	b.until("it waits", func() bool { return c.books.Waiting() })
	b.tenant.call(func() { c.cancel(func(string) {}) })
	told := pgwire.AppendReady(pgwire.AppendReady(errCancelled.Append(nil), 'I'), 'I')
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(told))
	if n, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, told) {
		t.Errorf("it was told %q (%v), want %q", got[:n], err, told)
		conn.Close()
	}
	writer.Wait()
}

// until waits for something that is looked at on the loop.
func (b *bench) until(what string, is func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var ok bool
		b.tenant.call(func() { ok = is() })
		if ok {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal("never: " + what)
		}
	}
}

// TestTheEndOfARefusedMessageBringsNothingWithIt: while the server is asked what a transaction has left, nothing goes to it
// that comes behind the rest of a message that was refused.
func TestTheEndOfARefusedMessageBringsNothingWithIt(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	b.tenant.call(func() { b.tenant.policies = lease.Policies{Pin: sqltext.StateListen, Refuse: sqltext.StateSet} })
	listen, query := pgwire.AppendQuery(nil, "listen news"), pgwire.AppendQuery(nil, "select 1")
	const setConfig = 2078
	call := append(binary.BigEndian.AppendUint32(pgwire.AppendHeader(nil, pgwire.FunctionCall, 1000), setConfig), make([]byte, 996)...)
	refused := pgwire.AppendSync(pgwire.AppendRefusal(nil))
	b.split(client, append(bytes.Clone(listen), call[:500]...), 0)
	expect(t, server, append(bytes.Clone(listen), refused...), "the statement, and what fails in the place of the call")
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "26000", Message: "no"}).Append(nil)
	listened := pgwire.AppendReady(tagged(nil, "LISTEN"), 'I')
	b.split(server, slices.Concat(listened, failed, pgwire.AppendReady(nil, 'I')), 0)
	expect(t, client, slices.Concat(listened, errState.Append(nil), pgwire.AppendReady(nil, 'I')), "both answers")
	b.split(client, append(bytes.Clone(call[500:]), query...), 0)
	c := b.tenant.clients[0]
	b.tenant.call(func() {
		if c.server.phase != lease.Inspecting || c.discard > 0 || len(c.in) != len(query) {
			t.Errorf("%s, %d bytes are still to be dropped, %d wait", c.server.phase, c.discard, len(c.in))
		}
	})
	go answering(server)
	answer := pgwire.AppendReady(tagged(nil, "OK"), 'I')
	expect(t, client, answer, "the answer to the next query")
	server.Close()
}
