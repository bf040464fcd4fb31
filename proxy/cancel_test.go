// What a cancel request is aimed at, what waits for it, and what becomes of its server.

package proxy

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
)

// patience is for what comes at once, on a busy machine.
const patience = 3 * time.Minute

// cancels is where the bench's servers get their cancel requests.
type cancels struct {
	t  *testing.T
	ln net.Listener
}

// cancels has all servers of the bench get their cancel requests from a test.
func (b *bench) cancels() *cancels {
	b.t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { ln.Close() })
	at := ln.Addr().(*net.TCPAddr)
	b.tenant.call(func() {
		for s := range b.tenant.servers {
			s.target, s.secret = backend.Target{Host: "127.0.0.1", Port: uint16(at.Port), TLS: backend.TLSDisable}, []byte("1234")
		}
	})
	return &cancels{b.t, ln}
}

// next is the next request that arrives. Closing it says that the signals are sent.
func (c *cancels) next() *net.TCPConn {
	c.t.Helper()
	_ = c.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := c.ln.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	if _, err := io.ReadFull(conn, make([]byte, 16)); err != nil {
		c.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// none fails if one more has come.
func (c *cancels) none() {
	c.t.Helper()
	_ = c.ln.(*net.TCPListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
	if conn, err := c.ln.Accept(); err == nil {
		conn.Close()
		c.t.Error("a cancel request that nobody wants")
	}
}

// asked is a cancel request of the nth client's. The channel hears its result.
func (b *bench) asked(n int) <-chan string {
	result := make(chan string, 2)
	b.tenant.call(func() { b.tenant.clients[n].cancel(func(r string) { result <- r }) })
	return result
}

func wantResult(t *testing.T, result <-chan string, want string) {
	t.Helper()
	select {
	case got := <-result:
		if got != want {
			t.Errorf("a cancel request is %s, want %s", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("nothing has come of a cancel request, want %s", want)
	}
}

func say(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

var (
	first, second = pgwire.AppendQuery(nil, "select 1"), pgwire.AppendQuery(nil, "select 2")
	begin         = pgwire.AppendQuery(nil, "begin")
)

func done(tag string, status byte) []byte { return pgwire.AppendReady(tagged(nil, tag), status) }

// begun is a client in a transaction, and its server.
func (b *bench) begun(mode poolMode) (conn, server net.Conn) {
	b.t.Helper()
	server = b.server()
	conn = b.client(mode)
	b.asks(conn, server, begin, begin, done("BEGIN", 'T'), done("BEGIN", 'T'))
	return conn, server
}

// TestAim is the table of what a cancel request is for.
func TestAim(t *testing.T) {
	running := func(c *client) { c.server.link.Sent(link.Entry{Kind: link.Query}) }
	for _, tc := range []struct {
		name string
		is   func(*client)
		want aim
	}{
		{"nothing has been asked for", func(*client) {}, aimNothing},
		{"a query runs", running, aimRunning},
		{"the session is over", func(c *client) { running(c); c.stage = stageGone }, aimNothing},
		{"not greeted yet", func(c *client) { running(c); c.stage = stageGreeting }, aimNothing},
		{"its parameters are being set", func(c *client) { running(c); c.server.phase = lease.Preparing }, aimNothing},
		{"its server is asked what it has left", func(c *client) { running(c); c.server.phase = lease.Inspecting }, aimNothing},
		{"its block is rolled back", func(c *client) { running(c); c.server.phase = lease.Punishing }, aimNothing},
		{"another request is on its way", func(c *client) { running(c); c.server.cancels = 1 }, aimRunning},
		{"the next waits for another", func(c *client) { c.server.cancels, c.intake, c.in = 1, blocked, first }, aimHeld},
		{"another is on its way to what has ended", func(c *client) { c.server.cancels = 1 }, aimNothing},
		{"the beginning of a message, which nobody holds", func(c *client) { c.in = first[:3] }, aimNothing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			b.begun(sessionMode)
			b.first(func(c *client) {
				was, s := *c, *c.server
				if tc.is(c); c.aim() != tc.want {
					t.Errorf("aimed at %d, want %d", c.aim(), tc.want)
				}
				for c.server.link.Outstanding() > 0 {
					c.server.link.Received(pgwire.ReadyForQuery, 'T')
				}
				*c.server = s
				*c = was
			})
		})
	}
	t.Run("a query waits for a server", func(t *testing.T) {
		b := newBench(t)
		conn := b.clientWaiting(first)
		b.first(func(c *client) {
			if got := c.aim(); got != aimQueued {
				t.Errorf("aimed at %d", got)
			}
		})
		wantResult(t, b.asked(0), "waiting")
		cancelled := pgwire.AppendReady(errCancelled.Append(nil), 'I')
		expect(t, conn, cancelled, "answer")
	})
}

// clientWaiting is a client in transaction mode that waits for a server with a message.
func (b *bench) clientWaiting(message []byte) net.Conn {
	b.t.Helper()
	server := b.server()
	conn := b.client(transactionMode)
	server.Close()
	b.settle()
	b.tenant.call(func() { b.tenant.paused = true }) // so that nobody dials
	say(b.t, conn, message)
	b.settle()
	return conn
}

// TestTheNextQueryWaitsForACancel, whatever the mode, and goes on when it has arrived, or that is given up.
func TestTheNextQueryWaitsForACancel(t *testing.T) {
	for mode, name := range map[poolMode]string{sessionMode: "session", transactionMode: "transaction"} {
		for _, arrives := range []bool{true, false} {
			t.Run(fmt.Sprint(name, arrives), func(t *testing.T) {
				b := newBench(t)
				conn, server := b.begun(mode)
				on := b.cancels()
				say(t, conn, first)
				expect(t, server, first, "query")
				result := b.asked(0)
				request := on.next()
				say(t, server, done("SELECT 1", 'T'))
				expect(t, conn, done("SELECT 1", 'T'), "answer")
				say(t, conn, second)
				b.silent(server, "sent while a cancel is on its way")
				if len(result) > 0 {
					t.Errorf("over before the server has closed: %s", <-result)
				}
				if arrives {
					request.Close()
					wantResult(t, result, "sent")
				} else {
					wantResult(t, result, "failed") // in a second
				}
				expect(t, server, second, "the next query")
			})
		}
	}
}

// TestWhatACancelHolds is the next request, and nothing that is part of what runs.
func TestWhatACancelHolds(t *testing.T) {
	copyData := append(pgwire.AppendHeader(nil, pgwire.CopyData, 3), "12\n"...)
	b := newBench(t)
	conn, server := b.begun(sessionMode)
	on := b.cancels()
	say(t, conn, pgwire.AppendQuery(nil, "copy t from stdin"))
	expect(t, server, pgwire.AppendQuery(nil, "copy t from stdin"), "query")
	in := append(pgwire.AppendHeader(nil, pgwire.CopyInResponse, 3), 0, 0, 0)
	say(t, server, in)
	expect(t, conn, in, "answer")
	say(t, conn, copyData[:6])
	b.settle()
	result := b.asked(0)
	request := on.next()
	say(t, conn, copyData[6:])
	expect(t, server, copyData, "one whose beginning was sent")
	say(t, conn, copyData)
	expect(t, server, copyData, "more")
	end := pgwire.AppendHeader(nil, pgwire.CopyDone, 0)
	say(t, conn, append(end, second...))
	expect(t, server, end, "the end")
	say(t, server, done("COPY 2", 'T'))
	expect(t, conn, done("COPY 2", 'T'), "answer")
	b.silent(server, "sent while a cancel is on its way")
	request.Close()
	wantResult(t, result, "sent")
	expect(t, server, second, "the next query")
}

// TestCancelBehindACancel: a request that comes while another is on its way is sent after it, if what it is for still runs.
func TestCancelBehindACancel(t *testing.T) {
	failed := func(status byte) []byte { return pgwire.AppendReady(errCancelled.Append(nil), status) }
	start := func(t *testing.T, mode poolMode, says []byte) (b *bench, on *cancels, conn, server net.Conn, result <-chan string, request net.Conn) {
		b = newBench(t)
		conn, server = b.begun(mode)
		on = b.cancels()
		say(t, conn, says)
		expect(t, server, says, "queries")
		result = b.asked(0)
		return b, on, conn, server, result, on.next()
	}
	arrives := func(t *testing.T, request net.Conn, result <-chan string) {
		t.Helper()
		request.Close()
		wantResult(t, result, "sent")
	}
	t.Run("for the same query", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, sessionMode, first)
		two, three := b.asked(0), b.asked(0)
		wantResult(t, three, "repeated")
		say(t, server, failed('E'))
		expect(t, conn, failed('E'), "answer")
		wantResult(t, two, "idle")
		say(t, conn, second)
		arrives(t, request, one)
		expect(t, server, second, "the next query")
		on.none()
	})
	t.Run("for the first of two", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, sessionMode, append(first[:len(first):len(first)], second...))
		two := b.asked(0)
		say(t, server, failed('E'))
		expect(t, conn, failed('E'), "answer")
		wantResult(t, two, "idle")
		arrives(t, request, one)
		on.none()
	})
	t.Run("for one that does not end", func(t *testing.T) {
		b, on, _, _, one, request := start(t, sessionMode, first)
		two := b.asked(0)
		arrives(t, request, one)
		arrives(t, on.next(), two)
	})
	t.Run("for one that was sent ahead", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, transactionMode, append(first[:len(first):len(first)], second...))
		say(t, server, failed('E'))
		expect(t, conn, failed('E'), "answer")
		b.settle()
		two := b.asked(0)
		arrives(t, request, one)
		arrives(t, on.next(), two)
	})
	t.Run("for one that is held in a transaction", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, transactionMode, first)
		say(t, server, done("SELECT 1", 'T'))
		expect(t, conn, done("SELECT 1", 'T'), "answer")
		say(t, conn, second)
		b.settle()
		two := b.asked(0)
		say(t, server, pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "TimeZone", Value: "Asia/Tokyo"}))
		b.settle()
		arrives(t, request, one)
		expect(t, server, second, "the next query")
		arrives(t, on.next(), two)
	})
	t.Run("for one that is held outside", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, sessionMode, first)
		say(t, server, done("ROLLBACK", 'I'))
		expect(t, conn, done("ROLLBACK", 'I'), "answer")
		say(t, conn, second)
		b.settle()
		wantResult(t, b.asked(0), "waiting")
		expect(t, conn, failed('I'), "answer, though it was never sent")
		say(t, conn, first)
		arrives(t, request, one)
		expect(t, server, first, "the one after it")
		on.none()
	})
	t.Run("whose client leaves", func(t *testing.T) {
		b, on, conn, server, one, request := start(t, sessionMode, first)
		say(t, server, done("SELECT 1", 'T'))
		expect(t, conn, done("SELECT 1", 'T'), "answer")
		say(t, conn, second)
		b.settle()
		two := b.asked(0)
		conn.Close()
		wantResult(t, two, "idle")
		arrives(t, request, one)
		expect(t, server, pgwire.AppendQuery(nil, "ROLLBACK"), "what ends the transaction")
		on.none()
	})
	t.Run("whose server is lost", func(t *testing.T) {
		b, _, _, server, one, request := start(t, sessionMode, first)
		two := b.asked(0)
		server.Close()
		wantResult(t, two, "idle")
		arrives(t, request, one)
	})
}

