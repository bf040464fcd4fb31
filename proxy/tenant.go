// A tenant at run time: its clients, its pools and its counters, on one loop.

package proxy

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

const (
	// sweepPeriod is how often a tenant with clients or servers is swept.
	sweepPeriod = 500 * time.Millisecond
	// noticeAfter is when a waiting client is told that it waits.
	noticeAfter = 5 * time.Second
	// forgetAfter is how long an unused tenant keeps its counters.
	forgetAfter = 15 * time.Minute
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 15 * time.Second
)

// tenant is what the gate knows of a tenant while it is in use.
type tenant struct {
	// Static.
	id   string
	gate *Gate
	loop *loop.Loop
	log  *slog.Logger

	// Shared.
	counters   counters
	admitted   atomic.Int64 // clients admitted and not yet gone
	places     places       // of them, see places.go
	lastUse    atomic.Int64 // unix seconds
	hasMachine atomic.Bool
	derive     chan struct{}
	mu         sync.Mutex // of the next two
	keyPair    keyPair
	logins     map[string]*login // by user: what is known for logging in to the server

	// Owned by the loop's thread.
	conf     *tenants.Tenant // nil once the tenant was removed
	books    *pool.Tenant
	pools    map[poolKey]*serverPool
	groups   groups
	clients  []*client
	servers  map[*server]struct{}
	parting  map[*server]struct{} // that were closed and may still be there, see leaving.go
	stmts    link.Statements
	insert   []byte // scratch for messages that are put in
	sweeper  *loop.Timer
	redial   *loop.Timer
	machine  machine
	policies lease.Policies
	held     bool // see pause.go
	paused   bool // what clients ask for waits until it is resumed
	// forgotten says that the gate has let go of it: what changes is the next one's affair.
	forgotten bool
	timeouts  map[timeoutsKey]*sessionTimeouts
	timed     bool // somebody has timeouts, or has had some
	draining  bool
	ending    bool  // all servers are closed, and nobody counts them any more
	pending   int64 // bytes, see charge
	cancels   int   // on their way to servers of its pools

	shares     *shares // nil: no limit is shared with other nodes
	reportWork reportWork
}

// login is what a client's proof left behind for logins to the server.
type login struct {
	verifier scram.Verifier
	key      *scram.ClientKey
}

type poolKey struct{ user, database string }

// serverPool is one pool and what its servers have in common.
type serverPool struct {
	books     *pool.Pool
	tenant    *tenant
	key       poolKey
	sets      params.Sets
	reports   params.ReportSets
	confirmed time.Time // when a server of it was last heard of; see confirm.go
	question  question
	fresh     *params.Set // a new session's: nothing set
	reads     bool        // a transaction has read sequences, see sequences
	// outdated says that its servers have logged in with a password that is not the user's any more. Nobody has brought the new one yet.
	outdated bool
}

// newTenant makes the run-time side of a tenant; conf is nil if it was removed
// from the directory meanwhile.
func newTenant(g *Gate, id string, conf *tenants.Tenant) *tenant {
	t := &tenant{id: id, gate: g, loop: g.loopFor(id), log: g.log.With("tenant", id), conf: conf,
		derive: make(chan struct{}, 1), logins: make(map[string]*login)}
	if g.opts.Budget != nil {
		t.shares, t.places.commons = &shares{}, newCommons(id, g.opts.Budget, g.room.Handshakes/addressShare)
	}
	t.open()
	if conf != nil {
		t.policies, t.paused = policiesOf(conf), conf.Paused
	}
	t.touch()
	t.machine.reachable = conf != nil
	if conf != nil && conf.Machine != nil {
		t.hasMachine.Store(true)
		t.post(func() { t.joinMachine(conf) }) // before anything else that is posted
	}
	return t
}

// open starts with empty books, and nobody in them.
func (t *tenant) open() {
	t.books = pool.NewTenant(t.settings())
	t.pools, t.groups = make(map[poolKey]*serverPool), newGroups()
	t.clients, t.servers, t.parting = nil, make(map[*server]struct{}), make(map[*server]struct{})
	t.stmts = link.Statements{Limits: t.gate.opts.Limits.Statements}
	t.machine.sessions, t.timed = 0, false
	t.timeouts = make(map[timeoutsKey]*sessionTimeouts)
	t.gate.pending.held.Add(-t.pending)
	t.pending = 0
}

