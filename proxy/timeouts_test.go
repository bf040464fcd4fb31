// Timeouts of sessions: from when each counts, and what it ends.

package proxy

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
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
		c := b.tenant.clients[len(b.tenant.clients)-1]
		c.timeouts, c.due, b.tenant.timed = &timeouts, &timeouts, true
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

// TestWhoseTimeouts: the user's win over the tenant's, over the listener's, over the process's, for each of them by itself.
func TestWhoseTimeouts(t *testing.T) {
	b := newBench(t)
	at := func(d time.Duration) *time.Duration { return &d }
	b.gate.opts.Session = tenants.Timeouts{Query: at(1), Transaction: at(1), IdleTransaction: at(1), ClientIdle: at(1), QueryWait: at(1)}
	listener := &Listener{Timeouts: tenants.Timeouts{Transaction: at(2), IdleTransaction: at(2), ClientIdle: at(2), QueryWait: at(2)}}
	conf := *b.conf()
	conf.Timeouts = tenants.Timeouts{IdleTransaction: at(3), ClientIdle: at(3), ServerIdle: at(3), ServerLifetime: at(3)}
	conf.Users = map[string]*tenants.User{"app": {Name: "app", Timeouts: tenants.Timeouts{ClientIdle: at(0), ServerIdle: at(4)}}, "web": {Name: "web"}}
	b.tenant.call(func() {
		b.tenant.apply(&conf)
		for user, want := range map[string]sessionTimeouts{"app": {1, 2, 3, 0, 2}, "web": {1, 2, 3, 3, 2}} {
			if got := *b.tenant.timeoutsOf(&client{place: place{user: user}, listener: listener}); got != want {
				t.Errorf("%s: %+v, want %+v", user, got, want)
			}
		}
		if s := b.tenant.books.Settings(); s.ServerIdle != 3 || s.ServerLifetime != 3 {
			t.Errorf("servers: %+v", s)
		}
	})
}

// TestReloadedTimeouts count from a client's next request on, whatever it is doing.
func TestReloadedTimeouts(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	second := time.Second
	reload := func(timeouts tenants.Timeouts) {
		conf := *b.conf()
		conf.Timeouts = timeouts
		b.tenant.call(func() { b.tenant.apply(&conf) })
	}
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	ask := func() {
		t.Helper()
		if _, err := client.Write(query); err != nil {
			t.Fatal(err)
		}
		expect(t, server, query, "request")
	}
	answered := func() {
		t.Helper()
		if _, err := server.Write(answer); err != nil {
			t.Fatal(err)
		}
		expect(t, client, answer, "answer")
	}
	ask()
	reload(tenants.Timeouts{Query: &second})
	if b.late(time.Minute) {
		t.Error("what ran already was cancelled")
	}
	answered()
	ask()
	reload(tenants.Timeouts{})
	if !b.late(1100 * time.Millisecond) {
		t.Error("what ran already is not bounded any more")
	}
	answered()
	ask()
	if b.late(time.Minute) {
		t.Error("cancelled though there is no timeout")
	}
	// Two in one write: the second one begins when the first is answered.
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	expect(t, server, query, "the next request")
	reload(tenants.Timeouts{Query: &second})
	answered()
	if !b.late(1100 * time.Millisecond) {
		t.Error("the second is not bounded")
	}
	reload(tenants.Timeouts{ClientIdle: &second})
	answered()
	b.late(time.Minute)
	b.tenant.call(func() {
		if len(b.tenant.clients) != 1 {
			t.Fatal("ended before its next request")
		}
	})
	ask()
	answered()
	b.late(1100 * time.Millisecond)
	if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "57P05" {
		t.Errorf("got %q %q, want to be told of the timeout", typ, body)
	}
}

