// What a cluster is opened with, and what it says about its nodes.

package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"regexp"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/tenants"
)

// Protocol is what this program speaks with other nodes. One before and one after are understood; it grows with a change that those who do
// not know it would misread.
const Protocol = 1

// Options say who this node is and where the others may be found.
type Options struct {
	Name, Boot string // of the node's row in the store: see [tenants.Node]
	Region     string // where it is; "": it does not say

	Bind      string         // host:port of the gossip, the host an IP address or nothing; the nodes' port is the next one. Port 0: any
	Advertise netip.AddrPort // where others reach that; zero: where it is bound, which must be one address then. Port 0: that of Bind
	Join      []string       // where to look for others: addresses and names, with or without a port. The store's rows are tried as well

	KeyFile  string // see [ReadKeys]
	MaxNodes int    // as many nodes are counted with; more are a mistake that is logged

	// Nodes reads the rows of the store. Everything that nodes believe of each other comes from there.
	Nodes func(ctx context.Context) ([]tenants.Node, error)
	// Announce has the node's own row written soon: Here says something new. nil: that is done often anyhow.
	Announce   func()
	Log        *slog.Logger
	Registerer prometheus.Registerer // nil: nothing is measured

	// For tests.
	protocol int                                                          // 0: Protocol
	tune     func(*memberlist.Config)                                     // makes gossip faster
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error) // nil: the system's
}

// State is how a member looks from here.
type State string

// The states of a member.
const (
	Alive   State = "alive"
	Suspect State = "suspect" // it did not answer this node, nor others that were asked to try
	Left    State = "left"    // it said goodbye, or was not heard of for too long; it is forgotten soon
)

// Member is a node as the gossip tells of it. All of that is hearsay.
type Member struct {
	Name     string
	Boot     string
	Region   string
	Address  netip.AddrPort // of its nodes' port
	Gossip   netip.AddrPort
	State    State
	Since    time.Time // of the state, by the clock of this node
	Protocol int
	Leaving  bool // it drains
}

// nodeName is what a node may be called; a boot and a region look the same.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// Times of waiting, and bounds of sizes.
const (
	rowsEvery    = time.Second             // rows are read
	rowsPause    = 250 * time.Millisecond  // at least, between two readings
	rowsPatience = 3 * time.Second         // for the store to answer
	joinEvery    = 2 * time.Second         // who is not a member yet is tried
	joinAtOnce   = 16                      // of those
	gossipWait   = 2 * time.Second         // for a whole stream of gossip
	gossipDial   = 1500 * time.Millisecond // of that, to connect: there is time for a second packet, and who waits in vain is tried again with the next joinEvery
	goodbyeWait  = time.Second             // for the gossip that this node leaves
	leftKept     = time.Minute             // a member that has left is told of
	maxMembers   = 1024                    // that are known of, those that have left among them

	handshakeWait = 5 * time.Second  // on the nodes' port, and a second for the store to know the key
	bodyWait      = 5 * time.Second  // for a request to have come
	peerDial      = 3 * time.Second  // of that, to connect: the next packet of TCP's would come after 7 s
	callWait      = 5 * time.Second  // for an answer, unless the caller says otherwise
	maxCallWait   = 60 * time.Second // whatever he says
	idleWait      = 5 * time.Minute  // a connection that nobody uses is closed

	maxHeader     = 8 << 10 // of requests and answers
	maxAnswer     = 4 << 20
	maxErrorText  = 1 << 10
	maxHandshakes = 64 // at once, on the nodes' port
	maxFromOne    = 16 // of those, from one address; and of streams of gossip, from one that no node has
	maxOfNodes    = 16 // and of streams: more, from addresses that nodes have
	maxConns      = 8  // of one node
	maxStreams    = 64 // of gossip, at once

	maxStreamDials  = 12   // handshakes of streams under way to one node, which lets in maxFromOne
	maxStreamsOfOne = 1024 // of clients, to or from one node
	maxStreamsOfAll = 4096 // to or from all

	maxStream = 256 << 10
	maxPacket = 4 << 10
)
