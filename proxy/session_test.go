// Sessions: what servers say at the wrong time, what follows a client, what a panic costs.

package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// A server that speaks while nobody uses it is understood or closed.
func TestIdleServerThatSpeaks(t *testing.T) {
	notice := (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "psst"}).Append(nil)
	notification := append(pgwire.AppendHeader(nil, pgwire.NotificationResponse, 8), 0, 0, 0, 1, 'c', 0, 'p', 0)
	for name, c := range map[string]struct {
		says []byte
		kept bool
	}{
		"notice":                  {notice, true},
		"notification":            {notification, true},
		"parameter status":        {pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "TimeZone", Value: "Europe/Berlin"}), true},
		"last words":              {(&pgwire.Error{Severity: pgwire.Fatal, Code: "57P01", Message: "bye"}).Append(nil), false},
		"error":                   {(&pgwire.Error{Severity: pgwire.Err, Code: "XX000", Message: "?"}).Append(nil), false},
		"half a notice":           {notice[:len(notice)-3], false},
		"half a header":           {notice[:3], false},
		"ready for query":         {pgwire.AppendReady(nil, 'I'), false},
		"unknown message":         {[]byte{'~', 0, 0, 0, 4}, false},
		"impossible length":       {[]byte{'N', 0, 0, 0, 3}, false},
		"notice, then a data row": {append(append([]byte(nil), notice...), 'D', 0, 0, 0, 6, 0, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			b.client(transactionMode)
			if _, err := server.Write(c.says); err != nil {
				t.Fatal(err)
			}
			b.settle()
			if kept := b.counts().Idle == 1; kept != c.kept {
				t.Fatalf("kept: %v, want %v", kept, c.kept)
			}
		})
	}
}

// TestLastWordsToNobody: a server that says goodbye while it is cleaned is not lent to the next client, who would hear of its
// end and not of the reason.
func TestLastWordsToNobody(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	expect(t, server, query, "request")
	b.tenant.call(func() {
		for s := range b.tenant.servers {
			s.cancels++ // on its way, so that the server is not free when it has answered
		}
	})
	if _, err := server.Write(answer); err != nil {
		t.Fatal(err)
	}
	expect(t, client, answer, "answer")
	b.settle()
	if n := b.counts(); n.Cleaning != 1 {
		t.Fatalf("not being cleaned: %+v", n)
	}
	if _, err := server.Write((&pgwire.Error{Severity: pgwire.Fatal, Code: "57P01", Message: "bye"}).Append(nil)); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.tenant.call(func() {
		for s := range b.tenant.servers {
			s.cancels--
			s.cancelled()
		}
	})
	if n := b.counts(); n != (pool.Counts{}) {
		t.Errorf("still there: %+v", n)
	}
}

// left has an earlier client have set a parameter on the server that is lent next.
func (b *bench) left(name, value string) {
	b.tenant.loop.Call(func() {
		for s := range b.tenant.pool(poolKey{"app", "app"}).books.Live() {
			s := s.Owner.(*server)
			s.params = s.pool.sets.With(s.params, name, value)
			return
		}
	})
}

// What a server has, and what a client has set, is made to agree before the client's first message.
func TestParametersFollowTheClient(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	b.left("TimeZone", "Europe/Berlin")
	query := pgwire.AppendQuery(nil, "select 7")
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	want := changing([]params.Change{{Name: "timezone"}})
	expect(t, server, want, "reset of what the client did not set")
	answer := append(pgwire.AppendHeader(nil, pgwire.ParseComplete, 0), '2', 0, 0, 0, 4)
	answer = append(answer, 'D', 0, 0, 0, 10, 0, 1, 0xff, 0xff, 0xff, 0xff, 'C', 0, 0, 0, 13)
	answer = pgwire.AppendReady(append(answer, "SELECT 1\x00"...), 'I')
	if _, err := server.Write(answer); err != nil {
		t.Fatal(err)
	}
	expect(t, server, query, "the client's query, afterwards")
}

// A panic costs the session in which it happened.
func TestPanicCostsOneSession(t *testing.T) {
	b := newBench(t)
	server := b.server()
	victim, other := b.client(transactionMode), b.client(transactionMode)
	b.tenant.loop.Call(func() { b.tenant.clients[0].params = nil })
	if _, err := victim.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(victim); err != nil || len(rest) != 0 {
		t.Fatalf("the session with the panic read %q, %v; want its end", rest, err)
	}
	// The server was lent already. It is cleaned, and serves the other session.
	go cleanly(server)
	round := rounds()["simple"]
	if _, err := other.Write(round[0]); err != nil {
		t.Fatal(err)
	}
	typ, _ := readMessage(t, other)
	if typ != pgwire.CommandComplete {
		t.Fatalf("the other session got %q", typ)
	}
	b.tenant.loop.Call(func() {
		if n := len(b.tenant.clients); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
		if err := b.tenant.books.Check(); err != nil {
			t.Error(err)
		}
	})
}

