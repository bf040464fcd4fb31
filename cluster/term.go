// The term of a lease: for how long it counts here, by two clocks that must agree. Pure.

package cluster

import "time"

const (
	// maxDrift is by how much the clock on the wall may differ from the one that cannot be set. More, and it was set, or the computer stood
	// still for a time that only the wall's clock has noticed.
	maxDrift = 500 * time.Millisecond
	// renewals are tried this often in the time for which a lease counts.
	marginPart, renewPart = 4, 3
)

// moment is now, by both clocks of this computer.
type moment struct {
	wall time.Time     // may be set, and jumps when a computer that stood still is told the time
	mono time.Duration // never set; stands still while the computer does
}

// term is the time of one lease. It counts from before the request that took or renewed it was sent, so that it is over here before it is
// over in the store, and a quarter of it earlier still, for what is under way then.
type term struct {
	ttl   time.Duration
	taken moment        // before the request that took it: the clocks are compared since
	from  time.Duration // before the last request that has renewed it
	asked time.Duration // when it was last tried
}

func newTerm(ttl time.Duration, sent moment) term {
	return term{ttl: ttl, taken: sent, from: sent.mono, asked: sent.mono}
}

// over says why the lease does not count any more; nil: it does.
func (t *term) over(now moment) error {
	drift := now.wall.Sub(t.taken.wall) - (now.mono - t.taken.mono)
	switch {
	case drift.Abs() > maxDrift:
		return ErrClockJumped
	case now.mono-t.from >= t.ttl-t.ttl/marginPart:
		return ErrLeaseOver
	}
	return nil
}

// due reports whether it is time to try to renew it, and counts that as tried.
func (t *term) due(now moment) bool {
	if now.mono-t.from < t.ttl/renewPart || now.mono-t.asked < t.ttl/(4*renewPart) {
		return false
	}
	t.asked = now.mono
	return true
}

// renewed says that a request that was sent then has renewed it.
func (t *term) renewed(sent moment) { t.from = max(t.from, sent.mono) }
