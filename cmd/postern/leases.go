// Leases of machines: where tenants are in a database, all processes that follow it share the machines.

package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
)

// leases guard machines. nil: tenants come from a file, and the machines are this process's alone.
type leases struct {
	ledger ledger
	holder *cluster.Holder
	// several says that there may be other nodes that the store has not heard of since it went away: who cannot ask it uses no machine
	// that it did not use before.
	several bool
	needed  chan struct{} // closed with the first machine: a process without any has nothing to hear
	need    func()        // closes it
	log     *slog.Logger
	step    func(at string) // where a change stands; nil but in tests
}

// ledger is the store's, *postgres.Ledger.
type ledger interface {
	cluster.Leases
	TakeToUse(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error)
	TakeUnused(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error)
	Use(ctx context.Context, key string) error
	Uses(key string) bool
	UseUnwritten(key string)
	Alone() bool
	Watch(ctx context.Context, w postgres.Watcher)
	Close()
	Discard()
}

var _ machines.Guard = (*leases)(nil)

// leasePrefix stands before a machine's key: other leases may come.
const leasePrefix = "machine/"

func newLeases(s tenantStore, several bool, log *slog.Logger) (*leases, error) {
	store, ok := s.(*postgres.Store)
	if !ok {
		return nil, nil
	}
	ledger, err := store.Ledger()
	if err != nil {
		return nil, err
	}
	return leasesOf(ledger, several, log), nil
}

func leasesOf(of ledger, several bool, log *slog.Logger) *leases {
	needed := make(chan struct{})
	return &leases{ledger: of, holder: cluster.NewHolder(cluster.HolderOptions{Leases: of, Log: log}), several: several, log: log,
		needed: needed, need: sync.OnceFunc(func() { close(needed) })}
}

// learn finds out whether there are machines.
func (l *leases) learn(all []tenants.Change) {
	if l != nil && slices.ContainsFunc(all, func(c tenants.Change) bool { return c.New != nil && c.New.Machine != nil }) {
		l.need()
	}
}

// guarded has the leases guard all machines that of makes drivers for.
func (l *leases) guarded(of func(*tenants.Tenant) (machines.Driver, error)) func(*tenants.Tenant) (machines.Driver, error) {
	if l == nil {
		return of
	}
	return func(t *tenants.Tenant) (machines.Driver, error) {
		d, err := of(t)
		if err != nil {
			return nil, err
		}
		return machines.Guarded(d, l, t.Machine.Key()), nil
	}
}

// gateMachines is what a gate knows of machines, and is told of them.
type gateMachines interface {
	MachineIdle(key string) bool
	MachineChanged(key string, orphaned bool)
}

// watch hears what other processes do to machines, from the first one on that a tenant has, until ctx ends.
func (l *leases) watch(ctx context.Context, g gateMachines) {
	if l == nil {
		return
	}
	select {
	case <-l.needed:
	case <-ctx.Done():
		return
	}
	l.ledger.Watch(ctx, postgres.Watcher{
		Idle: func(key string) bool {
			machine, ok := strings.CutPrefix(key, leasePrefix)
			return ok && g.MachineIdle(machine)
		},
		Told: func(n tenants.LeaseNews) {
			l.holder.Tell(n.Key)
			if machine, ok := strings.CutPrefix(n.Key, leasePrefix); ok && n.Changed {
				g.MachineChanged(machine, n.Orphaned)
			}
		}})
}

// close gives everything back. Nothing is done to a machine any more.
func (l *leases) close() {
	if l == nil {
		return
	}
	l.holder.Close()
	select {
	case <-l.needed:
		l.ledger.Close()
	default:
		l.ledger.Discard()
	}
}