// cleanly answers every query with an empty success.
func cleanly(server net.Conn) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(server, head[:]); err != nil {
			return
		}
		n := int(head[3])<<8 | int(head[4]) - 4
		if _, err := io.CopyN(io.Discard, server, int64(n)); err != nil {
			return
		}
		out := append(pgwire.AppendHeader(nil, pgwire.CommandComplete, 3), "OK\x00"...)
		if _, err := server.Write(pgwire.AppendReady(out, 'I')); err != nil {
			return
		}
	}
}

// A client that leaves while its query runs: the server is drained, reset and
// kept if that is quick, and closed if it is not.
func TestServerOfAClientThatLeft(t *testing.T) {
	for name, quick := range map[string]bool{"quick": true, "never ready": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(transactionMode)
			query := pgwire.AppendQuery(nil, "update t set a = 1")
			if _, err := client.Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, query, "request")
			start := time.Now()
			client.Close()
			if !quick {
				if _, err := io.ReadAll(server); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(start); d < abandonFor/2 {
					t.Fatalf("closed after %v, want about %v", d, abandonFor)
				}
				return
			}
			b.settle()
			out := append(pgwire.AppendHeader(nil, pgwire.CommandComplete, 9), "UPDATE 1\x00"...)
			if _, err := server.Write(pgwire.AppendReady(out, 'T')); err != nil {
				t.Fatal(err)
			}
			expect(t, server, pgwire.AppendQuery(nil, "ROLLBACK"), "rollback")
			out = append(pgwire.AppendHeader(nil, pgwire.CommandComplete, 9), "ROLLBACK\x00"...)
			if _, err := server.Write(pgwire.AppendReady(out, 'I')); err != nil {
				t.Fatal(err)
			}
			expect(t, server, pgwire.AppendQuery(nil, "DISCARD ALL"), "reset, because it is not known what the rest of the query did")
			if typ, body := readMessage(t, server); typ != pgwire.Query || !bytes.HasPrefix(body, []byte("SELECT pg_catalog.setseed(")) {
				t.Fatalf("instead of a new seed: %q %q", typ, body)
			}
			out = pgwire.AppendReady(append(pgwire.AppendHeader(nil, pgwire.CommandComplete, 12), "DISCARD ALL\x00"...), 'I')
			out = append(pgwire.AppendHeader(out, pgwire.CommandComplete, 9), "SELECT 1\x00"...)
			if _, err := server.Write(pgwire.AppendReady(out, 'I')); err != nil {
				t.Fatal(err)
			}
			b.settle()
			if n := b.counts(); n.Idle != 1 {
				t.Fatalf("the server was not kept: %+v", n)
			}
		})
	}
}

// TestAResetServerHasNothingSet: who comes next with the same startup options has them set again, for the reset took them away.
func TestAResetServerHasNothingSet(t *testing.T) {
	b := newBench(t)
	server := b.server()
	timeout := "7s"
	options := pgwire.Param{Name: "statement_timeout", Value: timeout}
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	for range 2 {
		client := b.arrives(sessionMode, options)
		b.settle()
		go func() { _, _ = client.Write(query) }() // the second is greeted from memory, and has a server with its first query
		steps := (&lease.Holder{Alone: true}).Ask()
		steps.Change(&params.Set{}, []params.Change{{Name: "statement_timeout", Value: &timeout}})
		expect(t, server, steps.Out, "its option")
		_, _ = server.Write(pgwire.AppendReady(append(tagged(empty("312"), "SELECT 1"), empty("3")...), 'I'))
		b.greeted(client)
		b.asks(client, server, nil, query, answer, answer)
		_, _ = client.Write(pgwire.AppendTerminate(nil))
		b.resets(server)
	}
}

