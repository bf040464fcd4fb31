// The rules across tenants: what only one of them may have.

package tenants

import (
	"fmt"
	"net/netip"
)

// ConflictError says that a tenant cannot be there beside another one.
type ConflictError struct {
	ID      string     // of the tenant
	Other   string     // who has it already; ID again where that is there twice
	Machine string     // which both name, by its key: to put it to sleep for one would take it from the other
	Flycast netip.Addr // which would name both. Without it and a Machine it is the id
}

// Error implements error.
func (e *ConflictError) Error() string {
	switch {
	case e.Flycast.IsValid():
		return fmt.Sprintf("tenant %q: flycast address %s is tenant %q's already", e.ID, e.Flycast, e.Other)
	case e.Machine == "":
		return fmt.Sprintf("tenant %q is there twice", e.ID)
	}
	return fmt.Sprintf("tenant %q: machine %s is tenant %q's already", e.ID, e.Machine, e.Other)
}

// Conflict is a tenant of a list that cannot be there beside an earlier one.
type Conflict struct {
	At, Earlier int // in the list
	Err         *ConflictError
}

// Conflicts judges a list of tenants as a whole. What is incomplete in them is Validate's affair.
func Conflicts(all []*Tenant) (found []Conflict) {
	ids, machines, addresses := make(map[string]int, len(all)), make(map[string]int), make(map[netip.Addr]int)
	for i, t := range all {
		if earlier, twice := ids[t.ID]; twice && t.ID != "" {
			found = append(found, Conflict{i, earlier, &ConflictError{ID: t.ID, Other: t.ID}})
			continue
		}
		ids[t.ID] = i
		if t.Flycast.IsValid() {
			if earlier, taken := addresses[t.Flycast]; taken {
				found = append(found, Conflict{i, earlier, &ConflictError{ID: t.ID, Other: all[earlier].ID, Flycast: t.Flycast}})
				continue
			}
			addresses[t.Flycast] = i
		}
		if t.Machine == nil || !t.Machine.named() {
			continue
		}
		key := t.Machine.Key()
		if earlier, taken := machines[key]; taken {
			found = append(found, Conflict{i, earlier, &ConflictError{ID: t.ID, Other: all[earlier].ID, Machine: key}})
			continue
		}
		machines[key] = i
	}
	return found
}
