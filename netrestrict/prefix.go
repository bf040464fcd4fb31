// The one spelling of a network that is accepted.

package netrestrict

import (
	"fmt"
	"net/netip"
	"strings"
)

// PrefixError says why an entry of a list is refused. All of it may be shown to whoever wrote the entry.
type PrefixError struct {
	Entry     string // as written
	Problem   string
	Canonical string // the spelling to use instead; "" if there is none
}

// Error implements error.
func (e *PrefixError) Error() string {
	if e.Canonical == "" {
		return fmt.Sprintf("%q %s", e.Entry, e.Problem)
	}
	return fmt.Sprintf("%q %s: write %s", e.Entry, e.Problem, e.Canonical)
}

// ParsePrefix reads "203.0.113.0/24" or "2001:db8::/32"; a bare address stands for itself alone (/32 or /128). Zones,
// host bits and IPv4-mapped IPv6 are refused. Errors are *PrefixError.
func ParsePrefix(s string) (netip.Prefix, error) {
	if strings.Contains(s, "%") {
		return netip.Prefix{}, &PrefixError{Entry: s, Problem: "has a zone, which means nothing to anyone else"}
	}
	var p netip.Prefix
	if strings.Contains(s, "/") {
		var err error
		if p, err = netip.ParsePrefix(s); err != nil {
			return netip.Prefix{}, unreadable(s)
		}
	} else {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, unreadable(s)
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if err := checkPrefix(s, p); err != nil {
		return netip.Prefix{}, err
	}
	return p, nil
}

func unreadable(s string) *PrefixError {
	return &PrefixError{Entry: s, Problem: "is neither an IP address nor a network such as 203.0.113.0/24 or 2001:db8::/32"}
}

// checkPrefix refuses what has a second reading. It returns error, not *PrefixError, so that nil stays nil.
func checkPrefix(entry string, p netip.Prefix) error {
	const mappedBits = 96 // ::ffff:0:0/96 is all of IPv4
	switch {
	case !p.IsValid():
		return &PrefixError{Entry: entry, Problem: "is not a valid network"}
	case p.Addr().Is4In6() && p.Bits() >= mappedBits:
		// Clients are unmapped before they are judged, so such an entry would never match.
		v4 := netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits).Masked()
		return &PrefixError{Entry: entry, Problem: "is an IPv4 network written as IPv6", Canonical: v4.String()}
	case p != p.Masked():
		return &PrefixError{Entry: entry, Problem: "has bits set behind its prefix length", Canonical: p.Masked().String()}
	}
	return nil
}
