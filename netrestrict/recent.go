// Tenants to which something has happened lately, which excuses failures.

package netrestrict

import "time"

const (
	// removedFor is how long a tenant that was taken away is remembered: its clients go on trying, and their passwords are right.
	removedFor = time.Hour
	// repairedFor is how long it is remembered that what failed at a tenant may be right now: by then all nodes know.
	repairedFor = 5 * time.Second
)

// recent remembers when something happened to tenants, for as long as kept says. It is empty otherwise.
type recent struct {
	kept  time.Duration
	at    map[string]time.Time
	order []event // oldest first; what at has otherwise is out of date
}

type event struct {
	tenant string
	at     time.Time
}

func (r *recent) has(now time.Time, tenant string) bool {
	at, ok := r.at[tenant]
	return ok && now.Sub(at) < r.kept
}

// add remembers a tenant, and lets go of those to which it happened long ago, or first if there are more than most.
func (r *recent) add(now time.Time, tenant string, most int) {
	if r.at == nil {
		r.at = make(map[string]time.Time)
	}
	r.at[tenant] = now
	r.order = append(r.order, event{tenant, now})
	for len(r.order) > most || now.Sub(r.order[0].at) >= r.kept {
		if first := r.order[0]; r.at[first.tenant] == first.at {
			delete(r.at, first.tenant)
		}
		r.order = r.order[1:]
	}
}

// drop lets go of those for which gone says yes.
func (r *recent) drop(gone func(tenant string) bool) {
	for tenant := range r.at {
		if gone(tenant) {
			delete(r.at, tenant)
		}
	}
}
