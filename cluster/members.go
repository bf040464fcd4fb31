// Who else is there, as the gossip tells it.

package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// meta is what a node tells of itself, in JSON of at most memberlist.MetaMaxSize bytes.
type meta struct {
	Port     uint16 `json:"port"` // of the nodes' port
	Protocol int    `json:"protocol"`
	Region   string `json:"region,omitempty"`
	Leaving  bool   `json:"leaving,omitempty"`
}

// gossipName is what a node is called in the gossip. A process that was started again is another one there: it need not wait until the one
// before it, at another address perhaps, was found dead.
func gossipName(name, boot string) string { return name + "/" + boot }

// members is a book of who is there. memberlist writes it, under a lock of its own.
type members struct {
	log *slog.Logger
	own string // name of this node in the gossip

	mu         sync.Mutex // guards what follows; held briefly
	all        map[string]*Member
	suspicions uint64
}

func newMembers(own string, log *slog.Logger) *members {
	return &members{log: log, own: own, all: make(map[string]*Member)}
}

var errNotOurs = errors.New("is none of ours")

// parse reads what a member says of itself. Who knows the key can say anything: what is not sound is nobody.
func parse(n *memberlist.Node) (Member, error) {
	name, boot, _ := strings.Cut(n.Name, "/")
	addr, ok := netip.AddrFromSlice(n.Addr)
	var told meta
	if err := json.Unmarshal(n.Meta, &told); err != nil || !ok || !nodeName.MatchString(name) || !nodeName.MatchString(boot) ||
		told.Region != "" && !nodeName.MatchString(told.Region) {
		return Member{}, errNotOurs
	}
	addr = addr.Unmap()
	return Member{Name: name, Boot: boot, Region: told.Region, Address: netip.AddrPortFrom(addr, told.Port), Gossip: netip.AddrPortFrom(addr, n.Port),
		Protocol: told.Protocol, Leaving: told.Leaving}, nil
}

// NotifyAlive implements memberlist.AliveDelegate. This node itself is always one: memberlist relies on that.
func (m *members) NotifyAlive(n *memberlist.Node) error {
	if n.Name == m.own {
		return nil
	}
	_, err := parse(n)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.all[n.Name]; err == nil && !known && len(m.all) >= maxMembers {
		err = errors.New("there are too many members")
	}
	return err
}

// NotifyJoin implements memberlist.EventDelegate.
func (m *members) NotifyJoin(n *memberlist.Node) { m.tell(n, Alive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (m *members) NotifyUpdate(n *memberlist.Node) { m.tell(n, Alive) }

// NotifyLeave implements memberlist.EventDelegate.
func (m *members) NotifyLeave(n *memberlist.Node) { m.tell(n, Left) }

func (m *members) tell(n *memberlist.Node, s State) {
	is, err := parse(n)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	is.State, is.Since = s, time.Now()
	was := m.all[n.Name]
	m.all[n.Name] = &is
	switch {
	case was != nil && was.State == s:
		is.Since = was.Since
	case s == Left:
		m.log.Info("a node is gone", "node", is.Name, "boot", is.Boot)
	case was == nil || was.State == Left:
		m.log.Info("a node is there", "node", is.Name, "boot", is.Boot, "region", is.Region, "address", is.Address.String())
	}
}

// suspect notes that a member does not answer. memberlist tells nobody but its log.
func (m *members) suspect(gossipName string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if is := m.all[gossipName]; is != nil && is.State == Alive {
		is.State, is.Since = Suspect, time.Now()
		m.suspicions++
		m.log.Warn("a node does not answer", "node", is.Name, "boot", is.Boot)
	}
}

// suspected is how often one was.
func (m *members) suspected() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.suspicions
}

// AckPayload implements memberlist.PingDelegate.
func (m *members) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate: a member has answered.
func (m *members) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	m.answers(n.Name)
}

// answers notes that a member does, and reports whether it was suspected.
func (m *members) answers(gossipName string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := m.all[gossipName]
	if is == nil || is.State != Suspect {
		return false
	}
	is.State, is.Since = Alive, time.Now()
	return true
}

// prune forgets who has left long ago.
func (m *members) prune(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.all, func(_ string, is *Member) bool { return is.State == Left && now.Sub(is.Since) > leftKept })
}

// list is in no order.
func (m *members) list() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Member, 0, len(m.all))
	for _, is := range m.all {
		all = append(all, *is)
	}
	return all
}

// Members are the nodes that the gossip tells of, this one included, by name; of one name who is there comes first. One that has left is told
// of for a minute. One that does not answer has left if the store has another process in its place.
func (c *Cluster) Members() []Member {
	all := c.members.list()
	for i := range all {
		if all[i].State == Suspect && c.replaced(all[i]) {
			all[i].State = Left
		}
	}
	slices.SortFunc(all, func(a, b Member) int {
		gone := func(m Member) int {
			if m.State == Left {
				return 1
			}
			return 0
		}
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(gone(a), gone(b)), b.Since.Compare(a.Since), strings.Compare(a.Boot, b.Boot))
	})
	return all
}
