// Who has proved a password at the door before something changed.

package proxy

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// silentTenant is one whose server takes connections and says nothing.
func silentTenant(t *testing.T) func(change func(*tenants.Tenant)) *tenants.Tenant {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return func(change func(*tenants.Tenant)) *tenants.Tenant {
		conf := withPassword("acme", 1, "right")
		conf.Upstream.Port, conf.Upstream.TLS = netip.MustParseAddrPort(ln.Addr().String()).Port(), tenants.TLSDisable
		change(conf)
		return conf
	}
}

// sits has somebody prove a password at the door.
func (g *roleGate) sits(secure bool) *Seat {
	g.t.Helper()
	seat, err := g.door.Admit(g.t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Secure: secure,
		Startup: startupOf(g.t, "user", "app.acme", "database", "db"), Proof: Password("right")})
	if err != nil {
		g.t.Fatal(err)
	}
	return seat
}

// TestChangedWhileSomebodyProves: who has proved a password under a configuration that is changed before its session begins gets none
// that the new one does not allow.
func TestChangedWhileSomebodyProves(t *testing.T) {
	for name, change := range map[string]func(*tenants.Tenant){
		"TLS is required":             func(conf *tenants.Tenant) { conf.RequireTLS = true },
		"the database is not allowed": func(conf *tenants.Tenant) { conf.Databases = []string{"other"} },
		"the user is gone":            func(conf *tenants.Tenant) { conf.Users = map[string]*tenants.User{} },
	} {
		t.Run(name, func(t *testing.T) {
			conf := silentTenant(t)
			g := newRoleGate(t, nil, conf(func(*tenants.Tenant) {}))
			seat := g.sits(false)
			put(t, g.Gate, conf(change))
			conn, err := seat.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if said, err := io.ReadAll(conn); err != nil || !strings.Contains(string(said), "C57P01\x00") {
				t.Errorf("it is told %q, %v", said, err)
			}
		})
	}
}

// TestSecureWithoutTLS: what changes leaves a session alone that nobody could listen to, where TLS is required.
func TestSecureWithoutTLS(t *testing.T) {
	conf := silentTenant(t)
	g := newRoleGate(t, nil, conf(func(conf *tenants.Tenant) { conf.RequireTLS = true }))
	conn, err := g.sits(true).Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	put(t, g.Gate, conf(func(conf *tenants.Tenant) { conf.RequireTLS, conf.Pool.Size = true, 2 }))
	if err := g.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sessions, err := g.Sessions("acme", "", 2); err != nil || len(sessions) != 1 {
		t.Errorf("the sessions are %v, %v", sessions, err)
	}
}
