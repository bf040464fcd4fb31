// All replication sessions: how cancels find them, and what ends many at once.

package proxy

import (
	"sync"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// replicas finds replication sessions by cancel key and by tenant. Safe for
// concurrent use.
type replicas struct {
	mu       sync.Mutex
	byPID    map[uint32]*replica
	byTenant map[*tenant]map[*replica]struct{}
}

// add makes the session's cancel key, unique among those of its kind.
func (l *replicas) add(r *replica, long bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byPID == nil {
		l.byPID, l.byTenant = make(map[uint32]*replica), make(map[*tenant]map[*replica]struct{})
	}
	r.key = newCancelKey(long, func(pid uint32) bool { return l.byPID[pid] != nil })
	l.byPID[r.key.pid] = r
	if l.byTenant[r.tenant] == nil {
		l.byTenant[r.tenant] = make(map[*replica]struct{})
	}
	l.byTenant[r.tenant][r] = struct{}{}
}

func (l *replicas) remove(r *replica) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byPID, r.key.pid)
	delete(l.byTenant[r.tenant], r)
	if len(l.byTenant[r.tenant]) == 0 {
		delete(l.byTenant, r.tenant)
	}
}

func (l *replicas) find(pid uint32, secret []byte) *replica {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.byPID[pid]
	if r == nil || !r.key.is(secret) {
		return nil
	}
	return r
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
		switch over := r.revoked(conf); {
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
func (r *replica) revoked(conf *tenants.Tenant) *ending {
	switch {
	case conf == nil:
		return &ending{"tenant_removed", errRevoked}
	case !conf.Allow.Allows(r.peer.Client.Addr()):
		return &ending{"address_revoked", errRevoked}
	case !conf.AllowsDatabase(r.database):
		return &ending{"database_revoked", errRevoked}
	case conf.RequireTLS && r.tls == nil:
		return &ending{"tls_required", errRevoked}
	}
	if _, ok := conf.User(r.user); !ok {
		return &ending{"user_removed", errRevoked}
	}
	return nil
}

// cancelReplica deals with a CancelRequest that is for a replication session,
// under the same rules as for any other. False: it is not.
func (h *handshake) cancelReplica(body []byte) bool {
	g := h.gate
	pid, secret, ok := pgwire.CancelKey(body)
	if !ok {
		return false
	}
	addr := h.peer.Client.Addr()
	var wait time.Duration
	g.guesses.with(func(t throttle) { wait = t.Wait(time.Now(), "", addr) })
	if wait > 0 {
		return false // who guesses is not told apart from who knows
	}
	r := g.replicas.find(pid, secret)
	if r == nil {
		return false
	}
	conf, known := g.opts.Directory.Current().Tenant(r.tenant.id)
	result := "idle"
	switch {
	case !known || !conf.Allow.Allows(addr):
		result = "refused"
		g.count(denyAddress, r.tenant.id)
	case r.isServed():
		result = r.cancelServer()
	}
	g.metrics.cancels.WithLabelValues(result).Inc()
	return true
}

// isServed reports whether the session has a server, or had one.
func (r *replica) isServed() bool {
	select {
	case <-r.served:
		return r.ctx.Err() == nil
	default:
		return false
	}
}
