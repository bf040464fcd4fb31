// Limits of clients that hold over several nodes: which part of them a node has of its own, what it claims of the rest, and when. Only logins
// take part in it.

package proxy

import (
	"cmp"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	// ownPart of a limit is set aside, in equal parts for each node that there may be: so many clients a node lets in without asking.
	ownPart = 16
	// aheadPart of a limit is asked for ahead of clients that may come.
	aheadPart = 32
	// keepPlaces is how long a node keeps places that none of its clients use, if no other node needs them.
	keepPlaces = time.Minute
	// askFor is how long more is asked for ahead than was granted, and scarceFor how long it is not then.
	askFor    = time.Second
	scarceFor = 5 * time.Second
)

// common is one limit of clients that nodes share. It is rules alone.
type common struct {
	limit, nodes int // over all nodes, and how many there may be
	granted      int // to this one, beside its own

	waiting int       // logins
	refused int       // of late: they may come back
	takenAt time.Time // when a place was taken last
	asks    time.Time // since when more is asked for than is granted; zero: it is not
	scarce  time.Time // until when nothing is asked for ahead
	// refuseUntil is when somebody may wait again.
	refuseUntil time.Time
}

// own is what each node has without asking.
func (c *common) own() int { return c.limit / ownPart / c.nodes }

// shared is what the nodes divide.
func (c *common) shared() int { return c.limit - c.own()*c.nodes }

// most is how many clients this node may have. While nobody can be asked it is an even part of the limit, if not more was granted.
func (c *common) most(away bool) int {
	n := c.own() + c.granted
	if away {
		n = max(n, c.limit/c.nodes, 1)
	}
	return min(n, c.limit)
}

// need is what has to be granted for n clients.
func (c *common) need(n int) int { return max(0, n-c.own()) }

// demand is what is claimed where there are so many clients. What is kept for others that may come is held and not wanted: whoever
// needs it gets it.
func (c *common) demand(taken int, now time.Time) (held, wanted int) {
	ahead := max(1, c.limit/aheadPart)
	low := ahead / 2
	if c.granted == 0 {
		low = c.own() / 2
	}
	if !c.asks.IsZero() && now.Sub(c.asks) >= askFor {
		c.asks, c.scarce = time.Time{}, now.Add(scarceFor)
	}
	coming := taken + max(c.waiting, c.refused)
	held, wanted = c.need(taken), c.need(coming)
	if coming > 0 && !now.Before(c.scarce) && c.own()+c.granted-coming <= low {
		wanted = c.need(coming + ahead)
	}
	if taken > c.own() || now.Sub(c.takenAt) < keepPlaces {
		held = max(held, min(c.granted, c.need(taken+ahead)))
	}
	wanted = min(wanted, c.shared())
	switch {
	case wanted <= c.granted:
		c.asks = time.Time{}
	case c.asks.IsZero():
		c.asks = now
	}
	return held, wanted
}

// grant takes what this node may have from now on. Less than before means that others need it.
func (c *common) grant(n int, now time.Time) {
	if n < c.granted {
		c.scarce = now.Add(scarceFor)
	}
	c.granted = n
}

// again says when demand may say something else although nothing happens; zero: it does not.
func (c *common) again(taken int, now time.Time) time.Time {
	switch keptUntil := c.takenAt.Add(keepPlaces); {
	case !c.asks.IsZero():
		return c.asks.Add(askFor)
	case taken <= c.own() && c.granted > 0 && now.Before(keptUntil):
		return keptUntil
	}
	return time.Time{}
}

// commons are a tenant's. What is here is guarded by the lock of its places.
type commons struct {
	tenant     string // its name for the budget
	budget     Budget
	maxWaiters int
	now        func() time.Time

	of      map[party]*common
	number  int64          // of what was granted last
	granted map[string]int // by scope
	told    []tenants.Demand
	toldOf  int64
	changed chan struct{} // closed when there may be a place
	waiters int
	claimed time.Time   // when that was last
	timer   *time.Timer // to the next one
	due     time.Time   // when that is; zero: it does not run
}

func newCommons(tenant string, b Budget, maxWaiters int) *commons {
	return &commons{tenant: tenants.ClientsOf(tenant), budget: b, maxWaiters: max(1, maxWaiters), now: time.Now, of: make(map[party]*common), changed: make(chan struct{})}
}

// at returns what nodes share of a limit; nil: nothing.
func (all *commons) at(s party) *common {
	if all == nil {
		return nil
	}
	return all.of[s]
}

