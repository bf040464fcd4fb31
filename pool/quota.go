// A Quota is one limit of servers, of which others may have a part: what of it is ours, what we hold, and what we could use.

package pool

import (
	"math"
	"time"
)

// whole is the portion of who shares a limit with nobody.
const whole = math.MaxInt

// Quota is a limit over everybody who shares it, and our portion of it. Its owner sets the portion; nobody's are at first the whole.
type Quota struct {
	limit   int  // over all who share it; whole: there is none
	portion int  // ours; whole: nobody shares it
	wanted  int  // as of the last Reckon
	held    int  // likewise
	short   bool // our portion is smaller than what we wanted when it was given
}

func newQuota(limit int) Quota { return Quota{limit: limit, portion: whole} }

// setLimit changes the limit; 0 or less: there is none.
func (q *Quota) setLimit(n int) {
	if q.limit = n; n <= 0 {
		q.limit = whole
	}
}

// most is how many servers we may have.
func (q *Quota) most() int { return min(q.limit, q.portion) }

// usable is how many servers wider limits should expect of us: not more than our portion, if we asked for more in vain.
func (q *Quota) usable() int {
	if q.short {
		return min(q.wanted, q.most())
	}
	return q.wanted
}

// Limit returns the limit over all who share it; 0: there is none.
func (q *Quota) Limit() int {
	if q.limit == whole {
		return 0
	}
	return q.limit
}

// Held returns how many servers we had when [Tenant.Reckon] was called last: also those that are closed and may still be there, but
// not those that are to be dialed when one of these is gone.
func (q *Quota) Held() int { return q.held }

// Wanted returns how many servers we could have used then: those in use, and one for each client that waits, as far as the
// limit and what is known of the narrower ones allow. Idle servers are not wanted.
func (q *Quota) Wanted() int { return q.wanted }

// SetPortion changes how many servers of the limit we may have; short says that we wanted more. What is too much is closed when it
// is released or swept.
func (q *Quota) SetPortion(n int, short bool) { q.portion, q.short = max(n, 0), short }

// Unshare says that the limit is all ours.
func (q *Quota) Unshare() { q.portion, q.short = whole, false }

// Reckon works out what is held and wanted of all limits, in time in proportion to the pools and to the clients that may have
// some of a reserve.
func (t *Tenant) Reckon(now time.Time) {
	for p := range t.Pools() {
		p.reckon(now)
		for _, g := range p.groups {
			g.held, g.wanted = g.used(), 0
		}
	}
	t.all.held, t.all.wanted = t.all.used(), 0 // also where there is no pool
	ofUsers, ofDatabases := 0, 0
	for p := range t.Pools() {
		n := p.size.usable() + p.reserve.usable()
		ofUsers += p.groups[ByUser].want(n)
		ofDatabases += p.groups[ByDatabase].want(n)
	}
	t.all.want(min(ofUsers, ofDatabases))
}

// want adds what a pool of the group could use, and returns by how much that lets the group use more.
func (g *Group) want(n int) int {
	before := g.usable()
	g.wanted = min(g.wanted+n, g.limit)
	return g.usable() - before
}

// reckon splits what the pool has, and could use, into its size and its reserve. A server counts against the reserve where the
// portion of the size has no room for it, and goes on to while it has no other place.
func (p *Pool) reckon(now time.Time) {
	used := p.used()
	p.reserve.held = min(max(0, used-p.size.most()), max(p.reserve.most(), p.reserve.held))
	p.size.held = used - p.reserve.held

	busy := p.servers[Active].n + p.servers[Cleaning].n
	p.size.wanted = min(busy+p.waiters.n, p.size.limit)
	beyond := max(0, busy-p.size.most())
	for n := p.waiters.head; n != nil && beyond < p.reserve.limit && now.Sub(n.item.since) >= p.tenant.settings.ReserveAfter; n = n.next {
		beyond++
	}
	p.reserve.wanted = min(beyond, p.reserve.limit)
}

// Starved says whether clients wait who cannot have a single server, because the pool's portion of some limit is none.
func (p *Pool) Starved() bool {
	if p.waiters.n == 0 || p.Servers() > 0 {
		return false
	}
	for _, g := range p.groups {
		if g.portion == 0 {
			return true
		}
	}
	return p.size.portion == 0 && p.reserve.most() == 0
}