// TestQueryWaitOfSome: who may wait for less is told first, though it came last.
func TestQueryWaitOfSome(t *testing.T) {
	b := newBench(t)
	b.server()
	b.server()
	query := pgwire.AppendQuery(nil, "select 1")
	ask := func() net.Conn {
		client := b.client(transactionMode)
		if _, err := client.Write(query); err != nil {
			t.Fatal(err)
		}
		return client
	}
	ask()
	ask()
	patient := ask()
	hasty := b.client(transactionMode)
	b.limit(sessionTimeouts{queryWait: time.Second})
	if _, err := hasty.Write(query); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.tenant.call(func() {
		for p := range b.tenant.books.Pools() {
			b.tenant.sweepWaiters(p, b.tenant.loop.Now().Add(2*time.Second))
		}
	})
	if typ, body := readMessage(t, hasty); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "53300" {
		t.Errorf("got %q %q, want to be told of the timeout", typ, body)
	}
	if n := b.counts(); n.Waiting != 1 {
		t.Errorf("%d wait, want the first of them", n.Waiting)
	}
	patient.Close()
}

// TestIdleBetweenTransactions is no time of a transaction, although in session mode the client keeps its server.
func TestIdleBetweenTransactions(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(sessionMode)
	b.limit(sessionTimeouts{transaction: time.Second})
	begin, begun := pgwire.AppendQuery(nil, "begin"), pgwire.AppendReady(tagged(nil, "BEGIN"), 'T')
	commit, done := pgwire.AppendQuery(nil, "commit"), pgwire.AppendReady(tagged(nil, "COMMIT"), 'I')
	b.asks(client, server, begin, begin, begun, begun)
	b.asks(client, server, commit, commit, done, done)
	b.late(time.Minute)
	if n := b.counts(); n.Active != 1 {
		t.Fatalf("ended between two transactions: %+v", n)
	}
	b.asks(client, server, begin, begin, begun, begun) // and the next one has all of its time
	b.late(900 * time.Millisecond)
	if n := b.counts(); n.Active != 1 {
		t.Fatalf("ended though there is time: %+v", n)
	}
	b.late(1100 * time.Millisecond)
	if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "25P04" {
		t.Errorf("got %q %q, want to be told of the timeout", typ, body)
	}
}

// TestWhoWaitsForAServerIsNotIdle, however long.
func TestWhoWaitsForAServerIsNotIdle(t *testing.T) {
	b := newBench(t)
	b.server()
	server := b.server() // is taken first
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	ask := func() net.Conn {
		client := b.client(transactionMode)
		if _, err := client.Write(query); err != nil {
			t.Fatal(err)
		}
		return client
	}
	busy := ask()
	expect(t, server, query, "request")
	ask()
	waits := ask()
	b.limit(sessionTimeouts{clientIdle: time.Second})
	b.settle()
	if n := b.counts(); n.Waiting != 1 {
		t.Fatalf("%d wait", n.Waiting)
	}
	b.late(time.Minute)
	if n := b.counts(); n.Waiting != 1 {
		t.Fatal("who waited was ended as idle")
	}
	b.asks(busy, server, nil, nil, answer, answer)
	b.asks(waits, server, nil, query, answer, answer)
}

// TestAQueryTakesTimeFromItsEndOn: while a server reads a query nothing runs, and it would ignore a cancel. The transaction has
// begun, so that nobody holds a server for nothing.
func TestAQueryTakesTimeFromItsEndOn(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(sessionMode)
	ask, answer := firstRound(sessionMode)
	b.asks(client, server, ask, ask, answer, answer)
	b.limit(sessionTimeouts{query: time.Second})
	query := pgwire.AppendQuery(nil, "select pg_sleep(100)")
	b.split(client, query[:10], 0)
	expect(t, server, query[:10], "the beginning of a query")
	if b.late(time.Minute) {
		t.Error("cancelled before all of it was there")
	}
	b.split(client, query[10:], 0)
	expect(t, server, query[10:], "the rest")
	if !b.late(time.Minute) {
		t.Error("not cancelled")
	}
	b.limit(sessionTimeouts{transaction: time.Second})
	b.split(server, answer, 0)
	expect(t, client, answer, "the answer")
	b.split(client, query[:10], 0)
	b.late(time.Minute)
	if typ, body := readMessage(t, client); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "25P04" {
		t.Errorf("got %q %q", typ, body)
	}
}
