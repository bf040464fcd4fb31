// The decision: who may connect now, which rule says so, and why.

package netrestrict

import (
	"net/netip"
	"slices"
	"sort"
	"time"
)

// Who is somebody who wants to connect, as far as rules know. The zero value is nobody that any rule knows.
type Who struct {
	Address   netip.Addr
	Endpoints []Endpoint // private endpoints that it came through
	Flycast   netip.Addr // the address that it has connected to; what is no address of Flycast's counts for nothing
}

// Reason is why somebody is allowed or not.
type Reason string

// The reasons. Of the first two somebody is allowed.
const (
	NoList   Reason = "no_list"   // the tenant restricts nobody
	ByRule   Reason = "rule"      // a rule allows it
	Expired  Reason = "expired"   // a rule did, until it expired
	NoFamily Reason = "no_family" // no rule is about addresses of this family
	NoRule   Reason = "no_rule"   // no rule allows it
	NoRules  Reason = "empty"     // the list is empty, which allows nobody
)

// Verdict is what a list says of somebody.
type Verdict struct {
	Allowed bool
	Rule    int // in AllowList.Rules, of the rule that decides; -1: none does
	Reason  Reason
}

// Decide says whether somebody may connect now, and which rule decides. Any rule that is in force allows: one about the address
// goes first, the narrowest of several, then one about an endpoint, then one about Flycast. If none is in force, one that would
// have allowed it before it expired is named. An address is unmapped first and its zone, if any, is ignored; an invalid one is
// covered by no network.
func (a *AllowList) Decide(now time.Time, who Who) Verdict {
	switch {
	case a == nil:
		return Verdict{true, -1, NoList}
	case len(a.rules) == 0:
		return Verdict{false, -1, NoRules}
	}
	expired := -1
	// in looks through the rules from i on that are about the same as the first.
	in := func(i int, same func(*Rule) bool) int {
		for ; i < len(a.rules) && same(&a.rules[i]); i++ {
			if !a.rules[i].expired(now) {
				return i
			}
			if expired < 0 {
				expired = i
			}
		}
		return -1
	}
	addr := who.Address.Unmap().WithZone("") // without the zone, because no rule can have one
	if addr.IsValid() && a.set.Contains(addr) {
		for p := range a.set.Supernets(netip.PrefixFrom(addr, addr.BitLen())) {
			if i := in(a.find(Rule{Network: p}), func(r *Rule) bool { return r.Network == p }); i >= 0 {
				return Verdict{true, i, ByRule}
			}
		}
	}
	for _, e := range who.Endpoints {
		if e == (Endpoint{}) {
			continue
		}
		if i := in(a.find(Rule{Endpoint: e}), func(r *Rule) bool { return r.Endpoint == e }); i >= 0 {
			return Verdict{true, i, ByRule}
		}
	}
	if f := who.Flycast; f.IsValid() {
		if i := in(a.find(Rule{Flycast: f}), func(r *Rule) bool { return r.Flycast == f }); i >= 0 {
			return Verdict{true, i, ByRule}
		}
	}
	switch {
	case expired >= 0:
		return Verdict{false, expired, Expired}
	case addr.IsValid() && !a.knowsFamily(addr):
		return Verdict{false, -1, NoFamily}
	}
	return Verdict{false, -1, NoRule}
}

// find is where rules begin that are not before r, which has no comment and no expiry and so goes before all that are about the
// same.
func (a *AllowList) find(r Rule) int {
	return sort.Search(len(a.rules), func(i int) bool { return a.rules[i].compare(r) >= 0 })
}

// knowsFamily reports whether a rule is about addresses like this one.
func (a *AllowList) knowsFamily(addr netip.Addr) bool {
	return slices.ContainsFunc(a.rules, func(r Rule) bool { return r.Network.IsValid() && r.Network.Addr().Is4() == addr.Is4() })
}
