// Places: a client that is refused keeps none.

package proxy

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
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
			if d := b.gate.reserve(t.Context(), b.tenant, conf, at); d != nil {
				t.Fatalf("%s: %v at once", name, d)
			}
		}
		for range 3 {
			if d := b.gate.reserve(t.Context(), b.tenant, conf, at); d == nil || d.why != c.why {
				t.Errorf("%s: %v, want %v", name, d, deny(c.why))
			}
		}
		all, own, users := b.gate.clients.Load(), b.tenant.admitted.Load(), b.tenant.places.taken[party{ofUser, "app"}]
		if n := c.there; all != int64(n) || own != int64(n) || users != n || b.tenant.places.taken[party{ofDatabase, "db"}] != n {
			t.Errorf("%s: %d clients in all, %d of the tenant, %d of the user, %d of the database; want %d", name, all, own, users, b.tenant.places.taken[party{ofDatabase, "db"}], n)
		}
		for range c.there {
			b.gate.release(b.tenant, at)
		}
	}
}

// TestRates: who comes too often is told for how long, an address before anything is read of it, and nobody else waits for that.
func TestRates(t *testing.T) {
	const refused = "53400 too many new connections"
	d := newDoor(t)
	d.change("acme", func(t *tenants.Tenant) { t.ConnectionRate = 1 })
	came := 0
	for end := time.Now().Add(patience); d.try("app.acme", "192.0.2.1", "right") == "ok"; came++ {
		if time.Now().After(end) {
			t.Fatal("never refused")
		}
	}
	if came < 10 {
		t.Errorf("%d have come at once, want ten seconds' worth", came)
	}
	// From now on for an hour.
	d.gate.rates.with(func(r *rates) {
		for later := time.Now().Add(time.Hour); r.tenants.Take(later, "acme", 1) == 0; {
		}
	})
	for user, want := range map[string]string{"app.acme": refused, "app.guessed": "ok"} {
		if got := d.try(user, "192.0.2.2", "right"); got != want {
			t.Errorf("%s: %s", user, got)
		}
	}
	// Who is banned uses up nothing.
	d.change("guessed", func(t *tenants.Tenant) { t.ConnectionRate = 1 })
	for range 30 {
		if got := d.try("app.guessed", "127.0.0.1", "right"); got != "53400 too many failed logins" {
			t.Fatal(got)
		}
	}
	if got := d.try("app.guessed", "192.0.2.2", "right"); got != "ok" {
		t.Error(got)
	}

	d.gate.opts.Limits.AddressRate = 1
	if got := d.try("app.secure", "127.0.0.1", "right"); got != "28000 this tenant requires TLS" {
		t.Errorf("an address that has not come before: %s", got)
	}
	d.gate.rates.with(func(r *rates) {
		for later := time.Now().Add(time.Hour); netrestrict.TakeAddress(r.addresses, later, netip.MustParseAddr("127.0.0.1"), 1) == 0; {
		}
	})
	d.visit(&Listener{Name: "plain"}, func(c net.Conn) {
		if kind, body := readMessage(t, c); kind != 'E' || !strings.Contains(string(body), "C53400\x00Mtoo many new connections\x00HTry again in 36") {
			t.Errorf("hears %c %q", kind, body)
		}
	})
	if got := d.try("app.guessed", "127.0.0.1", "right"); got != refused {
		t.Errorf("at a door: %s", got)
	}
	if got := d.try("app.guessed", "192.0.2.3", "right"); got != "ok" {
		t.Errorf("another address: %s", got)
	}
	if n := d.refusals()["throttle"]; n < 33 {
		t.Errorf("%d are counted", n)
	}
}
