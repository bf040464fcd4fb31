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
	conf.SuspicionMult = 3                   // 3 s to answer for a node of few that was not reached
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

// join looks for nodes that are no members yet, until ctx ends: where Join says, and where the store's rows say. memberlist itself would take
// half a minute to find those again that were away.
func (c *Cluster) join(ctx context.Context, list *memberlist.Memberlist) {
	room := make(chan struct{}, joinAtOnce)
	var trying sync.WaitGroup
	defer trying.Wait()
	busy := &addressSet{all: make(map[string]bool)}
	tick := time.NewTicker(joinEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		if first && len(c.rows.list()) == 0 {
			c.rows.again(ctx) // who is alone in the store has read it, at least
		}
		c.members.prune(time.Now())
		for _, addr := range c.unseen(ctx) {
			if !busy.add(addr) {
				continue
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			trying.Go(func() {
				defer func() { busy.remove(addr); <-room }()
				_, _ = list.Join([]string{addr}) // which logs why not
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// unseen are addresses where a node may be that is no member.
func (c *Cluster) unseen(ctx context.Context) []string {
	seen := map[netip.AddrPort]bool{c.gossip.advertise: true}
	for _, m := range c.members.list() {
		if m.State != Left {
			seen[m.Gossip] = true
		}
	}
	var out []string
	add := func(at netip.AddrPort) {
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if at.IsValid() && at.Port() != 0 && !seen[at] {
			seen[at] = true
			out = append(out, at.String())
		}
	}
	for _, n := range c.rows.list() {
		if n.Boot != c.opts.Boot {
			add(n.Gossip)
		}
	}
	for _, seed := range c.opts.Join {
		for _, at := range c.resolve(ctx, seed) {
			add(at)
		}
	}
	return out
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
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
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

// addressSet is where somebody is being tried right now.
type addressSet struct {
	mu  sync.Mutex
	all map[string]bool
}

// add reports false if it is there already.
func (s *addressSet) add(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[addr] {
		return false
	}
	s.all[addr] = true
	return true
}

func (s *addressSet) remove(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, addr)
}
