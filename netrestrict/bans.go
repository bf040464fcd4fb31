// Bans: listed and lifted, whoever made them.

package netrestrict

import (
	"net/netip"
	"time"
)

// Ban is a network that has to wait, at a tenant or everywhere.
type Ban struct {
	Tenant   string        // "": at every tenant
	Address  netip.Prefix  // a single IPv4 address, an IPv6 /64, /56 or /48, whatever somebody has banned, or invalid for all addresses that are
	Left     time.Duration // 0: it is over
	Failures int           // that have led to it
	Manual   bool          // somebody wants it so, however often it has failed
}

// ban is a counter's.
func (c *counter) ban(now time.Time) Ban {
	return Ban{Tenant: c.key.tenant, Address: c.key.net, Left: c.blockedUntil.Sub(now), Failures: c.failures}
}

// scope is where a ban holds.
func (b Ban) scope() scope {
	if b.Tenant == "" {
		return everywhere
	}
	return at(b.Tenant)
}

func (b Ban) key() throttleKey { return throttleKey{b.scope(), b.Address} }

// Bans lists the bans that hold now, those that were counted here first, the latest of them first. It takes time in proportion to Len.
func (t *Throttle) Bans(now time.Time) (out []Ban) {
	places := make(map[throttleKey]int)
	add := func(b Ban) {
		i, ok := places[b.key()]
		if !ok {
			places[b.key()] = len(out)
			out = append(out, b)
			return
		}
		have := &out[i]
		have.Left, have.Failures, have.Manual = max(have.Left, b.Left), max(have.Failures, b.Failures), have.Manual || b.Manual
	}
	for c := t.head.next; c != &t.head; c = c.next {
		if b := c.ban(now); b.Left > 0 {
			add(b)
		}
	}
	t.told.each(now, add)
	t.manual.each(now, add)
	return out
}

// Impose has a ban hold that was not counted here: another node's, or somebody's. It reports false if there is no room for it: for
// those of people, who are told; of the others, the one that ends first makes room.
func (t *Throttle) Impose(now time.Time, b Ban) bool {
	if b.Manual {
		return t.manual.add(now, b, MaxManual)
	}
	return t.told.add(now, b, 0)
}

// MaxManual is how many manual bans a tenant may have, and how many there may be at all tenants together.
const MaxManual = 1000

// Lift ends the ban of just this network at a tenant, or with "" the one at all tenants, and forgets the failures that led to it.
func (t *Throttle) Lift(now time.Time, tenant string, net netip.Prefix) (lifted bool) {
	key := Ban{Tenant: tenant, Address: net}.key()
	if c, ok := t.counts[key]; ok {
		lifted = c.blockedUntil.After(now)
		t.drop(c)
	}
	told, manual := t.told.lift(now, key), t.manual.lift(now, key)
	return lifted || told || manual
}

// LiftAll lifts every ban for which which says yes, and forgets the failures of its network there, of those that are not banned (yet),
// too. It returns the bans that it has lifted, and takes time in proportion to Len.
func (t *Throttle) LiftAll(now time.Time, which func(Ban) bool) (lifted []Ban) {
	for _, b := range t.Bans(now) {
		if which(b) {
			lifted = append(lifted, b)
			t.Lift(now, b.Tenant, b.Address)
		}
	}
	for c := t.head.next; c != &t.head; {
		next := c.next
		if which(c.ban(now)) {
			t.drop(c)
		}
		c = next
	}
	return lifted
}

// Pardon is Forget for tenants where what proves a password has changed. It ends what other nodes have told of those tenants, too,
// but nothing that somebody wants, and returns the bans that are over.
func (t *Throttle) Pardon(now time.Time, changed func(tenant string) bool) (over []Ban) {
	for _, b := range t.Bans(now) {
		if !b.Manual && b.Tenant != "" && changed(b.Tenant) {
			over = append(over, b)
			t.told.lift(now, b.key())
		}
	}
	t.Forget(changed)
	return over
}
