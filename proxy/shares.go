// Limits that hold over several nodes: what a tenant's pools tell the node's budget that they have and could use, and what of its
// limits they may use from then on. Only a dial waits for that. Loop thread only, but for Gate.Granted.

package proxy

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/tenants"
)

// Budget divides the limits of tenants among nodes. Its methods are called on loops and in dials, and return at once.
type Budget interface {
	// Claim says what a tenant has of its limits, and what it could use, now that it keeps to the grants of this number; 0: it knows
	// of none, and dials nothing. Of a limit that is not named it has nothing. The answer goes to Gate.Granted.
	Claim(tenant string, number int64, demands []tenants.Demand)
	// MayDial reports whether what was granted is known to hold still. A dial asks once it is connected.
	MayDial() bool
	// MaxNodes is how many nodes there may be.
	MaxNodes() int
	// Away reports whether nobody can be asked for more.
	Away() bool
}

// claimPause is between two claims of a tenant.
const claimPause = 100 * time.Millisecond

// errNotGranted ends a dial whose right may be another node's by now.
var errNotGranted = errors.New("it is not known whether this node may still dial: the store of the tenants has not answered for too long")

// shares is a tenant's part in limits that nodes share.
type shares struct {
	number  int64            // of the grants in force
	granted map[string]int   // by scope
	told    []tenants.Demand // in the last claim, in order
	toldOf  int64            // its number
	pause   *loop.Timer      // runs after a claim, or when there was nothing to claim for who waits
	waits   bool             // for its end, with another claim
}

// any reports whether there is something to be given back.
func (s *shares) any() bool { return s != nil && len(s.granted)+len(s.told) > 0 }

// tells returns what the last claim said of a scope.
func (s *shares) tells(scope string) (d tenants.Demand, ok bool) {
	i := slices.IndexFunc(s.told, func(d tenants.Demand) bool { return d.Scope == scope })
	if i < 0 {
		return d, false
	}
	return s.told[i], true
}

// Granted says what of a tenant's limits the gate may use from now on, in the order of the numbers. What exceeds it is closed: what is
// idle at once, and what is in use when it is released. Safe for concurrent use.
func (g *Gate) Granted(tenant string, number int64, grants []tenants.Grant) {
	if id, clients := tenants.CutClients(tenant); clients {
		g.grantPlaces(id, number, grants)
		return
	}
	g.mu.Lock()
	t := g.tenants[tenant]
	g.mu.Unlock()
	if t == nil || !t.post(func() { t.take(number, grants) }) {
		g.opts.Budget.Claim(tenant, number, nil)
	}
}

// take puts grants in force, and answers.
func (t *tenant) take(number int64, grants []tenants.Grant) {
	s := t.shares
	if t.forgotten {
		t.gate.Granted(t.id, number, grants) // it is another's
		return
	}
	s.number, s.granted = number, make(map[string]int, len(grants))
	for _, g := range grants {
		if g.Servers > 0 {
			s.granted[g.Scope] = g.Servers
		}
	}
	t.counters.portion.Store(int64(s.granted[tenants.ScopeTenant]))
	now := t.loop.Now()
	t.share(now)
	for p := range t.books.Pools() {
		if errors.Is(p.Outage(), errNotGranted) { // which is over
			t.books.Forgive()
		}
	}
	t.books.Sweep(now, closeSwept)
	t.dialMore()
	t.claim(t.demands(now))
	t.keepSweeping()
}

// quotas calls f for every limit that nodes share. Of a tenant that was removed, what is left of it is counted.
func (t *tenant) quotas(f func(scope string, limit int, q *pool.Quota)) {
	own, all := t.limits().PerNode, t.books.Quota()
	switch {
	case !own:
		f(tenants.ScopeTenant, all.Limit(), all)
	case t.conf.Machine != nil:
		f(tenants.ScopeUse, 0, all) // a machine that is in use is not put to sleep
	default:
		all.Unshare()
	}
	each := func(scope string, q *pool.Quota) {
		if own || q.Limit() == 0 {
			q.Unshare()
			return
		}
		f(scope, q.Limit(), q)
	}
	for user, g := range t.groups.users {
		each(tenants.UserScope(user), &g.Quota)
	}
	for database, g := range t.groups.databases {
		each(tenants.DatabaseScope(database), &g.Quota)
	}
	for key, p := range t.pools {
		each(tenants.PoolScope(key.user, key.database), p.books.Quota())
		each(reserveScope(key), p.books.Reserve())
	}
}

