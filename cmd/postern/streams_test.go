// To which node a client goes.

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/tenants"
)

// TestNodesFor: those of the regions alone, the doubtful ones last, and not the same first for all tenants.
func TestNodesFor(t *testing.T) {
	t.Parallel()
	at := tenants.Here{Address: netip.MustParseAddrPort("192.0.2.1:7947")}
	row := func(name, region string, change func(*tenants.Node)) tenants.Node {
		n := tenants.Node{Name: name, Boot: name, Here: at}
		n.Region = region
		if change != nil {
			change(&n)
		}
		return n
	}
	rows := []tenants.Node{row("own", "ams", nil), row("syd", "syd", nil), row("nowhere", "", nil),
		row("silent", "ams", func(n *tenants.Node) { n.Silent = true }), row("leaving", "ams", func(n *tenants.Node) { n.Leaving = true }),
		row("alone", "ams", func(n *tenants.Node) { n.Address = netip.AddrPort{} }), row("suspect", "ams", nil), row("left", "fra", nil), row("goes", "fra", nil)}
	for i := range 4 {
		rows = append(rows, row(fmt.Sprint("good-", i), []string{"ams", "fra"}[i%2], nil))
	}
	members := []cluster.Member{{Boot: "suspect", State: cluster.Suspect}, {Boot: "left", State: cluster.Left}, {Boot: "goes", State: cluster.Alive, Leaving: true}, {Boot: "good-0", State: cluster.Alive}}
	first := make(map[string]int)
	for i := range 200 {
		tenant := fmt.Sprint("tenant-", i)
		got := nodesFor(tenant, []string{"ams", "fra"}, "own", rows, members)
		if len(got) != 9 {
			t.Fatalf("%v", got)
		}
		good, rest := slices.Sorted(slices.Values(got[:4])), slices.Sorted(slices.Values(got[4:]))
		if !slices.Equal(good, []string{"good-0", "good-1", "good-2", "good-3"}) || !slices.Equal(rest, []string{"goes", "leaving", "left", "silent", "suspect"}) {
			t.Fatalf("%v", got)
		}
		if again := nodesFor(tenant, []string{"ams", "fra"}, "own", rows, members); !slices.Equal(got, again) {
			t.Fatalf("%v, and then %v", got, again)
		}
		first[got[0]]++
	}
	for name, n := range first {
		if len(first) != 4 || n < 20 {
			t.Errorf("%s is first for %d of 200 tenants: %v", name, n, first)
		}
	}
	if got := nodesFor("t", []string{"iad"}, "own", rows, members); len(got) > 0 {
		t.Errorf("%v", got)
	}
}
