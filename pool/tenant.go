// A Tenant holds its pools under one limit and decides which of them may dial next.

package pool

import (
	"iter"
	"time"
)

// yieldAfter is how much longer than anybody in a busy pool a client of another pool must have waited before the busy
// pool gives a server up for it. Moving a server costs a login, so small differences are not worth it, and without a
// margin two busy pools would pass servers back and forth with every transaction.
const yieldAfter = time.Second

// What BackoffMin and BackoffMax are when they are not set.
const (
	DefaultBackoffMin = 100 * time.Millisecond
	DefaultBackoffMax = 15 * time.Second
)

// Settings are the policy of a tenant. A duration of 0 turns its rule off, except for the pauses, which have defaults:
// without a pause a server that refuses would be dialed in a tight loop.
type Settings struct {
	MaxServers     int           // most servers over all pools, dialing ones included; 0: no limit
	MaxDialing     int           // most dials under way over all pools; 0: no limit of its own
	ServerIdle     time.Duration // an idle server is closed after this long
	ServerLifetime time.Duration // a server is closed, once nobody uses it, up to a fifth before it gets this old
	BackoffMin     time.Duration // pause after the first failed dial; it doubles with each further failure
	BackoffMax     time.Duration // longest pause
	FailFor        time.Duration // for how long clients outlast failing dials; meant to be the time limit of one dial
	// Random returns numbers in [0, 1) that spread pauses and lifetimes; nil: they are not spread. It is called from
	// the thread that calls the pool.
	Random func() float64
}

// Tenant groups the pools of one tenant. Make it with [NewTenant].
type Tenant struct {
	settings Settings
	pools    list[Pool]
	queued   list[Pool]     // those in which somebody waits
	servers  [numStates]int // over all pools
	waiting  int            // over all pools
}

// NewTenant returns a tenant without pools.
func NewTenant(settings Settings) *Tenant {
	t := &Tenant{}
	t.SetSettings(settings)
	return t
}

// Settings returns the policy in force, with the defaults filled in.
func (t *Tenant) Settings() Settings { return t.settings }

// SetSettings changes the policy. What is now too much or too old is closed when it is released or swept.
func (t *Tenant) SetSettings(settings Settings) {
	if settings.BackoffMin <= 0 {
		settings.BackoffMin = DefaultBackoffMin
	}
	if settings.BackoffMax <= 0 {
		settings.BackoffMax = DefaultBackoffMax
	}
	t.settings = settings
}

// NewPool adds an empty pool that may have size servers.
func (t *Tenant) NewPool(size int) *Pool {
	p := &Pool{tenant: t}
	p.SetSize(size)
	t.pools.pushBack(&p.all, p)
	return p
}

// Pools iterates over the tenant's pools, oldest first. The pool at hand may be removed meanwhile.
func (t *Tenant) Pools() iter.Seq[*Pool] {
	return func(yield func(*Pool) bool) {
		for n := t.pools.head; n != nil; {
			p := n.item
			n = n.next
			if !yield(p) {
				return
			}
		}
	}
}

// Servers returns the number of servers in all states over all pools.
func (t *Tenant) Servers() int {
	return t.servers[Dialing] + t.servers[Idle] + t.servers[Active] + t.servers[Cleaning]
}

// Counts returns the census over all pools, in constant time.
func (t *Tenant) Counts() Counts {
	return Counts{
		Dialing:  t.servers[Dialing],
		Idle:     t.servers[Idle],
		Active:   t.servers[Active],
		Cleaning: t.servers[Cleaning],
		Waiting:  t.waiting,
	}
}

// room returns how many more servers the tenant may have; below zero after the limit was lowered.
func (t *Tenant) room() int {
	if t.settings.MaxServers <= 0 {
		return 1
	}
	return t.settings.MaxServers - t.Servers()
}

// NextDial returns the pool that should dial a server now, or nil. Of those that want to ([Pool.WantDial]) it is the
// one with the longest waiting client for whom no dial is under way. If the tenant has no room left, the longest idle server of another pool
// makes room: it is returned as the victim, has left its pool, and must be closed. The caller must then call
// StartDial, and ask again until there is no pool. Ask after every event: a client queued, a server left, a dial
// ended, a limit was raised, a pause ended.
func (t *Tenant) NextDial(now time.Time) (p *Pool, victim *Server) {
	room := t.room()
	if most := t.settings.MaxDialing; most > 0 && t.servers[Dialing] >= most {
		return nil, nil
	}
	if room < 0 || room == 0 && t.servers[Idle] == 0 {
		return nil, nil
	}
	p = t.hungriest(nil, now)
	if p == nil || room > 0 {
		return p, nil
	}
	victim = t.longestIdle()
	victim.pool.set(victim, Idle, Closed, nil)
	return p, victim
}

// hungriest returns the pool, of those that want to dial and other than except, in which the first client without a
// dial has waited longest.
func (t *Tenant) hungriest(except *Pool, now time.Time) *Pool {
	var best *Pool
	var since time.Time
	for n := t.queued.head; n != nil; n = n.next {
		p := n.item
		if p == except || !p.WantDial(now) {
			continue
		}
		if c := p.firstWithoutDial(); best == nil || c.since.Before(since) {
			best, since = p, c.since
		}
	}
	return best
}

// longestIdle returns the server that has been idle longest, or nil.
func (t *Tenant) longestIdle() *Server {
	var oldest *Server
	for p := range t.Pools() {
		if s := p.servers[Idle].last(); s != nil && (oldest == nil || s.idleSince.Before(oldest.idleSince)) {
			oldest = s
		}
	}
	return oldest
}

// mustYield says whether a server that p gets back should be closed to make room for another pool: the tenant is at
// its limit, nothing idle could make room instead, and another pool wants to dial while p has no use for the server,
// or its clients wait much less. A busy pool gives up no more than one server at a time for the same other pool.
func (t *Tenant) mustYield(p *Pool, now time.Time) bool {
	if t.waiting == p.waiters.n || t.room() > 0 || t.servers[Idle] > 0 {
		return false
	}
	q := t.hungriest(p, now)
	if q == nil {
		return false
	}
	if p.waiters.n == 0 {
		return true
	}
	return q.servers[Dialing].n == 0 && p.FirstWaiter().since.Sub(q.FirstWaiter().since) > yieldAfter
}
