// Tests of differences: what the audit log and an import tell of a change.

package document

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// bare is a tenant of which as little was said as can be.
func bare(allow ...string) *tenants.Tenant {
	t := tenants.New("acme")
	t.Upstream = tenants.Upstream{Host: "db.internal"}
	t.Users["app"] = &tenants.User{Name: "app", Password: tenants.NewSecret("marked")}
	if allow != nil {
		var networks []netip.Prefix
		for _, text := range allow {
			networks = append(networks, netip.MustParsePrefix(text))
		}
		t.Allow, _ = netrestrict.Compile(networks)
	}
	t.Complete()
	return t
}

func shown(all []tenants.Difference) (out []string) {
	for _, d := range all {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s: %s -> %s", d.Path, d.Old, d.New)))
	}
	return out
}

// TestDifferences: what is told is what was changed, and no more.
func TestDifferences(t *testing.T) {
	with := func(t *tenants.Tenant, set func(*tenants.Tenant)) *tenants.Tenant {
		set(t)
		return t
	}
	databases := func(names ...string) *tenants.Tenant {
		return with(bare(), func(t *tenants.Tenant) { t.Databases = names })
	}
	for _, c := range []struct {
		what     string
		old, now *tenants.Tenant
		want     []string
	}{
		{"nothing", nil, nil, nil},
		{"the same", bare("10.0.0.0/8"), bare("10.0.0.0/8"), nil},
		{"a new one", nil, with(bare("10.0.0.0/8"), func(t *tenants.Tenant) { t.Pool.Size = 5 }),
			[]string{`allow_list:  -> ["10.0.0.0/8"]`, `pool.size:  -> 5`, `upstream.host:  -> "db.internal"`, `upstream.port:  -> 5432`, `upstream.tls:  -> "verify-full"`,
				`users["app"]:  -> there`, `users["app"].password:  ->`}},
		{"one that goes", with(bare(), func(t *tenants.Tenant) { t.Users["app"].PoolSize = 3 }), nil,
			[]string{`upstream.host: "db.internal" ->`, `upstream.port: 5432 ->`, `upstream.tls: "verify-full" ->`, `users["app"]: there ->`, `users["app"].password:  ->`, `users["app"].pool_size: 3 ->`}},
		{"a default", bare(), with(bare(), func(t *tenants.Tenant) { t.Pool.Size = 5 }), []string{`pool.size: 20 -> 5`}},
		{"one more", bare("10.0.0.0/8"), bare("10.0.0.0/8", "192.0.2.0/24"), []string{`allow_list[]:  -> ["192.0.2.0/24"]`}},
		{"one less", bare("10.0.0.0/8", "192.0.2.0/24"), bare("10.0.0.0/8"), []string{`allow_list[]: ["192.0.2.0/24"] ->`}},
		{"another", bare("10.0.0.0/8", "192.0.2.0/24"), bare("10.0.0.0/8", "198.51.100.0/24"), []string{`allow_list[]: ["192.0.2.0/24"] -> ["198.51.100.0/24"]`}},
		{"an empty list", bare("10.0.0.0/8"), with(bare(), func(t *tenants.Tenant) { t.Allow, _ = netrestrict.Compile(nil) }), []string{`allow_list[]: ["10.0.0.0/8"] ->`}},
		{"a list", bare(), bare("10.0.0.0/8"), []string{`allow_list:  -> ["10.0.0.0/8"]`}},
		{"no list", bare("10.0.0.0/8"), bare(), []string{`allow_list: ["10.0.0.0/8"] ->`}},
		{"another order", databases("postgres", "x"), databases("x", "postgres"), []string{`databases: ["postgres","x"] -> ["x","postgres"]`}},
		{"once more", databases("postgres"), databases("postgres", "postgres"), []string{`databases[]:  -> ["postgres"]`}},
	} {
		if got := shown(Differences(c.old, c.now)); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.what, got, c.want)
		}
	}
}

// TestDifferencesOfLongLists: a change of a few entries of a list is as long as they are, however long the list is.
func TestDifferencesOfLongLists(t *testing.T) {
	var all []string
	for i := range tenants.MaxRules {
		all = append(all, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	got := Differences(bare(all...), bare(append(slices.Clone(all[1:]), "192.0.2.0/24")...))
	if len(got) != 1 || got[0] != (tenants.Difference{Path: "allow_list[]", Old: `["10.0.0.0/24"]`, New: `["192.0.2.0/24"]`}) {
		t.Errorf("%d differences, %.200q", len(got), shown(got))
	}
}
