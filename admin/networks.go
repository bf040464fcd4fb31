// What Supabase's clients call a project's network restrictions, as pure edits of a tenant: the networks of its allowlist.

package admin

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// networks may connect, those of IPv4 and of IPv6. In a body, nil is one that was not given.
type networks struct {
	V4 []string `json:"dbAllowedCidrs"`
	V6 []string `json:"dbAllowedCidrsV6"`
}

// typedNetwork is a network in the newer of Supabase's two shapes.
type typedNetwork struct {
	Address string `json:"address"`
	Type    string `json:"type"` // v4 or v6
}

// typedNetworks are networks in the newer shape.
type typedNetworks struct {
	All []typedNetwork `json:"dbAllowedCidrs"`
}

// parse reads both lists, of which each has its own family.
func (n networks) parse(key string) (all []netip.Prefix, err error) {
	for _, family := range []struct {
		key  string
		list []string
		is4  bool
	}{{"dbAllowedCidrs", n.V4, true}, {"dbAllowedCidrsV6", n.V6, false}} {
		for i, text := range family.list {
			p, err := netrestrict.ParsePrefix(text)
			switch {
			case err != nil:
				return nil, bad("%s%s[%d]: %.200s", key, family.key, i, err)
			case p.Addr().Is4() != family.is4:
				return nil, bad("%s%s[%d]: %s is of the other family: IPv4 is for dbAllowedCidrs, IPv6 for dbAllowedCidrsV6", key, family.key, i, p)
			}
			all = append(all, p)
		}
	}
	return all, nil
}

// untyped is the older shape.
func untyped(list []netip.Prefix) networks {
	n := networks{V4: []string{}, V6: []string{}}
	for _, p := range list {
		if p.Addr().Is4() {
			n.V4 = append(n.V4, p.String())
		} else {
			n.V6 = append(n.V6, p.String())
		}
	}
	return n
}

// typed is the newer shape.
func typed(list []netip.Prefix) typedNetworks {
	n := typedNetworks{All: []typedNetwork{}}
	for _, p := range list {
		family := "v6"
		if p.Addr().Is4() {
			family = "v4"
		}
		n.All = append(n.All, typedNetwork{p.String(), family})
	}
	return n
}

// anywhere is what the absence of an allowlist means, in networks.
func anywhere() []netrestrict.Rule {
	return []netrestrict.Rule{{Network: netip.MustParsePrefix("0.0.0.0/0")}, {Network: netip.MustParsePrefix("::/0")}}
}

// rulesOf are a tenant's rules that are for networks and count now, and all that are for anything else.
func rulesOf(t *tenants.Tenant, now time.Time) (ofNetworks, others []netrestrict.Rule) {
	if t.Allow == nil {
		return anywhere(), nil
	}
	for _, r := range t.Allow.Rules() {
		switch {
		case !r.Network.IsValid():
			others = append(others, r)
		case r.Expires.IsZero() || now.Before(r.Expires):
			ofNetworks = append(ofNetworks, r)
		}
	}
	return ofNetworks, others
}

// networksOf are the networks that may connect now.
func networksOf(t *tenants.Tenant, now time.Time) []netip.Prefix {
	rules, _ := rulesOf(t, now)
	var all []netip.Prefix
	for _, r := range rules {
		all = append(all, r.Network)
	}
	return slices.Compact(all) // they are sorted
}

// applyNetworks is an edit: these networks and no others. A rule that is there already for one of them stays as it is, with its
// comment and its time; so do rules that are not for networks. The two that are everybody are what the absence of a list is.
func applyNetworks(want []netip.Prefix, now time.Time) edit {
	return func(old *tenants.Tenant) (*tenants.Tenant, error) {
		is, rules := rulesOf(old, now)
		missing := setOf(want)
		for _, r := range is {
			if _, wanted := missing[r.Network]; wanted {
				rules = append(rules, r)
				missing[r.Network] = false // another rule for it may follow
			}
		}
		for p, is := range missing {
			if is {
				rules = append(rules, netrestrict.Rule{Network: p})
			}
		}
		list, err := netrestrict.CompileRules(rules)
		if err != nil {
			return nil, fmt.Errorf("BUG: networks that were read do not compile: %w", err)
		}
		if slices.Equal(list.Rules(), anywhere()) {
			list = nil
		}
		t := *old
		t.Allow = list
		return &t, nil
	}
}

// setOf is for lists that are too long to be searched for each of another one: they are as long as a body can be.
func setOf(list []netip.Prefix) map[netip.Prefix]bool {
	set := make(map[netip.Prefix]bool, len(list))
	for _, p := range list {
		set[p] = true
	}
	return set
}

// changeNetworks is an edit: some networks more, others not any more.
func changeNetworks(add, remove []netip.Prefix, now time.Time) edit {
	return func(old *tenants.Tenant) (*tenants.Tenant, error) {
		want := append(networksOf(old, now), add...)
		gone := setOf(remove)
		want = slices.DeleteFunc(want, func(p netip.Prefix) bool { return gone[p] })
		return applyNetworks(want, now)(old)
	}
}
