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
// one key, so that they cost no memory. So does no name.
const (
	maxTenantName = 63
	nobodys       = "?" // which is no tenant's id
)

// sweep is how many expired counters one failure clears away at most: more than the six it can add, so that the table
// shrinks again after a flood, and constant, so that no single call is slow.
const sweep = 8

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
// lock out anybody at another address. Who has more than a /64 is counted by the /56 and the /48 as well: see networks.go. What
// was banned elsewhere, or by somebody, is in imposed.go.
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
	widen  int // how much more often a network may fail than the next narrower one
	spared func(tenant string, addr netip.Addr) bool
	counts map[throttleKey]*counter
	// The counters by their last failure, as a ring: head.next is the freshest, head.prev the stalest.
	head    counter
	removed recent // for an hour
	// repaired are tenants where, for some seconds, what other nodes tell may be out of date.
	repaired recent

	told, manual *sentences // bans that another node has told of, and those of people
}

// scope is where failures and bans count: at a tenant, or everywhere.
type scope struct {
	tenant   string
	atTenant bool // else at all tenants together
}

var everywhere = scope{} // never changed

// at is the scope of a tenant, whatever its name is.
func at(tenant string) scope {
	if tenant == "" || len(tenant) > maxTenantName {
		tenant = nobodys
	}
	return scope{tenant, true}
}

// throttleKey names a counter, or a ban.
type throttleKey struct {
	scope
	net netip.Prefix
}

type counter struct {
	key          throttleKey
	failures     int
	since        time.Time // of the window's first failure
	blockedUntil time.Time // zero: not blocked
	prev, next   *counter

	// Of a counter at a tenant: how many of its failures are in the window of the network's own counter that began then.
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
	t.widen = widening(t.cfg.Window, t.cfg.Block)
	t.removed.kept, t.repaired.kept = removedFor, repairedFor
	t.spared = func(string, netip.Addr) bool { return false }
	t.told, t.manual = newSentences(t.cfg.MaxKeys), newSentences(t.cfg.MaxKeys)
	return t
}

// Spare says whom a tenant wants never to be banned there, whatever happens. The count over all tenants holds for them, too. Call it
// before anything else.
func (t *Throttle) Spare(spared func(tenant string, addr netip.Addr) bool) { t.spared = spared }

func positive[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Wait says how long addr must wait before its next try at tenant; 0 means go ahead. It changes nothing, and
// tenant may be any name that a stranger made up.
func (t *Throttle) Wait(now time.Time, tenant string, addr netip.Addr) time.Duration {
	failed, manual := t.Waits(now, tenant, addr)
	return max(failed, manual)
}

// Waits is Wait, by its cause: failures, counted here or at another node, or somebody who wants it so.
func (t *Throttle) Waits(now time.Time, tenant string, addr netip.Addr) (failed, manual time.Duration) {
	scopes := []scope{everywhere, at(tenant)}
	if t.spared(tenant, addr) {
		scopes = scopes[:1]
	}
	for _, s := range scopes {
		for net := range networks(addr) {
			failed = max(failed, t.wait(now, throttleKey{s, net}))
		}
		failed, manual = max(failed, t.told.wait(now, s, addr)), max(manual, t.manual.wait(now, s, addr))
	}
	return failed, manual
}

func (t *Throttle) wait(now time.Time, key throttleKey) time.Duration {
	c, ok := t.counts[key]
	if !ok {
		return 0
	}
	return max(0, c.blockedUntil.Sub(now))
}

// Failed counts one wrong password, and returns the bans that begin with it. Failures that arrive during a block (logins that were
// under way when it began) do not lengthen it.
func (t *Throttle) Failed(now time.Time, tenant string, addr netip.Addr) (began []Ban) {
	return t.failed(now, tenant, addr, false)
}

// failed counts one that was seen here, or at another node: then it may be late, and lengthens a block.
func (t *Throttle) failed(now time.Time, tenant string, addr netip.Addr, elsewhere bool) (began []Ban) {
	for range sweep {
		if stalest := t.head.prev; stalest == &t.head || !t.useless(now, stalest) {
			break
		}
		t.drop(t.head.prev)
	}
	spared, removed := t.spared(tenant, addr), t.removed.has(now, tenant)
	count := func(c *counter) (counted bool) {
		switch limit := t.limit(c.key.scope, c.key.net); {
		case !now.Before(c.blockedUntil):
			if t.count(now, c, limit) {
				began = append(began, c.ban(now))
			}
			return true
		case elsewhere:
			c.failures++
			c.blockedUntil = c.blockedUntil.Add(t.part(limit))
			return true
		}
		return false
	}
	for net := range networks(addr) {
		here := t.counter(now, throttleKey{at(tenant), net})
		if !spared {
			count(here)
		}
		if !removed {
			alone := t.counter(now, throttleKey{everywhere, net})
			if count(alone) {
				if here.sharedSince != alone.since {
					here.shared, here.sharedSince = 0, alone.since
				}
				here.shared++
			}
		}
	}
	return began
}

// part is what a failure beyond a limit costs: as much of a block as it is of the limit.
func (t *Throttle) part(limit int) time.Duration { return t.cfg.Block / time.Duration(limit) }

// Succeeded forgets addr's failures at tenant, and reports whether there were any. Those of the address alone stay: whoever owns one
// account could otherwise log in to it now and then, and guess at other tenants in between for ever. So do those of wider networks,
// which are not one client's.
func (t *Throttle) Succeeded(_ time.Time, tenant string, addr netip.Addr) (forgotten bool) {
	c, ok := t.counts[throttleKey{at(tenant), Subscriber(addr)}]
	if ok {
		t.drop(c)
	}
	return ok
}

// Window is how long failures count together, from the first.
func (t *Throttle) Window() time.Duration { return t.cfg.Window }

// Len is the number of counters kept, at most MaxKeys.
func (t *Throttle) Len() int { return len(t.counts) }

// counter returns key's counter, the freshest now. Its window is the present one.
func (t *Throttle) counter(now time.Time, key throttleKey) *counter {
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
	if t.expired(now, c) { // its window passed, or its block
		c.failures, c.since, c.blockedUntil = 0, now, time.Time{}
	}
	return c
}

// count adds one failure to a counter that is not blocked, and reports whether that has blocked it.
func (t *Throttle) count(now time.Time, c *counter, limit int) (began bool) {
	if c.failures++; c.failures < limit {
		return false
	}
	c.blockedUntil = now.Add(t.cfg.Block)
	return true
}

// takeBack takes failures from a counter, and what those beyond its limit have cost.
func (t *Throttle) takeBack(c *counter, failures int) {
	limit := t.limit(c.key.scope, c.key.net)
	c.blockedUntil = c.blockedUntil.Add(-t.part(limit) * time.Duration(min(failures, max(0, c.failures-limit))))
	if c.failures -= failures; c.failures < limit {
		c.blockedUntil = time.Time{}
	}
}

// useless reports whether dropping c would change no answer, now or later.
func (t *Throttle) useless(now time.Time, c *counter) bool {
	if !t.expired(now, c) {
		return false
	}
	alone, ok := t.counts[throttleKey{everywhere, c.key.net}]
	return c.shared == 0 || !ok || alone.since != c.sharedSince || t.expired(now, alone)
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