// TestALibraryIsNobodyElses, however its session ends: here what it came with cannot be put back after its RESET, and the
// server, which is as it was, has a library in it that no reset takes out.
func TestALibraryIsNobodyElses(t *testing.T) {
	b := newBench(t)
	server := b.server()
	b.tenant.loop.Call(func() { b.tenant.policies.Pin |= sqltext.StateLoad })
	timeout := "7s"
	client := b.arrives(sessionMode, pgwire.Param{Name: "statement_timeout", Value: timeout})
	ask := func(f func(*lease.Question)) []byte {
		q := (&lease.Holder{Alone: true}).Ask()
		f(&q)
		return q.Out
	}
	set := ask(func(q *lease.Question) {
		q.Change(&params.Set{}, []params.Change{{Name: "statement_timeout", Value: &timeout}})
	})
	expect(t, server, set, "its option")
	_, _ = server.Write(pgwire.AppendReady(append(tagged(empty("312"), "SELECT 1"), empty("3")...), 'I'))
	b.greeted(client)
	load, reset := pgwire.AppendQuery(nil, "load 'x'"), pgwire.AppendQuery(nil, "reset all")
	loaded, done := pgwire.AppendReady(tagged(nil, "LOAD"), 'I'), pgwire.AppendReady(tagged(nil, "RESET"), 'I')
	b.asks(client, server, load, load, loaded, loaded)
	b.asks(client, server, reset, reset, done, done)
	expect(t, server, ask(func(q *lease.Question) { q.Inspect(sqltext.StateSet, nil) }), "what is set?")
	nothing := append(tagged(empty("312"), "SET"), tagged(empty("312"), "SELECT 0")...)
	_, _ = server.Write(pgwire.AppendReady(append(nothing, empty("3")...), 'I'))
	expect(t, server, set, "its option, again")
	no := &pgwire.Error{Severity: pgwire.Err, Code: "22023", Message: "no"}
	_, _ = server.Write(pgwire.AppendReady(append(empty("31"), no.Append(nil)...), 'I'))
	no.Severity = pgwire.Fatal
	expect(t, client, no.Append(nil), "why it has to go")
	gone(t, server)
}

// TestAServerThatFailsItsReset is nobody else's.
func TestAServerThatFailsItsReset(t *testing.T) {
	b := newBench(t)
	b.policy(func(conf *tenants.Tenant) { conf.ResetAlways = true })
	server := b.server()
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(b.client(transactionMode), server, query, query, answer, answer)
	expect(t, server, pgwire.AppendQuery(nil, "DISCARD ALL"), "reset")
	if typ, _ := readMessage(t, server); typ != pgwire.Query {
		t.Fatalf("instead of a new seed: %q", typ)
	}
	failed := (&pgwire.Error{Severity: pgwire.Err, Code: "XX000", Message: "?"}).Append(nil)
	_, _ = server.Write(pgwire.AppendReady(tagged(pgwire.AppendReady(failed, 'I'), "SELECT 1"), 'I'))
	expect(t, server, pgwire.AppendTerminate(nil), "instead of the next client")
	if n := b.counts(); n != (pool.Counts{}) {
		t.Errorf("it is kept: %+v", n)
	}
}

// TestDrainDuringAQuestion: a client whose server is being asked something when everybody is to go, goes when that is over.
func TestDrainDuringAQuestion(t *testing.T) {
	b := newBench(t)
	b.policy(keeping)
	server := b.server()
	client := b.client(transactionMode)
	lock, locked := pgwire.AppendQuery(nil, "select pg_advisory_lock(1)"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(client, server, lock, lock, locked, locked)
	expect(t, server, inspecting(sqltext.StateLock), "what is left?")
	b.tenant.call(b.tenant.drain)
	held := append(append(pgwire.AppendHeader(noWaitFirst(), pgwire.DataRow, 2+4+13+4+4), 0, 3, 0, 0, 0, 13), "advisory_lock\xff\xff\xff\xff\xff\xff\xff\xff"...)
	_, _ = server.Write(pgwire.AppendReady(tagged(held, "SELECT 1"), 'I'))
	expect(t, client, errDraining.Append(nil), "the end")
}

// TestACleaningHasATime, and a message that is half said when it begins is waited for.
func TestACleaningHasATime(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	if _, err := client.Write(query); err != nil {
		t.Fatal(err)
	}
	expect(t, server, query, "request")
	notice := (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: strings.Repeat("psst", whole)}).Append(nil)
	b.split(server, append(bytes.Clone(answer), notice[:whole+100]...), 0)
	expect(t, client, answer, "answer")
	b.settle()
	b.tenant.call(func() {
		for s := range b.tenant.servers {
			if !s.phase.Cleaning() || s.timer == nil || !s.timer.Armed() {
				t.Errorf("%s, and not for a time only", s.phase)
			}
		}
	})
	if _, err := server.Write(notice[whole+100:]); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if n := b.counts(); n.Idle != 1 {
		t.Errorf("not kept: %+v", n)
	}
}
