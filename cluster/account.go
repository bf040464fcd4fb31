// The account of one tenant on one node: what its gate has and wants, what the store says is the node's, and what follows for both.
// It is rules alone: no I/O, no locks, and the time is handed in.

package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	lookEvery = 100 * time.Millisecond // between two looks at a tenant's portions
	askAgain  = time.Second            // while the gate has less than it wants: somebody's word may have been lost
	idlePause = time.Second            // what is not used for as long is given back
	awayPause = time.Second            // between two looks while the store is away
)

// part is the account of one scope.
//
// The gate never has more open than open says: what it has said that it has, or what it may believe to have. The row in the store
// is never less, but for a store that was restored.
type part struct {
	limit, held, wanted int // as the gate has said last

	peak   int       // the most of held and wanted since idleAt was set
	idleAt time.Time // when to look whether all of told is used; zero: it is

	told int // what the gate was told last that it may have
	most int // the most that it was told since what it has said that it knows

	row, stored       int // servers and wanted in the store, as of the last look
	newRow, newStored int // and as the look under way wants them,
	newTold           int // with what the gate may have then
}

func (p *part) open() int { return max(p.held, p.most) }

// use is what the gate has a use for.
func (p *part) use() int { return max(p.held, p.want()) }

func (p *part) want() int {
	if p.limit > 0 {
		return min(p.wanted, p.limit)
	}
	return p.wanted
}

func (p *part) blank() bool { return *p == part{limit: p.limit} }

// self is a process.
type self struct{ node, boot string }

func (s self) compare(o self) int {
	return cmp.Or(cmp.Compare(s.node, o.node), cmp.Compare(s.boot, o.boot))
}

// account is a tenant's.
type account struct {
	tenant string
	due    time.Time // see dueList
	place  int
	busy   bool // somebody is at it

	parts map[string]*part // by scope
	aside int              // servers of the tenant that are set aside for floors

	numbers *int64 // the last one of what any gate was told
	number  int64  // of what this one is to know
	seen    int64  // of what it knows
	news    bool   // it has to be told
	resend  bool   // it has forgotten what it was told

	noted  bool // others have said that something has changed
	unsure bool // nobody knows whether the last look is in force
	lost   bool // portions may be others', and the gate does not know yet: nothing can be said for sure of what it has

	looked    bool             // there was a look
	lookedAt  time.Time        // when the last one had read the rows
	saidAt    time.Time        // when others were told last that they should look
	retryAt   time.Time        // no look before this
	contended bool             // somebody has less than it wants
	turnAt    time.Time        // when another node has its turn; zero: there are no turns
	last      tenants.Portions // if there are turns: what was there
	ahead     time.Duration    // of the store's clock, before ours
	withheld  withheld         // of the last look

	lapsed    bool      // there are portions of processes that will not come back
	counting  bool      // they are being counted, or will be soon
	counted   time.Time // when strangers were counted last
	failures  int       // how often that has failed since it did not
	strangers int       // how many there are at most; below zero: nobody knows
}

// newAccount opens an account. What gates are told has numbers of one counter.
func newAccount(tenant string, numbers *int64, aside int) *account {
	return &account{tenant: tenant, place: -1, parts: make(map[string]*part), numbers: numbers, aside: aside, strangers: -1}
}

// tell sets what the gate may have of a scope. From then on it does not count what it says of older numbers.
func (a *account) tell(p *part, n int, now time.Time) {
	if n == p.told {
		return
	}
	p.told, p.most = n, max(p.most, n)
	*a.numbers++
	a.number, a.news = *a.numbers, true
	p.watch(now)
}

func (a *account) part(scope string) *part {
	p := a.parts[scope]
	if p == nil {
		p = &part{}
		a.parts[scope] = p
	}
	return p
}

// scopes are in order, so that what is done does not depend on a map.
func (a *account) scopes() []string { return slices.Sorted(maps.Keys(a.parts)) }

// claim takes what the gate says.
func (a *account) claim(seen int64, all []tenants.Demand, now time.Time) {
	for _, p := range a.parts {
		p.held, p.wanted = 0, 0
	}
	for _, d := range all {
		p := a.part(d.Scope)
		p.limit, p.held, p.wanted = max(d.Limit, 0), max(d.Held, 0), max(d.Wanted, 0)
	}
	if a.number == 0 { // it still knows the number of an account that was closed, when it might have nothing
		a.number = seen
	}
	a.seen = seen
	a.resend = seen == 0 && a.number != 0
	for _, p := range a.parts {
		if seen == a.number {
			p.most = p.told
		}
		p.watch(now)
	}
	a.lost = a.lost && seen != a.number
	a.tidy()
}

// watch notes since when less is used than the gate may have.
func (p *part) watch(now time.Time) {
	p.peak = max(p.peak, p.use())
	switch {
	case p.use() >= p.told:
		p.idleAt, p.peak = time.Time{}, 0
	case p.idleAt.IsZero():
		p.idleAt, p.peak = now.Add(idlePause), p.use()
	}
}

// tidy forgets scopes of which nothing is left.
func (a *account) tidy() {
	for scope, p := range a.parts {
		if a.seen == a.number && p.blank() {
			delete(a.parts, scope)
		}
	}
}