// Hold implements [machines.Guard].
func (l *leases) Hold(ctx context.Context, key string, what machines.Action) (context.Context, func(bool, error), error) {
	key = leasePrefix + key
	take := l.ledger.TakeToUse
	if what == machines.Sleep {
		take = l.ledger.TakeUnused
	}
	fence := machines.Fence{Step: l.step}
	held, err := l.holder.Hold(ctx, func(ctx context.Context, ttl time.Duration) (tenants.Lease, error) {
		ctx, cancel := l.patient(ctx, key)
		defer cancel()
		lease, err := take(ctx, key, ttl)
		fence.At(atTaken)
		return lease, err
	})
	if err == nil {
		fence.Epoch, fence.Holder, fence.Takeover = held.Lease.Epoch, held.Lease.Owner, held.Lease.Takeover
		fence.Check, fence.Confirm = held.Check, held.Confirm
		fence.At(atAct)
		return machines.WithFence(held.Context(), fence), func(changed bool, err error) {
			fence.At(atGiveBack)
			giveBack(held, what, changed, err)
		}, nil
	}
	// A start needs no lease where nobody can put the machine to sleep meanwhile: starting what runs does nothing, and a provider starts
	// a machine once, whoever asks.
	if what == machines.Start && l.mayUse(key, err) {
		return ctx, func(bool, error) {}, nil
	}
	return nil, nil, heldError(what, err)
}

// Where a change stands: what comes next.
const (
	atTaken    = "the lease was taken"
	atAct      = "the change is asked for"
	atGiveBack = "the lease is given back"
)

// giveBack gives a lease back. Whoever is next has to take over from this process if the machine may go to sleep still, and from the one
// that this one took over from if the machine could not be told.
func giveBack(held *cluster.Held, what machines.Action, changed bool, err error) {
	if err != nil && (held.Lease.Takeover || what == machines.Sleep) {
		held.Leave(changed)
		return
	}
	held.End(changed)
}

// Use implements [machines.Guard].
func (l *leases) Use(ctx context.Context, key string) error {
	key = leasePrefix + key
	asking, cancel := l.patient(ctx, key)
	defer cancel()
	err := l.ledger.Use(asking, key)
	if err == nil || l.mayUse(key, err) {
		return nil
	}
	return heldError(machines.Probe, err)
}

// Await implements [machines.Guard].
func (l *leases) Await(ctx context.Context, key string, d time.Duration) {
	l.holder.Await(ctx, leasePrefix+key, d)
}

// mayUse reports whether a machine may be used although the store could not be asked: it knows already that this process uses it, or
// there was nobody else who could put it to sleep.
func (l *leases) mayUse(key string, err error) bool {
	if !errors.Is(err, tenants.ErrAway) && !errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if l.ledger.Uses(key) {
		return true
	}
	if !l.alone() {
		return false
	}
	l.ledger.UseUnwritten(key)
	return true
}

// alone reports whether there was nobody else when the store was asked last.
func (l *leases) alone() bool { return !l.several && l.ledger.Alone() }

// shortPatience is how long the store is asked by who goes on without its answer.
const shortPatience = 5 * time.Second

// patient bounds a question to the store. Who needs the answer waits as long as the store may take for one.
func (l *leases) patient(ctx context.Context, key string) (context.Context, context.CancelFunc) {
	if l.alone() || l.ledger.Uses(key) {
		return context.WithTimeout(ctx, shortPatience)
	}
	return context.WithCancel(ctx)
}

// againAfter is when a right is tried again that nobody else has.
const againAfter = 200 * time.Millisecond

// heldError is what a machine's rules understand of an error of the store.
func heldError(what machines.Action, err error) error {
	e := &machines.Error{Kind: machines.Busy, Op: what.String(), Err: err}
	var held *tenants.HeldError
	var used *tenants.UsedError
	switch {
	case errors.As(err, &held):
		e.After, e.Err = held.For, errors.Join(machines.ErrHeld, err)
	case errors.Is(err, tenants.ErrUnannounced), errors.Is(err, cluster.ErrLeaseOver), errors.Is(err, cluster.ErrClockJumped):
		e.After, e.Err = againAfter, errors.Join(machines.ErrHeld, err)
	case errors.Is(err, tenants.ErrAbandoned):
		e.Err = errors.Join(machines.ErrAbandoned, err)
	case errors.As(err, &used), errors.Is(err, tenants.ErrUnsettled):
		e.Err = errors.Join(machines.ErrInUse, err)
	case errors.Is(err, tenants.ErrLate):
		e.Kind, e.After, e.Err = machines.Transient, againAfter, errors.Join(machines.ErrUnguarded, machines.ErrUnanswered, err)
	default:
		e.Kind, e.Err = machines.Transient, errors.Join(machines.ErrUnguarded, err)
	}
	return e
}
