// Pauses: what has a tenant's clients wait, on this node and on all of them, and what ends that.

package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/tenants"
)

// A tenant is paused while its configuration says so, which all nodes follow, and while it is held here: by a command about all
// tenants, or by one about itself where configurations cannot be written.

const (
	// keepWithin bounds how long a command waits for what it says to be in force on all nodes.
	keepWithin = 3 * time.Second
	// tellWithin bounds how long it waits for other nodes to obey.
	tellWithin = 2 * time.Second
)

// Pause has all clients of a tenant wait: what runs may finish, and what comes
// waits until Resume, for as long as it would wait for a machine to wake. Only this process knows, until it ends.
func (g *Gate) Pause(id string) error { return g.withTenant(id, func(t *tenant) { t.hold(true) }) }

// Resume ends what Pause has begun, here, and what a command has that was about all tenants, on all nodes. Other nodes that do not
// answer in time are named.
func (g *Gate) Resume(id string) (silent []string, err error) {
	if !g.Knows(id) {
		return nil, ErrNoTenant
	}
	g.unhold(id)
	_, silent = g.order(Order{Do: DoResume, Tenant: id})
	return silent, nil
}

// hold begins or ends that a tenant is held, and reports whether that is news. Loop thread only, as the next four.
func (t *tenant) hold(is bool) (news bool) {
	news = t.held != is
	t.held = is
	t.repause()
	return news
}

// repause follows what says whether the tenant is paused.
func (t *tenant) repause() {
	switch is := t.held || t.conf != nil && t.conf.Paused; {
	case is && !t.paused:
		t.pause()
	case !is && t.paused:
		t.resume()
	}
}

// pause has all clients wait: what runs may finish, and what comes waits.
func (t *tenant) pause() {
	t.paused = true
	t.unseatReplicas(nil, &ending{"paused", errPaused})
	t.noteReach()
	t.books.Retire(func(s *pool.Server) { s.Owner.(*server).shut("paused") })
	t.publish()
}

// resume lets the waiting clients go on.
func (t *tenant) resume() {
	t.paused = false
	t.noteReach()
	t.dialMore()
}

// kill ends every session and every server connection now.
func (t *tenant) kill() {
	t.endReplicas(&ending{"killed", errKilled})
	for _, c := range slices.Clone(t.clients) {
		c.fail(errKilled, "killed")
	}
	for s := range t.servers {
		s.shut("killed")
	}
	t.publish()
}

// leaving reports whether a paused tenant still has servers, those included that were closed here and have not ended yet.
func (t *tenant) leaving() bool {
	return t.paused && (t.books.Servers() > 0 || t.books.Used() > 0 || t.counters.replicaServers.Load() > 0)
}

// busy counts the tenants, or with an id whether it is one, of which is says yes.
func (g *Gate) busy(id string, is func(*tenant) bool) int { return len(still(g.inUse(id), is)) }

