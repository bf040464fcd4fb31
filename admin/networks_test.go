// Tests of the edits that Supabase's clients ask for.

package admin

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

var today = time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)

func network(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, network(text))
	}
	return all
}

// with is a tenant with these rules; none at all is everybody.
func with(rules ...netrestrict.Rule) *tenants.Tenant {
	t := anUpstream("acme")
	if rules != nil {
		var err error
		if t.Allow, err = netrestrict.CompileRules(rules); err != nil {
			panic(err)
		}
	}
	return t
}

func TestApplyKeeps(t *testing.T) {
	office := netrestrict.Rule{Network: network("203.0.113.0/24"), Comment: "office"}
	visitor := netrestrict.Rule{Network: network("203.0.113.0/24"), Comment: "visitor", Expires: today.Add(time.Hour)}
	gone := netrestrict.Rule{Network: network("198.51.100.0/24"), Comment: "gone", Expires: today}
	six := netrestrict.Rule{Network: network("2001:db8::/32"), Comment: "six"}
	endpoint := netrestrict.Rule{Endpoint: netrestrict.Endpoint{Provider: netrestrict.AWS, ID: "vpce-08d2bf15fac5001c9"}, Comment: "vpc"}
	flycast := netrestrict.Rule{Flycast: netip.MustParseAddr("fdaa::3")}
	plain := func(text string) netrestrict.Rule { return netrestrict.Rule{Network: network(text)} }
	for name, tc := range map[string]struct {
		old  *tenants.Tenant
		want []netip.Prefix
		now  []netrestrict.Rule // nil: no list
	}{
		"comments and expiries of what stays":      {with(office, visitor, six), prefixes("203.0.113.0/24"), []netrestrict.Rule{office, visitor}},
		"endpoints, whatever is applied":           {with(office, endpoint, flycast), prefixes("10.0.0.0/8"), []netrestrict.Rule{plain("10.0.0.0/8"), endpoint, flycast}},
		"endpoints beside nobody":                  {with(office, endpoint), nil, []netrestrict.Rule{endpoint}},
		"endpoints beside everybody":               {with(endpoint), prefixes("::/0", "0.0.0.0/0"), []netrestrict.Rule{plain("0.0.0.0/0"), plain("::/0"), endpoint}},
		"nothing of what has expired":              {with(gone), prefixes("198.51.100.0/24"), []netrestrict.Rule{plain("198.51.100.0/24")}},
		"what is new has no comment":               {with(office), prefixes("203.0.113.0/25", "203.0.113.0/24"), []netrestrict.Rule{office, plain("203.0.113.0/25")}},
		"nobody is not the same as no list":        {with(office), nil, []netrestrict.Rule{}},
		"nobody, where there was no list":          {with(), nil, []netrestrict.Rule{}},
		"everybody is no list":                     {with(office), prefixes("0.0.0.0/0", "::/0"), nil},
		"everybody, where there was no list":       {with(), prefixes("0.0.0.0/0", "::/0"), nil},
		"everybody, and some of them once more":    {with(), prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8"), []netrestrict.Rule{plain("0.0.0.0/0"), plain("10.0.0.0/8"), plain("::/0")}},
		"everybody of one family":                  {with(), prefixes("0.0.0.0/0"), []netrestrict.Rule{plain("0.0.0.0/0")}},
		"what is applied twice is there once":      {with(), prefixes("10.0.0.0/8", "10.0.0.0/8"), []netrestrict.Rule{plain("10.0.0.0/8")}},
		"a comment of everybody is not lost there": {with(netrestrict.Rule{Network: network("0.0.0.0/0"), Comment: "open"}), prefixes("0.0.0.0/0", "::/0"), []netrestrict.Rule{{Network: network("0.0.0.0/0"), Comment: "open"}, plain("::/0")}},
	} {
		now, err := applyNetworks(tc.want, today)(tc.old)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.now, now.Allow.Rules(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		if other := *now; !with().Equal(func() *tenants.Tenant { other.Allow = nil; return &other }()) {
			t.Errorf("%s: something else was changed", name)
		}
	}
}

// TestNetworksAreSets: what is applied is what is told then, adding and removing are what they are of sets, whatever else the
// list has stays, and nothing that was there is changed in place.
func TestNetworksAreSets(t *testing.T) {
	pool := prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/16", "203.0.113.7/32", "2001:db8::/32", "2001:db8::/64")
	some := rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, 5, rapid.ID)
	sorted := func(list []netip.Prefix) []netip.Prefix {
		list = slices.Clone(list)
		slices.SortFunc(list, func(a, b netip.Prefix) int {
			if c := a.Addr().Compare(b.Addr()); c != 0 {
				return c
			}
			return a.Bits() - b.Bits()
		})
		return slices.Compact(list)
	}
	rapid.Check(t, func(t *rapid.T) {
		tenant := with()
		if rapid.Bool().Draw(t, "restricted") {
			rules := []netrestrict.Rule{}
			for _, p := range some.Draw(t, "there") {
				expires := rapid.SampledFrom([]time.Time{{}, today.Add(-time.Hour), today, today.Add(time.Hour)}).Draw(t, "expires")
				rules = append(rules, netrestrict.Rule{Network: p, Comment: rapid.SampledFrom([]string{"", "why"}).Draw(t, "comment"), Expires: expires})
			}
			if rapid.Bool().Draw(t, "endpoint") {
				rules = append(rules, netrestrict.Rule{Endpoint: netrestrict.Endpoint{Provider: netrestrict.GCP, ID: "1"}})
			}
			tenant = with(rules...)
		}
		before, was := tenant.Allow.Rules(), networksOf(tenant, today)
		want := some.Draw(t, "want")
		now, err := applyNetworks(want, today)(tenant)
		if err != nil {
			t.Fatal(err)
		}
		if got := networksOf(now, today); !slices.Equal(got, sorted(want)) {
			t.Fatalf("%v was applied, and there is %v", want, got)
		}
		again, _ := applyNetworks(want, today)(now)
		if !again.Equal(now) {
			t.Fatalf("applied again: %v after %v", again.Allow.Rules(), now.Allow.Rules())
		}
		remove := some.Draw(t, "remove")
		now, err = changeNetworks(want, remove, today)(tenant)
		if err != nil {
			t.Fatal(err)
		}
		union := slices.DeleteFunc(sorted(append(slices.Clone(was), want...)), func(p netip.Prefix) bool { return slices.Contains(remove, p) })
		if got := networksOf(now, today); !slices.Equal(got, union) {
			t.Fatalf("%v and %v without %v is %v", was, want, remove, got)
		}
		_, others := rulesOf(tenant, today)
		if _, left := rulesOf(now, today); !slices.Equal(others, left) {
			t.Fatalf("of %v are left %v", others, left)
		}
		if !slices.Equal(before, tenant.Allow.Rules()) {
			t.Fatal("what was there has been changed")
		}
	})
}
