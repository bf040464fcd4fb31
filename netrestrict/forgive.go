// What the throttle forgets: the failures that were somebody else's mistake.

package netrestrict

import (
	"net/netip"
	"time"
)

// Removed says that a tenant was taken away. For an hour failures at it count for it alone, and not for the address: they
// are the mistake of whoever took it away, if it comes back.
func (t *Throttle) Removed(now time.Time, tenant string) {
	t.removed.add(now, tenant, t.cfg.MaxKeys)
}

// Forget forgets all failures at the tenants for which changed says yes, because they have appeared, or what proves a
// password there has changed: who failed before may have been right. It takes time in proportion to Len.
func (t *Throttle) Forget(changed func(tenant string) bool) {
	t.removed.drop(changed)
	for c := t.head.next; c != &t.head; {
		next := c.next // not the address's own, which forget may drop: that is not at a tenant
		for next != &t.head && !next.key.atTenant {
			next = next.next
		}
		if c.key.atTenant && changed(c.key.tenant) {
			t.forget(c)
		}
		c = next
	}
}

// forget drops a counter at a tenant, and takes its failures out of the network's.
func (t *Throttle) forget(c *counter) {
	t.drop(c)
	alone, ok := t.counts[throttleKey{everywhere, c.key.net}]
	if !ok || alone.since != c.sharedSince {
		return
	}
	if t.takeBack(alone, c.shared); alone.failures <= 0 {
		t.drop(alone)
	}
}

// Forgive takes back one failure of addr at a tenant, because it may have been right, and returns the bans that are over without it.
// What other nodes have told stays, and what somebody wants is not over.
func (t *Throttle) Forgive(now time.Time, tenant string, addr netip.Addr) (over []Ban) {
	for net := range networks(addr) {
		here, ok := t.counts[throttleKey{at(tenant), net}]
		if !ok || t.expired(now, here) {
			continue
		}
		over = t.less(now, here, over)
		alone, ok := t.counts[throttleKey{everywhere, net}]
		if ok && here.shared > 0 && alone.since == here.sharedSince && !t.expired(now, alone) {
			here.shared--
			over = t.less(now, alone, over)
		}
	}
	return over
}

// less takes one failure from a counter.
func (t *Throttle) less(now time.Time, c *counter, over []Ban) []Ban {
	if c.failures == 0 {
		return over
	}
	blocked := c.blockedUntil.After(now)
	if t.takeBack(c, 1); !blocked || c.blockedUntil.After(now) {
		return over
	}
	if is, ok := t.manual.byKey[c.key]; ok && is.until.After(now) {
		return over
	}
	return append(over, Ban{Tenant: c.key.tenant, Address: c.key.net, Failures: c.failures})
}
