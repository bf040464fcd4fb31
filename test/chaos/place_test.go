// Where the nodes of a cluster stand, so that the network between them can be cut.

package chaos

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/postern/postern/test/harness"
)

const (
	nodes      = 3
	gossipPort = 7946 // and the nodes' port is the next one
)

// A place has an address for each node, and ways between them that can be cut without a word.
type place interface {
	// address is a node's own.
	address(node int) netip.Addr
	// told is where others reach its gossip.
	told(node int) netip.AddrPort
	// program runs a node there.
	program(t *testing.T, node int) string
	// way is where a node reaches the store, as long as it is not cut off from it. It is called for each node, in order.
	way(t *testing.T, node int, store string) string
	// common is where all nodes reach a server on this computer. own is an address that machines can have there.
	common(t *testing.T, target string) string
	own() netip.Addr
	// cuts are what can be cut. lost is a node without the store and the others, which have each other still, or so it should be.
	cuts() (every []cut, lost cut)
}

// cut is a fault of the network. cut returns what heals it.
type cut struct {
	name string
	all  bool // none of the nodes reaches another
	cut  func(t *testing.T, node int) (heal func())
}

// both is two cuts at a time.
func both(name string, a, b cut) cut {
	return cut{name, a.all || b.all, func(t *testing.T, node int) func() {
		healA, healB := a.cut(t, node), b.cut(t, node)
		return func() { healA(); healB() }
	}}
}

// loopback is a place for everybody: the nodes have addresses of their own in 127/8, and relays stand on the ways to their ports for other
// nodes and to the store. A relay does not know who sends, so a node can be hidden from all others, or all from each other.
type loopback struct {
	net    [2]byte
	calls  [nodes][2]*harness.Relay // to the gossip of a node by TCP, and to its nodes' port
	gossip [nodes]*packets
	stores [nodes]*harness.Relay
}

func newLoopback(t *testing.T) *loopback {
	t.Helper()
	l := &loopback{net: [2]byte{byte(1 + rand.N(254)), byte(1 + rand.N(254))}}
	for i := range nodes {
		at, behind := l.told(i), netip.AddrPortFrom(l.address(i), gossipPort)
		for j := range l.calls[i] {
			port := gossipPort + uint16(j)
			l.calls[i][j] = harness.NewRelayAt(t, netip.AddrPortFrom(at.Addr(), port).String(), netip.AddrPortFrom(behind.Addr(), port).String(), harness.Faults{})
		}
		l.gossip[i] = relayPackets(t, at, behind)
	}
	return l
}

func (l *loopback) at(host int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, l.net[0], l.net[1], byte(host)})
}

func (l *loopback) address(node int) netip.Addr { return l.at(11 + node) }
func (l *loopback) told(node int) netip.AddrPort {
	return netip.AddrPortFrom(l.at(21+node), gossipPort)
}
func (l *loopback) program(t *testing.T, _ int) string { return harness.Binary(t) }
func (l *loopback) own() netip.Addr                    { return l.at(31) }
func (l *loopback) common(_ *testing.T, target string) string {
	return target
}

func (l *loopback) way(t *testing.T, node int, store string) string {
	t.Helper()
	l.stores[node] = harness.NewRelay(t, store, harness.Faults{})
	return l.stores[node].Addr()
}

func (l *loopback) hide(t *testing.T, node, percent int) {
	t.Helper()
	for _, r := range l.calls[node] {
		r.Lose(t, percent)
	}
	l.gossip[node].drops.Store(percent > 0)
}

func (l *loopback) cuts() (every []cut, lost cut) {
	store := cut{"cut off from the store", false, func(t *testing.T, node int) func() {
		l.stores[node].Lose(t, 100)
		return func() { l.stores[node].Lose(t, 0) }
	}}
	hidden := cut{"reached by no other node", false, func(t *testing.T, node int) func() {
		l.hide(t, node, 100)
		return func() { l.hide(t, node, 0) }
	}}
	each := cut{"cut off, as all of them are from each other", true, func(t *testing.T, _ int) func() {
		for i := range nodes {
			l.hide(t, i, 100)
		}
		return func() {
			for i := range nodes {
				l.hide(t, i, 0)
			}
		}
	}}
	lost = both("cut off from the store, and all of them from each other", store, each)
	return []cut{store, each, lost, hidden}, lost
}

// packets relays UDP to a node. What the node itself sends goes elsewhere: nodes answer to where the asker says that it is.
type packets struct{ drops atomic.Bool }

func relayPackets(t *testing.T, at, target netip.AddrPort) *packets {
	t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	p, ended := &packets{}, make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 64<<10); ; {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if from.Addr().Unmap() != target.Addr() && !p.drops.Load() {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], target) // nobody may be there
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-ended })
	return p
}

// eachPlace runs a test on loopback, and if there is time in namespaces, where this computer lets us make some.
func eachPlace(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("loopback", func(t *testing.T) {
		t.Parallel()
		test(t, newLoopback(t))
	})
	if !harness.Long() {
		return
	}
	if err := namespacesCan(); err != nil {
		t.Logf("no network namespaces here: %v", err)
		return
	}
	t.Run("namespaces", func(t *testing.T) {
		t.Parallel()
		test(t, newNamespaces(t))
	})
}

func atPort(a netip.Addr, port int) string { return fmt.Sprintf("%v:%d", a, port) }
