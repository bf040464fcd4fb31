// How many handshakes one client address may have at a time.

package proxy

import (
	"net/netip"
)

// addressShare is the part of all handshakes that one address may hold, so
// that a single stranger cannot keep everybody else out.
const addressShare = 2

func (g *Gate) enterAddress(a netip.Addr) (ok bool) {
	limit := max(1, g.opts.Limits.Handshakes/addressShare)
	g.perClient.with(func(m map[netip.Addr]int) {
		if ok = m[a] < limit; ok {
			m[a]++
		}
	})
	return ok
}

func (g *Gate) leaveAddress(a netip.Addr) {
	g.perClient.with(func(m map[netip.Addr]int) {
		if m[a]--; m[a] == 0 {
			delete(m, a)
		}
	})
}
