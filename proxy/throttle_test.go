// What a new snapshot of the tenants means for the login throttle.

package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// TestBans: who is blocked is listed as operators write it, and lifted by that.
func TestBans(t *testing.T) {
	b := newBench(t)
	v := &consoleGate{gate: b.gate, session: &consoleSession{gate: b.gate, log: b.gate.log}}
	four, six := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:0:1::9")
	fail := func(tenant string, addr netip.Addr, times int) {
		b.gate.throttle.with(func(t throttle) {
			for range times {
				t.Failed(time.Now(), tenant, addr)
			}
		})
	}
	rows := func() (out []string) {
		for _, ban := range v.Bans() {
			if ban.Left <= 0 || ban.Left > netrestrict.DefaultBlock {
				t.Errorf("%+v", ban)
			}
			out = append(out, fmt.Sprintf("%s|%s|%d", ban.Tenant, ban.Address, ban.Failures))
		}
		return out
	}
	fail("acme", four, 10)
	fail("globex", six, 10)
	fail("a\x1b[31m", four, 10)
	if got, want := rows(), []string{`a\x1b[31m|198.51.100.7|10`, "acme|198.51.100.7|10", "globex|2001:db8:0:1::/64|10"}; !slices.Equal(got, want) {
		t.Errorf("bans %q, want %q", got, want)
	}
	for _, arg := range []string{"198.51.100.8", "198.51.100.0/24", "2001:db8::/32", "nobody", "10"} {
		var e *pgwire.Error
		if err := v.Do(console.Command{Verb: console.ClearBan, Arg: arg}); !errors.As(err, &e) || e.Code != "22023" {
			t.Errorf("CLEAR BAN %s: %v", arg, err)
		}
	}
	for _, arg := range []string{"2001:db8:0:1::/64", "acme"} {
		if err := v.Do(console.Command{Verb: console.ClearBan, Arg: arg}); err != nil {
			t.Errorf("CLEAR BAN %s: %v", arg, err)
		}
	}
	fail("x", four, 40)
	if err := v.Do(console.Command{Verb: console.ClearBan, Arg: "198.51.100.7"}); err != nil || len(rows()) != 0 {
		t.Errorf("%v, and %q are left", err, rows())
	}
}

func TestAmendments(t *testing.T) {
	type list = []*tenants.Tenant
	snapshot := func(all ...*tenants.Tenant) list { return all }
	tenant := func(id string, users ...tenants.User) *tenants.Tenant {
		out := &tenants.Tenant{ID: id, Users: make(map[string]*tenants.User)}
		for _, u := range users {
			out.Users[u.Name] = &u
		}
		return out
	}
	app := tenants.User{Name: "app", Verifier: tenants.NewSecret("one")}
	changed := tenants.User{Name: "app", Verifier: tenants.NewSecret("two")}
	web := tenants.User{Name: "web", Password: tenants.NewSecret("one")}
	webChanged := tenants.User{Name: "web", Password: tenants.NewSecret("two")}
	elsewhere := tenants.User{Name: "app", Verifier: tenants.NewSecret("one"), ServerUser: "other", PoolSize: 7}
	for name, c := range map[string]struct {
		old, now          list
		repaired, removed []string
	}{
		"nothing":               {snapshot(tenant("acme", app, web)), snapshot(tenant("acme", app, web)), nil, nil},
		"another tenant":        {snapshot(tenant("acme", app)), snapshot(tenant("acme", app), tenant("globex")), []string{"globex"}, nil},
		"one is gone":           {snapshot(tenant("acme", app), tenant("globex")), snapshot(tenant("acme", app)), nil, []string{"globex"}},
		"all are others":        {snapshot(tenant("acme")), snapshot(tenant("globex")), []string{"globex"}, []string{"acme"}},
		"a changed verifier":    {snapshot(tenant("acme", app), tenant("globex", app)), snapshot(tenant("acme", changed), tenant("globex", app)), []string{"acme"}, nil},
		"a changed password":    {snapshot(tenant("acme", web)), snapshot(tenant("acme", webChanged)), []string{"acme"}, nil},
		"another user":          {snapshot(tenant("acme", app)), snapshot(tenant("acme", app, web)), []string{"acme"}, nil},
		"a user is gone":        {snapshot(tenant("acme", app, web)), snapshot(tenant("acme", app)), nil, nil},
		"a user's other fields": {snapshot(tenant("acme", app)), snapshot(tenant("acme", elsewhere)), nil, nil},
	} {
		d, err := tenants.NewDirectory(c.old...)
		if err != nil {
			t.Fatal(err)
		}
		var changes []tenants.Change
		d.Subscribe(func(some []tenants.Change) { changes = some })
		changes = nil
		if err := d.Replace(c.now); err != nil {
			t.Fatal(err)
		}
		repaired, _, removed := amendments(changes)
		if got := slices.Sorted(maps.Keys(repaired)); !cmp.Equal(got, c.repaired) || !cmp.Equal(removed, c.removed) {
			t.Errorf("%s: repaired %v, removed %v; want %v, %v", name, got, removed, c.repaired, c.removed)
		}
	}
}
