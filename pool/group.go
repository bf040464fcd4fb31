// A Group is pools that share a limit: all of a tenant, those of one of its users, or of one of its databases.

package pool

import "time"

// Scope says what the pools of a group have in common.
type Scope uint8

// The scopes, from the narrowest. Every pool is in one group of each.
const (
	ByUser Scope = iota
	ByDatabase
	byTenant
	numScopes
)

// Group counts the servers of its pools against one limit. Make those of users and databases with [Tenant.NewGroup]; a
// tenant has one of its own for all its pools.
type Group struct {
	Quota // most servers, dialing ones included

	tenant  *Tenant
	scope   Scope
	pools   list[Pool]     // oldest first
	servers [numStates]int // over all pools
	parked  int            // of those that are dialed, see NextConnect

	kept      *Pool     // for whom the next room is kept; nil: nobody
	keptUntil time.Time // and until when
}

// NewGroup returns a group without pools that may have limit servers; 0 or less: it has no limit.
func (t *Tenant) NewGroup(scope Scope, limit int) *Group {
	if scope >= byTenant {
		panic("BUG: pool: a tenant has one group for itself")
	}
	g := &Group{tenant: t, scope: scope, Quota: newQuota(whole)}
	g.SetLimit(limit)
	return g
}

// SetLimit changes how many servers the group may have; 0 or less: as many as its pools may. What is too much is closed
// when it is released or swept.
func (g *Group) SetLimit(n int) { g.setLimit(n) }

// Servers returns the number of servers in all states over all pools.
func (g *Group) Servers() int {
	return g.servers[Dialing] + g.servers[Idle] + g.servers[Active] + g.servers[Cleaning]
}

// Empty says whether no pool is in the group any more.
func (g *Group) Empty() bool { return g.pools.n == 0 }

// room returns how many more servers the group may have; below zero after the limit was lowered.
func (g *Group) room() int { return g.most() - g.Servers() }

// isKept says whether the group's next room is for another pool than p, which still wants it.
func (g *Group) isKept(p *Pool, now time.Time) bool {
	return g.kept != nil && g.kept != p && now.Before(g.keptUntil) && g.kept.WantDial(now)
}

// shares returns what p and q have of what they compete for. Where a tenant's limit is reached that is what their users
// have, so that nobody gets more by using more databases.
func (g *Group) shares(p, q *Pool) (mine, theirs int) {
	if u, v := p.groups[ByUser], q.groups[ByUser]; g.scope == byTenant && u != v {
		return u.Servers(), v.Servers()
	}
	return p.Servers(), q.Servers()
}

// longestIdle returns the server that has been idle longest of those that may be closed, or nil. A nil may allows all.
func (g *Group) longestIdle(may func(*Server) bool) *Server {
	if g.servers[Idle] == 0 {
		return nil
	}
	var oldest *Server
	for n := g.pools.head; n != nil; n = n.next {
		s := n.item.servers[Idle].last()
		if s != nil && (oldest == nil || s.idleSince.Before(oldest.idleSince)) && (may == nil || may(s)) {
			oldest = s
		}
	}
	return oldest
}

// victim returns the server to be closed when the group is full and q wants to dial, or nil.
func (g *Group) victim(q *Pool, now time.Time) *Server {
	return g.longestIdle(func(s *Server) bool { return g.spares(s, q, now) })
}

// spares says whether an idle server may be closed for q. Who has hardly more than q keeps it for a while, because it
// comes back for it as likely as not, unless q has none.
func (g *Group) spares(s *Server, q *Pool, now time.Time) bool {
	if now.Sub(s.idleSince) >= yieldAfter || q.starves(now) {
		return true
	}
	mine, theirs := g.shares(s.pool, q)
	return mine > theirs+1 || mine > theirs && q.Servers() == 0
}

// full says whether q cannot dial because of the group: it is at its limit, and nothing idle can make room.
func (g *Group) full(q *Pool, now time.Time) bool {
	room := g.room()
	return room < 0 || room == 0 && g.victim(q, now) == nil
}

// count notes that a server of the pool entered or left a state.
func (p *Pool) count(state State, by int) {
	for _, g := range p.groups {
		g.servers[state] += by
	}
}

// aboveLimit says whether one of the pool's groups has more servers than it may.
func (p *Pool) aboveLimit() bool {
	for _, g := range p.groups {
		if g.room() < 0 {
			return true
		}
	}
	return false
}

// hasRoom says whether all groups of the pool have room for one more server of it.
func (p *Pool) hasRoom(now time.Time) bool {
	for _, g := range p.groups {
		if room := g.room(); room <= 0 || room == 1 && g.isKept(p, now) {
			return false
		}
	}
	return true
}

// canGetRoom says whether all groups of the pool have room for one more server of it, or can make it.
func (p *Pool) canGetRoom(now time.Time) bool {
	for _, g := range p.groups {
		if room := g.room(); room <= 1 && g.isKept(p, now) || room <= 0 && g.full(p, now) {
			return false
		}
	}
	return true
}
