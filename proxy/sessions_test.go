// Tests of the list of a tenant's sessions and of their end.

package proxy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
)

// TestSessionIDs: each is good for one session of one process.
func TestSessionIDs(t *testing.T) {
	mine, others := newSessionIDs(), newSessionIDs()
	seen := make(map[string]bool)
	for number := uint64(1); number < 1<<40; number *= 3 {
		id := mine.id(number)
		if got, ok := mine.number(id); !ok || got != number || seen[id] || len(id) != 32 {
			t.Fatalf("%d is %s, which is %d, %t", number, id, got, ok)
		}
		seen[id] = true
		if got, ok := others.number(id); ok {
			t.Errorf("another process takes it for %d", got)
		}
		flipped, _ := hex.DecodeString(id)
		flipped[number%16] ^= 1
		for _, wrong := range []string{hex.EncodeToString(flipped), id[:31], id + "0", strings.Replace(id, id[:1], "g", 1)} {
			if got, ok := mine.number(wrong); ok {
				t.Errorf("%s is taken for %d", wrong, got)
			}
		}
		if upper := strings.ToUpper(id); upper != id {
			if _, ok := mine.number(upper); ok {
				t.Errorf("a session has two names: %s", upper)
			}
		}
	}
	if _, ok := mine.number(""); ok {
		t.Error("nothing is an id")
	}
}

// sessions lists acme's, which are as many as wanted.
func (b *bench) sessions(want int) []Session {
	b.t.Helper()
	list, err := b.gate.Sessions("acme", "", 100)
	if err != nil || len(list) != want {
		b.t.Fatalf("%v, %v, want %d sessions", list, err, want)
	}
	return list
}

// replica is a replication session that waits for a server.
func (b *bench) replica() *replica {
	r := newReplica(b.tenant, 1, false)
	b.t.Cleanup(func() { b.gate.replicas.remove(r) })
	r.listener, r.id, r.user, r.database, r.served = &b.gate.opts.Listeners[0], b.gate.ids.Add(1), "app", physical, make(chan struct{})
	r.peer, r.started = proxyproto.Direct(netip.MustParseAddrPort("[2001:db8::1]:2")), time.Now()
	return r
}

