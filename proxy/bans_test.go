// Bans at the gate: whom each is told of, who may lift it, and what it does to a login.

package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// toldOf records what a gate tells other nodes, as tenant|address|failures, with - for what is over.
func toldOf(d *door) *[]string {
	var all []string
	d.gate.opts.TellBan = func(b Ban) {
		mark := ""
		if b.Left == 0 {
			mark = "-"
		}
		all = append(all, fmt.Sprintf("%s%s|%s|%d|%v", mark, b.Tenant, b.Address, b.Failures, b.Manual))
	}
	return &all
}

// try tells a password at the door, and returns the SQLSTATE and the hint, or "ok".
func (d *door) try(user, from, password string) string {
	d.t.Helper()
	seat, err := d.gate.Door(Listener{}).Admit(d.t.Context(), Caller{Client: netip.AddrPortFrom(netip.MustParseAddr(from), 1), Startup: startupOf(d.t, "user", user), Proof: Password(password)})
	if err == nil {
		seat.Leave()
		return "ok"
	}
	var e *pgwire.Error
	if !errors.As(err, &e) {
		d.t.Fatal(err)
	}
	return e.Code + " " + e.Message
}

func (d *door) guesses(user, from string, times int) {
	d.t.Helper()
	for range times {
		if got := d.try(user, from, "wrong"); got != `28P01 password authentication failed for user "app"` {
			d.t.Fatal(got)
		}
	}
}

// change puts a changed copy of a tenant in force.
func (d *door) change(id string, change func(*tenants.Tenant)) {
	d.t.Helper()
	old, _ := d.directory.Tenant(id)
	now := *old
	change(&now)
	if err := d.directory.Put(&now); err != nil {
		d.t.Fatal(err)
	}
}

