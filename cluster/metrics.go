// What is measured about the cluster.

package cluster

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// counts are events by their labels, all of which are from closed sets.
type counts struct {
	mu     sync.Mutex
	calls  map[[3]string]uint64 // what, direction, result
	turned map[string]uint64    // by reason
}

func newCounts() *counts {
	return &counts{calls: make(map[[3]string]uint64), turned: make(map[string]uint64)}
}

func (n *counts) called(what, direction, result string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[[3]string{what, direction, result}]++
}

func (n *counts) turnedAway(reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turned[reason]++
}

// resultOf is a call's end in a word.
func resultOf(err error) string {
	var remote *RemoteError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &remote):
		return "failed"
	case errors.Is(err, ErrNoNode):
		return "no_node"
	case errors.Is(err, ErrRefused):
		return "refused"
	case errors.Is(err, ErrProtocol):
		return "protocol"
	case errors.Is(err, ErrUnknown):
		return "unknown"
	case errors.Is(err, ErrAway):
		return "away"
	}
	return "failed"
}

var (
	descMembers    = prometheus.NewDesc("postern_cluster_members", "Nodes as the gossip sees them, this one included.", []string{"state"}, nil)
	descSuspicions = prometheus.NewDesc("postern_cluster_suspicions_total", "How often another node did not answer the gossip.", nil, nil)
	descDivergence = prometheus.NewDesc("postern_cluster_divergence", "Nodes that the gossip and the store do not agree on: no_row: alive in the gossip alone; no_member: alive in the store alone.", []string{"what"}, nil)
	descPackets    = prometheus.NewDesc("postern_cluster_packets_total", "Packets of the gossip.", []string{"direction"}, nil)
	descBytes      = prometheus.NewDesc("postern_cluster_bytes_total", "Bytes of the gossip.", []string{"direction"}, nil)
	descCalls      = prometheus.NewDesc("postern_cluster_calls_total", "Calls between nodes, by what was asked and how it ended.", []string{"what", "direction", "result"}, nil)
	descStreams    = prometheus.NewDesc("postern_cluster_streams", "Clients' connections that are carried to (out) and from (in) other nodes now.", []string{"direction"}, nil)
	descRefused    = prometheus.NewDesc("postern_cluster_refused_total", "What was turned away at the ports for other nodes: stranger: a key that no row has; protocol: a version that does not work together with this one; handshake; busy; gossip: more than a cluster has to tell, not sealed with a key that is here, not what nodes say, or too many streams.", []string{"reason"}, nil)
)

// collector reports them.
type collector struct{ c *Cluster }

// Describe implements prometheus.Collector.
func (m collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descMembers, descSuspicions, descDivergence, descPackets, descBytes, descCalls, descStreams, descRefused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	states := map[State]int{Alive: 0, Suspect: 0, Left: 0}
	for _, is := range m.c.Members() {
		states[is.State]++
	}
	for state, n := range states {
		gauge(descMembers, n, string(state))
	}
	counter(descSuspicions, m.c.members.suspected())
	noRow, noMember := m.c.divergence()
	gauge(descDivergence, noRow, "no_row")
	gauge(descDivergence, noMember, "no_member")
	g := m.c.gossip
	counter(descPackets, g.sent.Load(), "out")
	counter(descPackets, g.received.Load(), "in")
	counter(descBytes, g.sentBytes.Load(), "out")
	counter(descBytes, g.receivedBytes.Load(), "in")

	gauge(descStreams, m.c.streams.open(false), "out")
	gauge(descStreams, m.c.streams.open(true), "in")

	n := m.c.counts
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, v := range n.calls {
		counter(descCalls, v, key[:]...)
	}
	for _, reason := range []string{"stranger", "protocol", "handshake", "busy"} {
		counter(descRefused, n.turned[reason], reason)
	}
	counter(descRefused, g.refused.Load(), "gossip")
}

// divergence counts members without a row, and rows that are alive without a member. Processes are told apart by their boot.
func (c *Cluster) divergence() (noRow, noMember int) {
	there := make(map[string]bool)
	for _, m := range c.Members() {
		if m.State == Left {
			continue
		}
		there[m.Boot] = true
		if _, ok := c.rows.booted(m.Boot); !ok {
			noRow++
		}
	}
	for _, n := range c.rows.list() {
		if n.Gossip.IsValid() && !n.Silent && !there[n.Boot] {
			noMember++
		}
	}
	return noRow, noMember
}
