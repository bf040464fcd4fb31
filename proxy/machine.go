// A tenant and its machine: when pools may dial, who waits for it, and when it is unused. Loop thread only.

package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/tenants"
)

const (
	// maxDialing bounds the logins under way of one tenant, so that a machine
	// that has just woken is not met by all its clients at once.
	maxDialing = 16
	// wakeBurst and wakeRefill are a tenant's wake budget.
	wakeBurst  = 30
	wakeRefill = 20 * time.Second
	// patrolPace is between two machines that are asked how they stand.
	patrolPace = 50 * time.Millisecond
)

// machine is a tenant's part in its machine.
type machine struct {
	holder *machines.Holder // nil: the tenant has an upstream
	view   machines.View
	former []former // see machine_end.go
	// leases counts what was lent, and counted is how many of them were told to the holder.
	leases, counted uint64
	sessions        int // clients in session mode: each may use its server at any time
	// reachable is mayDial when it was looked at last, since when it changed: from
	// then on a waiting client has waited for something else.
	reachable bool
	since     time.Time
}

// joinMachine takes part in the machine that conf names, if it names one, until
// leaveMachine.
func (t *tenant) joinMachine(conf *tenants.Tenant) {
	defer t.noteReach()
	t.machine.holder, t.machine.view = nil, machines.View{}
	has := conf != nil && conf.Machine != nil
	t.hasMachine.Store(has)
	if !has {
		return
	}
	t.reclaim(conf.Machine.Key())
	driver, err := t.gate.opts.Driver(conf)
	if err != nil {
		driver = brokenDriver{err}
	}
	var h *machines.Holder
	h = t.gate.fleet.Hold(conf.Machine.Key(), machines.Options{
		Driver:   driver,
		Probe:    t.probe(conf),
		Settings: t.machineSettings(conf),
		Observe:  t.observe,
		Log:      t.log,
	}, func(v machines.View) {
		t.post(func() {
			if t.machine.holder == h { // and not another machine's by now
				t.machineIs(v)
			}
		})
	})
	t.machine.holder = h
	h.Check() // it may run, and nobody may come: then it is put to sleep
}

func (t *tenant) machineSettings(conf *tenants.Tenant) machines.Settings {
	return machines.Settings{SuspendAfter: conf.Machine.SuspendAfter, WakeLimit: t.gate.opts.Timeouts.Wake, Burst: wakeBurst, Refill: wakeRefill}
}

// probe returns what finds out whether the machine's Postgres answers.
func (t *tenant) probe(conf *tenants.Tenant) func(context.Context, machines.Endpoint) error {
	target := backend.Target{TLS: backend.TLSMode(conf.Upstream.TLS), RootCAs: conf.Upstream.RootCAs, ServerName: conf.Upstream.ServerName, User: "postgres"}
	for _, u := range conf.Users {
		target.User = u.ServerUser
		break
	}
	return func(ctx context.Context, at machines.Endpoint) error {
		target := target
		target.Host, target.Port = at.Host, at.Port
		return backend.Answers(ctx, target)
	}
}

// brokenDriver stands for a driver that could not be made.
type brokenDriver struct{ err error }

func (b brokenDriver) State(context.Context) (machines.Status, error) {
	return machines.Status{}, b.err
}
func (b brokenDriver) Wake(context.Context) (machines.Status, error) {
	return machines.Status{}, b.err
}
func (b brokenDriver) Suspend(context.Context) error { return b.err }
func (b brokenDriver) Endpoint(context.Context) (machines.Endpoint, error) {
	return machines.Endpoint{}, b.err
}

// observe counts a wake or a suspend. Called by the machine's owner.
func (t *tenant) observe(what machines.Action, how machines.Outcome) {
	if what == machines.Sleep {
		t.counters.suspends.add(how.Reason, how.Result)
		return
	}
	t.counters.wakes.add(how.Result)
	if how.Result == "ok" {
		t.gate.metrics.wake.Observe(how.Took.Seconds())
	}
}

// mayDial reports whether pools may make connections now.
func (t *tenant) mayDial() bool {
	return t.conf != nil && !t.paused && (t.machine.holder == nil || t.machine.view.State == machines.StateReady)
}

// noteReach looks at mayDial after something that may have changed it.
func (t *tenant) noteReach() {
	if may := t.mayDial(); may != t.machine.reachable {
		t.machine.reachable, t.machine.since = may, t.loop.Now()
	}
	t.alertReplicas()
	t.tellRoles()
}

// tellRoles says whether the server can be asked for its roles.
func (t *tenant) tellRoles() {
	if t.conf == nil || t.conf.AuthQuery == nil {
		return
	}
	reach := roles.Away
	switch {
	case t.mayDial():
		reach = roles.There
	case !t.paused && t.machine.view.State == machines.StateUnknown:
		reach = roles.Unknown
	}
	t.gate.reachRoles(t.conf, reach, t.machine.view.Endpoint)
}

// want wakes the machine for a client.
func (t *tenant) want() {
	if h := t.machine.holder; h != nil && !t.paused && t.machine.view.State != machines.StateReady {
		h.Want("client")
	}
}

// leased counts a lease, and how long a login waited for the machine.
func (t *tenant) leased(c *client) {
	m := &t.machine
	m.leases++
	if c.greeting() && m.holder != nil && m.since.After(c.books.WaitedSince()) {
		t.gate.metrics.wakePhase.Observe(m.since.Sub(c.books.WaitedSince()).Seconds())
	}
}

// awaitMachine is what dialMore does while pools may not dial: whoever waits
// wants the machine, or is told that it cannot be had.
func (t *tenant) awaitMachine() {
	if t.conf == nil || t.paused || t.books.Counts().Waiting == 0 {
		return
	}
	v := &t.machine.view
	if v.State == machines.StateFailed && time.Now().Before(v.Until) {
		t.logMachine(v.Err)
		for p := range t.books.Pools() {
			t.failWaiters(p, errMachine(v.Err))
		}
		return
	}
	t.want()
}

