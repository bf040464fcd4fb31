// A Pool lends its servers to its clients: acquire, release, clean, leave.

package pool

import (
	"fmt"
	"iter"
	"time"
)

// Pool holds the servers and the waiting clients of one user and database of a tenant. Make it with [Tenant.NewPool].
type Pool struct {
	Owner any // whose pool this is; set once by the owner, never touched here

	tenant *Tenant               // nil once removed
	groups [numScopes]*Group     // whose limits it counts against
	places [numScopes]node[Pool] // in their lists
	size   Quota                 // most servers, dialing ones included and the reserve not
	least  int                   // servers to keep even if nobody needs them
	idle   *time.Duration        // instead of Settings.ServerIdle; nil: that
	life   *time.Duration        // instead of Settings.ServerLifetime; nil: that
	frozen bool                  // see Freeze

	servers [numStates]list[Server] // by state; Closed's stays empty; Idle's is ordered, the longest idle at its back
	waiters list[Client]            // the oldest in front
	parked  int                     // of those that are dialed, see NextConnect
	reserve Quota                   // above size

	queued node[Pool] // in tenant.queued, exactly while somebody waits

	outage  outage
	keepsAt time.Time // no room is kept for it before this, see yields
}

// Next says what became of a server that a client, a cleaning or a dial is done with: it must be closed (Close), it
// was handed over (Client), or it was kept as idle (the zero value).
type Next struct {
	Client *Client // whom the server now serves
	Close  Reason  // unless Keep: why the server has left the pool; the caller closes the connection
}

// Tenant returns the pool's tenant; nil once the pool was removed.
func (p *Pool) Tenant() *Tenant { return p.tenant }

// Size returns how many servers the pool may have, its reserve aside.
func (p *Pool) Size() int { return p.size.most() }

// Quota is that of the pool's size.
func (p *Pool) Quota() *Quota { return &p.size }

// Reserve is that of its reserve.
func (p *Pool) Reserve() *Quota { return &p.reserve }

// most returns how many servers the pool may have with its reserve.
func (p *Pool) most() int { return p.size.most() + p.reserve.most() }

// SetSize changes how many servers the pool may have. What is too much is closed when it is released or swept.
func (p *Pool) SetSize(n int) {
	p.size.limit = max(n, 0)
	p.least = min(p.least, p.size.limit)
}

// SetLeast changes how many servers the pool keeps, once it has had any, even if nobody needs them.
func (p *Pool) SetLeast(n int) { p.least = min(max(n, 0), p.size.limit) }

// SetAges changes for how long the pool's servers may be idle and live; nil is what [Settings] say. It holds for those that
// are there, too.
func (p *Pool) SetAges(idle, lifetime *time.Duration) { p.idle, p.life = idle, lifetime }

// Freeze has the pool's clients share the servers that it has, while it has any: it is known that a login would fail, so no other
// pool's server shall make room for one.
func (p *Pool) Freeze(frozen bool) { p.frozen = frozen }

// WantSpare says whether the pool should dial a server that nobody waits for, to have its least number. It has one
// such dial under way at a time, none while dials fail, and nobody makes room for it.
func (p *Pool) WantSpare(now time.Time) bool {
	return p.Servers() < min(p.least, p.Size()) && p.servers[Dialing].n == 0 && p.outage.err == nil && !p.frozen && p.hasRoom(now)
}

// CanGrow says whether the pool may have one server more, for which there is room or can be made.
func (p *Pool) CanGrow(now time.Time) bool { return p.Servers() < p.Size() && p.canGetRoom(now) }

// Live iterates over the servers that are idle, the one used last first, and then over those that are lent.
func (p *Pool) Live() iter.Seq[*Server] {
	return func(yield func(*Server) bool) {
		for _, state := range [...]State{Idle, Active} {
			for n := p.servers[state].head; n != nil; n = n.next {
				if !yield(n.item) {
					return
				}
			}
		}
	}
}

// Servers returns the number of servers in all states.
func (p *Pool) Servers() int {
	return p.servers[Dialing].n + p.live()
}

// live returns the number of servers that are logged in.
func (p *Pool) live() int {
	return p.servers[Idle].n + p.servers[Active].n + p.servers[Cleaning].n
}

// Empty says whether the pool has no servers, none that linger either, and no waiting clients, so that Remove may be called.
func (p *Pool) Empty() bool { return p.Servers() == 0 && p.waiters.n == 0 && p.servers[Leaving].n == 0 }

// Remove takes an empty pool out of its tenant for good.
func (p *Pool) Remove() {
	if p.tenant == nil || !p.Empty() {
		panic("BUG: pool: only an empty pool can be removed, and only once")
	}
	for scope, g := range p.groups {
		g.pools.remove(&p.places[scope])
		if g.kept == p {
			g.kept = nil
		}
	}
	p.tenant = nil
}