// empty says whether the account can be closed.
func (a *account) empty() bool {
	return len(a.parts) == 0 && a.seen == a.number && !a.noted && !a.unsure && !a.news && !a.lapsed && !a.counting
}

// grants is all that the gate may have.
func (a *account) grants() []tenants.Grant {
	var all []tenants.Grant
	for _, scope := range a.scopes() {
		if n := a.parts[scope].told; n > 0 {
			all = append(all, tenants.Grant{Scope: scope, Servers: n})
		}
	}
	return all
}

// lookAt says when to look into the store; zero: there is no need.
func (a *account) lookAt(now time.Time) (at time.Time) {
	if a.lost {
		return at
	}
	soon := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	next := a.lookedAt.Add(lookEvery)
	if a.noted || a.unsure {
		soon(next)
	}
	for _, p := range a.parts {
		short := p.want() > p.told
		switch {
		case short && p.wanted != p.stored, // the store does not know that yet
			p.told < p.row && p.open() < p.row, // can be given back
			p.row < p.open(),                   // was lost, or is a floor
			a.contended && p.wanted != p.stored:
			soon(next)
		case short, p.row == 0 && p.wanted == 0 && p.stored > 0:
			soon(a.lookedAt.Add(askAgain))
		}
	}
	if a.lapsed && a.strangers >= 0 {
		soon(next)
	}
	if at.IsZero() {
		return at
	}
	if !a.looked {
		at = now
	}
	return latest(at, a.retryAt)
}

// actAt says when there is something to do here; zero: there is not.
func (a *account) actAt() (at time.Time) {
	soon := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, p := range a.parts {
		soon(p.idleAt)
	}
	soon(a.turnAt)
	if a.resend || a.news {
		soon(time.Unix(1, 0))
	}
	return at
}

// dueAt says when there is something to do at all; zero: there is not.
func (a *account) dueAt(now time.Time) time.Time {
	at := a.actAt()
	for _, t := range []time.Time{a.lookAt(now), a.counts()} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	return at
}

// counts says when strangers have to be counted; zero: they need not.
func (a *account) counts() time.Time {
	if !a.lapsed || a.strangers >= 0 || a.counting {
		return time.Time{}
	}
	return latest(a.counted.Add(min(countAgain<<min(a.failures, 3), countLatest)), a.retryAt)
}

func latest(all ...time.Time) (last time.Time) {
	for _, t := range all {
		if t.After(last) {
			last = t
		}
	}
	return last
}

// act does it: what has not been used for a while is taken from the gate, and so is what is another node's turn.
func (a *account) act(now time.Time, me self) {
	for _, p := range a.parts {
		if p.idleAt.IsZero() || now.Before(p.idleAt) {
			continue
		}
		if keep := max(p.peak, p.use()); keep < p.told {
			a.tell(p, keep, now)
		}
		p.idleAt = time.Time{}
		p.watch(now)
	}
	if a.turnAt.IsZero() || now.Before(a.turnAt) {
		return
	}
	s := a.last
	s.Now = now.Add(a.ahead)
	order := a.order(&s, me)
	for _, scope := range a.scopes() {
		p := a.parts[scope]
		switch d := a.divide(scope, &s, &order, me); {
		case d.target < p.told && a.retryAt.IsZero(): // else nobody could take it
			a.tell(p, d.target, now)
		case d.target > p.told && p.want() > p.told:
			a.noted = true
		}
	}
	a.turnAt = now.Add(order.left)
}

// fail says that nobody knows whether a look is in force, or that there could be none. What is this node's stays, and may be used again; for
// scopes with nothing there is the floor.
func (a *account) fail(now time.Time) {
	a.retryAt = now.Add(awayPause)
	for _, p := range a.parts {
		p.row = min(p.row, p.newRow)
		if has := max(p.row, a.floor()); p.want() > p.told && has > p.told {
			a.tell(p, min(p.want(), has), now)
		}
	}
}

// floor is how many servers of each scope the gate may have without a portion, while the store is away.
func (a *account) floor() int {
	if all := a.parts[tenants.ScopeTenant]; a.aside == 0 || all != nil && all.limit > 0 && all.limit <= a.aside {
		return 0
	}
	return 1
}

// lose says that portions were lost while this process stood still: the store has so many for each scope. Nothing is written before it is certain
// what the gate still has.
func (a *account) lose(servers func(scope string) int, now, until time.Time) {
	a.cut(now, servers)
	a.noted, a.retryAt = true, until
}

// uncounted says that strangers cannot be counted now.
func (a *account) uncounted() {
	a.failures++
	if len(a.parts) == 0 { // nobody waits for it
		a.lapsed = false
	}
}

// differs reports whether the store has less for the gate than it had, by scope.
func (a *account) differs(servers func(scope string) int) bool {
	for scope, p := range a.parts {
		if servers(scope) < p.row {
			return true
		}
	}
	return false
}

// cut takes from the gate what is more than a bound for each scope, because the rest may not be this node's any more.
func (a *account) cut(now time.Time, bound func(scope string) int) {
	for scope, p := range a.parts {
		n := bound(scope)
		p.row = min(p.row, n)
		a.tell(p, min(p.told, n), now)
	}
	a.lost = a.seen != a.number
}