// holdAll holds every tenant that is not held, and counts 1, unless that has been done already.
func (g *Gate) holdAll() int {
	c := g.consoles
	c.pausing.Lock()
	defer c.pausing.Unlock()
	if c.pausedAll() {
		return 0
	}
	var ids []string
	for _, conf := range g.opts.Directory.All() {
		_ = g.withTenant(conf.ID, func(t *tenant) { // which fails for what is going away
			if t.hold(true) {
				ids = append(ids, conf.ID)
			}
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all, c.paused = true, ids
	return 1
}

// unholdAll ends what holdAll has begun, and counts 1 if it had.
func (g *Gate) unholdAll() int {
	c := g.consoles
	c.pausing.Lock()
	defer c.pausing.Unlock()
	if !c.pausedAll() {
		return 0
	}
	c.mu.Lock()
	ids := c.paused
	c.all, c.paused = false, nil
	c.mu.Unlock()
	for _, id := range ids {
		g.unhold(id)
	}
	return 1
}

// unhold holds a tenant no longer, and counts 1 if it was held.
func (g *Gate) unhold(id string) (n int) {
	_ = g.withTenant(id, func(t *tenant) { // which fails for what is going away
		if t.hold(false) {
			n = 1
		}
	})
	return n
}

func (c *consoles) pausedAll() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// order has all other nodes obey, counts what they do, and names those that do not answer.
func (g *Gate) order(o Order) (n int, silent []string) {
	if g.opts.Cluster == nil {
		return 0, nil
	}
	ctx, stop := context.WithTimeout(g.ctx, tellWithin)
	defer stop()
	return g.opts.Cluster.Tell(ctx, o)
}

// keep writes down what a command says of a tenant, and waits until it is in force, on all nodes but those that it names.
func (v *consoleGate) keep(action, id string, edit func(*tenants.Tenant)) (missing []string, err error) {
	ctx, stop := context.WithTimeout(v.gate.ctx, keepWithin)
	defer stop()
	missing, err = v.gate.opts.Console.Keep(ctx, tenants.Actor{Name: "console:" + clip(v.session.user), Address: v.session.from}, action, id, edit)
	switch {
	case errors.Is(err, tenants.ErrNoSuchTenant):
		err = consoleError("3D000", "no such database: "+clip(id), "")
	case errors.Is(err, tenants.ErrAway):
		err = consoleError("57P03", tenants.ErrAway.Error(), "Nothing was done.")
	case err != nil:
		v.session.log.Error("what a command says was not written down", "error", err)
		err = consoleError("F0000", "the command failed, see logs for additional details", "")
	}
	return missing, err
}

// unheard is the answer to a command that some nodes have not obeyed; nil: all have.
func unheard(missing ...string) error {
	if len(missing) == 0 {
		return nil
	}
	return unheardOf(missing, "All others have done it.")
}

func unheardOf(missing []string, hint string) error {
	slices.Sort(missing)
	return consoleError("57P03", "nodes have not answered: "+strings.Join(slices.Compact(missing), ", "), hint)
}

// pause has a tenant's clients wait, and is done when no node has a server connection left.
func (v *consoleGate) pause(id string) error {
	missing, err := v.pauseOne(id)
	if err != nil {
		return err
	}
	return v.emptied(id, missing)
}

func (v *consoleGate) pauseOne(id string) (missing []string, err error) {
	if v.gate.opts.Console.Keep == nil {
		return nil, v.gate.Pause(id)
	}
	return v.keep("pause", id, func(t *tenants.Tenant) { t.Paused = true })
}

// emptied waits until no tenant that is paused, or this one alone, has a server connection anywhere. It fails if nodes are missing.
func (v *consoleGate) emptied(id string, missing []string) error {
	return v.overEverywhere(id, (*tenant).leaving, DoLeave, missing)
}

// overEverywhere waits until busy says no of a tenant, or of all, and no other node counts any. It fails if nodes are missing.
func (v *consoleGate) overEverywhere(id string, busy func(*tenant) bool, count Deed, missing []string) error {
	left, silent := v.gate.inUse(id), []string(nil)
	err := v.session.until(func() bool {
		if left = still(left, busy); len(left) > 0 {
			return false
		}
		n := 0
		n, silent = v.gate.order(Order{Do: count, Tenant: id})
		return n == 0
	})
	if err != nil {
		return err
	}
	return unheard(append(missing, silent...)...)
}

// resume ends a pause, whatever has begun it.
func (v *consoleGate) resume(id string) error {
	conf, ok := v.gate.opts.Directory.Tenant(id)
	if !ok {
		return ErrNoTenant
	}
	n := v.gate.unhold(id)
	others, missing := v.gate.order(Order{Do: DoResume, Tenant: id})
	switch {
	case conf.Paused && v.gate.opts.Console.Keep == nil:
		return consoleError("55000", "database "+id+" is paused by its configuration", "")
	case conf.Paused:
		more, err := v.keep("resume", id, func(t *tenants.Tenant) { t.Paused = false })
		if err != nil {
			return err
		}
		missing = append(missing, more...)
	case n+others == 0 && len(missing) == 0:
		return consoleError("55000", "database "+id+" is not paused", "")
	}
	return unheard(missing...)
}

// pauseAll holds every tenant on every node. If the client leaves or
// cancels before it is done, they are resumed, as in PgBouncer.
func (v *consoleGate) pauseAll() error {
	n := v.gate.holdAll()
	others, missing := v.gate.order(Order{Do: DoPause})
	if n+others == 0 && len(missing) == 0 {
		return consoleError("55000", "already suspended/paused", "")
	}
	err := v.emptied("", missing)
	if errors.Is(err, errQuiet) || errors.Is(err, errCancelled) {
		_ = v.resumeAll()
	}
	return err
}

// resumeAll resumes what a PAUSE of everything has paused.
func (v *consoleGate) resumeAll() error {
	n := v.gate.unholdAll()
	others, missing := v.gate.order(Order{Do: DoResume})
	if n+others == 0 && len(missing) == 0 {
		return consoleError("55000", "pooler is not paused/suspended", "")
	}
	return unheard(missing...)
}

// kill pauses a tenant and ends all that it has, on all nodes.
func (v *consoleGate) kill(id string) error {
	missing, err := v.pauseOne(id)
	if err != nil {
		return err
	}
	if err := v.gate.withTenant(id, (*tenant).kill); err != nil {
		return err
	}
	_, silent := v.gate.order(Order{Do: DoKill, Tenant: id})
	return unheard(append(missing, silent...)...)
}

// disable keeps a tenant's new logins out, or not any longer.
func (v *consoleGate) disable(id string, is bool) error {
	if v.gate.opts.Console.Keep == nil {
		v.gate.consoles.disable(id, is)
		return nil
	}
	action := "enable"
	if is {
		action = "disable"
	}
	missing, err := v.keep(action, id, func(t *tenants.Tenant) { t.Disabled = is })
	if err != nil {
		return err
	}
	return unheard(missing...)
}

// disabled reports whether a tenant takes no new logins.
func (g *Gate) disabled(conf *tenants.Tenant) bool {
	return conf.Disabled || g.consoles.closed(conf.ID)
}
