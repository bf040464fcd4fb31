// The login throttle: failed logins counted per tenant and address, and per address.

package netrestrict

import (
	"net/netip"
	"strings"
	"time"
)

// Defaults of ThrottleConfig.
const (
	DefaultTenantFailures  = 10
	DefaultAddressFailures = 50
	DefaultWindow          = 150 * time.Second
	DefaultBlock           = 120 * time.Second
	DefaultMaxKeys         = 65536
)

// maxTenantName is the length of the longest tenant id. Longer names come from strangers, belong to no tenant, and share
// one key, so that they cost no memory.
const maxTenantName = 63

// subscriberBits is the length of what one IPv6 subscriber gets.
const subscriberBits = 64

// sweep is how many expired counters one failure clears away at most: more than the two it can add, so that the table
// shrinks again after a flood, and constant, so that no single call is slow.
const sweep = 4

// ThrottleConfig bounds a Throttle. A zero or negative field means its default.
type ThrottleConfig struct {
	TenantFailures  int           // failures of one address at one tenant before it is blocked there
	AddressFailures int           // failures of one address at all tenants together before it is blocked everywhere
	Window          time.Duration // failures count together within this long from the first
	Block           time.Duration // how long a block lasts
	MaxKeys         int           // counters kept; beyond it the one whose last failure is oldest goes
}

// Throttle slows password guessing down. Failures are counted by (tenant, client) and by client alone, where a client is
// an IPv4 address or an IPv6 /64 (what one subscriber gets): there is no counter per tenant or per user, hence nobody can
// lock out anybody at another address.
//
// A caller asks Wait twice: before it spends anything on a login, and again under the same lock hold in which it will
// report the outcome; else a thousand logins that started together all get their guess.
//
// Mistakes of whoever configures the tenants are not held against their clients: [Throttle.Forget] is for what was repaired,
// [Throttle.Removed] for what was taken away, perhaps for a second. A name that was never a tenant's counts like a tenant's,
// or the throttle would tell which ones exist.
//
// A Throttle is state without a lock and without a clock: its owner serialises the calls. Every call takes constant time but
// those that say otherwise.
type Throttle struct {
	cfg    ThrottleConfig
	counts map[throttleKey]*counter
	// The counters by their last failure, as a ring: head.next is the freshest, head.prev the stalest.
	head    counter
	removed removals
}

// throttleKey names a counter. Addresses are unmapped and, for IPv6, masked.
type throttleKey struct {
	tenant   string
	atTenant bool // else the counter of the address alone
	addr     netip.Addr
}

type counter struct {
	key          throttleKey
	failures     int
	since        time.Time // of the window's first failure
	blockedUntil time.Time // zero: not blocked
	prev, next   *counter

	// Of a counter at a tenant: how many of its failures are in the window of the address's own counter that began then.
	shared      int
	sharedSince time.Time
}

// NewThrottle makes an empty Throttle.
func NewThrottle(cfg ThrottleConfig) *Throttle {
	t := &Throttle{
		cfg: ThrottleConfig{
			TenantFailures:  positive(cfg.TenantFailures, DefaultTenantFailures),
			AddressFailures: positive(cfg.AddressFailures, DefaultAddressFailures),
			Window:          positive(cfg.Window, DefaultWindow),
			Block:           positive(cfg.Block, DefaultBlock),
			MaxKeys:         positive(cfg.MaxKeys, DefaultMaxKeys),
		},
		counts: make(map[throttleKey]*counter),
	}
	t.head.prev, t.head.next = &t.head, &t.head
	return t
}

func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Wait says how long addr must wait before its next try at tenant; 0 means go ahead. It changes nothing, and
// tenant may be any name that a stranger made up.
func (t *Throttle) Wait(now time.Time, tenant string, addr netip.Addr) time.Duration {
	atTenant, alone := keys(tenant, addr)
	return max(t.wait(now, atTenant), t.wait(now, alone))
}

