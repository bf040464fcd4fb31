// What operators see of a tenant and can do to it while the gate runs.

package proxy

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
)

// ErrNoTenant means that no tenant has the id.
var ErrNoTenant = errors.New("no such tenant")

// ErrNoMachine means that the tenant has an upstream, and nothing to wake or suspend.
var ErrNoMachine = errors.New("the tenant has no machine: it has an upstream")

// ErrGateClosed means that the gate has ended.
var ErrGateClosed = errors.New("the gate is closed")

// ErrPaused means that the tenant's clients wait until it is resumed.
var ErrPaused = errors.New("the tenant is paused")

// BusyError says what keeps a machine from being suspended.
type BusyError struct{ Needs []string }

func (e *BusyError) Error() string { return "the machine is in use: " + strings.Join(e.Needs, ", ") }

// MachineInfo is a tenant's machine as it stands.
type MachineInfo struct {
	Key     string // provider and name
	View    machines.View
	Needs   []string // what keeps it awake, in words
	Waiting int      // clients
	Paused  bool
	// SuspendAfter is how long it stays awake unused; 0: for ever.
	SuspendAfter time.Duration
}

// Machine returns how a tenant's machine stands. It fails with ErrNoTenant,
// ErrNoMachine or ErrGateClosed. Safe for concurrent use, as all of these are.
func (g *Gate) Machine(id string) (MachineInfo, error) {
	var info MachineInfo
	err := g.withMachine(id, func(t *tenant) error {
		info = MachineInfo{Key: t.machine.holder.Key(), View: t.machine.holder.View(), Needs: t.needs(), Waiting: t.books.Counts().Waiting, Paused: t.paused}
		if t.conf != nil && t.conf.Machine != nil {
			info.SuspendAfter = t.conf.Machine.SuspendAfter
		}
		return nil
	})
	return info, err
}

// WakeMachine starts to wake a tenant's machine and returns at once; Machine
// tells how it goes. Besides the errors of Machine there is ErrPaused.
func (g *Gate) WakeMachine(id string) error {
	return g.withMachine(id, func(t *tenant) error {
		if t.paused {
			return ErrPaused
		}
		t.machine.holder.Want("operator")
		return nil
	})
}

// SuspendMachine starts to put a tenant's machine to sleep and returns at
// once. A machine that is in use is not: *BusyError says why.
func (g *Gate) SuspendMachine(id string) error {
	return g.withMachine(id, func(t *tenant) error {
		h := t.machine.holder
		h.Use(t.inUse(), false)
		if h.Suspend("operator") {
			return nil
		}
		switch v := h.View(); v.State {
		case machines.StateAsleep, machines.StateSuspending, machines.StateDraining:
			return nil
		case machines.StateReady:
			return &BusyError{t.needs()}
		default:
			return &BusyError{[]string{"it is " + v.State.String()}}
		}
	})
}

// Knows reports whether a tenant is in the directory.
func (g *Gate) Knows(id string) bool {
	_, ok := g.opts.Directory.Tenant(id)
	return ok
}

// withTenant runs f on the loop of a registered tenant.
func (g *Gate) withTenant(id string, f func(*tenant)) error {
	if _, ok := g.opts.Directory.Tenant(id); !ok {
		return ErrNoTenant
	}
	t := g.tenant(id)
	if !t.call(func() { f(t) }) {
		return ErrGateClosed
	}
	return nil
}

func (g *Gate) withMachine(id string, f func(*tenant) error) error {
	var err error
	called := g.withTenant(id, func(t *tenant) {
		if t.machine.holder == nil {
			err = ErrNoMachine
			return
		}
		err = f(t)
	})
	return errors.Join(called, err)
}

// LockedOut says how many of a tenant's open sessions a new configuration would end, and how many are open. It changes nothing.
// The error is ErrGateClosed, or that of ctx.
func (g *Gate) LockedOut(ctx context.Context, conf *tenants.Tenant) (locked, open int, err error) {
	g.mu.Lock()
	t := g.tenants[conf.ID]
	g.mu.Unlock()
	if t == nil {
		return 0, 0, nil // nobody is there
	}
	conf = g.withRoles(conf)
	type tally struct{ locked, open int }
	told := make(chan tally, 1)
	asked := t.post(func() {
		var n tally
		now := time.Now()
		count := func(s standing) {
			n.open++
			if s.revoked(conf, now) != "" {
				n.locked++
			}
		}
		for _, c := range t.clients {
			count(c.standing())
		}
		g.replicas.each(t, func(r *replica) { count(r.standing()) })
		told <- n
	})
	if !asked {
		return 0, 0, ErrGateClosed
	}
	select {
	case n := <-told:
		return n.locked, n.open, nil
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-g.ctx.Done():
		return 0, 0, ErrGateClosed
	}
}
