// The gate of the tests' world.

package cluster

import (
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

// Everything that follows is what the gate of package proxy does, in a few lines.

func (n *worldNode) held(scope string) (k int) {
	for _, s := range n.gate.servers {
		if scope == tenants.ScopeTenant || worldPools[s.pool] == scope {
			k++
		}
	}
	return k
}

func (n *worldNode) count(pool int, state serverState) (k int) {
	for _, s := range n.gate.servers {
		if s.pool == pool && s.state == state {
			k++
		}
	}
	return k
}

// take applies the next of what the budget has granted.
func (n *worldNode) take() {
	news := n.toGate[0]
	n.w.note("%s is granted %+v", n.boot, news)
	n.toGate = n.toGate[1:]
	g := &n.gate
	if news.number >= g.number {
		g.number, g.granted = news.number, make(map[string]int)
		for _, x := range news.all {
			g.granted[x.Scope] = x.Servers
		}
	}
	g.dirty = true
	n.settle()
	n.claim()
}

// over says whether a server has no place any more.
func (n *worldNode) over(pool int) bool {
	open := func(scope string) (k int) {
		for _, s := range n.gate.servers {
			if s.state != closing && (scope == tenants.ScopeTenant || worldPools[s.pool] == scope) {
				k++
			}
		}
		return k
	}
	return open(tenants.ScopeTenant) > n.gate.granted[tenants.ScopeTenant] || open(worldPools[pool]) > n.gate.granted[worldPools[pool]]
}

func (n *worldNode) move(s *worldServer, to serverState) {
	s.state, s.since = to, n.w.now
	n.gate.dirty = true
}

// settle serves who waits, closes what is too much, and dials what may be dialed.
func (n *worldNode) settle() {
	g := &n.gate
	for _, s := range g.servers {
		if s.state == idle && n.over(s.pool) {
			n.move(s, closing)
		}
		if s.state == idle && g.waiting[s.pool] > 0 {
			g.waiting[s.pool]--
			n.move(s, active)
		}
	}
	for pool, waiting := range g.waiting {
		for range waiting - n.count(pool, atDial) {
			if n.held(worldPools[pool]) < g.granted[worldPools[pool]] && n.held(tenants.ScopeTenant) >= g.granted[tenants.ScopeTenant] {
				n.evict(1 - pool)
			}
			if n.held(worldPools[pool]) >= g.granted[worldPools[pool]] || n.held(tenants.ScopeTenant) >= g.granted[tenants.ScopeTenant] {
				break
			}
			g.servers = append(g.servers, &worldServer{pool: pool, state: atDial, begun: n.clock(), since: n.w.now})
			g.dirty = true
		}
	}
}

// evict closes an idle server for the other pool.
func (n *worldNode) evict(pool int) {
	for _, s := range n.gate.servers {
		if s.state == idle && s.pool == pool {
			n.move(s, closing)
			return
		}
	}
}

func (n *worldNode) clock() time.Time { return n.w.now.Add(n.jump) }

// claim tells the budget how the gate stands.
func (n *worldNode) claim() {
	g := &n.gate
	var all []tenants.Demand
	add := func(scope string, held, wanted int) int {
		wanted = min(wanted, n.w.limits[scope])
		if held > 0 || wanted > 0 {
			all = append(all, tenants.Demand{Scope: scope, Limit: n.w.limits[scope], Held: held, Wanted: wanted})
		}
		return wanted
	}
	total := 0
	for pool, scope := range worldPools {
		total += add(scope, n.held(scope), n.count(pool, active)+g.waiting[pool])
	}
	add(tenants.ScopeTenant, n.held(tenants.ScopeTenant), total)
	g.dirty, g.claimed = false, n.w.now
	n.w.note("%s claims %d %+v", n.boot, g.number, all)
	n.b.Claim(worldTenant, g.number, all)
}

// connect ends a dial.
func (n *worldNode) connect(s *worldServer) {
	if n.clock().Sub(s.begun) > connectTime || !n.b.MayDial() {
		n.move(s, closing)
		return
	}
	s.real = true
	n.move(s, idle)
	n.settle()
}

// finish ends a transaction.
func (n *worldNode) finish(s *worldServer) {
	n.move(s, idle)
	n.settle()
}

// end has Postgres end a connection that was closed, and the gate see that.
func (n *worldNode) end(s *worldServer) {
	s.real = false
	if n.state == up {
		n.gate.servers = slices.DeleteFunc(n.gate.servers, func(o *worldServer) bool { return o == s })
		n.gate.dirty = true
		n.settle()
	}
}
