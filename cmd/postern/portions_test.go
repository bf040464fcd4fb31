// What a node finds out about others' servers, over calls that never leave this process.

package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// TestServersOfAnotherNode: a node answers for a tenant that it does not use, and one without a service account counts nothing.
func TestServersOfAnotherNode(t *testing.T) {
	n := nodeOf("a", 1)
	n.answer = func(string, string, []byte) (any, error) { return nil, errors.New("nobody is to be asked") }
	p := newPeers(n, gateOf(t))
	body, _ := json.Marshal("acme")
	answer, err := n.handlers[askServers](t.Context(), "b", body)
	if err != nil || string(answer) != "null" && string(answer) != "[]" {
		t.Errorf("%s, %v", answer, err)
	}
	if n, ok, err := p.strangers(t.Context(), "acme"); n != 0 || ok || err != nil {
		t.Errorf("%d, %v, %v", n, ok, err)
	}
	if _, ok, err := p.strangers(t.Context(), "nobody"); ok || err == nil {
		t.Errorf("of nobody: %v, %v", ok, err)
	}
}

// TestWhoIsNotCounted: who was removed has nobody to ask, and a node asks no Postgres of a tenant that it may not serve. Neither is a fault.
func TestWhoIsNotCounted(t *testing.T) {
	far := tenants.New("far")
	far.Upstream.Host, far.Service = "127.0.0.1", &tenants.Service{User: "watcher", Password: tenants.NewSecret("p")}
	far.Residency.Ingress = []string{"elsewhere"}
	far.Complete()
	n := nodeOf("a", 1)
	n.answer = func(string, string, []byte) (any, error) { return nil, errors.New("nobody is to be asked") }
	p := newPeers(n, gateOf(t, far))
	if n, ok, err := p.count(t.Context(), "removed"); n != 0 || ok || err != nil {
		t.Errorf("removed: %d, %v, %v", n, ok, err)
	}
	if _, ok, err := p.count(t.Context(), "far"); !ok || !errors.Is(err, cluster.ErrNotCounted) || !errors.Is(err, proxy.ErrElsewhere) {
		t.Errorf("far: %v, %v", ok, err)
	}
}

// TestAlone: only who knows of others and sees none of them.
func TestAlone(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:7947")
	row := func(boot string) tenants.Node { return tenants.Node{Boot: boot, Here: tenants.Here{Address: at}} }
	member := func(boot string, s cluster.State) cluster.Member { return cluster.Member{Boot: boot, State: s} }
	for name, c := range map[string]struct {
		rows []tenants.Node
		all  []cluster.Member
		want bool
	}{
		"the only one":      {[]tenants.Node{row("me")}, []cluster.Member{member("me", cluster.Alive)}, false},
		"one without ports": {[]tenants.Node{row("me"), {Boot: "x"}}, nil, false},
		"another is seen":   {[]tenants.Node{row("me"), row("x"), row("y")}, []cluster.Member{member("x", cluster.Left), member("y", cluster.Alive)}, false},
		"none is seen":      {[]tenants.Node{row("me"), row("x"), row("y")}, []cluster.Member{member("me", cluster.Alive), member("x", cluster.Suspect)}, true},
	} {
		if got := alone(c.rows, c.all, "me"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestFloor: who has an upstream and shares its limits.
func TestFloor(t *testing.T) {
	plain, own, machine := tenants.New("plain"), tenants.New("own"), tenants.New("machine")
	own.Pool.PerNode, machine.Machine = true, &tenants.Machine{}
	d, err := tenants.NewDirectory(plain, own, machine)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"plain": true, "own": false, "machine": false, "nobody": false} {
		if got := hasFloor(d, id); got != want {
			t.Errorf("%s: %v", id, got)
		}
	}
}
