// Tests of restrictions at work: what a header tells rules, which sessions a change ends, and which it would.

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

func TestWhoIs(t *testing.T) {
	client, inside := netip.MustParseAddrPort("10.0.0.7:1"), netip.MustParseAddrPort("[fdaa:0:1::3]:5432")
	for _, c := range []struct {
		peer proxyproto.Peer
		want netrestrict.Who
	}{
		{proxyproto.Direct(client), netrestrict.Who{Address: client.Addr()}},
		{proxyproto.Peer{Client: client, Destination: inside}, netrestrict.Who{Address: client.Addr(), Flycast: inside.Addr()}},
		{proxyproto.Peer{Client: client, AWSEndpoint: "vpce-08d2bf15", AzureLink: 0, AzureLinkSet: true, GCPEndpoint: 1 << 63, GCPEndpointSet: true},
			netrestrict.Who{Address: client.Addr(), Endpoints: []netrestrict.Endpoint{{Provider: netrestrict.AWS, ID: "vpce-08d2bf15"}, {Provider: netrestrict.Azure, ID: "0"},
				{Provider: netrestrict.GCP, ID: "9223372036854775808"}}}},
		{proxyproto.Peer{Client: client, AzureLink: 7, GCPEndpoint: 7}, netrestrict.Who{Address: client.Addr()}}, // neither was said
	} {
		got := whoIs(&c.peer)
		if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%+v: %s", c.peer, d)
		}
	}
}

// crowd is who may be there, one of each kind.
var crowd = map[string]proxyproto.Peer{
	"office":  {Client: netip.MustParseAddrPort("198.51.100.7:1")},
	"mary":    {Client: netip.MustParseAddrPort("203.0.113.7:1")},
	"vpce":    {Client: netip.MustParseAddrPort("10.0.0.7:1"), AWSEndpoint: "vpce-08d2bf15fac5001c9"},
	"flycast": {Client: netip.MustParseAddrPort("[fdaa:9::1]:1"), Destination: netip.MustParseAddrPort("[fdaa:0:1::3]:5432")},
}

// gather has a session of each, greeted.
func (b *bench) gather() (all map[string]net.Conn) {
	b.server()
	all = make(map[string]net.Conn)
	for name, peer := range crowd {
		all[name] = b.greeted(b.arrivesFrom(peer, transactionMode))
	}
	return all
}

// missing is who has no session any more.
func (b *bench) missing() (names []string) {
	there := make(map[netip.AddrPort]bool)
	b.tenant.call(func() {
		for _, c := range b.tenant.clients {
			there[c.peer.Client] = true
		}
	})
	for name, peer := range crowd {
		if !there[peer.Client] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// wantRevoked reads what a session was told at its end.
func wantRevoked(t *testing.T, conn net.Conn) {
	t.Helper()
	if typ, body := readMessage(t, conn); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "57P01" {
		t.Errorf("told %c %q", typ, body)
	}
}

// restrict gives the tenant a list, and returns it.
func (b *bench) restrict(rules ...netrestrict.Rule) *tenants.Tenant {
	b.t.Helper()
	list, err := netrestrict.CompileRules(rules)
	if err != nil {
		b.t.Fatal(err)
	}
	conf := *b.conf()
	conf.Allow = list
	return &conf
}

var (
	office   = netrestrict.Rule{Network: netip.MustParsePrefix("198.51.100.0/24")}
	private  = netrestrict.Rule{Endpoint: netrestrict.Endpoint{Provider: netrestrict.AWS, ID: "vpce-08d2bf15fac5001c9"}}
	internal = netrestrict.Rule{Flycast: netip.MustParseAddr("fdaa:0:1::3")}
)

// TestLockedOut says before a change what it does.
func TestLockedOut(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench) *tenants.Tenant
		ends   []string
	}{
		"nobody's":       {func(b *bench) *tenants.Tenant { return b.restrict() }, []string{"office", "mary", "vpce", "flycast"}},
		"the office's":   {func(b *bench) *tenants.Tenant { return b.restrict(office) }, []string{"mary", "vpce", "flycast"}},
		"the endpoint's": {func(b *bench) *tenants.Tenant { return b.restrict(private) }, []string{"office", "mary", "flycast"}},
		"private ones":   {func(b *bench) *tenants.Tenant { return b.restrict(private, internal) }, []string{"office", "mary"}},
		"everybody's": {func(b *bench) *tenants.Tenant {
			return b.restrict(office, private, internal, netrestrict.Rule{Network: netip.MustParsePrefix("0.0.0.0/0")})
		}, nil},
		"what has expired": {func(b *bench) *tenants.Tenant {
			r := office
			r.Expires = time.Unix(1, 0)
			return b.restrict(r, private)
		}, []string{"office", "mary", "flycast"}},
		"observed": {func(b *bench) *tenants.Tenant {
			x := b.restrict()
			x.Restrictions = tenants.RestrictionsObserve
			return x
		}, nil},
		"another database": {func(b *bench) *tenants.Tenant {
			x := *b.conf()
			x.Databases = []string{"other"}
			return &x
		}, []string{"office", "mary", "vpce", "flycast"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			all := b.gather()
			conf := c.change(b)
			if locked, open, err := b.gate.LockedOut(t.Context(), conf); locked != len(c.ends) || open != len(all) || err != nil {
				t.Errorf("%d of %d, %v; want %d of %d", locked, open, err, len(c.ends), len(all))
			}
			put(t, b.gate, conf)
			slices.Sort(c.ends)
			if got := b.missing(); !slices.Equal(got, c.ends) {
				t.Errorf("ended are %q, want %q", got, c.ends)
			}
			for _, name := range c.ends {
				wantRevoked(t, all[name])
			}
		})
	}
}

