// Finding a server for a replication session: waiting for its machine, and dialing.

package proxy

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/scram"
)

// seat is what a tenant's loop says to a session that wants a server: where to
// dial, that it is over, or, if it has to wait, what it waits for.
type seat struct {
	target backend.Target
	epoch  uint64
	over   *ending
	waits  *waiting
}

// connect returns a connection of the session's own, once the machine runs.
// What passes by itself is tried again for as long as pools do.
func (r *replica) connect() (*backend.Conn, *ending) {
	g, t := r.gate, r.tenant
	limit := time.NewTimer(g.opts.Timeouts.Wake)
	defer limit.Stop()
	var failing time.Time // since when logins fail
	var epoch uint64
	pause := backoffMin
	for {
		s, over := r.awaitSeat(limit)
		if over != nil {
			return nil, over
		}
		if s.epoch != epoch {
			epoch, failing, pause = s.epoch, time.Time{}, backoffMin
		}
		conn, err := r.dial(s.target)
		if r.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil, r.why()
		}
		if err == nil {
			kept := false
			t.call(func() { kept = t.keepSeat(r, s) })
			if kept {
				return conn, nil
			}
			conn.Close() // it leads to what has been meanwhile
			continue
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		retry := backend.Retryable(err)
		g.limited.log(t.log, slog.LevelWarn, logKey{t.id, "server_login"}, "server login failed", "user", clip(r.user), "database", clip(r.database),
			"mode", "replication", "retry", retry, "error", err)
		if !retry || time.Since(failing) >= g.opts.Timeouts.ServerConnect {
			return nil, &ending{"no_server", errReplicaDial(err)}
		}
		t.post(func() {
			if h := t.machine.holder; h != nil {
				h.Lost(s.epoch)
			}
		})
		if over := r.wait(pause); over != nil {
			return nil, over
		}
		pause = min(2*pause, time.Second)
	}
}

// awaitSeat asks the tenant's loop for a server until it names one.
func (r *replica) awaitSeat(limit *time.Timer) (s seat, over *ending) {
	began, waited := time.Now(), false
	for {
		if !r.tenant.call(func() { s = r.tenant.seat(r) }) {
			return s, r.why()
		}
		switch {
		case s.over != nil:
			return s, s.over
		case s.waits == nil:
			if waited {
				r.gate.metrics.wakePhase.Observe(time.Since(began).Seconds())
			}
			return s, nil
		}
		waited = true
		select {
		case <-r.changed:
		case <-r.ctx.Done():
			return s, r.why()
		case <-limit.C:
			return s, &ending{s.waits.reason, s.waits.fatal}
		}
	}
}

// wait is for a pause that the end of the session cuts short.
func (r *replica) wait(pause time.Duration) *ending {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.why()
	}
}

// dial logs in once.
func (r *replica) dial(target backend.Target) (*backend.Conn, error) {
	g := r.gate
	target.Replication, target.Settings = r.kind, r.settings
	ctx, cancel := context.WithTimeout(r.ctx, g.opts.Timeouts.ServerConnect)
	defer cancel()
	start := time.Now()
	conn, err := backend.Dial(ctx, target)
	if err != nil {
		r.tenant.counters.serverLoginsFailed.Add(1)
		return nil, err
	}
	r.tenant.counters.serverLoginsOK.Add(1)
	g.metrics.serverPhase.Observe(time.Since(start).Seconds())
	r.target = target
	r.target.Credentials = scram.Credentials{}
	return conn, nil
}

// seat says whether and where the session may dial now. Loop thread only, as
// is all that follows.
func (t *tenant) seat(r *replica) seat {
	switch {
	case t.conf == nil:
		return seat{over: &ending{"tenant_removed", errRevoked}}
	case t.draining || t.gate.draining.Load():
		return seat{over: &ending{"drain", errDraining}}
	}
	if over := r.revoked(t.conf, time.Now()); over != nil { // changed since it was asked
		return seat{over: over}
	}
	if !t.mayDial() {
		if v := &t.machine.view; !t.paused && v.State == machines.StateFailed && time.Now().Before(v.Until) {
			t.logMachine(v.Err)
			return seat{over: &ending{"no_server", errMachine(v.Err)}}
		}
		t.want()
		w := t.unreachable()
		return seat{waits: &w}
	}
	database := r.database
	if r.kind != "database" {
		database = ""
	}
	target, err := t.target(t.conf, t.machine.view.Endpoint, r.user, database)
	if err != nil {
		return seat{over: &ending{"no_server", errDial(err)}}
	}
	t.used()
	return seat{target: target, epoch: t.machine.view.Epoch}
}

// keepSeat reports whether a session that has dialed may stay where it is. From
// then on it is ended when that changes.
func (t *tenant) keepSeat(r *replica, s seat) bool {
	now := t.seat(r)
	r.epoch = s.epoch
	r.seated = now.over == nil && now.waits == nil && now.epoch == s.epoch && now.target.Host == s.target.Host && now.target.Port == s.target.Port
	return r.seated
}

// used tells the machine's owner about a use that begins or ends, and again soon.
func (t *tenant) used() {
	t.machine.leases++
	t.tellUse()
	t.keepSweeping()
}
