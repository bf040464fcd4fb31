// Where a version is in force. As long as nodes do not know each other, this one alone is asked.

package postgres

import (
	"context"
	"time"

	"github.com/postern/postern/tenants"
)

// Applied implements [tenants.Registry].
func (r *Registry) Applied(_ context.Context, version int64) (tenants.Applied, error) {
	if r.store != nil && r.store.reached() >= version {
		return tenants.Applied{Everywhere: true, At: time.Now()}, nil
	}
	return tenants.Applied{Missing: []string{"this node"}}, nil
}

// Nodes implements [tenants.Registry].
func (r *Registry) Nodes(context.Context) ([]tenants.Node, error) { return nil, nil }

// ForgetNode implements [tenants.Registry].
func (r *Registry) ForgetNode(context.Context, tenants.Actor, string) error {
	return tenants.ErrNoSuchNode
}

// reached is the version up to which everything is in force here.
func (s *Store) reached() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}
