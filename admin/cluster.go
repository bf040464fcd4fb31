// The nodes that follow the store.

package admin

import (
	"context"
	"net/http"

	"github.com/postern/postern/tenants"
)

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
}

type clusterView struct {
	Nodes []nodeView `json:"nodes"`
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
	if err != nil {
		return view, err
	}
	view.Nodes = []nodeView{}
	for _, n := range all {
		view.Nodes = append(view.Nodes, nodeView{n.Name, instant(n.Started), instant(n.Seen), n.Silent, n.Applied, append([]string{}, n.Refused...),
			append([]string{}, n.Keys...), present(n.Cache)})
	}
	return view, nil
}

// forgetNode says that a node does not serve any more, so that no change waits for it.
func (s *Server) forgetNode(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("node")
	err := s.removal(r, func(ctx context.Context, by tenants.Actor) error { return s.opts.Registry.ForgetNode(ctx, by, name) })
	s.finish(w, r, nil, err, http.StatusOK, gone{name})
}
