package file

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// TestOneNode: what a file says is in force everywhere, which is here.
func TestOneNode(t *testing.T) {
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	s, err := Open(d, func() (*Snapshot, error) { return &Snapshot{LoadedAt: at}, nil }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil || len(nodes) != 1 || nodes[0].Silent {
		t.Fatalf("%+v, %v", nodes, err)
	}
	a, err := s.Applied(t.Context(), 0)
	if err != nil || !a.Everywhere || !a.At.Equal(at) || len(a.Missing) > 0 || !a.When[nodes[0].Name].Equal(at) {
		t.Errorf("%+v, %v", a, err)
	}
	if err := s.ForgetNode(t.Context(), tenants.Actor{}, nodes[0].Name); !errors.Is(err, tenants.ErrReadOnly) {
		t.Error(err)
	}
}
