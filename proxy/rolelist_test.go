// Tests of asking for roles: what servers may answer, what follows, and what does not.

package proxy

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// TestRolesAreListed: with the first login of all, at once, whomever it names; and learned anew from one that fails.
func TestRolesAreListed(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "first"), roleRow(t, "app", "theirs"), roleRow(t, "asker", rolePassword))
	g := newRoleGate(t, nil, s.tenant("acme"))
	if s.asked.Load() != 0 {
		t.Error("asked before anybody came")
	}
	g.wants(somebody, "late", "first", "")
	g.wants(somebody, "app", "listed", "") // who is listed wins
	g.wants(somebody, "app", "theirs", "28P01")
	g.wants(somebody, "asker", rolePassword, "28P01")
	g.wants(somebody, "late", "first", "")
	asked := s.asked.Load()

	s.lists(roleRow(t, "late", "second"), roleRow(t, "young", "pw"))
	g.wants(somebody, "late", "second", "28P01")
	g.wants(somebody, "late", "second", "")
	g.wants(somebody, "late", "first", "28P01")
	g.wants(somebody, "young", "pw", "")
	if n := s.asked.Load() - asked; n < 1 || n > 4 {
		t.Errorf("asked %d times", n)
	}
	if conf, _ := g.conf("acme"); conf.Users["late"] == nil || conf.Users["young"] == nil || conf.Users["asker"] != nil {
		t.Errorf("in force are %v", conf.Users)
	}
	if said, _ := g.opts.Directory.Tenant("acme"); len(said.Users) != 1 {
		t.Error("the directory's own tenant was changed")
	}
	// Without auth_query there are no roles any more, and with it again none that nobody has listed since.
	plain := *s.tenant("acme")
	plain.AuthQuery = nil
	put(t, g.Gate, &plain)
	g.wants(somebody, "young", "pw", "28P01")
	if g.roles.of("acme") != nil {
		t.Error("there is a book for nothing")
	}
}

// TestFailuresThatMayBeRight: what a new list proves right is not held against anybody, and nothing else is forgiven: neither other
// names nor more than there were.
func TestFailuresThatMayBeRight(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "first"), roleRow(t, "boss", "boss"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.wants(somebody, "late", "first", "")
	s.says(nil) // and nothing more, for now
	g.roles.patience.known = time.Millisecond
	const most = netrestrict.DefaultTenantFailures
	for range most {
		if err := g.login(somebody, "late", "second"); err == nil {
			t.Fatal("it is not known yet")
		}
	}
	g.wants(somebody, "late", "second", "53400")
	// Its owner guesses at others meanwhile, and changes his own password again and again.
	for range most {
		_ = g.login(somebodyElse, "boss", "guess")
	}
	g.wants(somebodyElse, "boss", "guess", "53400")
	s.lists(roleRow(t, "late", "second"), roleRow(t, "boss", "boss"))
	g.dropListing("acme")
	soon(t, "the failures are forgiven", func() bool { return g.login(somebody, "late", "second") == nil })
	g.wants(somebodyElse, "boss", "boss", "53400")

	// A failure that was judged by what is not in force any more does not count at all.
	v := &visitor{gate: g.Gate, route: tenants.Route{Tenant: "acme", User: "late"}, peer: proxyproto.Direct(netip.MustParseAddrPort(somebody + ":1"))}
	conf, _ := g.conf("acme")
	old, err := scram.ParseVerifier(roleRow(t, "late", "first")[1])
	if err != nil {
		t.Fatal(err)
	}
	v.trial = trial{conf, old}
	if g.doubted(v) {
		t.Error("a failure by the verifier of before counts")
	}
	v.trial.verifier, _ = scram.ParseVerifier(roleRow(t, "late", "second")[1])
	if !g.doubted(v) {
		t.Error("one by the present verifier does not count")
	}
}

