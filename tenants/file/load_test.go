// Tests of loading: what a good file means.

package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/files"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

var verifierForm = regexp.MustCompile(`^SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`)

func checkVerifier(s string) error {
	if s == "v" || verifierForm.MatchString(s) {
		return nil
	}
	return errors.New("not of the form that Postgres stores")
}

func TestLoadTimeouts(t *testing.T) {
	s, err := loadText(t, `
tenants:
  - id: acme
    upstream: {host: h}
    timeouts: {query: 30s, idle_transaction: 0s, query_wait: 1s, server_idle: 0s}
    users: [{name: app, verifier: v, timeouts: {transaction: 1m, client_idle: 1h, server_lifetime: 2h}}]
`)
	if err != nil {
		t.Fatal(err)
	}
	acme, _ := s.Tenant("acme")
	if d := cmp.Diff(tenants.Timeouts{Query: new(30 * time.Second), IdleTransaction: new(time.Duration), QueryWait: new(time.Second), ServerIdle: new(time.Duration)}, acme.Timeouts); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(tenants.Timeouts{Transaction: new(time.Minute), ClientIdle: new(time.Hour), ServerLifetime: new(2 * time.Hour)}, acme.Users["app"].Timeouts); d != "" {
		t.Error(d)
	}
}

func TestLoadEverything(t *testing.T) {
	s, err := loadText(t, `
tenants:
  - id: acme
    upstream: {host: db.acme.test, port: 5433, tls: verify-full, ca: ca.pem, server_name: acme, client_cert: ca.pem, client_key: ca.key}
    client_ca: ca.pem
    client_cert: verify-ca
    database: app
    databases: [app, reports]
    users:
      - {name: App, verifier: v, pool_size: 7, max_clients: 8, max_servers: 9}
      - {name: web, password_file: web.pw, upstream: {user: web_rw, password_file: rw.pw, auth: md5}}
      - {name: clear, password_file: web.pw, upstream: {auth: password}}
    allow_list: [203.0.113.0/24, 198.51.100.7]
    never_ban: [192.0.2.0/24, 198.51.100.7]
    connection_rate: 30
    require_tls: true
    pool: {size: 3, min: 0, max_clients: 4, max_servers: 5, mode: session, reserve: 2, reserve_after: 1.5s, max_database_clients: 6, max_database_servers: 7, per_node: true}
    service: {user: watcher, password_file: web.pw}
    residency: {ingress: [ams, fra]}
    caps: {size: 13, max_clients: 14, max_servers: 15, max_database_clients: 16, max_database_servers: 17}
    client_address: off
    state: {}
    server_reset_always: false
    regions: {}
  - id: globex-2_b
    upstream: {host: "::1"}
    allow_list: []
  - {id: initech, upstream: {host: 10.0.0.1, tls: require}, users: []}
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tenants) != 3 || !s.LoadedAt.Equal(when) || !s.AnyAllowList() {
		t.Errorf("Len %d, LoadedAt %v, AnyAllowList %v", len(s.Tenants), s.LoadedAt, s.AnyAllowList())
	}
	var ids []string
	for _, tenant := range s.Tenants {
		ids = append(ids, tenant.ID)
	}
	if d := cmp.Diff([]string{"acme", "globex-2_b", "initech"}, ids); d != "" {
		t.Error(d)
	}

	a, ok := s.Tenant("acme")
	if !ok {
		t.Fatal("acme is missing")
	}
	if a.Upstream.Host != "db.acme.test" || a.Upstream.Port != 5433 || a.Upstream.TLS != tenants.TLSVerifyFull ||
		a.Upstream.ServerName != "acme" || a.Upstream.RootCAs == nil {
		t.Errorf("upstream = %+v", a.Upstream)
	}
	if _, err := a.Upstream.KeyPair(); err != nil || a.ClientCAPEM == "" || !a.ClientCAs.Equal(a.Upstream.RootCAs) || a.ClientCert != tenants.CertVerifyCA {
		t.Errorf("certificates: %v, %v", a, err)
	}
	if a.Database != "app" || !a.AllowsDatabase("reports") || a.AllowsDatabase("postgres") || !a.RequireTLS || a.ConnectionRate != 30 {
		t.Errorf("tenant = %+v", a)
	}
	if d := cmp.Diff(tenants.Pool{Size: 3, MaxClients: 4, MaxServers: 5, Mode: "session", Reserve: 2, ReserveAfter: 1500 * time.Millisecond,
		MaxDatabaseClients: 6, MaxDatabaseServers: 7, PerNode: true}, a.Pool); d != "" {
		t.Error(d)
	}
	if r := a.Residency; !r.ServedIn("fra") || r.ServedIn("syd") || r.ServedIn("") || !(tenants.Residency{}).ServedIn("") {
		t.Errorf("residency = %+v", r)
	}
	if a.Service == nil || *a.Service != (tenants.Service{User: "watcher", Password: tenants.NewSecret("pw of web")}) {
		t.Errorf("service = %+v", a.Service)
	}
	if d := cmp.Diff(tenants.Caps{Size: 13, MaxClients: 14, MaxServers: 15, MaxDatabaseClients: 16, MaxDatabaseServers: 17}, a.Caps); d != "" {
		t.Error(d)
	}
	if a.Refuses(when, from("198.51.100.7")) || !a.Refuses(when, from("198.51.100.8")) {
		t.Error("the allow list is wrong")
	}
	if !a.NeverBans(netip.MustParsePrefix("192.0.2.0/25")) || !a.NeverBans(netip.MustParsePrefix("198.51.100.7/32")) || a.NeverBans(netip.MustParsePrefix("192.0.0.0/16")) {
		t.Errorf("never_ban is %v", a.NeverBan)
	}
	if _, ok := a.User("app"); ok {
		t.Error("user names are not case-sensitive")
	}
	want := map[string]*tenants.User{
		"App":   {Name: "App", Verifier: tenants.NewSecret("v"), PoolSize: 7, MaxClients: 8, MaxServers: 9, ServerUser: "App", ServerAuth: tenants.AuthSCRAM},
		"web":   {Name: "web", Password: tenants.NewSecret("pw of web"), ServerUser: "web_rw", ServerPassword: tenants.NewSecret("pw of rw"), ServerAuth: tenants.AuthMD5},
		"clear": {Name: "clear", Password: tenants.NewSecret("pw of web"), ServerUser: "clear", ServerAuth: tenants.AuthPassword},
	}
	if d := cmp.Diff(want, a.Users, cmp.Transformer("reveal", tenants.Secret.Reveal)); d != "" {
		t.Error(d)
	}

	g, _ := s.Tenant("globex-2_b")
	if g.Upstream.Port != 5432 || g.Upstream.TLS != tenants.TLSVerifyFull || g.Upstream.RootCAs != nil || g.Database != "postgres" || !g.AllowsDatabase("any") {
		t.Errorf("defaults = %+v", g)
	}
	if d := cmp.Diff(tenants.Pool{Size: 20, MaxClients: 1000, MaxServers: 60, ReserveAfter: 5 * time.Second}, g.Pool); d != "" {
		t.Error(d)
	}
	if g.Allow == nil || !g.Refuses(when, from("127.0.0.1")) {
		t.Error("an empty list allows somebody")
	}
	if i, _ := s.Tenant("initech"); i.Allow != nil {
		t.Error("an absent list is there")
	}
	if _, ok := s.Tenant("ACME"); ok {
		t.Error("ids are not case-sensitive")
	}
	var files []string
	for _, f := range s.Files() {
		files = append(files, filepath.Base(f))
	}
	if d := cmp.Diff([]string{"tenants.yaml", "ca.pem", "ca.key", "web.pw", "rw.pw"}, files); d != "" {
		t.Error(d)
	}
}

// TestLoadRules: every way to write a rule.
func TestLoadRules(t *testing.T) {
	s, err := loadText(t, `
tenants:
  - id: acme
    upstream: {host: h}
    flycast: "fdaa:0:1::3"
    restrictions_mode: observe
    allow_list:
      - 203.0.113.0/24
      - {cidr: 198.51.100.7, comment: "Mary, at home", expires: 2027-01-31T18:00:00+01:00}
      - {cidr: "2001:db8::/32", expires: "2027-01-31T18:00:00Z"}
      - {endpoint: {provider: aws, id: vpce-08d2bf15fac5001c9}}
      - {endpoint: {provider: azure, id: "201327"}, comment: west}
      - {endpoint: {provider: gcp, id: "9223372036854775808"}}
      - {flycast: "fdaa:0:1::3"}
`)
	if err != nil {
		t.Fatal(err)
	}
	six := time.Date(2027, 1, 31, 18, 0, 0, 0, time.UTC)
	want, err := netrestrict.CompileRules([]netrestrict.Rule{
		{Network: netip.MustParsePrefix("203.0.113.0/24")},
		{Network: netip.MustParsePrefix("198.51.100.7/32"), Comment: "Mary, at home", Expires: six.Add(-time.Hour)},
		{Network: netip.MustParsePrefix("2001:db8::/32"), Expires: six},
		{Endpoint: netrestrict.Endpoint{Provider: netrestrict.AWS, ID: "vpce-08d2bf15fac5001c9"}},
		{Endpoint: netrestrict.Endpoint{Provider: netrestrict.Azure, ID: "201327"}, Comment: "west"},
		{Endpoint: netrestrict.Endpoint{Provider: netrestrict.GCP, ID: "9223372036854775808"}},
		{Flycast: netip.MustParseAddr("fdaa:0:1::3")},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := s.Tenants[0]
	if !a.Allow.Equal(want) || a.Restrictions != tenants.RestrictionsObserve || a.Flycast != netip.MustParseAddr("fdaa:0:1::3") {
		t.Errorf("%+v, %v, %v", a.Allow.Rules(), a.Restrictions, a.Flycast)
	}
	if a.Refuses(when, from("192.0.2.1")) {
		t.Error("who is only observed is refused")
	}
}

func from(address string) netrestrict.Who {
	return netrestrict.Who{Address: netip.MustParseAddr(address)}
}

func TestExampleLoads(t *testing.T) {
	s, err := Load(Options{Path: "../../configs/tenants.example.yaml", CheckVerifier: checkVerifier})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Tenants) == 0 || time.Since(s.LoadedAt) > time.Minute {
		t.Errorf("Len %d, LoadedAt %v", len(s.Tenants), s.LoadedAt)
	}
	// The example of the process configuration has what they need.
	if d := cmp.Diff(map[string]string{"fly.token_file": "initech"}, s.Providers()); d != "" {
		t.Error(d)
	}
}

// TestExampleCommentedMachineLoads takes the comment signs off the tenant that lives on this computer.
func TestExampleCommentedMachineLoads(t *testing.T) {
	text, err := os.ReadFile("../../configs/tenants.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	before, entry, found := strings.Cut(string(text), "  # - id: hooli\n")
	if !found {
		t.Fatal("the example has no tenant hooli")
	}
	s, err := loadText(t, before+"  - id: hooli\n"+strings.ReplaceAll("\n"+entry, "\n  # ", "\n  "))
	if err != nil {
		t.Fatal(err)
	}
	if h, ok := s.Tenant("hooli"); !ok || h.Machine == nil || h.Machine.Key() != "local/hooli" || len(h.Users) != 1 {
		t.Errorf("got %+v", h)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	s, err := loadText(t, `tenants: [{id: a, upstream: {host: h, tls: disable}, users: [
		{name: u, verifier: v}, {name: web, password_file: web.pw, upstream: {password_file: rw.pw}}]}]`)
	if err != nil {
		t.Fatal(err)
	}
	tenant, _ := s.Tenant("a")
	user, _ := tenant.User("web")
	hidden := struct{ user tenants.User }{*user} // fmt asks no methods in here
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, it := range []any{s, *s, tenant, *tenant, user, *user, user.Password, []tenants.Secret{user.Password}, hidden} {
			fmt.Fprintf(&out, verb+"\n", it)
		}
	}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("x", "snapshot", s, "tenant", tenant, "user", user, "value", *user, "secret", user.Password)
	}
	j, err := json.Marshal(user)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	for _, secret := range []string{"pw of", fmt.Sprintf("%x", "pw of"), fmt.Sprintf("%X", "pw of")} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is printed:\n%s", secret, out.String())
		}
	}
	if !strings.Contains(out.String(), "[redacted]") || user.Password.Reveal() != "pw of web" || user.ServerPassword.Reveal() != "pw of rw" {
		t.Error("the secrets are not where this test looks")
	}
}

func TestUpstreamSame(t *testing.T) {
	dir := t.TempDir()
	ca, _ := harness.SelfSigned(t)
	other, _ := harness.SelfSigned(t)
	pool := func(name, content string) tenants.Upstream {
		l := &loader{read: files.Read, dir: dir}
		write(t, dir, name, content)
		root, _ := parseYAML([]byte("host: h\nca: "+name), &l.found)
		var u tenants.Upstream
		l.upstream(root, &u)
		if err := l.found.err(); err != nil {
			t.Fatal(err)
		}
		return u
	}
	a, b, c := pool("a.pem", ca), pool("b.pem", ca), pool("c.pem", other)
	if !a.Same(b) {
		t.Error("a renamed CA file is a change")
	}
	if a.Same(c) || a.Same(tenants.Upstream{Host: "h", Port: 5432, TLS: tenants.TLSVerifyFull}) {
		t.Error("another CA is no change")
	}
	for _, change := range []func(*tenants.Upstream){
		func(u *tenants.Upstream) { u.Host = "i" }, func(u *tenants.Upstream) { u.Port = 1 },
		func(u *tenants.Upstream) { u.TLS = tenants.TLSRequire }, func(u *tenants.Upstream) { u.ServerName = "s" },
	} {
		changed := a
		change(&changed)
		if a.Same(changed) {
			t.Errorf("%+v is the same", changed)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("tenants: [{id: a, upstream: {host: h, tls: disable}, users: [{name: u, verifier: v}], allow_list: [10.0.0.0/8]}]"))
	f.Add([]byte("tenants:\n- &x {id: a}\n- *x\n- <<: *x\n"))
	f.Add([]byte("tenants: [{id: a, upstream: {host: h, ca: f}, users: [{name: u, password_file: f, upstream: {auth: password}}]}]"))
	f.Add([]byte("tenants: [{id: a, machine: {provider: fly, app: b, id: c, server_name: d}}, {id: e, machine: {provider: local, name: f, suspend_after: 0s}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &loader{read: func(string, int) ([]byte, error) { return []byte("secret\n"), nil }}
		s, err := l.load(data, when)
		if err != nil {
			if s != nil || err.Error() == "" {
				t.Fatalf("snapshot %v with error %q", s, err)
			}
			return
		}
		keys := map[string]bool{}
		for _, tenant := range s.Tenants {
			if m := tenant.Machine; m != nil {
				checkAccepted(t, m, tenant.Upstream)
				if keys[m.Key()] {
					t.Fatalf("%s twice", m.Key())
				}
				keys[m.Key()] = true
			} else if tenant.Upstream.Host == "" || tenant.Upstream.Port == 0 {
				t.Fatalf("accepted: %+v", tenant.Upstream)
			}
			got, ok := s.Tenant(tenant.ID)
			if !ok || got != tenant || !tenants.ValidID(tenant.ID) || tenant.Upstream.TLS == "" ||
				tenant.Database == "" || !tenant.AllowsDatabase(tenant.Database) || tenant.Pool.Size < 1 || tenant.Pool.MaxClients < 1 || tenant.Pool.MaxServers < 1 ||
				tenant.Pool.ReserveAfter <= 0 {
				t.Fatalf("accepted: %+v", tenant)
			}
			for name, u := range tenant.Users {
				if name == "" || u.Name != name || u.ServerUser == "" || u.Verifier.IsZero() == u.Password.IsZero() || u.ServerAuth == "" ||
					u.ServerAuth == tenants.AuthPassword && tenant.Upstream.TLS != tenants.TLSVerifyFull {
					t.Fatalf("accepted: %+v", u)
				}
			}
		}
	})
}
