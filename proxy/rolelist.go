// Asking servers for their roles: in goroutines, while they are awake, never for the sake of one name.

package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// roleListing bounds the asking of one server, from the dial to the last row.
const roleListing = 10 * time.Second

// rolePatience bounds how long a login waits for a list.
type rolePatience struct{ known, first time.Duration } // where one is known, or none

// awaitRoles waits, if there is something to wait for, and returns the tenant with its roles. Whom the login names makes no difference.
func (g *Gate) awaitRoles(ctx context.Context, said *tenants.Tenant) *tenants.Tenant {
	b := g.roles.of(said.ID)
	if b == nil {
		return said
	}
	g.tenant(said.ID) // which finds out how its machine stands
	start := time.Now()
	for {
		happened, until, wait := g.lookAtRoles(b, start)
		if !wait {
			break
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-happened:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			break
		}
	}
	return g.withRoles(said)
}

// lookAtRoles starts what is due, and says whether a login that has waited since start waits on: until something happens, or then.
func (g *Gate) lookAtRoles(b *roleBook, start time.Time) (happened <-chan struct{}, until time.Time, wait bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	g.startRoles(b, now)
	patience := g.roles.patience.known
	if b.list == nil {
		patience = g.roles.patience.first
	}
	end := start.Add(min(patience, g.opts.Timeouts.Login/3))
	wait, until = b.schedule.Wait(now)
	if wait && until.After(end) { // what it would wait for begins too late
		wait = false
	}
	if wait = (wait || b.kept.reading) && now.Before(end); until.IsZero() || until.After(end) || b.kept.reading {
		until = end
	}
	return b.happened, until, wait
}

// reachRoles says whether a tenant's server can be asked for its roles, and where its machine's is. What is said of a machine that the
// tenant has left, because the loop has not heard so yet, counts for nothing: what asks the next one must not be told to that one.
// Called on loops.
func (g *Gate) reachRoles(conf *tenants.Tenant, r roles.Reach, at machines.Endpoint) {
	b := g.roles.of(conf.ID)
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.said == nil || !sameMachine(conf, b.said) {
		return
	}
	if b.schedule.Reach(time.Now(), r); r == roles.There {
		b.endpoint = at
	} else if b.cut != nil {
		b.cut()
	}
	g.startRoles(b, time.Now())
	b.tell()
}

// sweepRoles keeps the list of a tenant fresh that is in use. Called on loops.
func (g *Gate) sweepRoles(id string) {
	if b := g.roles.of(id); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		g.startRoles(b, time.Now())
	}
}

// startRoles starts what is due. The caller holds the book.
func (g *Gate) startRoles(b *roleBook, now time.Time) {
	if b.said == nil || g.startReading(b, now) || !b.schedule.Due(now) {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.roles.listing)
	said, at := b.said, b.endpoint
	if !g.spawn(func() {
		defer cancel()
		list, err := g.listRoles(ctx, said, at)
		g.rolesListed(b, at, list, err)
	}) {
		cancel()
		return
	}
	b.cut, b.void = cancel, false
	b.schedule.Start()
}

// armRoles starts what a failed login has asked for, as soon as it may begin. The caller holds the book.
func (g *Gate) armRoles(b *roleBook, now time.Time) {
	at, wants := b.schedule.Again(now)
	switch {
	case !wants:
	case b.alarm != nil:
		b.alarm.Reset(at.Sub(now))
	default:
		b.alarm = time.AfterFunc(at.Sub(now), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			g.startRoles(b, time.Now())
		})
	}
}

// listRoles asks a tenant's server.
func (g *Gate) listRoles(ctx context.Context, said *tenants.Tenant, at machines.Endpoint) (*roles.List, error) {
	select {
	case g.roles.slots <- struct{}{}:
		defer func() { <-g.roles.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	q, target := said.AuthQuery, g.tenant(said.ID).targetOf(said, at)
	target.User, target.Database = q.User, cmp.Or(q.Database, said.Database)
	target.Credentials = scram.Credentials{Password: q.Password.Reveal()}
	target.Settings = []backend.Parameter{{Name: "application_name", Value: "postern auth_query"}, {Name: "client_encoding", Value: "UTF8"},
		{Name: "search_path", Value: "pg_catalog"}, {Name: "default_transaction_read_only", Value: "on"}, {Name: "statement_timeout", Value: "10s"}}
	conn, err := backend.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	list := roles.NewBuilder(q.User)
	if err := conn.Query(ctx, roles.Query, roles.MaxBytes, list.Add); err != nil {
		return nil, err
	}
	return list.List(), nil
}

// rolesListed takes over how a listing at an endpoint has ended.
func (g *Gate) rolesListed(b *roleBook, at machines.Endpoint, list *roles.List, err error) {
	g.roles.changing.Lock()
	b.mu.Lock()
	now, said := time.Now(), b.said
	b.cut = nil
	void := said == nil || b.void || b.endpoint != at // it was asked for somebody else, or where nobody means any more
	b.mu.Unlock()
	how := roles.Unreachable
	switch {
	case void:
	case err == nil:
		if how = roles.Same; g.takeRoles(b, list, now) {
			how = roles.Listed
		}
	case !backend.Retryable(err) && !errors.Is(err, context.Canceled):
		how = roles.Refused
	}
	b.mu.Lock()
	if b.schedule.End(now, how); void {
		b.schedule.Moved()
	}
	b.tell()
	g.armRoles(b, now)
	b.mu.Unlock()
	g.roles.changing.Unlock()
	if void {
		return
	}
	t := g.tenant(said.ID)
	switch {
	case err == nil:
		t.counters.roleListsOK.Add(1)
		g.keepRoles(b, said.ID)
	case g.ctx.Err() == nil:
		t.counters.roleListsFailed.Add(1)
		g.limited.log(t.log, slog.LevelWarn, logKey{t.id, "auth_query"}, "the server's roles are not listed: what is known of them holds meanwhile", "user", clip(said.AuthQuery.User), "error", err)
	}
}

// takeRoles puts a list in force everywhere, and reports whether anything in it is new. The caller holds changing.
func (g *Gate) takeRoles(b *roleBook, list *roles.List, at time.Time) (news bool) {
	b.mu.Lock()
	said, known := b.said, b.list
	b.mu.Unlock()
	if known != nil && known.Equal(list) {
		b.mu.Lock()
		b.listed, b.failures = at, latest[roleFailure]{}
		b.mu.Unlock()
		return false
	}
	change := tenants.Change{New: mergeRoles(said, list)}
	b.mu.Lock()
	forgiven := b.forgiven(list, time.Now(), g.roles.window)
	change.Old = b.conf
	b.list, b.listed, b.conf, b.kept.dirty = list, at, change.New, true
	b.mu.Unlock()
	if len(forgiven) > 0 {
		var over []Ban
		g.throttle.with(func(t throttle) {
			for _, addr := range forgiven {
				over = append(over, t.Forgive(time.Now(), change.New.ID, addr)...)
			}
		})
		for _, addr := range forgiven {
			g.spread(netrestrict.Failures{Tenant: change.New.ID, Address: addr, Count: -1})
		}
		g.tell(lifted(over))
	}
	g.derived.amend(change)
	g.follow(change)
	g.toDerive.add(change.New.ID)
	return true
}
