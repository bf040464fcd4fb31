// A Tenant: its settings, its pools, and the group of all of them.

package pool

import (
	"iter"
	"time"
)

// What BackoffMin and BackoffMax are when they are not set.
const (
	DefaultBackoffMin = 100 * time.Millisecond
	DefaultBackoffMax = 15 * time.Second
)

// Settings are the policy of a tenant. A duration of 0 turns its rule off, except for the pauses, which have defaults:
// without a pause a server that refuses would be dialed in a tight loop.
type Settings struct {
	MaxServers     int           // most servers over all pools, dialing ones included; 0: no limit
	Reserve        int           // servers that each pool may have above its size while clients wait for long
	ReserveAfter   time.Duration // how long a client must have waited for one of the reserve
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

// Tenant has the pools of one tenant. Make it with [NewTenant].
type Tenant struct {
	settings Settings
	all      Group        // all pools
	queued   list[Pool]   // those in which somebody waits
	waiting  int          // over all pools
	parked   list[Server] // whose dials were started and that do not connect yet, the oldest in front
}

// NewTenant returns a tenant without pools.
func NewTenant(settings Settings) *Tenant {
	t := &Tenant{}
	t.all.tenant, t.all.scope, t.all.Quota = t, byTenant, newQuota(whole)
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
	t.all.SetLimit(settings.MaxServers)
	for p := range t.Pools() {
		p.reserve.limit = settings.Reserve
	}
}

// Quota is that of all pools together.
func (t *Tenant) Quota() *Quota { return &t.all.Quota }

// NewPool adds an empty pool that may have size servers, and counts against the limits of a user's and a database's
// group. A nil group stands for one of the pool's own, without a limit.
func (t *Tenant) NewPool(size int, user, database *Group) *Pool {
	if user == nil {
		user = t.NewGroup(ByUser, 0)
	}
	if database == nil {
		database = t.NewGroup(ByDatabase, 0)
	}
	p := &Pool{tenant: t, groups: [numScopes]*Group{user, database, &t.all}, size: newQuota(0), reserve: newQuota(t.settings.Reserve)}
	p.SetSize(size)
	for scope, g := range p.groups {
		if g.tenant != t || g.scope != Scope(scope) {
			panic("BUG: pool: group of another tenant or kind")
		}
		g.pools.pushBack(&p.places[scope], p)
	}
	return p
}

// Pools iterates over the tenant's pools, oldest first. The pool at hand may be removed meanwhile.
func (t *Tenant) Pools() iter.Seq[*Pool] {
	return func(yield func(*Pool) bool) {
		for n := t.all.pools.head; n != nil; {
			p := n.item
			n = n.next
			if !yield(p) {
				return
			}
		}
	}
}

// Servers returns the number of servers in all states over all pools.
func (t *Tenant) Servers() int { return t.all.Servers() }

// Counts returns the census over all pools, in constant time.
func (t *Tenant) Counts() Counts {
	return Counts{
		Dialing:  t.all.servers[Dialing],
		Idle:     t.all.servers[Idle],
		Active:   t.all.servers[Active],
		Cleaning: t.all.servers[Cleaning],
		Waiting:  t.waiting,
	}
}
