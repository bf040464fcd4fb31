// How often somebody may come: so many times a second on average, and for a while more at once.

package netrestrict

import (
	"net/netip"
	"time"
)

// burstFor is how long a time's worth may come at once.
const burstFor = 10 * time.Second

// Rates limits how often each of many comes, by the generic cell rate algorithm. It is state without a lock and without a clock, as a
// [Throttle] is. Its memory is bounded: who has not come for burstFor is forgotten, and so are those who came before the latest
// of too many.
type Rates[K comparable] struct {
	most        int
	now, before map[K]time.Time // until when it would take all that have come to come at their rate, in two generations
	turned      time.Time       // when before was now
}

// NewRates makes one that remembers at most 2*most keys.
func NewRates[K comparable](most int) *Rates[K] {
	return &Rates[K]{most: most, now: make(map[K]time.Time), before: make(map[K]time.Time)}
}

// Take counts one that comes, or says for how long it has to wait. perSecond is more than 0.
func (r *Rates[K]) Take(at time.Time, key K, perSecond int) time.Duration {
	if wait := r.wait(at, key, perSecond); wait > 0 {
		return wait
	}
	r.add(at, key, perSecond)
	return 0
}

// TakeAddress is Take for an address. Of IPv6 its wider networks count, too: each may come so many times more often than the next narrower
// one as with failed logins at least.
func TakeAddress(r *Rates[netip.Prefix], at time.Time, addr netip.Addr, perSecond int) (wait time.Duration) {
	times := 1
	for net := range networks(addr) {
		wait = max(wait, r.wait(at, net, times*perSecond))
		times *= leastWidening
	}
	if wait > 0 {
		return wait
	}
	times = 1
	for net := range networks(addr) {
		r.add(at, net, times*perSecond)
		times *= leastWidening
	}
	return 0
}

func (r *Rates[K]) wait(at time.Time, key K, perSecond int) time.Duration {
	until, ok := r.now[key]
	if !ok {
		until = r.before[key]
	}
	return max(0, max(0, until.Sub(at))-burstFor+time.Second/time.Duration(perSecond))
}

func (r *Rates[K]) add(at time.Time, key K, perSecond int) {
	if at.Sub(r.turned) >= burstFor || len(r.now) >= r.most { // whoever is in before only has not come for as long, or there are too many
		r.before, r.now, r.turned = r.now, make(map[K]time.Time), at
	}
	until, ok := r.now[key]
	if !ok {
		until = r.before[key]
	}
	if until.Before(at) {
		until = at
	}
	r.now[key] = until.Add(time.Second / time.Duration(perSecond))
}

// Len is how many are remembered.
func (r *Rates[K]) Len() int { return len(r.now) + len(r.before) }