// TestNothingOfPosternsOwnIsHit: the end of a block in statement mode waits, too.
func TestNothingOfPosternsOwnIsHit(t *testing.T) {
	b := newBench(t)
	server := b.server()
	on := b.cancels()
	conn := b.client(statementMode)
	text := pgwire.AppendQuery(nil, "begin; select pg_sleep(9)")
	say(t, conn, text)
	expect(t, server, text, "query")
	result := b.asked(0)
	request := on.next()
	say(t, server, pgwire.AppendReady(errCancelled.Append(tagged(nil, "BEGIN")), 'E'))
	expect(t, conn, errStatement.Append(errCancelled.Append(tagged(nil, "BEGIN"))), "answer")
	b.silent(server, "asked while a cancel is on its way")
	request.Close()
	wantResult(t, result, "sent")
	expect(t, server, pgwire.AppendQuery(nil, "ROLLBACK"), "what ends the block")
	say(t, server, done("ROLLBACK", 'I'))
	expect(t, conn, pgwire.AppendReady(nil, 'I'), "the end")
}

// TestAFailedCancelCostsItsServer: whether it hits, and when, is not known, so nobody but its client has the server any more.
func TestAFailedCancelCostsItsServer(t *testing.T) {
	for name, tc := range map[string]struct {
		answered bool // before it has failed
		end      func(*net.TCPConn)
		want     string
		idle     int
	}{
		"arrives, while the query runs":  {false, func(c *net.TCPConn) { c.Close() }, "sent", 1},
		"arrives late":                   {true, func(c *net.TCPConn) { c.Close() }, "sent", 1},
		"is reset, while the query runs": {false, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "failed", 0},
		"is reset, late":                 {true, func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, "failed", 0},
		"is answered":                    {false, func(c *net.TCPConn) { _, _ = c.Write([]byte("E")) }, "failed", 0},
		"has no end":                     {true, func(*net.TCPConn) {}, "failed", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			on := b.cancels()
			conn := b.client(transactionMode)
			say(t, conn, first)
			expect(t, server, first, "query")
			result := b.asked(0)
			request := on.next()
			answer := func() {
				say(t, server, done("SELECT 1", 'I'))
				expect(t, conn, done("SELECT 1", 'I'), "answer")
				b.settle()
			}
			if tc.answered {
				answer()
				if n := b.counts(); n.Cleaning != 1 || n.Idle != 0 {
					t.Errorf("while it is on its way: %+v", n)
				}
			}
			tc.end(request)
			wantResult(t, result, tc.want)
			if !tc.answered {
				answer()
			}
			b.settle()
			if n := b.counts(); n != (pool.Counts{Idle: tc.idle}) {
				t.Errorf("servers: %+v, want %d idle", n, tc.idle)
			}
		})
	}
}

