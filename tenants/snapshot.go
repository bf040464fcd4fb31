// All tenants at one moment.

package tenants

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// Snapshot is the set of tenants as of one load. It never changes.
type Snapshot struct {
	LoadedAt time.Time

	byID  map[string]*Tenant
	order []*Tenant // as given
	files []string
}

// NewSnapshot makes a Snapshot of tenants, which from now on must not be changed. Two with one id are an error.
func NewSnapshot(loadedAt time.Time, tenants ...*Tenant) (*Snapshot, error) {
	s := &Snapshot{LoadedAt: loadedAt, byID: make(map[string]*Tenant, len(tenants)), order: slices.Clone(tenants)}
	for _, t := range tenants {
		if _, dup := s.byID[t.ID]; dup {
			return nil, fmt.Errorf("tenant %q is there twice", t.ID)
		}
		s.byID[t.ID] = t
	}
	return s, nil
}

// Tenant returns the tenant called id, which may be any text.
func (s *Snapshot) Tenant(id string) (*Tenant, bool) {
	t, ok := s.byID[id]
	return t, ok
}

// Len is the number of tenants.
func (s *Snapshot) Len() int { return len(s.order) }

// All yields every tenant, in the file's order.
func (s *Snapshot) All() iter.Seq[*Tenant] { return slices.Values(s.order) }

// AnyAllowList reports whether any tenant restricts addresses, an empty list included.
func (s *Snapshot) AnyAllowList() bool {
	return slices.ContainsFunc(s.order, func(t *Tenant) bool { return t.Allow != nil })
}

// Providers returns who must be able to run machines: by the name of each Provider in use, the id of the first tenant that
// uses it.
func (s *Snapshot) Providers() map[string]string {
	first := make(map[string]string)
	for _, t := range s.order {
		if t.Machine == nil {
			continue
		}
		if p := string(t.Machine.Provider); first[p] == "" {
			first[p] = t.ID
		}
	}
	return first
}

// Files returns every file that the Snapshot was read from: the tenants file itself, password files, certificates.
func (s *Snapshot) Files() []string { return slices.Clone(s.files) }
