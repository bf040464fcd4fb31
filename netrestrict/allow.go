// Allowlists: compiled once when a tenant is loaded, asked once per connection.

package netrestrict

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// AllowList is a compiled list of networks. It never changes and may be used by any number of goroutines. A nil
// *AllowList is the absence of a list and allows everyone.
type AllowList struct {
	set      bart.Lite
	prefixes []netip.Prefix // sorted, without duplicates
}

// Compile makes a list of prefixes. An empty list, nil included, allows nobody; once there are entries, a family without
// one is denied. Entries may overlap and repeat. An entry that is not in its canonical spelling is a *PrefixError; the
// first one is reported.
func Compile(prefixes []netip.Prefix) (*AllowList, error) {
	a := &AllowList{prefixes: slices.Clone(prefixes)}
	for _, p := range prefixes {
		if err := checkPrefix(p.String(), p); err != nil {
			return nil, err
		}
		a.set.Insert(p)
	}
	slices.SortFunc(a.prefixes, func(x, y netip.Prefix) int {
		return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
	})
	a.prefixes = slices.Compact(a.prefixes)
	return a, nil
}

// Allows reports whether addr is covered by an entry. addr is unmapped first and its zone, if any, is ignored; the
// invalid address is denied by every list.
func (a *AllowList) Allows(addr netip.Addr) bool {
	if a == nil {
		return true
	}
	// Without the zone, because no entry can have one.
	return addr.IsValid() && a.set.Contains(addr.Unmap().WithZone(""))
}

// Equal reports whether both lists hold the same entries, in whatever order they were given. The absent list equals only
// the absent list: it is not the empty one.
func (a *AllowList) Equal(b *AllowList) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.prefixes, b.prefixes)
}

// Prefixes returns the entries, sorted and without duplicates; nil for the absent list, non-nil for an empty one.
// The slice is the caller's.
func (a *AllowList) Prefixes() []netip.Prefix {
	if a == nil {
		return nil
	}
	return append([]netip.Prefix{}, a.prefixes...)
}