// TestCancelsOfATenantTakeTurns: one that finds too many waits for as long as its query runs.
func TestCancelsOfATenantTakeTurns(t *testing.T) {
	b := newBench(t)
	one, oneServer := b.begun(sessionMode)
	two, twoServer := b.begun(sessionMode)
	on := b.cancels()
	b.tenant.call(func() { b.tenant.cancels = maxTenantCancels - 1 }) // to other servers
	for conn, server := range map[net.Conn]net.Conn{one: oneServer, two: twoServer} {
		say(t, conn, first)
		expect(t, server, first, "query")
	}
	a, late := b.asked(0), b.asked(1)
	request := on.next()
	say(t, twoServer, done("SELECT 1", 'T'))
	expect(t, two, done("SELECT 1", 'T'), "answer")
	wantResult(t, late, "idle")
	say(t, two, second) // nothing is on its way to this one
	expect(t, twoServer, second, "the next query")
	late = b.asked(1)
	on.none()
	request.Close()
	wantResult(t, a, "sent")
	on.next().Close()
	wantResult(t, late, "sent")
	b.tenant.call(func() {
		if n := b.tenant.cancels; n != maxTenantCancels-1 {
			t.Errorf("%d are counted", n)
		}
	})
}

// TestAQueryThatTookTooLongIsCancelledLater, where that cannot be done at once.
func TestAQueryThatTookTooLongIsCancelledLater(t *testing.T) {
	b := newBench(t)
	server := b.server()
	on := b.cancels()
	conn := b.timed(sessionTimeouts{query: time.Second})
	say(t, conn, first)
	expect(t, server, first, "query")
	for range maxCancels {
		b.gate.cancelSlots <- struct{}{}
	}
	if b.late(2 * time.Second) {
		t.Error("it counts as cancelled")
	}
	for range maxCancels {
		<-b.gate.cancelSlots
	}
	if !b.late(2 * time.Second) {
		t.Error("it is not cancelled")
	}
	on.next().Close()
}
