// The Gate: what all sessions share, and how it starts, drains and ends.

package proxy

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/loop"
)

// Gate accepts clients and serves them. Make it with New, start it with Start,
// end it with Drain or Close. Safe for concurrent use.
type Gate struct {
	// Static after New.
	opts        Options
	log         *slog.Logger
	limited     *limitedLog
	metrics     *Metrics
	loops       []*loop.Loop
	seed        maphash.Seed
	refusals    refusals
	freshFor    time.Duration // see confirm.go
	cancelSlots chan struct{}
	handshakes  chan struct{}
	derive      chan struct{} // PBKDF2 for servers
	proofs      chan struct{} // and for visitors that have told a password
	fleet       *machines.Fleet
	ctx         context.Context // ends with Close
	stop        context.CancelFunc

	work      sync.WaitGroup // what spawn runs: handshakes, dials, cancels, sessions without a loop
	spawning  sync.Mutex     // held to add to work, and to end ctx
	running   sync.WaitGroup // what Start runs: loops, listeners, what is done by the clock
	listeners []net.Listener
	draining  atomic.Bool
	clients   atomic.Int64
	admits    atomic.Int64 // clients at most
	room      Room         // as of New
	// serversWanted is how many servers all tenants may have together.
	serversWanted atomic.Int64
	// wantCertificates is how many tenants want certificates of their clients.
	wantCertificates atomic.Int64
	closeOnce        sync.Once

	denials    tenantDenials
	refused    refusedList
	throttle   guarded[*netrestrict.Throttle]
	guesses    guarded[*netrestrict.Throttle] // cancel keys that nobody has
	perClient  guarded[map[netip.Addr]int]    // handshakes by client address
	rates      guarded[*rates]
	keys       cancelKeys
	forwards   forwards      // of cancels
	ids        atomic.Uint64 // numbers of sessions
	sessionIDs sessionIDs    // and their names outside
	replicas   replicas
	derived    derivedVerifiers
	toDerive   backlog // see deriveAhead
	toPatrol   backlog // see patrol
	pending    pending
	expiries   expiries
	consoles   *consoles
	roles      roleBooks

	mu      sync.Mutex
	tenants map[string]*tenant
	left    []string // see Left
}

// guarded is a value and its lock.
type guarded[T any] struct {
	mu sync.Mutex
	v  T
}

func (g *guarded[T]) with(f func(T)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g.v)
}

