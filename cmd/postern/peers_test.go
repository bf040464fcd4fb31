// What nodes ask each other, over calls that never leave this process.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/admin"
	"github.com/postern/postern/cluster"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// fakeNodes is a cluster as one of its nodes has it. answer stands for the others; nil: it does not.
type fakeNodes struct {
	name, boot string
	rows       []tenants.Node
	keys       [][32]byte
	handlers   map[string]func(ctx context.Context, from string, body []byte) ([]byte, error)
	answer     func(node, what string, body []byte) (any, error)
	wait       func(node string) (forever bool) // before the answer, until the caller goes; nil: nobody waits
	left       func(node string)                // who has waited
}

func (f *fakeNodes) Name() string          { return f.name }
func (f *fakeNodes) Boot() string          { return f.boot }
func (f *fakeNodes) Nodes() []tenants.Node { return f.rows }
func (f *fakeNodes) Key(string) [32]byte   { return f.keys[0] }
func (f *fakeNodes) Keys(purpose string) [][32]byte {
	if purpose != "cancel" {
		panic("keys for " + purpose)
	}
	return f.keys
}

func (f *fakeNodes) Handle(what string, _ int64, h func(ctx context.Context, from string, body []byte) ([]byte, error)) {
	if f.handlers == nil {
		f.handlers = make(map[string]func(ctx context.Context, from string, body []byte) ([]byte, error))
	}
	f.handlers[what] = h
}

