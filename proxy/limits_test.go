// Places: a client that is refused keeps none.

package proxy

import (
	"testing"

	"github.com/postern/postern/tenants"
)

// TestARefusedClientKeepsNoPlace: whichever limit refuses a client, it counts nowhere afterwards.
func TestARefusedClientKeepsNoPlace(t *testing.T) {
	b := newBench(t)
	b.gate.admits.Store(2)
	user := &tenants.User{Name: "app", MaxClients: 1}
	free := tenants.Pool{MaxClients: 9}
	for name, c := range map[string]struct {
		pool  tenants.Pool
		users map[string]*tenants.User
		there int // clients that are in already
		why   denial
	}{
		"all":            {free, nil, 2, denyClients},
		"the tenant's":   {tenants.Pool{MaxClients: 1}, nil, 1, denyTenantClients},
		"the user's":     {free, map[string]*tenants.User{"app": user}, 1, denyUserClients},
		"the database's": {tenants.Pool{MaxClients: 9, MaxDatabaseClients: 1}, nil, 1, denyDatabaseClients},
	} {
		conf := &tenants.Tenant{ID: "acme", Pool: c.pool, Users: c.users}
		at := place{"app", "db"}
		for range c.there {
			if d := b.gate.reserve(b.tenant, conf, at); d != nil {
				t.Fatalf("%s: %v at once", name, d)
			}
		}
		for range 3 {
			if d := b.gate.reserve(b.tenant, conf, at); d == nil || d.why != c.why {
				t.Errorf("%s: %v, want %v", name, d, deny(c.why))
			}
		}
		all, own, users := b.gate.clients.Load(), b.tenant.admitted.Load(), b.tenant.places.users["app"]
		if n := c.there; all != int64(n) || own != int64(n) || users != n || b.tenant.places.databases["db"] != n {
			t.Errorf("%s: %d clients in all, %d of the tenant, %d of the user, %d of the database; want %d", name, all, own, users, b.tenant.places.databases["db"], n)
		}
		for range c.there {
			b.gate.release(b.tenant, at)
		}
	}
}