// TestLockedOutRoles: sessions of roles that only the server knows are open like all others, and a change that does not concern them ends
// none of them.
func TestLockedOutRoles(t *testing.T) {
	s := newRoleServer(t)
	s.lists(roleRow(t, "late", "pw"))
	g := newRoleGate(t, nil, s.tenant("acme"))
	for _, user := range []string{"late", "app"} {
		password := map[string]string{"late": "pw", "app": "listed"}[user]
		seat, err := g.door.Admit(t.Context(), Caller{Client: netip.MustParseAddrPort("198.51.100.7:1"), Startup: startupOf(t, "user", user+".acme"), Proof: Password(password)})
		if err != nil {
			t.Fatal(err)
		}
		conn, err := seat.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	list := func(network string) *netrestrict.AllowList {
		all, err := netrestrict.Compile([]netip.Prefix{netip.MustParsePrefix(network)})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	nobody := func(conf *tenants.Tenant) { conf.Users = map[string]*tenants.User{} }
	for name, c := range map[string]struct {
		change func(*tenants.Tenant)
		locked int
	}{
		"theirs":              {func(conf *tenants.Tenant) { conf.Allow = list("198.51.100.0/24") }, 0},
		"somebody else's":     {func(conf *tenants.Tenant) { conf.Allow = list("203.0.113.0/24") }, 2},
		"who is listed goes":  {nobody, 1},
		"roles come no more":  {func(conf *tenants.Tenant) { conf.AuthQuery = nil }, 1},
		"only roles come now": {func(conf *tenants.Tenant) { nobody(conf); conf.Allow = list("198.51.100.0/24") }, 1},
	} {
		said, _ := g.opts.Directory.Tenant("acme") // as stores have it
		conf := *said
		c.change(&conf)
		if locked, open, err := g.LockedOut(t.Context(), &conf); locked != c.locked || open != 2 || err != nil {
			t.Errorf("%s: %d of %d, %v; want %d of 2", name, locked, open, err, c.locked)
		}
	}
}

// TestLockedOutOfNothing: nobody is there, nobody answers, nothing is there any more.
func TestLockedOutOfNothing(t *testing.T) {
	b := newBench(t)
	if locked, open, err := b.gate.LockedOut(t.Context(), &tenants.Tenant{ID: "globex"}); locked != 0 || open != 0 || err != nil {
		t.Errorf("a tenant without sessions: %d of %d, %v", locked, open, err)
	}
	held, free := make(chan struct{}), make(chan struct{})
	b.tenant.post(func() { close(held); <-free })
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := b.gate.LockedOut(ctx, b.conf()); !errors.Is(err, context.Canceled) {
		t.Errorf("the loop is busy: %v", err)
	}
	close(free)
	b.gate.Close()
	if _, _, err := b.gate.LockedOut(t.Context(), b.conf()); !errors.Is(err, ErrGateClosed) {
		t.Errorf("the gate is closed: %v", err)
	}
}

// TestExpiryEndsSessions of whom no other rule allows, and nobody else's.
func TestExpiryEndsSessions(t *testing.T) {
	b := newBench(t)
	all := b.gather()
	brief := netrestrict.Rule{Network: netip.MustParsePrefix("203.0.113.0/24"), Expires: time.Now().Add(time.Second)}
	put(t, b.gate, b.restrict(office, private, internal, brief))
	soon(t, "the end of mary's session", func() bool { return slices.Equal(b.missing(), []string{"mary"}) })
	if at := time.Now(); at.Before(brief.Expires) {
		t.Errorf("it ended %v too soon", brief.Expires.Sub(at))
	}
	wantRevoked(t, all["mary"])
	// Who has proved its password meanwhile is judged again.
	conn := b.arrivesFrom(proxyproto.Peer{Client: netip.MustParseAddrPort("203.0.113.8:1")}, transactionMode)
	if typ, body := readMessage(t, conn); typ != pgwire.ErrorResponse || pgwire.ParseError(body).Code != "28000" {
		t.Errorf("told %c %q", typ, body)
	}
}

// visit is what becomes of somebody before the password.
func (b *bench) visit(peer proxyproto.Peer, user string) (tenant string, err error) {
	v := &visitor{gate: b.gate, via: &b.gate.opts.Listeners[0], peer: peer, startup: &pgwire.Startup{User: user}, started: time.Now()}
	conf, err := v.admit()
	if err != nil {
		return "", err
	}
	if conf == nil {
		return "", nil
	}
	return conf.ID, nil
}

// TestObserve lets in, and counts whom it would not have.
func TestObserve(t *testing.T) {
	b := newBench(t)
	conf := b.restrict(office)
	conf.Restrictions = tenants.RestrictionsObserve
	put(t, b.gate, conf)
	for _, name := range []string{"office", "mary", "mary", "flycast"} {
		if id, err := b.visit(crowd[name], "app.acme"); id != "acme" || err != nil {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
	if n := b.gate.denials.of("acme").observed.Load(); n != 3 {
		t.Errorf("%d are observed, want 3", n)
	}
	if n := b.gate.denials.of("acme").refused[reasonAddress].Load(); n != 0 {
		t.Errorf("%d are refused", n)
	}
	enforced := *b.conf() // and now in earnest
	enforced.Restrictions = tenants.RestrictionsEnforce
	put(t, b.gate, &enforced)
	if _, err := b.visit(crowd["mary"], "app.acme"); err == nil || err.Error() != "address_not_allowed" {
		t.Errorf("enforced: %v", err)
	}
}

// TestFlycastNamesATenant to who names none, and no other one.
func TestFlycastNamesATenant(t *testing.T) {
	b := newBench(t)
	conf := *b.conf()
	conf.Flycast = netip.MustParseAddr("fdaa:0:1::3")
	put(t, b.gate, &conf)
	for _, c := range []struct {
		who, user, tenant, err string
	}{
		{"flycast", "app", "acme", ""},
		{"flycast", "app.acme", "acme", ""},
		{"flycast", "app.globex", "", "two_tenants_named"},
		{"office", "app", "", "no_tenant_named"},
		{"office", "app.acme", "acme", ""},
	} {
		id, err := b.visit(crowd[c.who], c.user)
		told := ""
		if err != nil {
			told = err.Error()
		}
		if id != c.tenant || told != c.err {
			t.Errorf("%s as %s: %q, %v; want %q, %q", c.who, c.user, id, err, c.tenant, c.err)
		}
	}
	elsewhere := crowd["flycast"]
	elsewhere.Destination = netip.MustParseAddrPort("[fdaa:0:1::4]:5432")
	b.gate.opts.Directory.SetFilling(true)
	if _, err := b.visit(elsewhere, "app"); err == nil || err.Error() != "tenants_not_read_yet" {
		t.Errorf("not read yet: %v", err)
	}
	b.gate.opts.Directory.SetFilling(false)
	if _, err := b.visit(elsewhere, "app"); err == nil || err.Error() != "no_tenant_named" {
		t.Errorf("nobody's: %v", err)
	}
}
