// The login throttle as the gate uses it: who is refused by it, and what a changed configuration has it forget.

package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/tenants"
)

type throttle = *netrestrict.Throttle

// throttled refuses an address that has failed too often.
func (v *visitor) throttled() error {
	var wait time.Duration
	v.gate.throttle.with(func(t throttle) { wait = t.Wait(time.Now(), v.route.Tenant, v.peer.Client.Addr()) })
	if wait == 0 {
		return nil
	}
	return denyFor(wait)
}

// amendThrottle tells the throttle what changes have repaired or taken
// away. Nobody's failures are held against them where they may have been right.
func (g *Gate) amendThrottle(all []tenants.Change) {
	repaired, removed := amendments(all)
	if len(repaired)+len(removed) == 0 {
		return
	}
	at := time.Now()
	g.throttle.with(func(t throttle) {
		for _, id := range removed {
			t.Removed(at, id)
		}
		if len(repaired) > 0 {
			t.Forget(func(id string) bool { return repaired[id] })
		}
	})
}

// amendments are the tenants that have appeared, or where what proves a user's
// password has changed, and those that are gone.
func amendments(all []tenants.Change) (repaired map[string]bool, removed []string) {
	repaired = make(map[string]bool)
	for _, c := range all {
		switch {
		case c.New == nil:
			removed = append(removed, c.ID())
		case c.Old == nil || newProof(c.Old, c.New):
			repaired[c.ID()] = true
		}
	}
	return repaired, removed
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

// Bans are the addresses that have to wait, for the console.
func (v *consoleGate) Bans() (out []console.Ban) {
	var blocks []netrestrict.Block
	v.gate.throttle.with(func(t throttle) { blocks = t.Blocks(time.Now()) })
	for _, b := range blocks {
		address := b.Address.String()
		if b.Address.IsSingleIP() {
			address = b.Address.Addr().String()
		}
		out = append(out, console.Ban{Tenant: clip(b.Tenant), Address: address, Left: b.Left, Failures: b.Failures})
	}
	slices.SortFunc(out, func(a, b console.Ban) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// clearBan lets an address in again, or all that a tenant has blocked. A tenant's id
// is never an address.
func (g *Gate) clearBan(arg string) error {
	lifted := 0
	addr, ok := parseSubscriber(arg)
	g.throttle.with(func(t throttle) {
		now := time.Now()
		if ok {
			lifted = t.ForgetAddress(now, addr)
			return
		}
		for _, b := range t.Blocks(now) {
			if b.Tenant == arg && arg != "" {
				lifted++
			}
		}
		t.Forget(func(tenant string) bool { return tenant == arg })
	})
	if lifted == 0 {
		return consoleError("22023", "no such ban: "+clip(arg), "SHOW BANS lists them.")
	}
	return nil
}

// parseSubscriber reads an address, or the network that SHOW BANS shows of one.
func parseSubscriber(text string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr, true
	}
	p, err := netip.ParsePrefix(text)
	return p.Addr(), err == nil && p == netrestrict.Subscriber(p.Addr())
}
