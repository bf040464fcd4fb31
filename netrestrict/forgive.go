// What the throttle forgets: the failures that were somebody else's mistake, and what operators lift.

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

// forget drops a counter at a tenant, and takes its failures out of the address's.
func (t *Throttle) forget(c *counter) {
	t.drop(c)
	everywhere, ok := t.counts[throttleKey{addr: c.key.addr}]
	if !ok || everywhere.since != c.sharedSince {
		return
	}
	if everywhere.failures -= c.shared; everywhere.failures < t.cfg.AddressFailures {
		everywhere.blockedUntil = time.Time{}
	}
	if everywhere.failures <= 0 {
		t.drop(everywhere)
	}
}

// Block is an address that has to wait, at a tenant or everywhere.
type Block struct {
	Tenant   string       // "": at every tenant
	Address  netip.Prefix // a single IPv4 address, an IPv6 /64, or invalid for all addresses that are
	Left     time.Duration
	Failures int
}

// Blocks lists who has to wait now, the latest first. It takes time in proportion to Len.
func (t *Throttle) Blocks(now time.Time) (out []Block) {
	for c := t.head.next; c != &t.head; c = c.next {
		if left := c.blockedUntil.Sub(now); left > 0 {
			out = append(out, Block{c.key.tenant, Subscriber(c.key.addr), left, c.failures})
		}
	}
	return out
}

// ForgetAddress forgets all failures of an address, and says how many blocks that has lifted. It takes time in proportion to
// Len.
func (t *Throttle) ForgetAddress(now time.Time, addr netip.Addr) (lifted int) {
	_, alone := keys("", addr)
	for c := t.head.next; c != &t.head; {
		next := c.next
		if c.key.addr == alone.addr {
			if c.blockedUntil.After(now) {
				lifted++
			}
			t.drop(c)
		}
		c = next
	}
	return lifted
}

// Subscriber is the block of addresses that count as one client.
func Subscriber(addr netip.Addr) netip.Prefix {
	_, alone := keys("", addr)
	bits := alone.addr.BitLen()
	if alone.addr.Is6() {
		bits = subscriberBits
	}
	return netip.PrefixFrom(alone.addr, bits)
}