// New makes a gate that does not listen yet.
func New(o Options) (*Gate, error) {
	if o.Loops == 0 {
		o.Loops = runtime.NumCPU()
	}
	if len(o.MockSecret) == 0 {
		o.MockSecret = make([]byte, 32)
		_, _ = rand.Read(o.MockSecret)
	}
	g := &Gate{opts: o, log: o.Log, limited: newLimitedLog(), metrics: newMetrics(o.Registerer), seed: maphash.MakeSeed(),
		freshFor: freshFor, derive: make(chan struct{}, max(1, runtime.NumCPU()/2)), proofs: make(chan struct{}, max(1, runtime.NumCPU()/2)), fleet: machines.NewFleet(), tenants: make(map[string]*tenant),
		consoles: newConsoles(), sessionIDs: newSessionIDs(), expiries: newExpiries(), refusals: newRefusals(o.Limits.Statements)}
	g.throttle.v = netrestrict.NewThrottle(o.Throttle)
	g.throttle.v.Spare(g.neverBans)
	g.roles = newRoleBooks(g.throttle.v.Window())
	g.guesses.v = netrestrict.NewThrottle(guessLimit())
	g.perClient.v = make(map[netip.Addr]int)
	g.rates.v = newRates()
	if g.keys.secret = newSecret; o.Cluster != nil {
		g.keys.secret = o.Cluster.CancelSecret
		g.ids.Store(firstClientID())
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	o.Directory.Subscribe(g.changed)
	g.room = g.makeRoom()
	g.cancelSlots, g.handshakes = make(chan struct{}, g.room.Cancels), make(chan struct{}, g.room.Handshakes)
	for i := range o.Loops {
		l, err := loop.New(i, o.Log, g.metrics.panics.Inc)
		if err != nil {
			return nil, err
		}
		l.EndSilent(o.TCP.UserTimeout)
		g.loops = append(g.loops, l)
		if o.NoIOUring {
			continue
		}
		if err := l.BatchWrites(); err != nil && i == 0 {
			o.Log.Info("each write is a system call of its own", "reason", err.Error())
		}
	}
	if err := o.Registerer.Register(g); err != nil {
		return nil, err
	}
	return g, nil
}

// Start listens and serves until Drain or Close. If one address cannot be
// listened on, nothing is started.
func (g *Gate) Start() error {
	for _, l := range g.opts.Listeners {
		ln, err := g.listen(l.Network, l.Address)
		if err != nil {
			for _, other := range g.listeners {
				other.Close()
			}
			return fmt.Errorf("listener %s: %w", l.Name, err)
		}
		g.listeners = append(g.listeners, ln)
	}
	for _, l := range g.loops {
		g.running.Go(l.Run)
	}
	for i, ln := range g.listeners {
		a := newAcceptor(g, &g.opts.Listeners[i], ln)
		g.running.Go(a.run)
	}
	g.running.Go(g.forgetUnused)
	g.running.Go(g.watch)
	g.spawn(g.deriveAhead)
	g.spawn(g.patrol)
	g.running.Go(func() { g.expiries.run(g.ctx, g.expire) })
	if g.opts.Console != nil {
		g.running.Go(g.sampleStats)
	}
	if k := g.opts.Known; k != nil {
		g.running.Go(func() { k.run(g.ctx) })
	}
	return nil
}

// Addrs lists the addresses listened on, in the order of Options.Listeners.
func (g *Gate) Addrs() []net.Addr {
	var out []net.Addr
	for _, ln := range g.listeners {
		out = append(out, ln.Addr())
	}
	return out
}

// Ready says why the gate should get no new clients, or nil.
func (g *Gate) Ready() error {
	if g.draining.Load() {
		return fmt.Errorf("draining")
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for. It reports false, and f is
// dropped, once the gate closes.
func (g *Gate) spawn(f func()) bool {
	g.spawning.Lock()
	defer g.spawning.Unlock()
	if g.ctx.Err() != nil {
		return false
	}
	g.work.Go(f)
	return true
}

// Drain stops accepting, sends every client away between its transactions, and
// closes what is left when ctx ends or everybody is gone.
func (g *Gate) Drain(ctx context.Context) {
	g.draining.Store(true)
	for _, ln := range g.listeners {
		ln.Close()
	}
	for _, t := range g.runtimeTenants() {
		t.post(func() {
			t.drain()
			t.endReplicas(&ending{"drain", errDraining})
		})
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for g.clients.Load() > 0 || len(g.handshakes) > 0 {
		select {
		case <-ctx.Done():
			g.Close()
			return
		case <-tick.C:
		}
	}
	g.Close()
}

// Close ends everything now and waits until it has ended.
func (g *Gate) Close() {
	g.closeOnce.Do(func() {
		g.draining.Store(true)
		for _, ln := range g.listeners {
			ln.Close()
		}
		for _, t := range g.runtimeTenants() {
			t.call(func() {
				t.closeAll(errDraining, "shutdown")
				t.endReplicas(&ending{"shutdown", errDraining})
			})
		}
		// What was said last is still on its way to those who read. Other nodes wait for the places of servers that have not ended.
		most := lingerFor
		if g.opts.Budget != nil {
			most = leaveFor
		}
		linger, done := context.WithTimeout(context.Background(), most)
		defer done()
		g.awaitIdle(linger)
		g.spawning.Lock()
		g.stop()
		g.spawning.Unlock()
		g.fleet.Close()
		g.work.Wait()
		for _, t := range g.runtimeTenants() {
			t.call(func() {
				if t.shares != nil && t.books.Used() > 0 {
					g.left = append(g.left, t.id)
				}
			})
		}
		for _, l := range g.loops {
			l.Stop()
		}
		g.running.Wait()
	})
}

// Left names tenants of whose servers it is not known that they have ended, although the gate has: others must not have their places yet. Call it after Close.
func (g *Gate) Left() []string { return g.left }

// awaitIdle waits until the loops own no connection any more.
func (g *Gate) awaitIdle(ctx context.Context) {
	for ctx.Err() == nil {
		n := 0
		for _, l := range g.loops {
			l.Call(func() { n += l.Attached() })
		}
		if n == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (g *Gate) loopFor(id string) *loop.Loop {
	return g.loops[maphash.String(g.seed, id)%uint64(len(g.loops))]
}

func loopName(i int) string { return strconv.Itoa(i) }

// tenant returns the run-time side of a registered tenant, making it on first use.
func (g *Gate) tenant(id string) *tenant {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := g.tenants[id]
	if !ok {
		// The directory is asked under the lock, so that a change either finds the
		// tenant here or has been seen by it.
		conf, _ := g.conf(id)
		t = newTenant(g, id, conf)
		g.tenants[id] = t
	}
	t.touch()
	return t
}

func (g *Gate) runtimeTenants() []*tenant {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*tenant, 0, len(g.tenants))
	for _, t := range g.tenants {
		out = append(out, t)
	}
	return out
}

// forgetUnused lets go of tenants that nobody has used for a while, and with
// them of their metric series.
func (g *Gate) forgetUnused() {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
		g.denials.keep(g.opts.Directory)
		g.refused.keep(func(id string) bool {
			_, there := g.opts.Directory.Tenant(id)
			return there
		})
		for _, t := range g.runtimeTenants() {
			if t.admitted.Load() > 0 {
				t.touch()
				continue
			}
			if time.Since(time.Unix(t.lastUse.Load(), 0)) > forgetAfter {
				t.loop.Post(func() { g.forgetTenant(t) })
			}
		}
	}
}

// forgetTenant runs on the tenant's loop.
func (g *Gate) forgetTenant(t *tenant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.admitted.Load() > 0 || t.books.Servers() > 0 || t.shares.any() || t.places.anyShared() || t.held || t.awake() || time.Since(time.Unix(t.lastUse.Load(), 0)) <= forgetAfter {
		return
	}
	t.letGo()
	t.forgotten = true
	delete(g.tenants, t.id)
}

// forget is called by the loop when a session is over.
func (g *Gate) forget(c *client) {
	g.keys.remove(c.key)
	g.release(c.tenant, c.place)
}

// keepAlive is the configured one; a zero leaves the system's own setting,
// which package net spells as a negative number.
func (g *Gate) keepAlive() net.KeepAliveConfig {
	o := &g.opts.TCP
	keep := net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}
	if o.KeepaliveIdle > 0 {
		keep.Idle = o.KeepaliveIdle
	}
	if o.KeepaliveInterval > 0 {
		keep.Interval = o.KeepaliveInterval
	}
	if o.KeepaliveCount > 0 {
		keep.Count = o.KeepaliveCount
	}
	return keep
}

// tuneSocket sets the TCP options of a server connection.
func (g *Gate) tuneSocket(c *net.TCPConn) { _ = c.SetKeepAliveConfig(g.keepAlive()) }
