// The login throttle as the gate uses it: who is refused by it, what nodes tell each other for it, and what a changed configuration has it
// forget.

package proxy

import (
	"net/netip"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

type throttle = *netrestrict.Throttle

// Failures are what has failed at one node of a cluster, for the others to count: logins, and guesses of cancel keys, which are at no
// tenant.
type Failures struct{ Logins, Guesses []netrestrict.Failures }

// spread has the other nodes count logins that have failed here, if any have.
func (g *Gate) spread(f netrestrict.Failures) {
	if g.opts.Cluster != nil && (f.Cleared || f.Count != 0) {
		g.opts.Cluster.Failed(f)
	}
}

// Heard counts what has failed at another node. It is told to nobody again.
func (g *Gate) Heard(f Failures) {
	for _, one := range f.Logins[:min(len(f.Logins), netrestrict.MaxTold)] {
		var began, over []Ban
		g.throttle.with(func(t throttle) { began, over = t.Heard(time.Now(), one) })
		g.began(began)
		g.tell(lifted(over))
	}
	for _, one := range f.Guesses[:min(len(f.Guesses), netrestrict.MaxTold)] {
		g.guesses.with(func(t throttle) { t.Heard(time.Now(), one) })
	}
}

// throttled refuses an address that has failed too often, or is banned.
func (v *visitor) throttled() (err error) {
	v.gate.throttle.with(func(t throttle) { err = v.banned(t, time.Now()) })
	return err
}

func (v *visitor) banned(t throttle, now time.Time) error {
	switch failed, manual := t.Waits(now, v.route.Tenant, v.peer.Client.Addr()); {
	case manual > 0:
		return denyFor(denyBanned, max(failed, manual))
	case failed > 0:
		return denyFor(denyThrottled, failed)
	}
	return nil
}

// neverBans reports whether a tenant wants an address never to be banned.
func (g *Gate) neverBans(tenant string, addr netip.Addr) bool {
	conf, ok := g.opts.Directory.Tenant(tenant)
	return ok && conf.NeverBans(netip.PrefixFrom(addr, addr.BitLen()))
}

// amendThrottle tells the throttle what changes have repaired or taken
// away. Nobody's failures are held against them where they may have been right.
func (g *Gate) amendThrottle(all []tenants.Change) {
	repaired, changed, removed := amendments(all)
	if len(repaired)+len(removed) == 0 {
		return
	}
	at := time.Now()
	var over []Ban
	g.throttle.with(func(t throttle) {
		for _, id := range removed {
			t.Removed(at, id)
		}
		if len(changed) > 0 {
			over = t.Pardon(at, func(id string) bool { return changed[id] })
		}
		if len(repaired) > 0 {
			t.Forget(func(id string) bool { return repaired[id] })
		}
		if g.opts.Cluster != nil && !g.opts.Directory.Filling() { // who starts knows what is newest
			for id := range repaired {
				t.Repaired(at, id)
			}
		}
	})
	g.tell(lifted(over))
}

// amendments are the tenants that have appeared, or where what proves a user's
// password has changed, the latter of them, and those that are gone. Of one that
// appears other nodes may have told bans already, which hold.
func amendments(all []tenants.Change) (repaired, changed map[string]bool, removed []string) {
	repaired, changed = make(map[string]bool), make(map[string]bool)
	for _, c := range all {
		switch {
		case c.New == nil:
			removed = append(removed, c.ID())
		case c.Old == nil:
			repaired[c.ID()] = true
		case newProof(c.Old, c.New):
			repaired[c.ID()], changed[c.ID()] = true, true
		}
	}
	return repaired, changed, removed
}

// newProof reports whether a password proves a user now that did not before.
func newProof(old, now *tenants.Tenant) bool {
	for name, u := range now.Users {
		if before, ok := old.User(name); !ok || before.Verifier != u.Verifier || before.Password != u.Password {
			return true
		}
	}
	return false
}
