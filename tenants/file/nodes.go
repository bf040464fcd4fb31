// A file has one node, this process, where everything that was read is in force.

package file

import (
	"context"
	"os"
	"time"

	"github.com/postern/postern/tenants"
)

// Applied is everywhere: see [Store.Reload].
func (s *Store) Applied(context.Context, int64) (tenants.Applied, error) {
	at := s.Stats().LoadedAt
	return tenants.Applied{Everywhere: true, At: at, When: map[string]time.Time{nodeName(): at}}, nil
}

// Nodes lists this process.
func (s *Store) Nodes(context.Context) ([]tenants.Node, error) {
	return []tenants.Node{{Name: nodeName(), Seen: time.Now()}}, nil
}

// ForgetNode is not for a file.
func (s *Store) ForgetNode(context.Context, tenants.Actor, string) error { return tenants.ErrReadOnly }

func nodeName() string {
	name, err := os.Hostname()
	if err != nil {
		return "this node"
	}
	return name
}