// Acquire lends an idle server to c and returns it, or puts c at the end of the queue and returns nil; then one of
// Release, EndCleaning and DialDone names c later, unless it leaves before. The most recently used server is taken,
// or prefer if that one is idle here (nil: no preference).
func (p *Pool) Acquire(c *Client, prefer *Server, now time.Time) *Server {
	if p.tenant == nil {
		panic("BUG: pool: acquire from a removed pool")
	}
	c.expectAway()
	c.since, c.Noticed = now, false
	s := p.servers[Idle].first()
	if s == nil {
		p.enqueue(c)
		return nil
	}
	if prefer != nil && prefer.pool == p && prefer.state == Idle {
		s = prefer
	}
	p.set(s, Idle, Active, c)
	return s
}

// Release takes the server back from its client, which is then away. The server must be clean: ready for the next
// client without another byte.
func (p *Pool) Release(s *Server, now time.Time) Next { return p.settle(s, Active, now) }

// BeginCleaning parts an active server from its client, which is then away, without lending it to anybody else yet.
func (p *Pool) BeginCleaning(s *Server) { p.set(s, Active, Cleaning, nil) }

// EndCleaning says that the server is clean; it is then treated as by Release. A server that did not get clean is
// given to RemoveServer instead.
func (p *Pool) EndCleaning(s *Server, now time.Time) Next { return p.settle(s, Cleaning, now) }

// RemoveServer takes a server out of whatever state it is in, because its owner closes it. Its client, if it has one, is
// then away. A server that has left already is left alone, so one closing path can serve every cause.
func (p *Pool) RemoveServer(s *Server) {
	if s.state != Closed && s.state != Leaving {
		p.set(s, s.state, Closed, nil)
	}
}

// Leave takes c out of the queue, if it waits there, and says whether it did. A client that is served does not leave:
// what happens to its server is the caller's decision, by Release, BeginCleaning or RemoveServer.
func (p *Pool) Leave(c *Client) bool {
	if c.server != nil {
		panic("BUG: pool: a served client cannot leave its server behind")
	}
	if !c.Waiting() {
		return false
	}
	p.dequeue(c)
	return true
}

// settle finds the next use of a clean server that is in state from.
func (p *Pool) settle(s *Server, from State, now time.Time) Next {
	p.expect(s, from)
	if why := p.closeReason(s, now); why != Keep {
		p.set(s, from, Closed, nil)
		return Next{Close: why}
	}
	if c := p.waiters.first(); c != nil {
		p.dequeue(c)
		p.set(s, from, Active, c)
		return Next{Client: c}
	}
	s.idleSince = now
	p.set(s, from, Idle, nil)
	return Next{}
}

func (p *Pool) enqueue(c *Client) {
	p.waiters.pushBack(&c.node, c)
	p.tenant.waiting++
	if p.waiters.n == 1 {
		p.tenant.queued.pushBack(&p.queued, p)
	}
}

func (p *Pool) dequeue(c *Client) {
	p.waiters.remove(&c.node)
	p.tenant.waiting--
	if p.waiters.n == 0 {
		p.tenant.queued.remove(&p.queued)
	}
}

// FirstWaiter returns the client that has waited longest, or nil.
func (p *Pool) FirstWaiter() *Client { return p.waiters.first() }

// NextWaiter returns the client that stands behind c in the queue, or nil. Ask before c leaves.
func (p *Pool) NextWaiter(c *Client) *Client {
	if c.node.list != &p.waiters {
		panic("BUG: pool: client does not wait here")
	}
	return c.node.next.get()
}

// OldestWait returns for how long the first waiter has waited; 0 if nobody waits.
func (p *Pool) OldestWait(now time.Time) time.Duration {
	if c := p.waiters.first(); c != nil {
		return now.Sub(c.since)
	}
	return 0
}

// Counts is a census of servers by state, and of waiting clients.
type Counts struct {
	Dialing, Idle, Active, Cleaning int
	Waiting                         int
}

// Counts returns the pool's census, in constant time.
func (p *Pool) Counts() Counts {
	return Counts{
		Dialing:  p.servers[Dialing].n,
		Idle:     p.servers[Idle].n,
		Active:   p.servers[Active].n,
		Cleaning: p.servers[Cleaning].n,
		Waiting:  p.waiters.n,
	}
}

// String describes the pool for logs and failed tests.
func (p *Pool) String() string {
	return fmt.Sprintf("pool of %d: %+v", p.Size(), p.Counts())
}
