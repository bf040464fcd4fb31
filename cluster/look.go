// A look at a tenant's portions: what each node should have, what this one writes, and what its gate may have then.

package cluster

import (
	"maps"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

// order is that of the living processes in a tenant's portions, ours among them.
type order struct {
	all  []self
	turn int           // whose it is
	left time.Duration // for how long
}

func (a *account) order(s *tenants.Portions, me self) (o order) {
	wants := map[self]bool{me: false}
	for _, p := range s.All {
		if id := (self{p.Node, p.Boot}); !p.Silent && p.Boot != me.boot {
			wants[id] = wants[id] || p.Wanted > 0
		}
	}
	for _, p := range a.parts {
		wants[me] = wants[me] || p.want() > 0
	}
	o.all = slices.SortedFunc(maps.Keys(wants), self.compare)
	wanting := slices.DeleteFunc(slices.Clone(o.all), func(id self) bool { return !wants[id] })
	var turn int
	if turn, o.left = turnOf(len(wanting), s.Now); len(wanting) > 0 {
		o.turn = slices.Index(o.all, wanting[turn])
	}
	return o
}

// division is what becomes of a scope.
type division struct {
	target int  // what this node should have
	bound  int  // what it may have, with what others still have
	hungry bool // others should have more than they have
	others bool // others have some, which may be more than they still need
	turns  bool // there are not enough servers for one each
	scarce bool // there are not enough for all that is wanted
}

// divide divides a scope among all.
func (a *account) divide(scope string, s *tenants.Portions, o *order, me self) (d division) {
	p := a.parts[scope]
	if p.limit == 0 {
		return division{target: p.use(), bound: p.use()}
	}
	left := p.limit
	if scope == tenants.ScopeTenant && left > a.aside {
		left -= a.aside
	}
	shares := make([]share, len(o.all))
	others := 0
	for _, row := range s.All {
		switch {
		case row.Scope != scope || row.Boot == me.boot:
		case row.Silent:
			left -= row.Servers
		default:
			others += row.Servers
			shares[slices.Index(o.all, self{row.Node, row.Boot})] = share{row.Servers, min(row.Wanted, p.limit)}
		}
	}
	at := slices.Index(o.all, me)
	shares[at] = share{max(p.held, min(p.peak, p.told)), p.want()}
	should := divide(left, shares, o.turn)
	wanted, wanting := 0, 0
	for i, n := range should {
		wanted += shares[i].wanted
		wanting += min(shares[i].wanted, 1)
		if i != at {
			d.hungry = d.hungry || n > shares[i].held
			d.others = d.others || shares[i].held > 0
		}
	}
	d.target, d.bound = should[at], left-others
	d.turns, d.scarce = wanting > max(left, 0), wanted > left
	return d
}

// look takes the portions as they are, and says what becomes of them. Nothing of that is so before commit.
func (a *account) look(s tenants.Portions, now time.Time, me self) (c tenants.PortionsChange) {
	a.looked, a.noted, a.contended, a.unsure = true, false, false, true
	a.ahead, a.turnAt, a.last = s.Now.Sub(now), time.Time{}, tenants.Portions{}
	for _, p := range a.parts {
		p.row, p.stored = 0, 0
	}
	for _, row := range s.All {
		if row.Boot == me.boot {
			p := a.part(row.Scope)
			p.row, p.stored = row.Servers, row.Wanted
		}
	}
	if since(a.counted, now) >= countAgain {
		a.strangers = -1
	}
	c.Gone = a.handOn(&s)
	o := a.order(&s, me)
	turns := false
	for _, scope := range a.scopes() {
		p := a.parts[scope]
		d := a.divide(scope, &s, &o, me)
		if s.Settling { // what seems to be free may be another's
			d.target = min(d.target, max(p.told, a.floor()))
		}
		p.newStored, p.newRow = p.wanted, max(p.open(), min(d.target, d.bound))
		p.newTold = min(d.target, p.newRow)
		a.contended = a.contended || d.hungry || d.scarce
		turns = turns || d.turns
		news := p.newStored != p.stored || p.newRow != p.row || now.Sub(a.saidAt) >= askAgain
		c.Tell = c.Tell || d.hungry && p.newRow < p.row || p.want() > p.newRow && d.others && news
		if p.newRow > 0 || p.newStored > 0 {
			c.Mine = append(c.Mine, tenants.Portion{Scope: scope, Node: me.node, Boot: me.boot, Servers: p.newRow, Wanted: p.newStored})
		}
	}
	a.withheld = a.withheldFrom(&s, now, me)
	if turns {
		a.turnAt, a.last = now.Add(o.left), s
	}
	if a.lookedAt = now; c.Tell {
		a.saidAt = now
	}
	return c
}

// handOn takes the portions of processes that will not come back out of all, so far as it is known that they have ended, and says which.
func (a *account) handOn(s *tenants.Portions) (gone []tenants.Portion) {
	a.lapsed = false
	claimed := map[string]int{} // strangers that have found a portion to be of, by scope
	for i := range s.All {
		row := &s.All[i]
		if !row.Lapsed || !row.Silent {
			continue
		}
		keep := row.Servers
		if a.strangers >= 0 {
			keep = min(keep, a.strangers-claimed[row.Scope])
			claimed[row.Scope] += keep
		}
		if keep < row.Servers || keep == 0 {
			row.Servers, row.Wanted = keep, 0
			gone = append(gone, *row)
		}
		a.lapsed = a.lapsed || keep > 0
	}
	if a.strangers >= 0 && len(a.parts) == 0 { // nobody waits for the rest
		a.lapsed = false
	}
	a.strangers = -1
	return gone
}

// commit says that a look is in force.
func (a *account) commit(now time.Time) {
	a.retryAt, a.unsure = time.Time{}, false
	for _, p := range a.parts {
		p.row, p.stored = p.newRow, p.newStored
		a.tell(p, p.newTold, now)
	}
	a.tidy()
}
