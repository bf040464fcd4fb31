// The door: the same rules as for connections, told and counted the same.

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
)

// TestDoorAsTCP: whoever comes through the door is told, counted and logged as on a connection, whatever it is refused for.
func TestDoorAsTCP(t *testing.T) {
	type visit struct {
		name    string
		startup []string
		pw      string
		prepare func(*door)
	}
	app := func(tenant string, more ...string) []string {
		return append([]string{"user", "app." + tenant}, more...)
	}
	visits := []visit{
		{"a wrong password", app("acme"), "wrong", nil},
		{"an unknown user", []string{"user", "nobody.acme"}, "right", nil},
		{"an unknown tenant", app("nowhere"), "right", nil},
		{"a tenant that was removed", app("acme"), "right", func(d *door) { d.directory.Remove("acme") }},
		{"a tenant that was not read yet", app("nowhere"), "right", func(d *door) { d.directory.SetFilling(true) }},
		{"no tenant", []string{"user", "app"}, "right", nil},
		{"no user", []string{"user", ".acme"}, "right", nil},
		{"two tenants", []string{"user", "app", "options", "reference=acme -c reference=picky"}, "right", nil},
		{"an option that is none", app("acme", "options", "-x"), "right", nil},
		{"a user twice", app("acme", "user", "app.picky"), "right", nil},
		{"an address that may not", app("picky"), "right", nil},
		{"without TLS", app("secure"), "right", nil},
		{"after ten guesses", app("guessed"), "right", nil},
		{"after ten guesses everywhere", app("acme"), "right", func(d *door) {
			d.gate.throttle.with(func(th throttle) {
				for i := range netrestrict.DefaultAddressFailures {
					th.Failed(time.Now(), fmt.Sprint("other", i), netip.MustParseAddr("127.0.0.1"))
				}
			})
		}},
		{"without room for the tenant", app("full"), "right", nil},
		{"without room for anybody", app("acme"), "right", func(d *door) { d.gate.admits.Store(0) }},
		{"without room for the user", app("busy"), "right", func(d *door) { d.fill("busy", place{"app", "elsewhere"}) }},
		{"without room in the database", app("busy", "database", "crowded"), "right", func(d *door) { d.fill("busy", place{"other", "crowded"}) }},
		{"another database", app("busy", "database", "secret"), "right", nil},
		{"a parameter that comes too late", app("acme", "session_preload_libraries", "x"), "right", nil},
		{"a tenant that is disabled", app("acme"), "right", func(d *door) { d.gate.consoles.disabled["acme"] = true }},
	}
	for _, c := range visits {
		t.Run(c.name, func(t *testing.T) {
			come := func(told func(d *door) string) visited {
				d := newDoor(t)
				if c.prepare != nil {
					c.prepare(d)
				}
				return d.endOf(told(d))
			}
			want := come(func(d *door) string { return d.byTCP(startupOf(t, c.startup...), c.pw) })
			if want.Told == "" || want.Log == "" || !want.Forgotten {
				t.Fatalf("not refused, or not forgotten: %+v", want)
			}
			for name, by := range map[string]proof{"password": tells, "conversation": converses} {
				got := come(func(d *door) string {
					seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{
						Client: netip.MustParseAddrPort("[::ffff:127.0.0.1]:40000"), Startup: startupOf(t, c.startup...), Proof: by(t, c.pw)})
					var e *pgwire.Error
					if !errors.As(err, &e) {
						t.Fatalf("%s: %v, %v", name, seat, err)
					}
					if err.Error() != e.Error() {
						t.Errorf("%s: the error says more than is told: %v", name, err)
					}
					return spellError(e)
				})
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-connection +door):\n%s", name, diff)
				}
			}
		})
	}
}

// TestNotReadYet: while the directory is filling, a tenant that is not there may come: its clients are told to try again, however
// often they do, and nothing is held against them. Those who are there are served.
func TestNotReadYet(t *testing.T) {
	d := newDoor(t)
	d.directory.SetFilling(true)
	come := func(user string) error {
		seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{
			Client: netip.MustParseAddrPort("127.0.0.1:40000"), Startup: startupOf(t, "user", user), Proof: Password("right")})
		if err == nil {
			seat.Leave()
		}
		return err
	}
	for range 3 * netrestrict.DefaultAddressFailures {
		var e *pgwire.Error
		if err := come("app.nowhere"); !errors.As(err, &e) || e.Code != "57P03" {
			t.Fatalf("got %v", err)
		}
	}
	if err := come("app.acme"); err != nil {
		t.Errorf("who is there is refused: %v", err)
	}
	d.directory.SetFilling(false)
	var e *pgwire.Error
	if err := come("app.nowhere"); !errors.As(err, &e) || e.Code != "28P01" {
		t.Errorf("when all is read: %v", err)
	}
}

