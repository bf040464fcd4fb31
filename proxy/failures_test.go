// Guesses that are spread over several nodes, and commands that are for all of them.

package proxy

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// door is a node of the town with tenants and nobody in it.
func (w *town) door(t *testing.T, name string) *door {
	d := newDoor(t)
	d.gate.opts.Cluster = w.at(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates[name] = d.gate
	return d
}

// TestGuessesAtSeveralNodes count together, at tenants that exist and at others; a success forgives everywhere what it forgives, and
// what is lifted or repaired is forgotten as on one node.
func TestGuessesAtSeveralNodes(t *testing.T) {
	w := newTown()
	a, b, c := w.door(t, "a"), w.door(t, "b"), w.door(t, "c")
	nodes := []*door{a, b, c}
	const throttled, from = "53400 too many failed logins", "192.0.2.1"
	everywhere := func(what, user, from, want string) {
		t.Helper()
		for i, d := range nodes {
			if got := d.try(user, from, "right"); got != want {
				t.Errorf("%s: node %d says %s", what, i, got)
			}
		}
	}
	for user, ten := range map[string][3]int{"app.acme": {4, 3, 3}, "app.stranger": {8, 1, 1}} {
		for i, d := range nodes {
			d.guesses(user, from, ten[i])
		}
		everywhere("after ten guesses", user, from, throttled)
	}
	everywhere("a neighbour", "app.acme", "192.0.2.2", "ok")
	for i, d := range nodes {
		if all := d.gate.Bans("acme"); len(all) != 1 || all[0].Failures != 10 || all[0].Manual {
			t.Errorf("node %d: %v", i, all)
		}
	}
	// 20 so far, at all tenants together.
	for i, d := range nodes {
		for _, tenant := range []string{"x", "y"} {
			d.guesses("app."+tenant+itoa(i), from, 5)
		}
	}
	everywhere("after fifty guesses at all tenants", "app.guessed", from, throttled)

	a.guesses("app.acme", "192.0.2.3", 5)
	b.guesses("app.acme", "192.0.2.3", 4)
	if got := c.try("app.acme", "192.0.2.3", "right"); got != "ok" {
		t.Error(got)
	}
	a.guesses("app.acme", "192.0.2.3", 9)
	everywhere("after a success and nine more", "app.acme", "192.0.2.3", "ok")

	// Whoever has a new password may have been right on a node that does not know it yet.
	b.change("acme", func(conf *tenants.Tenant) {
		conf.Users = map[string]*tenants.User{"app": {Name: "app", Password: tenants.NewSecret("right"), ServerUser: "app"}}
	})
	a.guesses("app.acme", "192.0.2.4", 10)
	if got := []string{a.try("app.acme", "192.0.2.4", "right"), b.try("app.acme", "192.0.2.4", "right"), c.try("app.acme", "192.0.2.4", "right")}; !slices.Equal(got, []string{throttled, "ok", throttled}) {
		t.Errorf("%q", got)
	}
}

// TestANodeThatHearsNothing counts what it sees itself.
func TestANodeThatHearsNothing(t *testing.T) {
	w := newTown()
	a, b := w.door(t, "a"), w.door(t, "b")
	w.frozen["b"] = true
	a.guesses("app.acme", "192.0.2.1", 10)
	b.guesses("app.acme", "192.0.2.1", 9)
	if got := b.try("app.acme", "192.0.2.1", "right"); got != "ok" {
		t.Error(got)
	}
	// What it is told is bounded.
	many := make([]netrestrict.Failures, netrestrict.MaxTold+1)
	for i := range many {
		many[i] = netrestrict.Failures{Tenant: "acme", Address: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Count: 10}
	}
	b.gate.Heard(Failures{Logins: many, Guesses: many})
	if n := len(b.gate.Bans("acme")); n != netrestrict.MaxTold {
		t.Errorf("%d bans", n)
	}
}

// command has a console of a node do something.
func (b *bench) command(verb, arg string) string {
	b.t.Helper()
	s := &consoleSession{gate: b.gate, log: b.gate.log, interrupt: make(chan struct{}, 1)}
	if err := (&consoleGate{b.gate, s}).Do(console.Command{Verb: verb, Arg: arg}); err != nil {
		return err.Error()
	}
	return "ok"
}

// TestAClientOfAnotherNode is ended by its id, and nobody else is: no two nodes give the same one.
func TestAClientOfAnotherNode(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	a.server()
	b.server()
	conn, other := a.client(transactionMode), b.client(transactionMode)
	idOf := func(b *bench) (id uint64) {
		b.tenant.call(func() { id = b.tenant.clients[0].id })
		return id
	}
	ofA, ofB := idOf(a), idOf(b)
	if ofA == ofB || ofA >= 1<<63 {
		t.Fatalf("%d and %d", ofA, ofB)
	}
	if got := b.command(console.KillClient, itoa(int(ofA))); got != "ok" {
		t.Error(got)
	}
	if said, err := io.ReadAll(conn); err != nil || !strings.Contains(string(said), "57P01") {
		t.Errorf("%q, %v", said, err)
	}
	if idOf(b) != ofB {
		t.Error("the other one has gone")
	}
	if got := a.command(console.KillClient, itoa(int(ofA))); !strings.Contains(got, "client not found") {
		t.Error(got)
	}
	w.frozen["a"] = true
	if got := b.command(console.KillClient, itoa(int(ofA))); !strings.Contains(got, "nodes have not answered: a") {
		t.Error(got)
	}
	said := &pgwire.Error{}
	if err := (&consoleGate{gate: b.gate}).killClient(itoa(int(ofA))); !errors.As(err, &said) || !strings.HasPrefix(said.Hint, "No other node has this client.") {
		t.Errorf("%v, hint %q", err, said.Hint)
	}
	if got := b.command(console.KillClient, itoa(int(ofB))); got != "ok" {
		t.Error(got)
	}
	if _, err := io.ReadAll(other); err != nil {
		t.Error(err)
	}
}

// TestReconnectOnAllNodes: servers are replaced on all nodes, those in use when they are released, which WAIT_CLOSE waits for.
func TestReconnectOnAllNodes(t *testing.T) {
	w := newTown()
	a, b := w.bench(t, "a"), w.bench(t, "b")
	conn, server := a.begun(transactionMode)
	idle := a.server()
	if got := b.command(console.Reconnect, "acme"); got != "ok" {
		t.Error(got)
	}
	if _, err := io.ReadAll(idle); err != nil {
		t.Errorf("the idle one: %v", err)
	}
	if n, silent := b.gate.order(Order{Do: DoClose, Tenant: "acme"}); n != 1 || len(silent) > 0 {
		t.Errorf("%d are to be closed, silent %v", n, silent)
	}
	commit := pgwire.AppendQuery(nil, "commit")
	a.asks(conn, server, commit, commit, done("COMMIT", 'I'), done("COMMIT", 'I'))
	if _, err := io.ReadAll(server); err != nil {
		t.Errorf("the one that was in use: %v", err)
	}
	idle.Close()
	server.Close()
	if got := b.command(console.WaitClose, ""); got != "ok" {
		t.Error(got)
	}
	w.frozen["a"] = true
	for _, verb := range []string{console.Reconnect, console.WaitClose} {
		if got := b.command(verb, "acme"); !strings.Contains(got, "nodes have not answered: a") {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

// TestRefusalsOfSeveralNodes are one list.
func TestRefusalsOfSeveralNodes(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	got := MergeRefusals(
		[]Refusal{{"acme", one, "address", false, "late", 2, at(3), at(9)}, {"acme", two, "tls", false, "", 1, at(5), at(5)}},
		nil,
		[]Refusal{{"acme", one, "address", false, "early", 3, at(1), at(8)}, {"acme", one, "address", true, "seen", 4, at(2), at(7)}})
	want := []Refusal{{"acme", one, "address", false, "late", 5, at(1), at(9)}, {"acme", one, "address", true, "seen", 4, at(2), at(7)}, {"acme", two, "tls", false, "", 1, at(5), at(5)}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	var many []Refusal
	for i := range maxRefusals + 5 {
		many = append(many, Refusal{Tenant: "acme", Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Last: at(int64(i))})
	}
	if got := MergeRefusals(many); len(got) != maxRefusals || got[0].Last != at(maxRefusals+4) {
		t.Errorf("%d, the latest at %v", len(got), got[0].Last)
	}
}