func (f *fakeNodes) Call(ctx context.Context, node, what string, body []byte) ([]byte, error) {
	if f.answer == nil || f.wait != nil && f.wait(node) {
		<-ctx.Done()
		if f.left != nil {
			f.left(node)
		}
		return nil, ctx.Err()
	}
	a, err := f.answer(node, what, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// rowsOf are rows of nodes, whose boots are their names in capitals.
func rowsOf(names ...string) (rows []tenants.Node) {
	for _, name := range names {
		rows = append(rows, tenants.Node{Name: name, Boot: strings.ToUpper(name), Here: tenants.Here{Address: netip.MustParseAddrPort("192.0.2.1:7947")}})
	}
	return rows
}

func nodeOf(name string, keys ...byte) *fakeNodes {
	f := &fakeNodes{name: name, boot: strings.ToUpper(name), rows: append(rowsOf("a", "b", "c"), tenants.Node{Name: "d", Boot: "D"})}
	for _, k := range keys {
		f.keys = append(f.keys, [32]byte{k})
	}
	return f
}

// gateOf is a gate with a tenant that nobody uses.
func gateOf(t *testing.T, more ...*tenants.Tenant) func() *proxy.Gate {
	t.Helper()
	acme := tenants.New("acme")
	acme.Upstream.Host = "127.0.0.1"
	acme.Complete()
	d, err := tenants.NewDirectory(append(more, acme)...)
	if err != nil {
		t.Fatal(err)
	}
	g, err := proxy.New(proxy.Options{Directory: d, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Loops: 1, Limits: proxy.Limits{Clients: 10, Handshakes: 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return func() *proxy.Gate { return g }
}

// TestCancelKeysOfNodes: what a node makes leads every other node to it, whoever has had the new key first, and itself to nobody.
func TestCancelKeysOfNodes(t *testing.T) {
	a, b, stranger := newPeers(nodeOf("a", 1, 2), nil), newPeers(nodeOf("b", 2, 1), nil), newPeers(nodeOf("b", 3), nil)
	for range 100 {
		for _, pid := range []uint32{1, 4711, 1<<31 - 1} {
			secret := a.CancelSecret(pid, true)
			if got := b.CancelOwners(pid, secret); !slices.Equal(got, []string{"a"}) {
				t.Fatalf("b takes it for one of %v", got)
			}
			if got := a.CancelOwners(pid, secret); len(got) > 0 {
				t.Fatalf("a takes it for one of %v", got)
			}
			if got := stranger.CancelOwners(pid, secret); len(got) > 0 {
				t.Fatalf("who has another key takes it for one of %v", got)
			}
			if got := b.CancelOwners(pid, a.CancelSecret(pid, false)); !slices.Contains(got, "a") {
				t.Fatalf("b takes a short one for one of %v", got)
			}
		}
	}
}

// TestAgeOfAForwardedCancel is what it was, and for how long it was on its way and lay before this node.
func TestAgeOfAForwardedCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(nodeOf("a", 1), nil)
		clock, err := p.nodes.(*fakeNodes).handlers[askClock](t.Context(), "b", []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		age, err := p.ageNow(proxy.ForwardedCancel{Age: time.Second, Clock: clock})
		if err != nil || age != 4*time.Second {
			t.Errorf("%v, %v", age, err)
		}
		if _, err := p.ageNow(proxy.ForwardedCancel{Age: time.Second}); err == nil {
			t.Error("one without a clock has an age")
		}
	})
}

func session(id string) proxy.Session { return proxy.Session{ID: id, User: "app"} }

// TestSessionsOfAllNodes: by nodes, in pages, and without those that do not answer, which are named.
func TestSessionsOfAllNodes(t *testing.T) {
	n := nodeOf("b", 1)
	c := control{gateOf(t)(), nil}
	c.peers = newPeers(n, func() *proxy.Gate { return c.gate })
	has := map[string][]string{"a": {"a1", "a2", "a3"}, "c": {"c1", "c2"}}
	n.answer = func(node, what string, body []byte) (any, error) {
		var q sessionsQuestion
		if err := json.Unmarshal(body, &q); err != nil || what != askSessions || q.Tenant != "acme" {
			t.Errorf("%s is asked %s %s", node, what, body)
		}
		list, ok := has[node]
		if !ok {
			return nil, cluster.ErrAway
		}
		var a sessionsAnswer
		from := slices.Index(list, q.After) + 1
		if q.After != "" && from == 0 {
			return sessionsAnswer{Unknown: true}, nil
		}
		for _, id := range list[from:min(len(list), from+q.Limit)] {
			a.Sessions = append(a.Sessions, session(id))
		}
		return a, nil
	}
	ask := func(after string, limit int) (ids []string, missing []string, err error) {
		list, missing, err := c.Sessions(t.Context(), "acme", after, limit)
		for _, s := range list {
			ids = append(ids, s.Node+":"+s.ID)
		}
		return ids, missing, err
	}
	for _, tc := range []struct {
		after string
		limit int
		want  string
	}{
		{"", 10, "a:a1 a:a2 a:a3 c:c1 c:c2"}, {"", 2, "a:a1 a:a2"}, {"a:a2", 2, "a:a3 c:c1"}, {"c:c1", 2, "c:c2"}, {"c:c2", 2, ""},
		{"aa:gone", 10, "c:c1 c:c2"}, // a node that is gone was between them
	} {
		if ids, missing, err := ask(tc.after, tc.limit); err != nil || len(missing) > 0 || strings.Join(ids, " ") != tc.want {
			t.Errorf("after %s: %v, missing %v, %v, want %s", tc.after, ids, missing, err, tc.want)
		}
	}
	for _, after := range []string{"a:nobody", "a1", "b:a1"} {
		if _, _, err := ask(after, 2); !errors.Is(err, admin.ErrNoSession) {
			t.Errorf("after %s: %v", after, err)
		}
	}
	if _, _, err := c.Sessions(t.Context(), "nobody", "", 2); !errors.Is(err, admin.ErrNoTenant) {
		t.Errorf("of nobody: %v", err)
	}
	delete(has, "c")
	if ids, missing, err := ask("", 10); err != nil || strings.Join(missing, " ") != "c" || strings.Join(ids, " ") != "a:a1 a:a2 a:a3" {
		t.Errorf("%v, missing %v, %v", ids, missing, err)
	}
}

// TestSessionsAreEndedElsewhere: one that is not here is looked for, and it is told where nobody has looked.
func TestSessionsAreEndedElsewhere(t *testing.T) {
	n := nodeOf("b", 1)
	c := control{gateOf(t)(), nil}
	c.peers = newPeers(n, func() *proxy.Gate { return c.gate })
	answers := map[string]int{"a": 0, "c": 1}
	n.answer = func(node, what string, _ []byte) (any, error) {
		k, ok := answers[node]
		if !ok || what != askEnd {
			return nil, cluster.ErrAway
		}
		return k, nil
	}
	if err := c.EndSession(t.Context(), "acme", "x"); err != nil {
		t.Errorf("one that c has: %v", err)
	}
	answers["c"] = 0
	if err := c.EndSession(t.Context(), "acme", "x"); !errors.Is(err, admin.ErrNoSession) {
		t.Errorf("one that nobody has: %v", err)
	}
	if err := c.EndSession(t.Context(), "nobody", "x"); !errors.Is(err, admin.ErrNoTenant) {
		t.Errorf("one of nobody's: %v", err)
	}
	answers["a"] = 5
	delete(answers, "c")
	if k, missing, err := c.EndSessions(t.Context(), "acme"); k != 5 || fmt.Sprint(missing) != "[c]" || err != nil {
		t.Errorf("all: %d, %v, %v", k, missing, err)
	}
	answers["a"] = 0
	var silent *admin.SilentError
	if err := c.EndSession(t.Context(), "acme", "x"); !errors.As(err, &silent) || fmt.Sprint(silent.Nodes) != "[c]" {
		t.Errorf("one that c may have: %v", err)
	}
}

// TestAnswersToOtherNodes are of this node's gate, whatever they ask.
func TestAnswersToOtherNodes(t *testing.T) {
	n := nodeOf("a", 1)
	p := newPeers(n, gateOf(t))
	clock, err := n.handlers[askClock](t.Context(), "b", []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	cancel, err := json.Marshal(proxy.ForwardedCancel{PID: 1, Secret: []byte("abcd"), Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ what, body, want string }{
		{askCancel, string(cancel), `"unknown"`},
		{askCancel, `{"PID":1}`, "!what this node's clock has read is missing"},
		{askOrder, `{"Do":"pause"}`, "1"},
		{askOrder, `{"Do":"pause"}`, "0"},
		{askOrder, `{"Do":"resume"}`, "1"},
		{askOrder, `{"Do":"kill","Tenant":"nobody"}`, "1"}, // it may not have heard of it yet
		{askOrder, `{"Do":"dance"}`, "!this node does not know the order"},
		{askSessions, `{"Tenant":"acme","Limit":-1}`, `{"Sessions":[],"Unknown":false}`},
		{askSessions, `{"Tenant":"acme","After":"x","Limit":5}`, `{"Sessions":null,"Unknown":true}`},
		{askSessions, `{"Tenant":"nobody","Limit":5}`, `{"Sessions":[],"Unknown":false}`},
		{askEnd, `{"Tenant":"acme"}`, "0"},
		{askEnd, `{"Tenant":"acme","Session":"x"}`, "0"},
		{askEnd, `{"Tenant":"nobody","Session":"x"}`, "0"},
		{askEnd, `?`, "!the question cannot be read"},
		{askFailures, `{"Logins":[{"Tenant":"acme","Address":"192.0.2.1","Count":1}],"Guesses":[{"Address":"","Count":-1}]}`, "{}"},
		{askFailures, `{"Logins":[{"Address":"nowhere"}]}`, "!the question cannot be read"},
		{askLockedOut, `{"Tenant":"acme","Document":{"upstream":{"host":"db"}},"Users":["app"]}`, `{"Locked":0,"Open":0}`},
		{askLockedOut, `{"Tenant":"acme","Document":{"upstream":{"host":"db"},"shoes":2}}`, "!the tenant cannot be read"},
		{askRefusals, `"acme"`, "[]"},
		{askRefusals, `"nobody"`, "null"},
	} {
		got, err := n.handlers[tc.what](t.Context(), "b", []byte(tc.body))
		if text := string(got); err != nil && "!"+err.Error() != tc.want || err == nil && strings.ReplaceAll(text, `"Sessions":null,"Unknown":false`, `"Sessions":[],"Unknown":false`) != tc.want {
			t.Errorf("%s %s: %s, %v, want %s", tc.what, tc.body, got, err, tc.want)
		}
	}
	// One that is frozen is named in two seconds.
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if k, silent := p.Tell(t.Context(), proxy.Order{Do: proxy.DoLeave}); k != 0 || fmt.Sprint(silent) != "[b c]" || time.Since(began) != peersWithin {
			t.Errorf("%d, %v after %v", k, silent, time.Since(began))
		}
	})
}
