// The rules across tenants: what only one of them may have.

package tenants

import "fmt"

// ConflictError says that a tenant cannot be there beside another one.
type ConflictError struct {
	ID      string // of the tenant
	Other   string // who has it already; ID again where that is there twice
	Machine string // which both name, by its key: to put it to sleep for one would take it from the other. "": it is the id
}

// Error implements error.
func (e *ConflictError) Error() string {
	if e.Machine == "" {
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
	ids, machines := make(map[string]int, len(all)), make(map[string]int)
	for i, t := range all {
		if earlier, twice := ids[t.ID]; twice && t.ID != "" {
			found = append(found, Conflict{i, earlier, &ConflictError{ID: t.ID, Other: t.ID}})
			continue
		}
		ids[t.ID] = i
		if t.Machine == nil || !t.Machine.named() {
			continue
		}
		key := t.Machine.Key()
		if earlier, taken := machines[key]; taken {
			found = append(found, Conflict{i, earlier, &ConflictError{t.ID, all[earlier].ID, key}})
			continue
		}
		machines[key] = i
	}
	return found
}