// machineIs takes over what the machine's owner says.
func (t *tenant) machineIs(v machines.View) {
	old := t.machine.view
	t.machine.view = v
	t.noteReach()
	switch v.State {
	case machines.StateReady:
		if v.Epoch != old.Epoch {
			t.dropOlder(v.Epoch)
			t.forgetBygone()
		}
		t.books.Forgive()
	case machines.StateDraining:
		t.drainMachine()
	}
	t.counters.machine.Store(int32(v.State))
	t.dialMore()
	t.keepSweeping()
}

// dropOlder closes every connection to an earlier run of the machine: it is a
// lie, whatever the socket says.
func (t *tenant) dropOlder(epoch uint64) {
	t.unseatReplicas(&epoch, &ending{"server_lost", errUnavailable})
	var old []*server
	for s := range t.servers {
		if s.machine == t.machineKey() && s.epoch != epoch {
			old = append(old, s)
		}
	}
	for _, s := range old {
		switch s.books.State() {
		case pool.Idle, pool.Dialing:
			s.shut("the machine was restarted")
		default:
			s.lost("the machine was restarted")
		}
	}
}

// drainMachine closes what leads to the machine, so that it can sleep, unless
// somebody has come meanwhile.
func (t *tenant) drainMachine() {
	h := t.machine.holder
	if t.tellUse(); h.View().State != machines.StateDraining {
		return
	}
	t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("the machine goes to sleep") })
	h.Drained()
}

// inUse reports whether anything of the tenant's needs its machine now.
func (t *tenant) inUse() bool { return len(t.needs()) > 0 }

// needs lists what keeps the machine awake, in words for its owner.
func (t *tenant) needs() []string {
	var out []string
	say := func(n int, one, many string) {
		switch {
		case n == 1:
			out = append(out, "1 "+one)
		case n > 1:
			out = append(out, fmt.Sprintf("%d %s", n, many))
		}
	}
	n := t.books.Counts()
	say(t.machine.sessions, "client in session mode", "clients in session mode")
	say(n.Active, "server connection in use", "server connections in use")
	say(n.Cleaning, "server connection being reset", "server connections being reset")
	say(n.Dialing, "login under way", "logins under way")
	if !t.paused {
		say(int(t.counters.replicas.Load()), "replication connection", "replication connections")
		say(n.Waiting, "client waiting", "clients waiting")
	}
	return out
}

// tellUse tells the machine's owner whether it is in use.
func (t *tenant) tellUse() {
	m := &t.machine
	if m.holder == nil {
		return
	}
	m.holder.Use(t.inUse(), m.leases != m.counted)
	m.counted = m.leases
}

// moveMachine follows a new configuration to another machine, or none.
func (t *tenant) moveMachine(old, conf *tenants.Tenant) (moved bool) {
	m := &t.machine
	same := old != nil && old.Machine != nil && conf.Machine != nil && old.Machine.SameMachine(conf.Machine) && old.Upstream.Same(conf.Upstream)
	if same {
		m.holder.Configure(t.machineSettings(conf))
		return false
	}
	if m.holder == nil && conf.Machine == nil {
		return false
	}
	t.leaveMachine(conf.Machine)
	t.joinMachine(conf)
	t.noteReach()
	return true
}

// awake reports whether the machine runs, or may, so that somebody must put it
// to sleep.
func (t *tenant) awake() bool {
	return t.machine.holder != nil && t.machine.view.State != machines.StateAsleep
}

// letGo ends the tenant's part in its machine, which sleeps.
func (t *tenant) letGo() {
	if h := t.machine.holder; h != nil {
		h.Release()
		t.machine.holder = nil
	}
}

// waiting is what clients are told of what they wait for.
type waiting struct {
	notice, fatal *pgwire.Error
	reason        string // in the log of ended sessions
}

// unreachable says why the tenant's pools may not dial.
func (t *tenant) unreachable() waiting {
	if t.paused {
		return waiting{noticePaused, errPaused, "paused"}
	}
	return waiting{noticeWaking, errWakeSlow, "wake"}
}

// waitsFor says what a pool's clients wait for now.
func (t *tenant) waitsFor(p *pool.Pool) waiting {
	down := p.Outage()
	switch {
	case t.paused || !t.machine.reachable:
		return t.unreachable()
	case down != nil:
		return waiting{noticeDown, errDial(down), "no_server"}
	case p.Connecting():
		return waiting{noticeConnecting, errUnavailable, "no_server"}
	case p.Starved():
		return waiting{noticeWaiting, errNoShare, "no_portion"}
	}
	return waiting{noticeWaiting, errWait, "query_wait"}
}

// waitLimit says since when and for how long a client may wait for what it is
// that it waits for.
func (t *tenant) waitLimit(c *client) (since time.Time, limit time.Duration) {
	waits := c.books.WaitedSince()
	since, limit = waits, c.timeouts.queryWait
	if t.machine.since.After(waits) {
		since = t.machine.since
	}
	switch {
	case !t.machine.reachable:
		limit = t.gate.opts.Timeouts.Wake
	case t.shares != nil && c.pool.books.Starved() && !t.gate.opts.Budget.MayDial():
		limit = min(limit, t.gate.opts.Timeouts.ServerConnect) // nobody can say when
	}
	return since, limit
}

// logMachine says what the machine's state means when clients are refused.
func (t *tenant) logMachine(err error) {
	t.gate.limited.log(t.log, slog.LevelWarn, logKey{t.id, "machine"}, "clients are refused: the machine cannot be had", "error", err)
}
