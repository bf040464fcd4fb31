// Greetings from what is known of a pool: when a server is asked first, and what its silence means.

package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
)

// zoneOf reads a greeting to its end and returns the time zone in it.
func zoneOf(t *testing.T, conn net.Conn) (zone string) {
	t.Helper()
	for {
		typ, body := readMessage(t, conn)
		if typ == pgwire.ParameterStatus {
			if p, ok := pgwire.ParseParameterStatus(body); ok && p.Name == "TimeZone" {
				zone = p.Value
			}
		}
		if typ == pgwire.ReadyForQuery {
			return zone
		}
	}
}

// rests lets what is known grow old.
func (b *bench) rests() {
	b.tenant.loop.Call(func() {
		b.gate.freshFor = time.Minute
		for _, p := range b.tenant.pools {
			p.confirmed = time.Time{}
		}
		for s := range b.tenant.servers {
			s.heardAt = time.Time{}
		}
	})
}

var tokyo = pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "TimeZone", Value: "Asia/Tokyo"})

// TestOneQuestionForAll: a hundred clients that come at once cost one question, and all hear of what its answer brings.
func TestOneQuestionForAll(t *testing.T) {
	for name, mode := range map[string]poolMode{"transaction": transactionMode, "statement": statementMode} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			if got := zoneOf(t, b.arrives(mode)); got != "UTC" {
				t.Fatalf("greeted with %q", got)
			}
			b.rests()
			var all []net.Conn
			for range 90 {
				all = append(all, b.arrives(mode))
			}
			expect(t, server, pgwire.AppendSync(nil), "the question")
			if _, err := server.Write(pgwire.AppendReady(append([]byte(nil), tokyo...), 'I')); err != nil {
				t.Fatal(err)
			}
			for _, conn := range all {
				if got := zoneOf(t, conn); got != "Asia/Tokyo" {
					t.Fatalf("greeted with %q", got)
				}
			}
			if got := zoneOf(t, b.arrives(mode)); got != "Asia/Tokyo" {
				t.Fatalf("a moment later greeted with %q", got)
			}
			// Nothing else was asked of it, and nothing is to be set.
			query := pgwire.AppendQuery(nil, "select 7")
			if _, err := all[0].Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, query, "the first client's query")
		})
	}
}

// TestAskedWhileLent: a client may get the server that is being asked, or have it; its own answers are its own.
func TestAskedWhileLent(t *testing.T) {
	for name, mode := range map[string]poolMode{"session": sessionMode, "transaction": transactionMode, "statement": statementMode} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(mode)
			b.rests()
			other := b.arrives(transactionMode)
			expect(t, server, pgwire.AppendSync(nil), "the question")
			query := pgwire.AppendQuery(nil, "select 7")
			if _, err := client.Write(query); err != nil {
				t.Fatal(err)
			}
			b.settle()
			answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
			if mode == statementMode { // which waits for what is owed
				if _, err := server.Write(pgwire.AppendReady(append([]byte(nil), tokyo...), 'I')); err != nil {
					t.Fatal(err)
				}
				expect(t, server, query, "the query")
				if _, err := server.Write(answer); err != nil {
					t.Fatal(err)
				}
			} else {
				expect(t, server, query, "the query")
				if _, err := server.Write(append(pgwire.AppendReady(append([]byte(nil), tokyo...), 'I'), answer...)); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, client, append(append([]byte(nil), tokyo...), answer...), "what is new, and one's own answer")
			if got := zoneOf(t, other); got != "Asia/Tokyo" {
				t.Errorf("greeted with %q", got)
			}
		})
	}
}

