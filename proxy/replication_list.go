// All replication sessions: who may cancel them, and what ends many at once.

package proxy

import (
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

// replicas finds replication sessions by tenant. Safe for concurrent use.
type replicas struct {
	mu       sync.Mutex
	byTenant map[*tenant]map[*replica]struct{}
}

func (l *replicas) add(r *replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byTenant == nil {
		l.byTenant = make(map[*tenant]map[*replica]struct{})
	}
	if l.byTenant[r.tenant] == nil {
		l.byTenant[r.tenant] = make(map[*replica]struct{})
	}
	l.byTenant[r.tenant][r] = struct{}{}
}

func (l *replicas) remove(r *replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byTenant[r.tenant], r)
	if len(l.byTenant[r.tenant]) == 0 {
		delete(l.byTenant, r.tenant)
	}
}

// each calls f, which must not block, for a tenant's sessions.
func (l *replicas) each(t *tenant, f func(*replica)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.byTenant[t] {
		f(r)
	}
}

// endReplicas ends the sessions of a tenant. Loop thread only, as the next three.
func (t *tenant) endReplicas(e *ending) {
	t.gate.replicas.each(t, func(r *replica) { r.end(e) })
}

// unseatReplicas ends those that have a server of another epoch than this one;
// nil means of any.
func (t *tenant) unseatReplicas(epoch *uint64, e *ending) {
	t.gate.replicas.each(t, func(r *replica) {
		if r.seated && (epoch == nil || r.epoch != *epoch) {
			r.end(e)
		}
	})
}

// alertReplicas has those that wait ask again.
func (t *tenant) alertReplicas() {
	t.gate.replicas.each(t, func(r *replica) {
		select {
		case r.changed <- struct{}{}:
		default: // it is going to ask anyway
		}
	})
}

// reviewReplicas follows a new configuration; nil means that the tenant is gone.
func (t *tenant) reviewReplicas(old, conf *tenants.Tenant) {
	moved := old != nil && conf != nil && !sameServer(old, conf)
	t.gate.replicas.each(t, func(r *replica) {
		switch over := r.revoked(conf, time.Now()); {
		case over != nil:
			r.end(over)
		case moved && r.seated: // it would never leave the old server by itself
			r.end(&ending{"retired", errUnavailable})
		}
	})
}

// sameServer reports whether a tenant's server is where it was.
func sameServer(a, b *tenants.Tenant) bool {
	if a.Machine == nil || b.Machine == nil {
		return a.Machine == b.Machine && a.Upstream.Same(b.Upstream)
	}
	return a.Machine.SameMachine(b.Machine) && a.Upstream.Same(b.Upstream)
}

// revoked says why a configuration does not allow the session any more, or nil.
func (r *replica) revoked(conf *tenants.Tenant, now time.Time) *ending {
	if reason := r.standing().revoked(conf, now); reason != "" {
		return &ending{reason, errRevoked}
	}
	return nil
}

// cancel is a CancelRequest with the session's key.
func (r *replica) cancel() (result string) {
	if !r.isServed() {
		return "idle"
	}
	return r.cancelServer()
}

// isServed reports whether the session has a server, and is not over.
func (r *replica) isServed() bool {
	select {
	case <-r.served:
		return r.ctx.Err() == nil
	default:
		return false
	}
}
