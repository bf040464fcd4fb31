// Tenants that were removed within the last hour: logins at them fail by no fault of their clients.

package netrestrict

import "time"

// removedFor is how long a tenant that was taken away is remembered: its clients go on trying, and their passwords are right.
const removedFor = time.Hour

// removals remembers when tenants were removed, for removedFor. Its zero value is empty.
type removals struct {
	at    map[string]time.Time
	order []removal // oldest first; what at has otherwise is out of date
}

type removal struct {
	tenant string
	at     time.Time
}

func (r *removals) has(now time.Time, tenant string) bool {
	at, ok := r.at[tenant]
	return ok && now.Sub(at) < removedFor
}

// add remembers a tenant, and lets go of those that were removed long ago, or first if there are more than most.
func (r *removals) add(now time.Time, tenant string, most int) {
	if r.at == nil {
		r.at = make(map[string]time.Time)
	}
	r.at[tenant] = now
	r.order = append(r.order, removal{tenant, now})
	for len(r.order) > most || now.Sub(r.order[0].at) >= removedFor {
		if first := r.order[0]; r.at[first.tenant] == first.at {
			delete(r.at, first.tenant)
		}
		r.order = r.order[1:]
	}
}

// drop lets go of those for which gone says yes.
func (r *removals) drop(gone func(tenant string) bool) {
	for tenant := range r.at {
		if gone(tenant) {
			delete(r.at, tenant)
		}
	}
}
