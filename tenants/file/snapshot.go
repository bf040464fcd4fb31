// What one load has read.

package file

import (
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

// Snapshot is the set of tenants as of one load. It never changes.
type Snapshot struct {
	LoadedAt time.Time         // when it began
	Tenants  []*tenants.Tenant // in the file's order

	files []string
}

func newSnapshot(loadedAt time.Time, all []*tenants.Tenant) *Snapshot {
	return &Snapshot{LoadedAt: loadedAt, Tenants: slices.Clip(all)}
}

// Tenant returns the tenant called id. It takes time in proportion to their number.
func (s *Snapshot) Tenant(id string) (*tenants.Tenant, bool) {
	i := slices.IndexFunc(s.Tenants, func(t *tenants.Tenant) bool { return t.ID == id })
	if i < 0 {
		return nil, false
	}
	return s.Tenants[i], true
}

// AnyAllowList reports whether any tenant restricts addresses, an empty list included.
func (s *Snapshot) AnyAllowList() bool {
	return slices.ContainsFunc(s.Tenants, func(t *tenants.Tenant) bool { return t.Allow != nil })
}

// Providers returns what it takes to run the machines: by each key that they need, see [tenants.Machine.Needs], the id of the first
// tenant that needs it.
func (s *Snapshot) Providers() map[string]string {
	first := make(map[string]string)
	for _, t := range s.Tenants {
		if t.Machine == nil {
			continue
		}
		if key := t.Machine.Needs(); first[key] == "" {
			first[key] = t.ID
		}
	}
	return first
}

// Files returns every file that the Snapshot was read from: the tenants file itself, password files, certificates.
func (s *Snapshot) Files() []string { return slices.Clone(s.files) }
