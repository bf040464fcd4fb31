// The nodes that follow the store.

package admin

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/postern/postern/tenants"
)

// Member is a node as the gossip of a cluster tells of it.
type Member struct {
	Name, Boot, Region string
	Address            netip.AddrPort
	State              string // alive, suspect or left
	Since              time.Time
	Protocol           int
	Leaving            bool
}

// nodeView is a node as answers have it.
type nodeView struct {
	Name    string   `json:"name"`
	Started *string  `json:"started"`
	Seen    *string  `json:"seen"`
	Silent  bool     `json:"silent"`
	Applied int64    `json:"applied"`
	Refused []string `json:"refused"`
	Keys    []string `json:"keys"`
	Cache   *string  `json:"cache"`

	Boot        *string     `json:"boot"`
	Address     *string     `json:"address"`
	Gossip      *string     `json:"gossip"`
	Fingerprint *string     `json:"fingerprint"`
	Region      *string     `json:"region"`
	Protocol    *int        `json:"protocol"`
	Leaving     bool        `json:"leaving"`
	Member      *memberView `json:"member"`
}

// memberView is what the gossip says about a node.
type memberView struct {
	State string  `json:"state"`
	Since *string `json:"since"`
}

// strangerView is a member that has no row in the store.
type strangerView struct {
	Name     string  `json:"name"`
	Boot     string  `json:"boot"`
	Region   *string `json:"region"`
	Address  *string `json:"address"`
	Protocol int     `json:"protocol"`
	memberView
}

type clusterView struct {
	StoreAway bool           `json:"store_away"` // Nodes are as they were when it was read last
	Nodes     []nodeView     `json:"nodes"`
	Strangers []strangerView `json:"strangers"`
}

func (s *Server) nodes(r *http.Request) (view clusterView, err error) {
	if _, err := query(r); err != nil {
		return view, err
	}
	if err := s.hasStore(); err != nil {
		return view, err
	}
	ctx, cancel := s.storeContext(r)
	defer cancel()
	all, err := s.opts.Registry.Nodes(ctx)
	if errors.Is(err, tenants.ErrAway) {
		if all = s.lastNodes(); len(all) > 0 {
			view.StoreAway, err = true, nil
		}
	}
	if err != nil {
		return view, err
	}
	view.Nodes, view.Strangers = []nodeView{}, []strangerView{}
	heard, order := s.heard()
	for _, n := range all {
		m, ok := heard[n.Boot]
		delete(heard, n.Boot)
		row := nodeView{Name: n.Name, Started: instant(n.Started), Seen: instant(n.Seen), Silent: n.Silent, Applied: n.Applied, Refused: append([]string{}, n.Refused...),
			Keys: append([]string{}, n.Keys...), Cache: present(n.Cache), Boot: present(n.Boot), Address: addressOf(n.Address), Gossip: addressOf(n.Gossip),
			Fingerprint: present(n.Fingerprint), Region: present(n.Region), Protocol: present(n.Protocol), Leaving: n.Leaving || m.Leaving}
		if ok {
			row.Member = &memberView{m.State, instant(m.Since)}
		}
		view.Nodes = append(view.Nodes, row)
	}
	for _, m := range order {
		if _, ok := heard[m.Boot]; ok {
			view.Strangers = append(view.Strangers, strangerView{m.Name, m.Boot, present(m.Region), addressOf(m.Address), m.Protocol, memberView{m.State, instant(m.Since)}})
		}
	}
	return view, nil
}

// lastNodes are the rows of the nodes as this one has read them last; none: there is no cluster, or they were never read.
func (s *Server) lastNodes() []tenants.Node {
	if s.opts.Nodes == nil {
		return nil
	}
	return s.opts.Nodes()
}

// heard are the members, by boot and in their order.
func (s *Server) heard() (map[string]Member, []Member) {
	if s.opts.Members == nil {
		return nil, nil
	}
	order := s.opts.Members()
	heard := make(map[string]Member, len(order))
	for _, m := range order {
		heard[m.Boot] = m
	}
	return heard, order
}

// addressOf is an address as answers have it; nil: there is none.
func addressOf(a netip.AddrPort) *string {
	if !a.IsValid() {
		return nil
	}
	return new(a.String())
}

// forgetNode says that a node does not serve any more, so that no change waits for it.
func (s *Server) forgetNode(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("node")
	err := s.removal(r, func(ctx context.Context, by tenants.Actor) error { return s.opts.Registry.ForgetNode(ctx, by, name) })
	s.finish(w, r, nil, err, http.StatusOK, gone{name})
}