// verify checks the books after a panic. If they do not balance any more, the
// tenant's connections are closed and it starts anew; nobody else notices.
func (t *tenant) verify() {
	err := t.books.Check()
	if err == nil {
		return
	}
	t.log.Error("books do not balance after a panic: all connections of the tenant are closed", "error", err)
	clients, servers := t.clients, t.servers
	t.open()
	for _, c := range clients {
		c.stage = stageGone
		c.conn.Close()
		t.gate.forget(c)
	}
	for s := range servers {
		s.phase = lease.Closed
		s.timer.Stop()
		if s.conn != nil {
			s.conn.Close()
		}
	}
	t.publish()
}

// checked is f, after whose panic the books are verified.
func (t *tenant) checked(f func()) func() {
	return func() {
		sound := false
		defer func() {
			if !sound {
				t.verify()
			}
		}()
		f()
		sound = true
	}
}

// post runs a function of the tenant's on its loop.
func (t *tenant) post(f func()) bool { return t.loop.Post(t.checked(f)) }

// call is post, and waits until the function has run. Never call it from the
// loop's own thread.
func (t *tenant) call(f func()) bool { return t.loop.Call(t.checked(f)) }

func (t *tenant) settings() pool.Settings {
	if t.conf == nil {
		return pool.Settings{}
	}
	o := t.conf.Timeouts.Over(t.gate.opts.Session)
	return pool.Settings{MaxServers: t.conf.Pool.MaxServers, Reserve: t.conf.Pool.Reserve, ReserveAfter: t.conf.Pool.ReserveAfter,
		MaxDialing: maxDialing, ServerIdle: orZero(o.ServerIdle), ServerLifetime: orZero(o.ServerLifetime), BackoffMin: backoffMin, BackoffMax: backoffMax,
		FailFor: t.gate.opts.Timeouts.ServerConnect, Random: rand.Float64}
}

func (t *tenant) touch() { t.lastUse.Store(time.Now().Unix()) }

// pool returns the pool of a user and database, making it on first use.
func (t *tenant) pool(key poolKey) *serverPool {
	if p, ok := t.pools[key]; ok {
		return p
	}
	user, database := t.groupsOf(key)
	p := &serverPool{tenant: t, key: key, books: t.books.NewPool(t.poolSize(key.user), user, database)}
	p.configure()
	p.books.Owner = p
	p.fresh = p.sets.Intern(nil)
	p.recall()
	t.pools[key] = p
	t.share(t.loop.Now())
	return p
}

// configure gives the pool what its tenant and user say of its size and of how
// old its servers get.
func (p *serverPool) configure() {
	t := p.tenant
	p.books.SetSize(t.poolSize(p.key.user))
	p.books.SetLeast(t.limits().Min)
	user := t.user(p.key.user).Timeouts
	p.books.SetAges(user.ServerIdle, user.ServerLifetime)
}

// publish makes the loop's counts readable.
func (t *tenant) publish() {
	n := t.books.Counts()
	c := &t.counters
	c.dialing.Store(int64(n.Dialing))
	c.idle.Store(int64(n.Idle))
	c.active.Store(int64(n.Active))
	c.cleaning.Store(int64(n.Cleaning))
	c.clientsWaiting.Store(int64(n.Waiting))
	c.clientsActive.Store(int64(n.Active))
	c.clientsIdle.Store(int64(max(0, len(t.clients)-n.Active-n.Waiting)))
}

// keepSweeping has sweep called again soon, while there is something to sweep.
func (t *tenant) keepSweeping() {
	if t.sweeper == nil {
		t.sweeper = t.loop.AfterFunc(sweepPeriod, t.checked(t.sweep))
	} else if !t.sweeper.Armed() {
		t.sweeper.Reset(sweepPeriod)
	}
}

// sweep is a tenant's only periodic work: old and silent servers, clients that
// waited or took too long, empty pools, published counts.
func (t *tenant) sweep() {
	now := t.loop.Now()
	t.books.Sweep(now, closeSwept)
	t.sweepQuestions(now)
	t.sweepBlocked()
	t.sweepTimeouts(now)
	for p := range t.books.Pools() {
		p.Owner.(*serverPool).sweepQuestion(now)
		t.sweepWaiters(p, now)
		if p.Empty() && p.DialAfter().Before(now) && !t.poolInUse(p.Owner.(*serverPool)) {
			t.forgetPool(p.Owner.(*serverPool))
		}
	}
	t.dialMore()
	t.dialSpare()
	t.claimSoon()
	t.publish()
	t.tellUse()
	t.retireFormer(now)
	if t.conf != nil && t.conf.AuthQuery != nil {
		t.gate.sweepRoles(t.id)
	}
	if len(t.clients) > 0 || t.books.Servers() > 0 || len(t.machine.former) > 0 || t.shares.any() {
		t.keepSweeping()
	}
}

func closeSwept(s *pool.Server, why pool.Reason) { s.Owner.(*server).shut(why.String()) }