func TestSessions(t *testing.T) {
	b := newBench(t)
	put(t, b.gate, withPassword("globex", 1, "secret")) // which nobody uses
	b.server()
	began := time.Now()
	first := b.client(sessionMode)
	idle := b.greeted(b.arrives(transactionMode, pgwire.Param{Name: "application_name", Value: "psql"}))
	b.server()
	asks := b.client(statementMode)
	if _, err := asks.Write(pgwire.AppendQuery(nil, "select 1")); err != nil {
		t.Fatal(err)
	}
	b.replica()
	b.settle()

	list := b.sessions(4)
	one, other := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:2")
	want := []Session{
		{User: "app", Database: "app", Listener: "a", Client: one, Mode: "session", State: "active", Server: true},
		{User: "app", Database: "app", Listener: "a", Client: one, Mode: "transaction", State: "idle", Application: "psql"},
		{User: "app", Database: "app", Listener: "a", Client: one, Mode: "statement", State: "active", Server: true},
		{User: "app", Database: "replication", Listener: "a", Client: other, Mode: "replication", State: "waiting"},
	}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(Session{}, "ID", "Since", "Active"), cmpopts.IgnoreUnexported(Session{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
	for _, s := range list {
		if s.Since.Before(began) || s.Active.Before(s.Since) || time.Since(s.Active) < 0 {
			t.Errorf("%s came %v, and was active %v", s.ID, s.Since, s.Active)
		}
	}

	var all []Session
	for after := ""; ; {
		some, err := b.gate.Sessions("acme", after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if all = append(all, some...); len(some) < 3 {
			break
		}
		after = some[2].ID
	}
	if diff := cmp.Diff(list, all, cmp.AllowUnexported(Session{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("in pages: %s", diff)
	}
	idle.Close()
	b.settle()
	if rest, err := b.gate.Sessions("acme", list[1].ID, 100); err != nil || len(rest) != 2 || rest[0].ID != list[2].ID {
		t.Errorf("after one that has left: %v, %v", rest, err)
	}
	first.Close()
	for _, tc := range []struct {
		tenant, after string
		want          error
	}{{"globex", "", nil}, {"nobody", "", ErrNoTenant}, {"acme", "0", ErrNoSession}, {"acme", newSessionIDs().id(1), ErrNoSession}} {
		if got, err := b.gate.Sessions(tc.tenant, tc.after, 10); !errors.Is(err, tc.want) || len(got) > 0 {
			t.Errorf("%s after %s: %v, %v, want %v", tc.tenant, tc.after, got, err, tc.want)
		}
	}
}

// TestEndSession: the one that is named, at the next message boundary, and nobody else.
func TestEndSession(t *testing.T) {
	b := newBench(t)
	put(t, b.gate, withPassword("globex", 1, "secret"))
	server := b.server()
	reads, idle := b.client(transactionMode), b.client(transactionMode)
	r := b.replica()
	list := b.sessions(3)
	request := pgwire.AppendQuery(nil, "select 1")
	if _, err := reads.Write(request); err != nil {
		t.Fatal(err)
	}
	expect(t, server, request, "request")
	row := append(pgwire.AppendHeader(nil, pgwire.DataRow, 7), 0, 1, 0, 0, 0, 1, '7')
	if _, err := server.Write(row[:8]); err != nil {
		t.Fatal(err)
	}
	expect(t, reads, row[:8], "half a row")

	for _, tc := range []struct {
		tenant, id string
		want       error
	}{
		{"globex", list[0].ID, ErrNoSession}, {"nobody", list[0].ID, ErrNoTenant}, {"nobody", "x", ErrNoTenant}, {"acme", "x", ErrNoSession},
		{"acme", newSessionIDs().id(2), ErrNoSession}, {"acme", list[0].ID, nil}, {"acme", list[0].ID, ErrNoSession}, // it is going
	} {
		if err := b.gate.EndSession(tc.tenant, tc.id); !errors.Is(err, tc.want) {
			t.Errorf("%s at %s: %v, want %v", tc.id, tc.tenant, err, tc.want)
		}
	}
	b.silent(reads, "in the middle of a row")
	if _, err := server.Write(row[8:]); err != nil {
		t.Fatal(err)
	}
	expect(t, reads, row[8:], "the other half")
	killed(t, reads)
	b.silent(idle, "to another session")
	b.sessions(2)

	if err := b.gate.EndSession("acme", list[2].ID); err != nil || r.why().reason != "killed" {
		t.Errorf("a replication session: %v, %v", err, r.why())
	}
	if err := b.gate.EndSession("acme", list[2].ID); !errors.Is(err, ErrNoSession) {
		t.Errorf("once more: %v", err)
	}
	b.replica()
	if n, err := b.gate.EndSessions("acme"); n != 2 || err != nil {
		t.Errorf("all: %d, %v", n, err)
	}
	killed(t, idle)
	b.sessions(0)
	for tenant, want := range map[string]error{"acme": nil, "globex": nil, "nobody": ErrNoTenant} {
		if n, err := b.gate.EndSessions(tenant); n != 0 || !errors.Is(err, want) {
			t.Errorf("%s: %d, %v", tenant, n, err)
		}
	}
	idle.Close()
	reads.Close()
	b.gate.Close()
	if _, err := b.gate.EndSessions("acme"); !errors.Is(err, ErrGateClosed) {
		t.Errorf("a closed gate: %v", err)
	}
}

func killed(t *testing.T, conn net.Conn) {
	t.Helper()
	if typ, body := readMessage(t, conn); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "57P01" {
		t.Fatalf("%c %q", typ, body)
	}
}

// TestEachClientMissesNobody: not although others come and go meanwhile, of which many are looked at in many turns.
func TestEachClientMissesNobody(t *testing.T) {
	b := newBench(t)
	random := rand.New(rand.NewPCG(1, 2))
	tt, met := b.tenant, make(map[uint64]int)
	join := func(id int) {
		tt.clients = append(tt.clients, &client{id: uint64(id), index: len(tt.clients)})
	}
	leave := func(c *client) { // as in client.end
		c.stage = stageGone
		n := len(tt.clients) - 1
		tt.clients[c.index] = tt.clients[n]
		tt.clients[c.index].index = c.index
		tt.clients = tt.clients[:n]
	}
	const there = 3*clientsAtATime + 7
	left := make(map[uint64]bool)
	tt.call(func() {
		for id := range there {
			join(id)
		}
	})
	turns := 0
	tt.eachClient(func(c *client) {
		if met[c.id]++; c.index%clientsAtATime == 0 {
			turns++
		}
		if other := tt.clients[random.IntN(len(tt.clients))]; random.IntN(3) == 0 {
			left[other.id] = true
			leave(other)
		}
		if random.IntN(5) == 0 {
			join(there + len(met))
		}
	})
	var missed []string
	for id := range uint64(there) {
		if met[id] == 0 && !left[id] {
			missed = append(missed, fmt.Sprint(id))
		}
	}
	if len(missed) > 0 || len(left) < there/10 || turns < 3 {
		t.Errorf("%d have left, and missed are %s", len(left), slices.Sorted(slices.Values(missed)))
	}
	tt.call(func() { tt.clients = nil })
}

// TestPageIsBounded: however many there are, in whatever order.
func TestPageIsBounded(t *testing.T) {
	p := page{after: 10, limit: 5}
	for _, number := range rand.New(rand.NewPCG(1, 2)).Perm(20 * clientsAtATime) {
		p.add(uint64(number), func() Session { return Session{number: uint64(number)} })
		p.add(uint64(number), func() Session { return Session{number: uint64(number)} }) // met twice
		if len(p.list) > 3*clientsAtATime {
			t.Fatalf("%d sessions for a page of %d", len(p.list), p.limit)
		}
	}
	p.cut()
	for i, s := range p.list {
		if len(p.list) != 5 || s.number != uint64(11+i) {
			t.Fatalf("%v", p.list)
		}
	}
}