func (t *Throttle) wait(now time.Time, key throttleKey) time.Duration {
	c, ok := t.counts[key]
	if !ok {
		return 0
	}
	return max(0, c.blockedUntil.Sub(now))
}

// Failed counts one wrong password. Failures that arrive during a block (logins that were under way when it began) do not
// lengthen it.
func (t *Throttle) Failed(now time.Time, tenant string, addr netip.Addr) {
	for range sweep {
		if stalest := t.head.prev; stalest == &t.head || !t.useless(now, stalest) {
			break
		}
		t.drop(t.head.prev)
	}
	atTenant, alone := keys(tenant, addr)
	here, _ := t.count(now, atTenant, t.cfg.TenantFailures)
	if t.removed.has(now, tenant) {
		return
	}
	everywhere, counted := t.count(now, alone, t.cfg.AddressFailures)
	if !counted {
		return
	}
	if here.sharedSince != everywhere.since {
		here.shared, here.sharedSince = 0, everywhere.since
	}
	here.shared++
}

// Succeeded forgets addr's failures at tenant. Those of the address alone stay: whoever owns one account could otherwise
// log in to it now and then, and guess at other tenants in between for ever.
func (t *Throttle) Succeeded(_ time.Time, tenant string, addr netip.Addr) {
	atTenant, _ := keys(tenant, addr)
	if c, ok := t.counts[atTenant]; ok {
		t.drop(c)
	}
}

// Len is the number of counters kept, at most MaxKeys.
func (t *Throttle) Len() int { return len(t.counts) }

// count adds one failure to key's counter and blocks it at limit. It counts nothing while the counter is blocked.
func (t *Throttle) count(now time.Time, key throttleKey, limit int) (c *counter, counted bool) {
	c, ok := t.counts[key]
	if ok {
		unlink(c)
	} else {
		if len(t.counts) >= t.cfg.MaxKeys {
			t.drop(t.head.prev)
		}
		key.tenant = strings.Clone(key.tenant) // do not keep the startup packet alive that it was cut from
		c = &counter{key: key, since: now}
		t.counts[key] = c
	}
	t.pushFresh(c)

	if now.Before(c.blockedUntil) {
		return c, false
	}
	if t.expired(now, c) { // its window passed, or its block
		c.failures, c.since, c.blockedUntil = 0, now, time.Time{}
	}
	if c.failures++; c.failures >= limit {
		c.blockedUntil = now.Add(t.cfg.Block)
	}
	return c, true
}

// useless reports whether dropping c would change no answer, now or later.
func (t *Throttle) useless(now time.Time, c *counter) bool {
	if !t.expired(now, c) {
		return false
	}
	everywhere, ok := t.counts[throttleKey{addr: c.key.addr}]
	return c.shared == 0 || !ok || everywhere.since != c.sharedSince || t.expired(now, everywhere)
}

// expired reports whether what c has counted does not count any more.
func (t *Throttle) expired(now time.Time, c *counter) bool {
	if !c.blockedUntil.IsZero() {
		return !now.Before(c.blockedUntil)
	}
	return now.Sub(c.since) >= t.cfg.Window
}

func (t *Throttle) drop(c *counter) {
	unlink(c)
	delete(t.counts, c.key)
}

func (t *Throttle) pushFresh(c *counter) {
	c.prev, c.next = &t.head, t.head.next
	c.prev.next, c.next.prev = c, c
}

func unlink(c *counter) { c.prev.next, c.next.prev = c.next, c.prev }

// keys returns the two counters that a login concerns. All invalid addresses are one client.
func keys(tenant string, addr netip.Addr) (atTenant, alone throttleKey) {
	addr = addr.Unmap()
	if addr.Is6() {
		if p, err := addr.Prefix(subscriberBits); err == nil {
			addr = p.Addr() // masked, and without its zone
		}
	}
	if len(tenant) > maxTenantName {
		tenant = ""
	}
	return throttleKey{tenant: tenant, atTenant: true, addr: addr}, throttleKey{addr: addr}
}
