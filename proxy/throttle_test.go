// What a new snapshot of the tenants means for the login throttle.

package proxy

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/tenants"
)

func TestAmendments(t *testing.T) {
	snapshot := func(list ...*tenants.Tenant) *tenants.Snapshot {
		s, err := tenants.NewSnapshot(time.Time{}, list...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
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
		old, now          *tenants.Snapshot
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
		repaired, removed := amendments(c.old, c.now)
		if got := slices.Sorted(maps.Keys(repaired)); !cmp.Equal(got, c.repaired) || !cmp.Equal(removed, c.removed) {
			t.Errorf("%s: repaired %v, removed %v; want %v, %v", name, got, removed, c.repaired, c.removed)
		}
	}
}