// TestASessionsServerIsAsked: one that a session has and does not use can be asked, and the session hears of it.
func TestASessionsServerIsAsked(t *testing.T) {
	b := newBench(t)
	server := b.server()
	session := b.client(sessionMode)
	query, answer := pgwire.AppendQuery(nil, "select 7"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	b.asks(session, server, query, query, answer, answer)
	b.rests()
	other := b.arrives(transactionMode)
	expect(t, server, pgwire.AppendSync(nil), "the question")
	if _, err := server.Write(pgwire.AppendReady(append([]byte(nil), tokyo...), 'I')); err != nil {
		t.Fatal(err)
	}
	expect(t, session, tokyo, "what is new")
	if got := zoneOf(t, other); got != "Asia/Tokyo" {
		t.Errorf("greeted with %q", got)
	}
	b.asks(session, server, query, query, answer, answer)
	if n := b.counts(); n.Active != 1 {
		t.Errorf("the session has no server: %+v", n)
	}
}

// TestASilentServerIsNotTrusted: one that does not answer is closed, and so are those that have rested as long, lest clients wait
// for each of them in turn. One that was heard meanwhile stays, and tells.
func TestASilentServerIsNotTrusted(t *testing.T) {
	for name, heard := range map[string]bool{"the other was heard": true, "nor was the other heard": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			other, silent := b.server(), b.server() // which was used last
			b.client(transactionMode)
			b.rests()
			client := b.arrives(transactionMode)
			expect(t, silent, pgwire.AppendSync(nil), "the question")
			b.tenant.loop.Call(func() { // as if it had been long ago
				for _, p := range b.tenant.pools {
					p.question.asked = p.question.asked.Add(-confirmFor)
					for s := range b.tenant.servers {
						if heard && s != p.question.server {
							s.heardAt = b.tenant.loop.Now()
						}
					}
				}
			})
			ended(t, silent, "the silent server")
			if !heard {
				ended(t, other, "the other one")
				return
			}
			expect(t, other, pgwire.AppendSync(nil), "the question")
			if _, err := other.Write(pgwire.AppendReady(nil, 'I')); err != nil {
				t.Fatal(err)
			}
			if got := zoneOf(t, client); got != "UTC" {
				t.Errorf("greeted with %q", got)
			}
		})
	}
}

// TestClosedWhileAsked: whoever closes the server, nobody waits in vain.
func TestClosedWhileAsked(t *testing.T) {
	b := newBench(t)
	good, asked := b.server(), b.server()
	b.client(transactionMode)
	b.rests()
	client := b.arrives(transactionMode)
	expect(t, asked, pgwire.AppendSync(nil), "the question")
	asked.Close()
	expect(t, good, pgwire.AppendSync(nil), "the question")
	client.Close() // and whoever leaves is forgotten
	if _, err := good.Write(pgwire.AppendReady(nil, 'I')); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if n := b.counts(); n != (pool.Counts{Idle: 1}) {
		t.Errorf("left: %+v", n)
	}
}

// TestAllBusy: where nobody can be asked and nothing can be dialed, what is known has to do.
func TestAllBusy(t *testing.T) {
	b := newBench(t)
	for range 2 { // as many as the pool may have
		server, client := b.server(), b.client(transactionMode)
		query := pgwire.AppendQuery(nil, "select pg_sleep(60)")
		if _, err := client.Write(query); err != nil {
			t.Fatal(err)
		}
		expect(t, server, query, "the query")
	}
	b.rests()
	if got := zoneOf(t, b.arrives(transactionMode)); got != "UTC" {
		t.Errorf("greeted with %q", got)
	}
}

// TestWhatIsReportedIsBounded: each client keeps what it was last told, so a server cannot make that large.
func TestWhatIsReportedIsBounded(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(sessionMode)
	var news []byte
	for i := range 40 {
		news = pgwire.AppendParameterStatus(news, pgwire.Param{Name: "app.p" + itoa(i), Value: strings.Repeat("x", 10_000)})
	}
	go server.Write(news)
	_ = server.SetWriteDeadline(time.Now().Add(patience))
	if told, err := io.ReadAll(client); err != nil || len(told) > 200_000 || !bytes.Contains(told, []byte("08006")) {
		t.Errorf("%d bytes (%v) were told", len(told), err)
	}
}

// TestGreetedWhenOthersWereFirst: who waits for a server that logs in, and does not get it, is greeted with what is known.
func TestGreetedWhenOthersWereFirst(t *testing.T) {
	for name, mode := range map[string]poolMode{"transaction": transactionMode, "statement": statementMode} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			holder, first := b.client(transactionMode), b.client(transactionMode)
			b.tenant.loop.Call(func() { b.tenant.pool(poolKey{"app", "app"}).books.SetSize(2) })
			query := pgwire.AppendQuery(nil, "select 7")
			if _, err := holder.Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, query, "the holder's query")
			b.rests()
			second, done := b.dialing()
			if _, err := first.Write(query); err != nil {
				t.Fatal(err)
			}
			b.settle()
			late := b.arrives(mode)
			b.until("the late one waits", func() bool { return b.tenant.books.Counts().Waiting == 2 })
			b.tenant.call(b.tenant.sweep)
			if n := b.counts(); n.Waiting != 2 {
				t.Fatalf("greeted before it is known what the login brings: %+v", n)
			}
			done()
			expect(t, second, query, "the query of who was first")
			b.tenant.call(b.tenant.sweep)
			if got := zoneOf(t, late); got != "UTC" {
				t.Errorf("greeted with %q", got)
			}
			if n := b.counts(); n.Waiting != 0 || n.Active != 2 {
				t.Errorf("%+v", n)
			}
		})
	}
}
