// The networks that a client counts with: its own, and the wider ones that may be one subscriber's as well.

package netrestrict

import (
	"iter"
	"net/netip"
	"time"
)

// IPv6 is handed out in blocks: a /64 to a host, a /56 or a /48 to a household, an office, or whoever asks. A guesser with a /48 must
// not have the allowance of 65,536 strangers; but a hoster's customers with a /64 each are strangers in one /48.
const (
	subscriberBits = 64
	householdBits  = 56
	siteBits       = 48
)

// leastWidening is how much more often a network may fail than one of the next narrower ones in it, at least.
const leastWidening = 4

// widening is how much more often. It is at least twice what one of them can fail within a window, which is once for each block that
// ends in it: whoever has one network alone never bans its neighbours.
func widening(window, block time.Duration) int {
	blocks := (window + block - 1) / block
	return max(leastWidening, 2*int(min(blocks, 1<<12)))
}

// networks are those that an address counts with, the narrowest first. All invalid addresses are one client.
func networks(addr netip.Addr) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		addr := addr.Unmap().WithZone("")
		if !addr.Is6() {
			yield(netip.PrefixFrom(addr, addr.BitLen()))
			return
		}
		for _, bits := range [...]int{subscriberBits, householdBits, siteBits} {
			if net, _ := addr.Prefix(bits); !yield(net) {
				return
			}
		}
	}
}

// Subscriber is the block of addresses that count as one client.
func Subscriber(addr netip.Addr) netip.Prefix {
	for net := range networks(addr) {
		return net
	}
	panic("BUG: every address is in a network")
}

// limit is how often a network may fail.
func (t *Throttle) limit(s scope, net netip.Prefix) int {
	n := t.cfg.AddressFailures
	if s.atTenant {
		n = t.cfg.TenantFailures
	}
	if net.Addr().Is6() {
		for bits := net.Bits(); bits < subscriberBits; bits += subscriberBits - householdBits {
			n *= t.widen
		}
	}
	return n
}
