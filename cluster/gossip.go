// The gossip: memberlist as it is set up here, and looking for who is not there yet.

package cluster

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// label keeps the gossip of other programs out.
const label = "postern"

func (c *Cluster) gossipConfig() *memberlist.Config {
	conf := memberlist.DefaultLANConfig()
	conf.Name = gossipName(c.opts.Name, c.opts.Boot)
	conf.Label = label
	conf.Transport = c.gossip
	conf.Keyring = c.keys.ring
	conf.Logger = gossipLogger(c.log, c.opts.Name, c.members.suspect)
	conf.Delegate, conf.Events, conf.Alive, conf.Ping = delegate{c}, c.members, c.members, c.members
	conf.UDPBufferSize = 1232      // passes everywhere: Fly's private network has an MTU of 1420, and IPv6 promises 1280
	conf.EnableCompression = false // of packets that small it costs more than it saves; and nodes refuse it
	conf.TCPTimeout = gossipWait
	conf.SuspicionMult = 3                   // 3 s to answer for a node of few that two others have not reached
	conf.SuspicionMaxTimeoutMult = 2         // and 6 s if it is only one; 18 s would pass in which nodes do not agree
	conf.AwarenessMaxMultiplier = 2          // nobody waits longer than 2 s for one that does not answer: it may be 8 s that began before a network was whole again
	conf.PushPullInterval = 15 * time.Second // all states are compared with one other node
	if c.opts.tune != nil {
		c.opts.tune(conf)
	}
	return conf
}

// delegate says what this node tells of itself.
type delegate struct{ c *Cluster }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	here := d.c.Here()
	b, err := json.Marshal(meta{Port: here.Address.Port(), Protocol: here.Protocol, Region: here.Region, Leaving: here.Leaving})
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// NotifyMsg implements memberlist.Delegate: nobody sends any.
func (d delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState([]byte, bool) {}

// join looks for nodes that are no members yet, until ctx ends: where the store's rows say, and where Join says. memberlist itself would take
// half a minute to find those again that were away. It also asks those itself that do not seem to answer.
func (c *Cluster) join(ctx context.Context, list *memberlist.Memberlist) {
	joins, pings := newTries(), newTries()
	defer joins.trying.Wait()
	defer pings.trying.Wait()
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		if first && len(c.rows.list()) == 0 {
			c.rows.again(ctx) // who is alone in the store has read it, at least
		}
		c.members.prune(time.Now())
		for _, m := range c.doubtful() {
			if len(pings.room) == cap(pings.room) {
				break // others have their turn
			}
			pings.begin(ctx, gossipName(m.Name, m.Boot), func() { c.ping(list, m) })
		}
		meet := func(all []netip.AddrPort) {
			for _, at := range all {
				joins.begin(ctx, at.String(), func() { _, _ = list.Join([]string{at.String()}) }) // which logs why not
			}
		}
		meet(c.unseenRows())
		meet(c.unseenSeeds(ctx)) // at last: it may take as long as names are not found
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ping asks a member by its name, which another process at its address does not answer to. memberlist comes round to each node after as many
// seconds as there are nodes.
func (c *Cluster) ping(list *memberlist.Memberlist, m Member) {
	name := gossipName(m.Name, m.Boot)
	if _, err := list.Ping(name, net.UDPAddrFromAddrPort(m.Gossip)); err != nil {
		c.members.suspect(name)
		return
	}
	if c.members.answers(name) {
		_, _ = list.Join([]string{m.Gossip.String()}) // it hears that it is suspected, and says at once to all that it lives
	}
}

// doubtful are members that may have ended, in no order: those that did not answer, and those in whose place the store has another process.
func (c *Cluster) doubtful() (out []Member) {
	for _, m := range c.members.list() {
		if m.State == Suspect || m.State == Alive && c.replaced(m) {
			out = append(out, m)
		}
	}
	return out
}

// replaced reports whether the store has another process in a member's place. If the member lives all the same, it finds out within a second,
// and takes another name.
func (c *Cluster) replaced(m Member) bool {
	row, ok := c.rows.named(m.Name)
	if !ok || row.Boot == m.Boot || m.Boot == c.opts.Boot {
		return false
	}
	_, there := c.rows.booted(m.Boot)
	return !there
}

// unseenRows are where the store says that nodes are which are no members. That somebody seems to be there may be about the process before it.
func (c *Cluster) unseenRows() (out []netip.AddrPort) {
	seen, boots := c.seen()
	for _, n := range c.rows.list() {
		at := unmapped(n.Gossip)
		if n.Boot != c.opts.Boot && !boots[n.Boot] && at != c.gossip.advertise && at.IsValid() && at.Port() != 0 && !(seen[at] && n.Silent) {
			out = append(out, at)
		}
	}
	return out
}

// unseenSeeds are where Join says that nodes are, if there is no member.
func (c *Cluster) unseenSeeds(ctx context.Context) (out []netip.AddrPort) {
	found := make([][]netip.AddrPort, len(c.opts.Join))
	var asking sync.WaitGroup
	for i, seed := range c.opts.Join {
		asking.Go(func() { found[i] = c.resolve(ctx, seed) })
	}
	asking.Wait()
	seen, _ := c.seen()
	for _, at := range slices.Concat(found...) {
		at = unmapped(at)
		if at.IsValid() && at.Port() != 0 && !seen[at] {
			seen[at] = true
			out = append(out, at)
		}
	}
	return out
}

// seen are the addresses and the boots of members that are there, and of this node.
func (c *Cluster) seen() (at map[netip.AddrPort]bool, boots map[string]bool) {
	at, boots = map[netip.AddrPort]bool{c.gossip.advertise: true}, make(map[string]bool)
	for _, m := range c.members.list() {
		if m.State != Left {
			at[m.Gossip], boots[m.Boot] = true, true
		}
	}
	return at, boots
}

func unmapped(at netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// resolve finds the addresses of a seed. Names are asked for each time: machines come and go.
func (c *Cluster) resolve(ctx context.Context, seed string) (out []netip.AddrPort) {
	host, port := seed, c.gossip.advertise.Port()
	if h, p, err := net.SplitHostPort(seed); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return nil
		}
		host, port = h, uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}
	}
	ctx, cancel := context.WithTimeout(ctx, joinEvery)
	defer cancel()
	addrs, err := c.opts.lookup(ctx, host)
	if err != nil {
		c.log.Debug("where to look for other nodes is not known", "join", seed, "error", err)
		return nil
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, addr := range addrs {
		out = append(out, netip.AddrPortFrom(addr, port))
	}
	return out
}

func lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// tries are what is under way with others, a few at once, and one at a time with each.
type tries struct {
	room   chan struct{}
	trying sync.WaitGroup

	mu   sync.Mutex // guards busy
	busy map[string]bool
}

func newTries() *tries {
	return &tries{room: make(chan struct{}, joinAtOnce), busy: make(map[string]bool)}
}

// begin does something with another node when there is room, unless that is being done already.
func (t *tries) begin(ctx context.Context, with string, do func()) {
	t.mu.Lock()
	busy := t.busy[with]
	t.busy[with] = true
	t.mu.Unlock()
	if busy {
		return
	}
	end := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.busy, with)
	}
	select {
	case t.room <- struct{}{}:
	case <-ctx.Done():
		end()
		return
	}
	t.trying.Go(func() {
		defer func() { end(); <-t.room }()
		do()
	})
}