// reserveScope is that of what a pool may have above its size.
func reserveScope(key poolKey) string { return "reserve/" + tenants.PoolScope(key.user, key.database) }

// share gives every limit its portion. Of one that is shared from now on, what is there stays until the budget has spoken.
func (t *tenant) share(now time.Time) {
	s := t.shares
	if s == nil {
		return
	}
	t.books.Reckon(now)
	t.quotas(func(scope string, _ int, q *pool.Quota) {
		n, granted := s.granted[scope]
		d, told := s.tells(scope)
		if !granted && !told {
			n = q.Held()
		}
		q.SetPortion(n, d.Wanted > n)
	})
}

// reshare follows a new configuration.
func (t *tenant) reshare() {
	if t.shares != nil {
		t.share(t.loop.Now())
		t.claimSoon()
	}
}

// drainShares gives back what is not in use: others take the clients over.
func (t *tenant) drainShares() {
	if t.shares == nil {
		return
	}
	for s := range t.servers {
		if s.books.State() == pool.Idle {
			s.shut("drain")
		}
	}
	t.claimSoon()
}

// claimForWaiting claims what clients wait for that no dial is under way for. Where there are more clients than servers somebody comes to wait in
// every transaction: whether that is news is looked at as often as something may be claimed, and no more often.
func (t *tenant) claimForWaiting() {
	if t.shares == nil {
		return
	}
	if n := t.books.Counts(); n.Waiting > n.Dialing {
		t.claimSoon()
		if !t.shares.pause.Armed() {
			t.pauseClaims()
		}
	}
}

// claimSoon claims what there is to claim, now or when the pause after the last claim ends.
func (t *tenant) claimSoon() {
	s := t.shares
	if s == nil {
		return
	}
	if s.pause.Armed() {
		s.waits = true
		return
	}
	if demands := t.demands(t.loop.Now()); s.toldOf != s.number || !slices.Equal(demands, s.told) {
		t.claim(demands)
	}
}

// demands are what there is to claim, in order.
func (t *tenant) demands(now time.Time) []tenants.Demand {
	t.books.Reckon(now)
	var list []tenants.Demand
	t.quotas(func(scope string, limit int, q *pool.Quota) {
		d := tenants.Demand{Scope: scope, Limit: limit, Held: q.Held(), Wanted: q.Wanted()}
		if t.paused {
			d.Wanted = min(d.Wanted, d.Held)
		}
		if d.Held > 0 || d.Wanted > 0 {
			list = append(list, d)
		}
	})
	slices.SortFunc(list, func(a, b tenants.Demand) int { return cmp.Compare(a.Scope, b.Scope) })
	return list
}

// claim tells the budget how the tenant stands.
func (t *tenant) claim(demands []tenants.Demand) {
	s := t.shares
	s.told, s.toldOf, s.waits = demands, s.number, false
	t.gate.opts.Budget.Claim(t.id, s.number, slices.Clone(s.told))
	t.pauseClaims()
}

func (t *tenant) pauseClaims() {
	s := t.shares
	if s.pause == nil {
		s.pause = t.loop.AfterFunc(claimPause, t.checked(t.claimAgain))
		return
	}
	s.pause.Reset(claimPause)
}

// claimAgain is the end of the pause.
func (t *tenant) claimAgain() {
	if t.shares.waits {
		t.shares.waits = false
		t.claimSoon()
	}
}

// permit is asked by dials. Safe for concurrent use.
func (t *tenant) permit() error {
	if !t.gate.opts.Budget.MayDial() {
		return errNotGranted
	}
	return nil
}