func TestGateBans(t *testing.T) {
	d := newDoor(t)
	told := toldOf(d)
	const throttled, banned = "53400 too many failed logins", "53400 this address is banned"
	wants := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	tells := func(want ...string) {
		t.Helper()
		if !slices.Equal(*told, want) {
			t.Errorf("told %q, want %q", *told, want)
		}
		*told = nil
	}
	bans := func(tenant string, want ...string) {
		t.Helper()
		var got []string
		for _, b := range d.gate.Bans(tenant) {
			if b.Tenant != tenant || b.Left <= 0 {
				t.Errorf("%+v", b)
			}
			got = append(got, b.Address.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("bans at %q: %q, want %q", tenant, got, want)
		}
	}
	const four, neighbour = "192.0.2.1", "192.0.2.2"
	d.guesses("app.acme", four, 10)
	tells("acme|192.0.2.1/32|10|false")
	d.guesses("app.stranger", neighbour, 10)
	tells() // a name that is nobody's
	wants("the right password", d.try("app.acme", four, "right"), throttled)
	wants("a neighbour", d.try("app.acme", neighbour, "right"), "ok")
	bans("acme", "192.0.2.1/32")
	bans("guessed", "127.0.0.1/32") // who was there from the start
	bans("")
	if n := d.gate.LiftBan("guessed", netip.MustParseAddr(four)); n != 0 {
		t.Errorf("%d lifted at another tenant", n)
	}
	if n := d.gate.LiftBan("acme", netip.MustParseAddr("::ffff:"+four)); n != 1 {
		t.Errorf("%d lifted", n)
	}
	tells("-acme|192.0.2.1/32|10|false")
	wants("after it was lifted", d.try("app.acme", four, "right"), "ok")
	// To lift a ban is no way to guess for ever: the count over all tenants goes on.
	for range 4 {
		d.guesses("app.acme", four, 10)
		d.gate.LiftBan("acme", netip.MustParseAddr(four))
	}
	bans("", "192.0.2.1/32")
	*told = nil
	wants("at a tenant where it never failed", d.try("app.guessed", four, "right"), throttled)
	if n := d.gate.LiftBan("", netip.MustParseAddr(four)); n != 1 {
		t.Errorf("%d lifted", n)
	}
	tells("-|192.0.2.1/32|50|false")

	// Somebody's own.
	if err := d.gate.Ban("acme", netip.MustParsePrefix("192.0.2.0/24"), time.Hour); err != nil {
		t.Fatal(err)
	}
	tells("acme|192.0.2.0/24|0|true")
	wants("in a network that is banned", d.try("app.acme", neighbour, "right"), banned)
	wants("at another tenant", d.try("app.guessed", neighbour, "right"), "ok")
	if n := d.gate.denials.of("acme").refused[reasonBan].Load(); n != 1 {
		t.Errorf("%d refusals are counted as bans", n)
	}
	if n := d.gate.LiftBan("acme", netip.MustParseAddr(neighbour)); n != 1 {
		t.Errorf("%d lifted", n)
	}
	wants("after it was lifted", d.try("app.acme", neighbour, "right"), "ok")
	for _, c := range []struct{ got, want error }{
		{d.gate.Ban("nobody", netip.MustParsePrefix("192.0.2.0/24"), time.Hour), ErrNoTenant},
		{d.gate.Ban("acme", netip.MustParsePrefix("192.0.2.0/24"), LongestBan+1), ErrBanTime},
		{d.gate.Ban("acme", netip.MustParsePrefix("192.0.2.1/24"), time.Hour), ErrBanNetwork},
		{d.gate.Ban("", netip.Prefix{}, time.Hour), ErrBanNetwork},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
}

// TestNeverBan: the owner's own addresses are never banned at the tenant, but they are counted over all tenants.
func TestNeverBan(t *testing.T) {
	d := newDoor(t)
	d.change("acme", func(t *tenants.Tenant) { t.NeverBan = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25")} })
	own, other := "192.0.2.1", "192.0.2.200"
	d.guesses("app.acme", own, 49)
	d.guesses("app.acme", other, 10)
	if got := d.try("app.acme", own, "right"); got != "ok" {
		t.Error(got)
	}
	if got := d.try("app.acme", other, "right"); got != "53400 too many failed logins" {
		t.Error(got)
	}
	if err := d.gate.Ban("acme", netip.MustParsePrefix("192.0.2.0/26"), time.Hour); !errors.Is(err, ErrNeverBanned) {
		t.Error(err)
	}
	if err := d.gate.Ban("acme", netip.MustParsePrefix("192.0.2.0/24"), time.Hour); err != nil { // which has others as well
		t.Error(err)
	}
	if got := d.try("app.acme", own, "right"); got != "ok" {
		t.Error(got)
	}
	d.guesses("app.acme", own, 1)
	if got := d.try("app.guessed", own, "right"); got != "53400 too many failed logins" {
		t.Errorf("after 50 failures: %s", got)
	}
	d.gate.LiftBan("", netip.MustParseAddr(own))
	// It is not in the list what does not hold.
	d.change("acme", func(t *tenants.Tenant) { t.NeverBan = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} })
	if got := d.gate.Bans("acme"); len(got) != 0 {
		t.Error(got)
	}
	if got := d.try("app.acme", other, "right"); got != "ok" {
		t.Error(got)
	}
}

// TestApplyBan: what another node tells holds here, until it tells that it is over, or the password has changed.
func TestApplyBan(t *testing.T) {
	d := newDoor(t)
	told := toldOf(d)
	const from = "2001:db8::1"
	net := netip.MustParsePrefix("2001:db8::/56")
	auto := Ban{Tenant: "acme", Address: net, Left: time.Hour, Failures: 40}
	d.gate.ApplyBan(auto)
	if got := d.try("app.acme", from, "right"); got != "53400 too many failed logins" {
		t.Error(got)
	}
	if got := d.gate.Bans("acme"); len(got) != 1 || got[0].Address != net || got[0].Failures != 40 || got[0].Manual {
		t.Errorf("%+v", got)
	}
	over := auto
	over.Left = 0
	d.gate.ApplyBan(over)
	if got := d.try("app.acme", from, "right"); got != "ok" {
		t.Error(got)
	}
	if len(*told) != 0 {
		t.Errorf("what was heard is told again: %q", *told)
	}
	// It holds as well at a tenant that is read only afterwards.
	late := auto
	late.Tenant = "late"
	d.gate.ApplyBan(late)
	acme, _ := d.directory.Tenant("acme")
	now := *acme
	now.ID = "late"
	if err := d.directory.Put(&now); err != nil {
		t.Fatal(err)
	}
	if got := d.gate.Bans("late"); len(got) != 1 {
		t.Errorf("at a tenant that has just been read: %v", got)
	}

	d.gate.ApplyBan(auto)
	d.gate.ApplyBan(Ban{Tenant: "acme", Address: netip.MustParsePrefix("203.0.113.0/24"), Left: time.Hour, Manual: true})
	d.change("acme", func(t *tenants.Tenant) {
		u := *t.Users["app"]
		u.PoolSize = 9
		t.Users = map[string]*tenants.User{"app": &u}
	})
	if got := d.gate.Bans("acme"); len(got) != 2 {
		t.Errorf("after another change: %v", got)
	}
	verifier, _ := scram.NewVerifier("new", scram.DefaultIterations, nil)
	d.change("acme", func(t *tenants.Tenant) {
		u := *t.Users["app"]
		u.Verifier = tenants.NewSecret(verifier.Encode())
		t.Users = map[string]*tenants.User{"app": &u}
	})
	if got := d.try("app.acme", from, "new"); got != "ok" {
		t.Errorf("with a new password: %s", got)
	}
	if got := d.gate.Bans("acme"); len(got) != 1 || !got[0].Manual {
		t.Errorf("left: %v", got)
	}
	if want := []string{"-acme|2001:db8::/56|40|false"}; !slices.Equal(*told, want) {
		t.Errorf("told %q, want %q", *told, want)
	}
}