func (all *commons) each(parties []party, f func(*common)) {
	for _, s := range parties {
		if c := all.of[s]; c != nil {
			f(c)
		}
	}
}

// follow takes over a configuration, as far as it says something of who comes. shared is false if each node has its limits for itself.
func (all *commons) follow(conf *tenants.Tenant, parties []party, shared bool) {
	if !shared {
		clear(all.of)
		return
	}
	now := all.now()
	for _, s := range parties {
		n, limited := s.limit(conf)
		c := all.of[s]
		switch {
		case !limited:
			delete(all.of, s)
			continue
		case c == nil:
			c = &common{nodes: max(1, all.budget.MaxNodes()), granted: all.granted[s.scope()]}
			all.of[s] = c
		}
		c.limit, c.takenAt = n, now
	}
}

// portion is what this node was granted of the tenant's own limit, beside what each node has without asking; ok is false if nodes share nothing.
func (p *places) portion() (n int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.commons == nil {
		return 0, false
	}
	return p.commons.granted[tenants.ScopeTenant], true
}

// anyShared says whether something is claimed, or has to be.
func (p *places) anyShared() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.commons != nil && (len(p.commons.told) > 0 || !p.commons.due.IsZero())
}

// changed has those look who wait for a place.
func (p *places) changed() {
	if all := p.commons; all != nil && all.waiters > 0 {
		close(all.changed)
		all.changed = make(chan struct{})
	}
}

// granted takes what the budget says, and answers.
func (p *places) granted(number int64, grants []tenants.Grant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.commons
	all.granted = make(map[string]int, len(grants))
	for _, g := range grants {
		all.granted[g.Scope] = g.Servers
	}
	now := all.now()
	for s, c := range all.of {
		c.grant(all.granted[s.scope()], now)
	}
	all.number = number
	p.changed()
	list, again := p.demands(now)
	p.claim(list, now)
	if !again.IsZero() {
		p.claimAt(again)
	}
}

// claimSoon claims what has changed, now or when the pause after the last claim ends.
func (p *places) claimSoon() {
	all := p.commons
	if all == nil || len(all.of)+len(all.told) == 0 {
		return
	}
	now := all.now()
	if pause := claimPause - now.Sub(all.claimed); pause > 0 {
		p.claimAt(now.Add(pause))
		return
	}
	list, again := p.demands(now)
	if all.toldOf != all.number || !slices.Equal(list, all.told) {
		p.claim(list, now)
	}
	if !again.IsZero() {
		p.claimAt(again)
	}
}

// claimAt has claimSoon called then, if it is not called before.
func (p *places) claimAt(at time.Time) {
	all := p.commons
	switch {
	case !all.due.IsZero() && !at.Before(all.due):
		return
	case all.timer == nil:
		all.timer = time.AfterFunc(at.Sub(all.now()), p.claimAgain)
	default:
		all.timer.Reset(at.Sub(all.now()))
	}
	all.due = at
}

// claimAgain is called by the timer.
func (p *places) claimAgain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.commons.due = time.Time{}
	p.claimSoon()
}

// demands are what there is to claim, in order, and when that may be something else. Limits of which nobody has anything are forgotten.
func (p *places) demands(now time.Time) (list []tenants.Demand, next time.Time) {
	all := p.commons
	for s, c := range all.of {
		if !now.Before(c.refuseUntil) {
			c.refused = 0
		}
		held, wanted := c.demand(p.taken[s], now)
		if held > 0 || wanted > 0 {
			list = append(list, tenants.Demand{Scope: s.scope(), Limit: c.shared(), Held: held, Wanted: wanted})
		} else if p.taken[s] == 0 && c.granted == 0 && c.waiting == 0 {
			delete(all.of, s)
		}
		if at := c.again(p.taken[s], now); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	slices.SortFunc(list, func(a, b tenants.Demand) int { return cmp.Compare(a.Scope, b.Scope) })
	return list, next
}

// claim tells the budget how the tenant's clients stand.
func (p *places) claim(list []tenants.Demand, now time.Time) {
	all := p.commons
	all.told, all.toldOf, all.claimed = list, all.number, now
	all.budget.Claim(all.tenant, all.number, slices.Clone(list))
}

// grantPlaces takes what nodes share of a tenant's limits of clients.
func (g *Gate) grantPlaces(id string, number int64, grants []tenants.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.tenants[id]; t != nil {
		t.places.granted(number, grants)
		return
	}
	g.opts.Budget.Claim(tenants.ClientsOf(id), number, nil)
}
