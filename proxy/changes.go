// Changes of tenants: what one that was added, changed or removed means for the gate. All others are left alone.

package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

// changed is called by the directory with the tenants that are not what they were, at first with all there are. It is quick: what
// takes long is left to backlogs.
func (g *Gate) changed(all []tenants.Change) {
	g.roles.changing.Lock()
	defer g.roles.changing.Unlock()
	for _, c := range all {
		if c.Old != nil {
			g.serversWanted.Add(-int64(c.Old.Pool.MaxServers))
		}
		if c.New == nil {
			g.denials.drop(c.ID())
			g.refused.forget(c.ID())
		} else {
			g.serversWanted.Add(int64(c.New.Pool.MaxServers))
		}
	}
	g.makeRoom()
	g.countCertificates(all)
	g.amendThrottle(all)
	g.expiries.follow(time.Now(), all)
	all = g.roles.follow(time.Now(), all)
	for _, c := range all {
		if c.Old != nil {
			g.derived.amend(c)
		}
		g.follow(c)
	}
	for _, c := range all {
		if c.New == nil {
			continue
		}
		g.toDerive.add(c.ID())
		if m := c.New.Machine; m != nil && (c.Old == nil || c.Old.Machine == nil || !c.Old.Machine.SameMachine(m)) {
			g.toPatrol.add(c.ID())
		}
	}
}

// follow has the tenant's run-time side, if it has one, take over what changed. Changes of a tenant arrive there in their order.
func (g *Gate) follow(c tenants.Change) {
	g.mu.Lock()
	t := g.tenants[c.ID()]
	g.mu.Unlock()
	if t == nil {
		return // whoever makes one asks the directory, see Gate.tenant
	}
	t.post(func() {
		if t.forgotten {
			return
		}
		before := t.conf
		t.apply(c.New)
		t.reviewReplicas(before, c.New)
	})
}

// patrol takes part in every machine that has appeared, or appeared anew, one after the other, so that one that was left
// running by somebody is put to sleep although no client comes.
func (g *Gate) patrol() {
	tick := time.NewTicker(patrolPace)
	defer tick.Stop()
	g.toPatrol.work(g.ctx, func(id string) {
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
		if conf, ok := g.opts.Directory.Tenant(id); ok && conf.Machine != nil {
			g.tenant(id)
		}
	})
}

// MachineChanged says that another process may have changed a machine; orphaned, that nobody may have put it to sleep who used it last.
func (g *Gate) MachineChanged(key string, orphaned bool) {
	if g.fleet.Tell(key, orphaned) || !orphaned {
		return
	}
	if t, ok := g.opts.Directory.Machine(key); ok {
		g.toPatrol.add(t.ID)
	}
}

// MachineIdle reports whether nothing here dials a machine, nor will before its driver was told to wake it, or that it is used.
func (g *Gate) MachineIdle(key string) bool { return g.fleet.Idle(key) }

// backlog has the ids of tenants for which something is to be done in the background, each once, in order. Its zero value is
// empty. Safe for concurrent use.
type backlog struct {
	mu    sync.Mutex
	order []string
	has   map[string]bool
	more  chan struct{} // closed when something is added, if somebody waits
}

func (b *backlog) add(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.has[id] {
		return
	}
	if b.has == nil {
		b.has = make(map[string]bool)
	}
	b.has[id] = true
	b.order = append(b.order, id)
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
}

// take returns the first id, or what is closed when there is one.
func (b *backlog) take() (id string, ok bool, more <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.order) == 0 {
		b.order, b.has = nil, nil // gives the memory of a long one back
		if b.more == nil {
			b.more = make(chan struct{})
		}
		return "", false, b.more
	}
	id, b.order = b.order[0], b.order[1:]
	delete(b.has, id)
	return id, true, nil
}

// work does something for one after the other, until ctx ends. Who is added while it is his turn has another.
func (b *backlog) work(ctx context.Context, do func(id string)) {
	for ctx.Err() == nil {
		id, ok, more := b.take()
		if ok {
			do(id)
			continue
		}
		select {
		case <-ctx.Done():
		case <-more:
		}
	}
}

// Settled returns when the changes that the directory has told of so far are in force: the loops have judged whoever was there.
// Whoever comes later is judged by what the directory has. It ends with ctx, and fails once the gate is closed.
func (g *Gate) Settled(ctx context.Context) error {
	ran := make(chan struct{}, len(g.loops))
	for _, l := range g.loops {
		if !l.Post(func() { ran <- struct{}{} }) { // behind what changed has posted
			return ErrGateClosed
		}
	}
	for range g.loops {
		select {
		case <-ran:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ctx.Done():
			return ErrGateClosed
		}
	}
	return nil
}
