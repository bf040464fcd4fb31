// Clients that go to nodes in other regions, and those that come from there.

package main

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"slices"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/tenants"
)

// streams is the way to nodes in other regions, for the gate.
type streams struct{ cluster *cluster.Cluster }

var _ proxy.Streams = streams{}

// newStreams has this node serve what others pass on.
func newStreams(c *cluster.Cluster, gate func() *proxy.Gate) streams {
	c.HandleStreams(func(ctx context.Context, s *cluster.Stream) { gate().Serve(ctx, s.Node(), s) })
	return streams{c}
}

// Open implements proxy.Streams.
func (s streams) Open(ctx context.Context, node string) (proxy.Stream, error) {
	return s.cluster.OpenStream(ctx, node)
}

// Nodes implements proxy.Streams.
func (s streams) Nodes(tenant string, regions []string) []string {
	return nodesFor(tenant, regions, s.cluster.Boot(), s.cluster.Nodes(), s.cluster.Members())
}

// nodesFor are the nodes of some regions, those first that seem to be alive and stay. Beyond that each tenant has an order of its own, so
// that its clients, from wherever they come, share the server connections of one node.
func nodesFor(tenant string, regions []string, own string, rows []tenants.Node, members []cluster.Member) (names []string) {
	doubtful := make(map[string]bool) // by boot
	for _, m := range members {
		doubtful[m.Boot] = m.State != cluster.Alive || m.Leaving
	}
	type candidate struct {
		name string
		last int
		turn uint64
	}
	var all []candidate
	for _, n := range rows {
		if n.Boot == own || !n.Address.IsValid() || !slices.Contains(regions, n.Region) {
			continue
		}
		c := candidate{name: n.Name, turn: turnOf(tenant, n.Name)}
		if n.Silent || n.Leaving || doubtful[n.Boot] {
			c.last = 1
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.last, b.last), cmp.Compare(a.turn, b.turn)) })
	for _, c := range all {
		names = append(names, c.name)
	}
	return names
}

func turnOf(tenant, node string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, tenant+"\x00"+node)
	return h.Sum64()
}
