// Settings: put on servers, refused by them, too long to be followed.

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// tracks has the tenant track what its clients set.
func (b *bench) tracks() {
	b.tenant.loop.Call(func() { b.tenant.policies.Track |= sqltext.StateSet })
}

// set is what a server answers that has set so many parameters.
func set(n int) []byte {
	out := empty("1")
	for range n {
		out = tagged(append(out, empty("2")...), "SELECT 1")
	}
	return pgwire.AppendReady(out, 'I')
}

// row is a row of an inspection's answer.
func row(fields ...string) []byte {
	body := []byte{0, byte(len(fields))}
	for _, f := range fields {
		n := len(f)
		body = append(append(body, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), f...)
	}
	return append(pgwire.AppendHeader(nil, pgwire.DataRow, len(body)), body...)
}

// looks has a client say something that the server is asked about after it, and returns the server's answer so far.
func (b *bench) looks(client, server net.Conn, text, tag string, before []byte, names ...string) []byte {
	b.t.Helper()
	q := pgwire.AppendQuery(nil, text)
	answer := append(bytes.Clone(before), pgwire.AppendReady(tagged(nil, tag), 'I')...)
	b.asks(client, server, q, q, answer, answer)
	expect(b.t, server, inspecting(sqltext.StateSet, names...), "the question")
	return noWaitFirst()
}

// gone waits for a server's connection to be closed.
func gone(t *testing.T, server net.Conn) {
	t.Helper()
	rest, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(rest, pgwire.AppendTerminate(nil)) {
		t.Fatalf("instead of Terminate and the end: %q, %v", rest, err)
	}
}

// TestWhatAnEarlierClientHasLeft and cannot be taken back costs its server, and nobody's session.
func TestWhatAnEarlierClientHasLeft(t *testing.T) {
	denied := (&pgwire.Error{Severity: pgwire.Err, Code: "42501", Message: "permission denied"}).Append(nil)
	buffers := []byte("SERROR\x00C22023\x00Minvalid value\x00Rcall_int_check_hook\x00\x00")
	buffers = append(pgwire.AppendHeader(nil, pgwire.ErrorResponse, len(buffers)), buffers...)
	size := "100"
	for name, tc := range map[string]struct {
		list   []params.Change
		done   int
		answer []byte
	}{
		"a reset":           {[]params.Change{{Name: "timezone"}}, 0, denied},
		"temporary buffers": {[]params.Change{{Name: "temp_buffers", Value: &size}, {Name: "timezone"}}, 0, buffers},
		"the second change": {[]params.Change{{Name: "geqo", Value: &size}, {Name: "timezone"}}, 1, denied},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			another, server := b.server(), b.server() // which is used first
			client := b.client(transactionMode)
			b.left("TimeZone", "Europe/Berlin")
			var own []params.Change
			b.tenant.loop.Call(func() {
				c := b.tenant.clients[0]
				for _, change := range tc.list {
					if change.Value != nil {
						c.params = c.pool.sets.With(c.params, change.Name, *change.Value)
						own = append(own, change)
					}
				}
			})
			query := pgwire.AppendQuery(nil, "select 7")
			if _, err := client.Write(query); err != nil {
				t.Fatal(err)
			}
			expect(t, server, changing(tc.list), "its parameters")
			done := set(tc.done)
			if _, err := server.Write(pgwire.AppendReady(append(done[:len(done)-6], tc.answer...), 'I')); err != nil {
				t.Fatal(err)
			}
			gone(t, server)
			if len(own) > 0 {
				expect(t, another, changing(own), "its parameters, on another server")
				if _, err := another.Write(set(len(own))); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, another, query, "its query")
			answer := pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
			if _, err := another.Write(answer); err != nil {
				t.Fatal(err)
			}
			expect(t, client, answer, "the answer, and nothing before it")
		})
	}
}