// TestDoorSession: who proves its password, either way, gets a session on the loop, over a socket of its own.
func TestDoorSession(t *testing.T) {
	for name, by := range map[string]proof{"password": tells, "conversation": converses} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t)
			b := &bench{t: t, gate: d.gate, tenant: d.gate.tenant("acme")}
			server := b.server()
			client := netip.MustParseAddrPort("198.51.100.7:1234")
			mapped := netip.MustParseAddrPort("[::ffff:198.51.100.7]:1234")
			seat, err := d.gate.Door(Listener{Name: "edge", Mode: "transaction"}).Admit(t.Context(), Caller{Client: mapped,
				Startup: startupOf(t, "user", "app", "database", "app", "options", "reference=acme"), Proof: by(t, "right")})
			if err != nil {
				t.Fatal(err)
			}
			defer seat.Leave()
			if n := d.gate.clients.Load(); n != 1 {
				t.Errorf("%d places are taken", n)
			}
			conn, err := seat.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := seat.Open(); err == nil {
				t.Error("the seat is used twice")
			}
			far := &far{conn, b}
			if name == "conversation" {
				if typ, body := readMessage(t, far); typ != pgwire.Authentication || body[3] != 12 {
					t.Fatalf("heard %c %q, want the server's proof", typ, body)
				}
			}
			expect(t, far, pgwire.AppendAuthenticationOk(nil), "AuthenticationOk")
			b.greeted(far)
			for range 2 { // and Leave has nothing to give back
				query, answer := pgwire.AppendQuery(nil, "select 1"), pgwire.AppendReady(tagged(nil, "SELECT 1"), 'I')
				if _, err := conn.Write(query); err != nil {
					t.Fatal(err)
				}
				expect(t, server, query, "request")
				if _, err := server.Write(answer); err != nil {
					t.Fatal(err)
				}
				expect(t, far, answer, "answer")
				seat.Leave()
			}
			b.tenant.call(func() {
				if n := len(b.tenant.clients); n != 1 || b.tenant.clients[0].peer.Client != client || b.tenant.clients[0].mode != transactionMode {
					t.Errorf("%d clients: %+v", n, b.tenant.clients)
				}
			})
			conn.Close()
			if !d.rests() {
				t.Error("the place is not given back")
			}
			if n := b.tenant.counters.loginsOK.Load(); n != 1 {
				t.Errorf("%d logins", n)
			}
		})
	}
}

// TestDoorIsSecure: who nobody could listen to is let in where TLS is required, and the host names the tenant.
func TestDoorIsSecure(t *testing.T) {
	d := newDoor(t)
	d.gate.opts.TenantDomain = "db.test"
	seat, err := d.gate.Door(Listener{}).Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Secure: true, Host: "secure.db.test",
		Startup: startupOf(t, "user", "app"), Proof: Password("right")})
	if err != nil {
		t.Fatal(err)
	}
	seat.Leave()
	seat.Leave()
	if _, err := seat.Open(); err == nil {
		t.Error("a seat that was left is used")
	}
	if !d.rests() {
		t.Error("the place is not given back")
	}
}

// TestDoorTurnsAway who is more than there may be, and who is not complete, at once and without a word for the client.
func TestDoorTurnsAway(t *testing.T) {
	d := newDoor(t)
	way := d.gate.Door(Listener{Name: "edge"})
	c := Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: Password("right")}
	d.gate.perClient.with(func(m map[netip.Addr]int) { m[c.Client.Addr()] = 5 })
	if _, err := way.Admit(t.Context(), c); !errors.Is(err, ErrHandshakes) {
		t.Errorf("more than its share for an address: %v", err)
	}
	d.gate.perClient.with(func(m map[netip.Addr]int) { delete(m, c.Client.Addr()) })
	for range cap(d.gate.handshakes) {
		d.gate.handshakes <- struct{}{}
	}
	if _, err := way.Admit(t.Context(), c); !errors.Is(err, ErrHandshakes) {
		t.Errorf("more than there may be: %v", err)
	}
	for range cap(d.gate.handshakes) {
		<-d.gate.handshakes
	}
	if got := d.refusals(); got["limit"] != 2 {
		t.Errorf("counted %v", got)
	}
	for name, want := range map[string]struct {
		c   Caller
		err error
	}{
		"no address":  {Caller{Startup: c.Startup, Proof: c.Proof}, ErrCaller},
		"no proof":    {Caller{Client: c.Client, Startup: c.Startup}, ErrCaller},
		"too long":    {Caller{Client: c.Client, Startup: make([]byte, pgwire.MaxStartup+1), Proof: c.Proof}, ErrCaller},
		"replication": {Caller{Client: c.Client, Startup: startupOf(t, "user", "app.acme", "replication", "database"), Proof: c.Proof}, ErrReplication},
	} {
		if _, err := way.Admit(t.Context(), want.c); !errors.Is(err, want.err) {
			t.Errorf("%s: %v, want %v", name, err, want.err)
		}
	}
	if !d.rests() {
		t.Error("something is held")
	}
	if said := fmt.Sprintf("%v %+v %#v", c, c, c.Proof); strings.Contains(said, "right") {
		t.Errorf("the password is printed: %s", said)
	}
}
