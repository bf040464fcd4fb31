// Closing servers that are old, surplus, or no longer wanted.

package pool

import (
	"cmp"
	"fmt"
	"time"
)

// lifetimeSpread is the largest share of its lifetime that a server may lose to jitter, so that servers dialed
// together do not die together.
const lifetimeSpread = 0.2

// Reason says why a server is to be closed.
type Reason uint8

// The reasons that the pool has for closing a server.
const (
	Keep        Reason = iota // it is not to be closed
	Retired                   // it leads to what was replaced or is wanted by somebody alone: see Retire, Vacate
	Lifetime                  // older than Settings.ServerLifetime allows
	IdleTimeout               // idle for Settings.ServerIdle
	Surplus                   // more servers than a limit allows since it was lowered
	Yielded                   // a limit is reached, and another pool should have the room
	Evicted                   // idle, while another pool needs the room
	Removed                   // taken out while it was dialed
)

// String returns the reason in words for a log.
func (r Reason) String() string {
	switch r {
	case Keep:
		return "keep"
	case Retired:
		return "retired"
	case Lifetime:
		return "lifetime"
	case IdleTimeout:
		return "idle timeout"
	case Surplus:
		return "surplus"
	case Yielded:
		return "yielded to another pool"
	case Evicted:
		return "evicted for another pool"
	case Removed:
		return "removed while dialing"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// closeReason says why s must not be used any further, or Keep.
func (p *Pool) closeReason(s *Server, now time.Time) Reason {
	switch {
	case s.retired:
		return Retired
	case s.tooOld(now):
		return Lifetime
	case p.Servers() > p.most() || p.aboveLimit():
		return Surplus
	case p.yields(now):
		return Yielded
	}
	return Keep
}

// tooOld says whether the server's lifetime, less its jitter, is over. A changed lifetime holds for old servers too.
func (s *Server) tooOld(now time.Time) bool {
	lifetime := *cmp.Or(s.pool.life, &s.pool.tenant.settings.ServerLifetime)
	if lifetime <= 0 {
		return false
	}
	return now.Sub(s.connectedAt) >= lifetime-time.Duration(lifetimeSpread*s.jitter*float64(lifetime))
}

// Retire gets rid of every server that the pool has now, because the upstream or the machine behind it changed: f is
// called for each idle and each dialing one, to close it or to abandon its dial, and those in use are closed by the
// verdict of their release. What failed before is forgotten. The servers have left the pool when f is called.
func (p *Pool) Retire(f func(*Server)) {
	p.outage = outage{}
	p.retire(f, Idle, Dialing)
}

// Vacate gets rid of every server that the pool has now, because somebody wants the database for himself: f is called for
// each idle one, to close it, and those in use are closed by the verdict of their release. A dial under way is somebody's
// who has just come.
func (p *Pool) Vacate(f func(*Server)) { p.retire(f, Idle) }

// retire takes out the servers in the given states, and those in use when they are released. Those that were closed before count as retired, too.
func (p *Pool) retire(f func(*Server), states ...State) {
	for _, state := range [...]State{Active, Cleaning, Leaving} {
		for n := p.servers[state].head; n != nil; n = n.next {
			n.item.retired = true
		}
	}
	var out list[Server]
	for _, state := range states {
		for s := p.servers[state].first(); s != nil; s = p.servers[state].first() {
			s.retired = true
			p.takeOut(s, &out)
		}
	}
	drain(&out, f)
}

// Retire calls Retire for every pool.
func (t *Tenant) Retire(f func(*Server)) {
	for p := range t.Pools() {
		p.Retire(f)
	}
}

// Sweep takes out the idle servers that are surplus, have been idle for too long or are too old, and calls f for each
// to close it; and dials that do not connect yet, where they are surplus. Call it now and then, about every second, and after
// a limit was lowered; it looks at these servers only.
func (t *Tenant) Sweep(now time.Time, f func(*Server, Reason)) {
	for p := range t.Pools() {
		p.sweep(now, f)
	}
	for p := range t.Pools() {
		for _, g := range p.groups {
			for g.room() < 0 && g.parked+g.servers[Idle] > 0 {
				s := t.lastParked(func(p *Pool) bool { return p.groups[g.scope] == g })
				if s == nil {
					s = g.longestIdle(nil)
				}
				s.pool.set(s, s.state, Closed, nil)
				f(s, Surplus)
			}
		}
	}
}

func (p *Pool) sweep(now time.Time, f func(*Server, Reason)) {
	var surplus, unused, old list[Server]
	idle := &p.servers[Idle]
	for p.Servers() > p.most() && p.parked > 0 {
		p.takeOut(p.tenant.lastParked(func(q *Pool) bool { return p == q }), &surplus)
	}
	for p.Servers() > p.most() && idle.n > 0 {
		p.takeOut(idle.last(), &surplus)
	}
	for s := idle.last(); s != nil && p.Servers() > p.least && p.tooIdle(s, now); s = idle.last() {
		p.takeOut(s, &unused)
	}
	for n := idle.tail; n != nil; {
		s := n.item
		n = n.prev
		if s.tooOld(now) {
			p.takeOut(s, &old)
		}
	}
	drain(&surplus, func(s *Server) { f(s, Surplus) })
	drain(&unused, func(s *Server) { f(s, IdleTimeout) })
	drain(&old, func(s *Server) { f(s, Lifetime) })
}

// tooIdle says whether nobody has used an idle server for long enough. Those of the reserve leave like all others, and
// where idle servers stay for good, as soon as nobody would get them any more.
func (p *Pool) tooIdle(s *Server, now time.Time) bool {
	limit := *cmp.Or(p.idle, &p.tenant.settings.ServerIdle)
	if limit <= 0 && p.Servers() > p.Size() {
		limit = p.tenant.settings.ReserveAfter
	}
	return limit > 0 && now.Sub(s.idleSince) >= limit
}

// takeOut closes s and collects it in out. Callers hear of servers only after the walk over the pool's own lists, so
// that they may call back into the pool.
func (p *Pool) takeOut(s *Server, out *list[Server]) {
	p.set(s, s.state, Closed, nil)
	out.pushBack(&s.node, s)
}

func drain(out *list[Server], f func(*Server)) {
	for s := out.first(); s != nil; s = out.first() {
		out.remove(&s.node)
		f(s)
	}
}
