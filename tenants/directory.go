// The directory: all tenants as they are now, and who is told when one changes.

package tenants

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Directory holds all tenants. It knows nothing of where they come from: a store puts them there, one at a time or all at
// once. Its methods may be called by any number of goroutines.
type Directory struct {
	changing    sync.Mutex // held for the whole of a change, subscribers included
	subscribers []func([]Change)

	filling atomic.Bool

	mu        sync.RWMutex // guards what follows; held briefly
	byID      map[string]*Tenant
	byMachine map[string]*Tenant // by the machine's key
	byFlycast map[netip.Addr]*Tenant
}

// Change is one tenant that is not what it was.
type Change struct {
	Old *Tenant // nil: it was not there
	New *Tenant // nil: it is not there any more
}

// ID is the tenant's.
func (c Change) ID() string {
	if c.New != nil {
		return c.New.ID
	}
	return c.Old.ID
}

// NewDirectory makes a directory of some tenants. It fails as Replace does.
func NewDirectory(all ...*Tenant) (*Directory, error) {
	d := &Directory{byID: make(map[string]*Tenant, len(all)), byMachine: make(map[string]*Tenant), byFlycast: make(map[netip.Addr]*Tenant)}
	return d, d.Replace(all)
}

// Tenant returns the tenant called id, which may be any text. Take it once per decision: two calls may differ.
func (d *Directory) Tenant(id string) (*Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.byID[id]
	return t, ok
}

// SetFilling says whether a store is still putting there what it had from the start: then a tenant that is not there may come.
func (d *Directory) SetFilling(is bool) { d.filling.Store(is) }

// Filling reports whether a tenant that is not there may be one that was not read yet. Ask before you look.
func (d *Directory) Filling() bool { return d.filling.Load() }

// Machine returns the tenant whose machine has the key.
func (d *Directory) Machine(key string) (*Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.byMachine[key]
	return t, ok
}

// Flycast returns the tenant that an address of Flycast's names.
func (d *Directory) Flycast(address netip.Addr) (*Tenant, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	t, ok := d.byFlycast[address]
	return t, ok
}

// Len is the number of tenants.
func (d *Directory) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.byID)
}

// All returns every tenant of one moment, in no order. It takes time and memory in proportion to Len.
func (d *Directory) All() []*Tenant {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Collect(maps.Values(d.byID))
}

// Put says that one tenant is now this; it must be valid, and from now on never be changed. No other tenant is looked at, but
// one that has the same machine or address of Flycast's: that is a *ConflictError, and nothing changes. When Put returns, the subscribers have been
// told, unless the tenant was like this already.
func (d *Directory) Put(t *Tenant) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	old, ok := d.Tenant(t.ID)
	if ok && old.Equal(t) {
		return nil
	}
	if t.Machine != nil {
		if other, taken := d.Machine(t.Machine.Key()); taken && other.ID != t.ID {
			return &ConflictError{ID: t.ID, Other: other.ID, Machine: t.Machine.Key()}
		}
	}
	if other, taken := d.Flycast(t.Flycast); taken && other.ID != t.ID {
		return &ConflictError{ID: t.ID, Other: other.ID, Flycast: t.Flycast}
	}
	d.apply([]Change{{old, t}})
	return nil
}

// Remove says that one tenant is not there any more. What was not there changes nothing.
func (d *Directory) Remove(id string) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if old, ok := d.Tenant(id); ok {
		d.apply([]Change{{old, nil}})
	}
}

// Replace says that these are all tenants. It is all or nothing, a *ConflictError says why nothing, and it is applied as a
// difference: who is told, is told of those alone that are not what they were.
func (d *Directory) Replace(all []*Tenant) error {
	if conflicts := Conflicts(all); len(conflicts) > 0 {
		return conflicts[0].Err
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	d.apply(d.difference(all))
	return nil
}

// difference is what changes if these are all, those that go first.
func (d *Directory) difference(all []*Tenant) (changes []Change) {
	stay := make(map[string]struct{}, len(all))
	for _, t := range all {
		stay[t.ID] = struct{}{}
	}
	for _, old := range d.All() {
		if _, ok := stay[old.ID]; !ok {
			changes = append(changes, Change{old, nil})
		}
	}
	for _, t := range all {
		if old, ok := d.Tenant(t.ID); !ok || !old.Equal(t) {
			changes = append(changes, Change{old, t})
		}
	}
	return changes
}

// apply puts changes in force and tells of them. The caller holds d.changing.
func (d *Directory) apply(changes []Change) {
	if len(changes) == 0 {
		return
	}
	d.mu.Lock()
	for _, c := range changes { // first, because what only one may have may go from one to another
		if c.Old == nil {
			continue
		}
		if c.Old.Machine != nil {
			delete(d.byMachine, c.Old.Machine.Key())
		}
		delete(d.byFlycast, c.Old.Flycast)
	}
	for _, c := range changes {
		if c.New == nil {
			delete(d.byID, c.Old.ID)
			continue
		}
		d.byID[c.New.ID] = c.New
		if c.New.Machine != nil {
			d.byMachine[c.New.Machine.Key()] = c.New
		}
		if c.New.Flycast.IsValid() {
			d.byFlycast[c.New.Flycast] = c.New
		}
	}
	d.mu.Unlock()
	for _, tell := range d.subscribers {
		tell(changes)
	}
}

// Subscribe has tell called with all that are there as if they had just appeared, if any are, and from then on with the
// changes of each Put, Remove and Replace, once they are in force, by the goroutine that makes them. Nothing is missed or told
// twice, changes are told in the order in which they happen, and to subscribers in the order of the Subscribe calls. tell must
// change nothing itself, and be quick: the next change waits for it.
func (d *Directory) Subscribe(tell func([]Change)) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.subscribers = append(d.subscribers, tell)
	var present []Change
	for _, t := range d.All() {
		present = append(present, Change{nil, t})
	}
	if len(present) > 0 {
		tell(present)
	}
}