// TestNobodyIsKnownOfAnOldList: what a server refuses to say for too long counts no more, and a failed login counts as much for a role
// of then as for nobody.
func TestNobodyIsKnownOfAnOldList(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "pw"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.wants(somebody, "late", "pw", "")
	s.says((&pgwire.Error{Severity: "ERROR", Code: "42501", Message: "permission denied"}).Append(nil))
	b := g.roles.of("acme")
	b.mu.Lock()
	b.schedule.End(time.Now().Add(-2*roles.ExpireAfter), roles.Refused)
	b.mu.Unlock()
	for role, from := range map[string]string{"late": somebody, "nobody": somebodyElse} {
		for range netrestrict.DefaultTenantFailures {
			g.wants(from, role, "pw", "28P01")
		}
		g.wants(from, role, "pw", "53400")
	}
}

// TestServersThatDoNotList: whatever a server answers, what was known holds, the log says why, and other tenants notice nothing.
func TestServersThatDoNotList(t *testing.T) {
	row := func(changed ...string) []string { return changed }
	good := roleRow(t, "late", "pw")
	for name, answer := range map[string][]byte{
		"an error":            (&pgwire.Error{Severity: "ERROR", Code: "42883", Message: "function postern.login_roles() does not exist"}).Append(nil),
		"garbage":             []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"too many roles":      roleRows(manyRoles(roles.MaxRoles+1, "NULL")...),
		"endless rows":        roleRows(manyRoles(roles.MaxRoles-1, strings.Repeat("y", roles.MaxBytes/roles.MaxRoles))...),
		"a giant value":       roleRows(row("x", strings.Repeat("y", 1<<17), "NULL", "t", "-1")),
		"wrong types":         roleRows(row("x", good[1], "tomorrow", "t", "-1")),
		"a column too few":    roleRows(good[:4]),
		"no columns":          roleRows(row()),
		"the same role twice": roleRows(good, good),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, other := newRoleServer(t), newRoleServer(t)
			s.lists(good)
			other.lists(good)
			globex := other.tenant("globex")
			g := newRoleGate(t, nil, s.tenant("acme"), globex)
			g.wants(somebody, "late", "pw", "")
			s.says(answer)
			g.wants(somebodyElse, "nobody", "pw", "28P01")
			soon(t, "the log says so", func() bool { return strings.Contains(g.log.String(), "the server's roles are not listed") })
			g.wants(somebody, "late", "pw", "")
			g.wants(somebody, "late.globex", "pw", "")
		})
	}
}

// TestServersThatAreSlow: logins wait for so long and no longer, and who is listed goes on.
func TestServersThatAreSlow(t *testing.T) {
	s := newRoleServer(t)
	g := newRoleGate(t, nil, s.tenant("acme"))
	g.roles.patience.first = 50 * time.Millisecond
	g.wants(somebody, "app", "listed", "")
	g.wants(somebody, "late", "pw", "28P01")
	if got := s.asked.Load(); got != 1 {
		t.Errorf("asked %d times at a time", got)
	}
	s.ln.Close()
	g.dropListing("acme")
	g.wants(somebody, "app", "listed", "")
}

// TestOtherServersRoles: while a tenant is asked, it moves. What the old server says then is not taken.
func TestOtherServersRoles(t *testing.T) {
	s, other := newRoleServer(t), newRoleServer(t)
	other.lists(roleRow(t, "theirs", "pw"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	first := make(chan error, 1)
	go func() { first <- g.login(somebody, "theirs", "pw") }()
	soon(t, "the first server is asked", func() bool { return s.asked.Load() == 1 })
	put(t, g.Gate, other.tenant("acme"))
	if err := <-first; err != nil {
		t.Errorf("who has waited meanwhile: %v", err)
	}
	g.wants(somebody, "theirs", "pw", "")
	other.lists()
	put(t, g.Gate, s.tenant("acme"))
	g.wants(somebody, "theirs", "pw", "") // what is known holds until there is something new
	s.lists()
	g.dropListing("acme")
	soon(t, "the roles of before are gone", func() bool { return g.login(somebodyElse, "theirs", "pw") != nil })
}