// TestWhatTheServerDoesNotTake of the client's own costs its session, and no server.
func TestWhatTheServerDoesNotTake(t *testing.T) {
	b := newBench(t)
	server := b.server()
	client, other := b.client(transactionMode), b.client(transactionMode)
	b.tenant.loop.Call(func() {
		c := b.tenant.clients[0]
		c.params = c.pool.sets.With(c.params, "role", "dropped")
	})
	dropped := "dropped"
	if _, err := client.Write(pgwire.AppendQuery(nil, "select 7")); err != nil {
		t.Fatal(err)
	}
	expect(t, server, changing([]params.Change{{Name: "role", Value: &dropped}}), "its role")
	failed := &pgwire.Error{Severity: pgwire.Err, Code: "22023", Message: `role "dropped" does not exist`}
	if _, err := server.Write(pgwire.AppendReady(failed.Append(empty("1")), 'I')); err != nil {
		t.Fatal(err)
	}
	failed.Severity = pgwire.Fatal
	expect(t, client, failed.Append(nil), "why it must go")
	expect(t, server, pgwire.AppendQuery(nil, "DISCARD ALL"), "its reset")
	readMessage(t, server) // with a new seed
	if _, err := server.Write(pgwire.AppendReady(tagged(pgwire.AppendReady(tagged(nil, "DISCARD ALL"), 'I'), "SELECT 1"), 'I')); err != nil {
		t.Fatal(err)
	}
	go cleanly(server)
	round := rounds()["simple"]
	if _, err := other.Write(round[0]); err != nil {
		t.Fatal(err)
	}
	if typ, _ := readMessage(t, other); typ != pgwire.CommandComplete {
		t.Fatalf("the other client got %q", typ)
	}
}

// TestLongSettings are kept for their client, up to some length.
func TestLongSettings(t *testing.T) {
	for _, size := range []int{10, whole, 300 << 10, lease.MaxSettings - 100, lease.MaxSettings + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := newBench(t)
			b.tracks()
			server := b.server()
			client := b.client(transactionMode)
			answer := b.looks(client, server, "set app.x = ''", "SET", nil, "app.x")
			value := strings.Repeat("x", size)
			answer = append(answer, row("named", "app.x", value)...)
			if _, err := server.Write(pgwire.AppendReady(tagged(answer, "SELECT 1"), 'I')); err != nil {
				t.Fatal(err)
			}
			b.settle()
			b.tenant.loop.Call(func() {
				c := b.tenant.clients[0]
				got, _ := c.params.Get("app.x")
				if kept, pinned := got == value, c.has.Pins&sqltext.StateSet != 0; kept == pinned || pinned != (size > lease.MaxSettings) {
					t.Errorf("it has %d bytes; its server is its own: %v", len(got), pinned)
				}
			})
		})
	}
}

// TestGreetingsFollowTheServer, whose defaults change when its configuration is read again.
func TestGreetingsFollowTheServer(t *testing.T) {
	b := newBench(t)
	b.tracks()
	server := b.server()
	client := b.client(transactionMode)
	german := []pgwire.Param{{Name: "datestyle", Value: "German"}}
	b.tenant.loop.Call(func() {
		p := b.tenant.clients[0].pool
		p.learn(p.sets.Intern(german), p.reports.Intern([]pgwire.Param{{Name: "TimeZone", Value: "UTC"}}))
	})
	report := pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "TimeZone", Value: "Asia/Tokyo"})
	answer := b.looks(client, server, "select 1", "SELECT 1", report)
	if _, err := server.Write(pgwire.AppendReady(tagged(answer, "SELECT 0"), 'I')); err != nil {
		t.Fatal(err)
	}
	b.settle()
	b.tenant.loop.Call(func() {
		c := b.tenant.clients[0]
		if !c.params.Empty() || c.server != nil {
			t.Errorf("the client has set %v", c.params.List())
		}
		if got := c.pool.fresh.Told().Messages(); got != string(report) {
			t.Errorf("others are greeted with %q", got)
		}
		if got := c.pool.sets.Intern(german).Told(); got != nil {
			t.Errorf("others with settings are greeted with %v", got)
		}
	})
}

// TestARefusalThatNobodyWaitsFor: a server that does not take back what somebody has left is nobody else's, also if whoever was
// to have it leaves before all of the refusal has come.
func TestARefusalThatNobodyWaitsFor(t *testing.T) {
	b := newBench(t)
	server := b.server()
	conn := b.client(transactionMode)
	b.left("TimeZone", "Europe/Berlin")
	if _, err := conn.Write(pgwire.AppendQuery(nil, "select 7")); err != nil {
		t.Fatal(err)
	}
	expect(t, server, changing([]params.Change{{Name: "timezone"}}), "reset of what the client did not set")
	_, _ = server.Write((&pgwire.Error{Severity: pgwire.Err, Code: "22023", Message: "no"}).Append(nil))
	b.settle()
	conn.Close()
	b.settle()
	_, _ = server.Write(pgwire.AppendReady(nil, 'I'))
	b.settle()
	if n := b.counts(); n != (pool.Counts{}) {
		t.Errorf("it is kept: %+v", n)
	}
	expect(t, server, pgwire.AppendTerminate(nil), "instead of a reset")
}