// poolInUse reports whether a client may still ask the pool for a server.
func (t *tenant) poolInUse(p *serverPool) bool {
	for _, c := range t.clients {
		if c.pool == p {
			return true
		}
	}
	return false
}

func (t *tenant) sweepWaiters(p *pool.Pool, now time.Time) {
	if p.FirstWaiter() == nil {
		return
	}
	told := t.waitsFor(p)
	var late, vain []*client
	for w := p.FirstWaiter(); w != nil; w = p.NextWaiter(w) {
		c := w.Owner.(*client)
		since, limit := t.waitLimit(c)
		switch waited := now.Sub(since); {
		case waited >= limit:
			late = append(late, c)
		case c.waitsInVain(now):
			vain = append(vain, c)
		case waited >= noticeAfter && !w.Noticed && !c.greeting():
			w.Noticed = true
			c.conn.Write(told.notice.Append(nil))
		}
	}
	for _, c := range late { // each of which may change the queue
		c.fail(told.fatal, told.reason)
	}
	for _, c := range vain {
		if p.Leave(&c.books) {
			c.welcome()
		}
	}
}

// apply takes over a new configuration; nil means that the tenant is gone.
func (t *tenant) apply(conf *tenants.Tenant) {
	old := t.conf
	t.conf = conf
	if conf == nil {
		t.review(time.Now())
		t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("tenant removed") })
		t.leaveMachine(nil)
		t.joinMachine(nil)
		t.retireFormer(t.loop.Now())
		t.reshare()
		return
	}
	t.policies = policiesOf(conf)
	t.repause()
	t.books.SetSettings(t.settings())
	t.limitGroups()
	t.renewTimeouts()
	moved := t.moveMachine(old, conf)
	t.tellRoles()
	for _, p := range t.pools {
		p.configure()
		switch {
		case old == nil || moved || !old.Upstream.Same(conf.Upstream) || !sameLogin(old, conf, p.key.user):
			p.renew()
		case !sameKey(old, conf, p.key.user):
			p.outlive(conf)
		}
	}
	t.reshare()
	t.review(time.Now())
	t.retireFormer(t.loop.Now())
	t.dialMore()
}

// outlive is for a password that has changed: as at Postgres, who is there stays, until somebody brings the new one (see learned), which
// may have been before we heard of it.
func (p *serverPool) outlive(conf *tenants.Tenant) {
	if u, ok := conf.User(p.key.user); ok && p.tenant.brought(p.key.user, u.Verifier) != nil {
		p.renew()
		p.tenant.books.Forgive()
		return
	}
	p.outdated = true
	p.books.Freeze(true)
}

// renew closes the pool's servers as they become free.
func (p *serverPool) renew() {
	p.outdated = false
	p.books.Freeze(false)
	p.forget()
	p.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("retired") })
}

// learned is called when somebody has brought what a user logs in to the server with. Servers that have logged in with something older
// can be replaced from now on: the role may be another one of that name.
func (t *tenant) learned(user string) {
	late := false
	for _, p := range t.pools {
		if p.outdated && p.key.user == user {
			late = true
			p.renew()
		}
	}
	if late {
		t.books.Forgive() // dials that had nothing to log in with
		t.dialMore()
	}
}

// sameKey reports whether a user logs in to the server with what its clients bring as before, or with something else.
func sameKey(a, b *tenants.Tenant, user string) bool {
	x, okx := a.User(user)
	y, oky := b.User(user)
	return !okx || !oky || x.Verifier == y.Verifier || !y.ServerPassword.IsZero() || y.ServerAuth == tenants.AuthCert
}

// sameLogin reports whether a user logs in to the server as before, but for a password that only clients know.
func sameLogin(a, b *tenants.Tenant, user string) bool {
	x, okx := a.User(user)
	y, oky := b.User(user)
	return okx == oky && (!okx || x.Password == y.Password && x.Verifier.IsZero() == y.Verifier.IsZero() && x.ServerUser == y.ServerUser &&
		x.ServerPassword == y.ServerPassword && x.ServerAuth == y.ServerAuth)
}

// drain asks everybody to go as soon as nothing of theirs is running.
func (t *tenant) drain() {
	t.draining = true
	for _, c := range append([]*client(nil), t.clients...) {
		c.drain()
	}
	t.drainShares()
}

// closeAll ends every session and server now.
func (t *tenant) closeAll(e *pgwire.Error, reason string) {
	t.draining, t.ending = true, t.shares == nil
	for _, c := range append([]*client(nil), t.clients...) {
		c.fail(e, reason)
	}
	t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut(reason) })
	t.redial.Stop()
	t.sweeper.Stop()
}
