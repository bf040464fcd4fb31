// Who gets the room that there is: which pool may dial next, and which must give a server up for it.

package pool

import "time"

const (
	// yieldAfter is how long a pool that has no more than its share keeps an idle server from others, and how much longer
	// than its clients those of a pool with less must have waited before it gives a busy one up. Moving a server costs
	// a login, so small differences are not worth it, and without a margin pools would pass servers back and forth with
	// every transaction.
	yieldAfter = time.Second
	// keepAgain is how long the pause is before room is kept again for a pool that is stopped by two limits at once.
	keepAgain = 5 * yieldAfter
)

// NextDial returns the pool that should dial a server now, or nil. Of those that want to ([Pool.WantDial]), and whose
// groups have room or can make it, it is the one with the longest waiting client for whom no dial is under way. Where a
// group is full, its longest idle server makes room: it has left its pool when evict is called, which must close it.
// The caller must then call StartDial, and ask again until there is no pool. Ask after every event: a client queued, a
// server left, a dial ended, a limit was raised, a pause ended ([Pool.RetryAt]); and on a tick of half a second or so,
// because idle servers are kept from those who have more for a while.
func (t *Tenant) NextDial(now time.Time, evict func(*Server)) *Pool {
	if t.allDialing() {
		return nil
	}
	var best *Pool
	for n := t.queued.head; n != nil; n = n.next {
		if p := n.item; p.WantDial(now) && (best == nil || p.older(best)) && p.canGetRoom(now) {
			best = p
		}
	}
	if best == nil {
		return nil
	}
	for _, g := range best.groups {
		if g.room() == 0 {
			s := g.victim(best, now)
			s.pool.set(s, Idle, Closed, nil)
			evict(s)
		}
	}
	return best
}

// allDialing says whether no dial may start because enough are under way. Those that do not connect yet do not count.
func (t *Tenant) allDialing() bool {
	most := t.settings.MaxDialing
	return most > 0 && t.all.servers[Dialing]-t.all.parked >= most
}

// older says whether p's first client without a dial has waited longer than q's. Both must have one.
func (p *Pool) older(q *Pool) bool {
	return p.firstWithoutDial().since.Before(q.firstWithoutDial().since)
}

// starves says whether somebody has waited for a while and the pool has not a single server.
func (p *Pool) starves(now time.Time) bool { return p.Servers() == 0 && p.OldestWait(now) > yieldAfter }

// yields says whether a server that p gets back should be closed to make room for another pool, and then keeps the room
// for that one. It asks nothing of p while nobody waits elsewhere.
func (p *Pool) yields(now time.Time) bool {
	t := p.tenant
	if t.waiting == p.waiters.n || t.allDialing() || p.hasRoom(now) {
		return false
	}
	var heir *Pool
	var at *Group
	for n := t.queued.head; n != nil; n = n.next {
		q := n.item
		if q == p || !q.WantDial(now) || heir != nil && !q.older(heir) {
			continue
		}
		if g := p.stops(q, now); g != nil && p.owes(q, g, now) {
			heir, at = q, g
		}
	}
	if heir == nil {
		return false
	}
	at.kept, at.keptUntil, heir.keepsAt = heir, now.Add(yieldAfter), now.Add(keepAgain)
	return true
}

// stops returns the group of both p and q because of which q cannot dial, or nil. If q is stopped by its user's limit
// and by its database's, no single server can help, so one is closed for it in each, and the room that comes first is
// kept until the other comes. That may be in vain, so it is not tried all the time.
func (p *Pool) stops(q *Pool, now time.Time) *Group {
	var shared *Group
	stopped := 0
	for _, g := range q.groups[:byTenant] { // who leaves one of these leaves the tenant's as well
		if !g.full(q, now) {
			continue
		}
		if stopped++; p.groups[g.scope] == g {
			shared = g
		}
	}
	if all := q.groups[byTenant]; stopped == 0 && all.full(q, now) {
		shared = all
	}
	if shared == nil || shared.isKept(q, now) || stopped > 1 && now.Before(q.keepsAt) {
		return nil
	}
	return shared
}

// owes says whether p should give a server up for q, which cannot dial because of g: one that makes them more equal, or
// that p has no use for while q has none, or, so that nobody starves where there are fewer servers than pools, one for
// which q has waited much longer.
func (p *Pool) owes(q *Pool, g *Group, now time.Time) bool {
	mine, theirs := g.shares(p, q)
	switch {
	case mine > theirs+1:
		return true
	case mine <= theirs && q.Servers() > 0:
		return false
	case mine > theirs && q.Servers() == 0 && p.waiters.n == 0:
		return true
	}
	return q.servers[Dialing].n == 0 && q.OldestWait(now)-p.OldestWait(now) > yieldAfter
}
