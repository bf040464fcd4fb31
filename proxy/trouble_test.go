// What must hold after trouble of our own: books that do not balance, dials that are given up.

package proxy

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
)

// ended fails unless the other side closes the connection.
func ended(t *testing.T, conn net.Conn, what string) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("%s: %v, want its end", what, err)
	}
}

// TestBooksThatDoNotBalance: the tenant's connections are closed, nothing of them is left in what is counted, and the next
// client is served as ever.
func TestBooksThatDoNotBalance(t *testing.T) {
	for name, panics := range map[string]func(*bench){
		"in a posted function": func(b *bench) { b.tenant.post(func() { panic("told to") }) },
		"in a timer": func(b *bench) {
			b.tenant.call(func() { b.tenant.loop.AfterFunc(0, b.tenant.checked(func() { panic("told to") })) })
		},
		"while it is handled": func(b *bench) {
			b.tenant.loop.Call(func() {
				c := b.tenant.clients[0]
				c.server, c.pool = nil, nil // which end does not survive
				c.Panicked(c.conn)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(transactionMode)
			begin := pgwire.AppendQuery(nil, "begin")
			if _, err := client.Write(begin); err != nil {
				t.Fatal(err)
			}
			expect(t, server, begin, "request")
			sitting := b.client(transactionMode)
			b.tenant.call(func() {
				b.tenant.machine.sessions = 1 // as if one had been in session mode
				b.tenant.clients[0].sess.Unnamed = b.tenant.stmts.Intern([]byte("\x00select 1\x00\x00\x00"))
				b.tenant.clients[0].books = pool.Client{}
			})

			panics(b)
			ended(t, client, "the client")
			ended(t, sitting, "the other client")
			ended(t, server, "the server")
			b.tenant.call(func() {
				if err := b.tenant.books.Check(); err != nil {
					t.Error(err)
				}
				if n := b.tenant.machine.sessions; n != 0 || b.tenant.stmts.Len() != 0 || len(b.tenant.clients) != 0 {
					t.Errorf("%d sessions, %d statements, %d clients are left", n, b.tenant.stmts.Len(), len(b.tenant.clients))
				}
			})
			if n := b.tenant.admitted.Load(); n != 0 {
				t.Errorf("%d clients are still counted", n)
			}
			b.server()
			b.client(transactionMode)
		})
	}
}

// TestADialThatIsGivenUp: its connection is closed, and it neither serves anybody nor shakes what is known of the server.
func TestADialThatIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.server()
	fd, conn := b.pair()
	b.tenant.call(func() {
		p := b.tenant.pool(poolKey{"app", "app"})
		s := &server{tenant: b.tenant, pool: p, loop: b.tenant.loop}
		s.books.Owner = s
		b.tenant.servers[s] = struct{}{}
		p.books.StartDial(&s.books, b.tenant.loop.Now())
		s.shut("retired")
		b.tenant.dialed(s, &backend.Conn{Parameters: []pgwire.Param{{Name: "TimeZone", Value: "UTC"}}}, fd, nil)
		if p.fresh.Told() == nil {
			t.Error("how the server greets is not known any more")
		}
		if n := b.tenant.books.Servers(); n != 1 {
			t.Errorf("%d servers, want the first alone", n)
		}
	})
	ended(t, conn, "the connection")
}

// TestWhatIsKnownIsBounded: a server that reports too much is not remembered.
func TestWhatIsKnownIsBounded(t *testing.T) {
	k := OpenKnown("", nil)
	acme := knownPool{tenant: "acme"}
	k.put(acme, knownSet{Status: []pgwire.Param{{Name: "a", Value: strings.Repeat("x", maxKnownSet)}}})
	if got := k.sets(acme); len(got) != 0 {
		t.Errorf("%d sets are kept", len(got))
	}
	k.put(acme, knownSet{Status: []pgwire.Param{{Name: "a", Value: strings.Repeat("x", maxKnownSet-1)}}})
	if got := k.sets(acme); len(got) != 1 {
		t.Errorf("%d sets are kept of a server like any other", len(got))
	}
}

// TestPreparedStatementsAreCounted, in SHOW CLIENTS and SHOW SERVERS.
func TestPreparedStatementsAreCounted(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client := b.client(transactionMode)
	parse := pgwire.AppendSync(pgwire.AppendParse(nil, "s", "select 1"))
	if _, err := client.Write(parse); err != nil {
		t.Fatal(err)
	}
	if typ, _ := readMessage(t, server); typ != pgwire.Parse {
		t.Fatalf("got %q", typ)
	}
	b.tenant.call(func() {
		if n := b.tenant.clients[0].socket().Statements; n != 1 {
			t.Errorf("the client has %d", n)
		}
		for s := range b.tenant.servers {
			if n := s.socket().Statements; n != 1 {
				t.Errorf("the server has %d", n)
			}
		}
	})
}

// TestALostServerIsToldAsWhatItCosts: where nothing ran there is no outcome to wonder about.
func TestALostServerIsToldAsWhatItCosts(t *testing.T) {
	query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
	for name, c := range map[string]struct {
		answers []byte
		hint    string
	}{
		"at rest":          {answer, errRestLost.Hint},
		"in a query":       {nil, errServerLost.Hint},
		"in a transaction": {pgwire.AppendReady(tagged(nil, "SELECT 1"), 'T'), errServerLost.Hint},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			server := b.server()
			client := b.client(sessionMode)
			if _, err := client.Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, query, "request")
			if c.answers != nil {
				if _, err := server.Write(c.answers); err != nil {
					t.Fatal(err)
				}
				expect(t, client, c.answers, "answer")
			}
			server.Close()
			typ, body := readMessage(t, client)
			if e := pgwire.ParseError(body); typ != pgwire.ErrorResponse || e.Code != "08006" || e.Hint != c.hint {
				t.Errorf("got %q %v, hint %q; want hint %q", typ, e, e.Hint, c.hint)
			}
		})
	}
}
