// Allowlists: compiled once when a tenant is loaded, asked once per connection.

package netrestrict

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/gaissmai/bart"
)

// AllowList is a compiled list of rules. It never changes and may be used by any number of goroutines. A nil *AllowList is
// the absence of a list and allows everyone.
type AllowList struct {
	set   bart.Lite // all networks, those of rules that have expired included
	rules []Rule    // sorted, without duplicates
}

// RuleError says which of some rules is refused, and why.
type RuleError struct {
	Index int
	Err   error
}

// Error implements error.
func (e *RuleError) Error() string { return fmt.Sprintf("rule %d: %v", e.Index, e.Err) }

// Unwrap gives the cause.
func (e *RuleError) Unwrap() error { return e.Err }

// CompileRules makes a list. An empty one, nil included, allows nobody; once there are rules, whom none allows is denied: an
// address family without a rule, and with rules for endpoints alone every address. Rules may overlap and repeat. The first one
// that is wrong is reported, as a *RuleError.
func CompileRules(rules []Rule) (*AllowList, error) {
	a := &AllowList{rules: slices.Clone(rules)}
	for i := range a.rules {
		r := &a.rules[i]
		r.Expires = r.Expires.UTC().Round(0)
		if err := r.Check(); err != nil {
			return nil, &RuleError{i, err}
		}
		if r.Network.IsValid() {
			a.set.Insert(r.Network)
		}
	}
	slices.SortFunc(a.rules, Rule.compare)
	a.rules = slices.Clip(slices.CompactFunc(a.rules, func(x, y Rule) bool { return x.compare(y) == 0 }))
	return a, nil
}

// Compile makes a list of networks that never expire. An entry that is not in its canonical spelling is a *PrefixError.
func Compile(prefixes []netip.Prefix) (*AllowList, error) {
	rules := make([]Rule, len(prefixes))
	for i, p := range prefixes {
		rules[i].Network = p
		if err := checkPrefix(p.String(), p); err != nil {
			return nil, err
		}
	}
	return CompileRules(rules)
}

// Equal reports whether both lists hold the same rules, in whatever order they were given. The absent list equals only the
// absent list: it is not the empty one.
func (a *AllowList) Equal(b *AllowList) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.rules, b.rules, func(x, y Rule) bool { return x.compare(y) == 0 })
}

// Len is how many rules there are.
func (a *AllowList) Len() int {
	if a == nil {
		return 0
	}
	return len(a.rules)
}

// Rules returns the rules in the list's own order, without duplicates; nil for the absent list, non-nil for an empty one. The
// slice is the caller's.
func (a *AllowList) Rules() []Rule {
	if a == nil {
		return nil
	}
	return append([]Rule{}, a.rules...)
}

// Prefixes returns the networks, sorted and without duplicates; nil for the absent list, non-nil for one without networks. Rules
// that have expired are among them. The slice is the caller's.
func (a *AllowList) Prefixes() []netip.Prefix {
	if a == nil {
		return nil
	}
	out := []netip.Prefix{}
	for _, r := range a.rules {
		if r.Network.IsValid() {
			out = append(out, r.Network)
		}
	}
	return slices.Compact(out)
}

// NextExpiry is when the next of the rules expires after now, if one does.
func (a *AllowList) NextExpiry(now time.Time) (at time.Time, ok bool) {
	if a == nil {
		return time.Time{}, false
	}
	for i := range a.rules {
		r := &a.rules[i]
		if r.Expires.IsZero() || r.expired(now) || ok && !r.Expires.Before(at) {
			continue
		}
		at, ok = r.Expires, true
	}
	return at, ok
}
