// Tests of the key machine: what a good one means, what each bad one is told, and when two are the same.

package file

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postern/postern/tenants"
)

func TestLoadMachines(t *testing.T) {
	s, err := loadText(t, `
tenants:
  - id: plain
    upstream: {host: h}
  - id: short
    machine: {provider: fly, app: acme-db, id: 9080e6f1, server_name: acme}
    users: [{name: u, password_file: web.pw, upstream: {auth: password}}]
  - id: long
    machine: {server_name: acme, ca: ca.pem, tls: verify-full, port: 5433, sleep: stop, wake: query, suspend_after: 1m30s, id: "9080", app: "1", provider: fly}
  - {id: clear, machine: {provider: fly, app: acme-db, id: a, tls: disable, suspend_after: 0s}}
  - {id: required, machine: {provider: fly, app: acme-db, id: b, tls: require, suspend_after: 1s, sleep: suspend}}
  - {id: own, machine: {provider: fly, app: own, id: c, tls: disable, token_file: fly.token}}
  - {id: here, machine: {provider: local, name: acme}}
  - {id: frozen, machine: {provider: local, name: 1_b-c, tls: disable, suspend_after: 10s, wake: connect, sleep: suspend}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   string
		want *tenants.Machine
		up   tenants.Upstream // RootCAs apart
		key  string
	}{
		{"plain", nil, tenants.Upstream{Host: "h", Port: 5432, TLS: tenants.TLSVerifyFull}, ""},
		{"short", &tenants.Machine{Provider: tenants.ProviderFly, App: "acme-db", ID: "9080e6f1", Name: "", SuspendAfter: 5 * time.Minute, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepSuspend},
			tenants.Upstream{Port: 5432, TLS: tenants.TLSVerifyFull, ServerName: "acme"}, "fly/acme-db/9080e6f1"},
		{"long", &tenants.Machine{Provider: tenants.ProviderFly, App: "1", ID: "9080", Name: "", SuspendAfter: 90 * time.Second, Wake: tenants.WakeOnQuery, Sleep: tenants.SleepStop},
			tenants.Upstream{Port: 5433, TLS: tenants.TLSVerifyFull, ServerName: "acme"}, "fly/1/9080"},
		{"clear", &tenants.Machine{Provider: tenants.ProviderFly, App: "acme-db", ID: "a", Name: "", SuspendAfter: 0, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepSuspend}, tenants.Upstream{Port: 5432, TLS: tenants.TLSDisable}, "fly/acme-db/a"},
		{"required", &tenants.Machine{Provider: tenants.ProviderFly, App: "acme-db", ID: "b", Name: "", SuspendAfter: time.Second, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepSuspend}, tenants.Upstream{Port: 5432, TLS: tenants.TLSRequire}, "fly/acme-db/b"},
		{"own", &tenants.Machine{Provider: tenants.ProviderFly, App: "own", ID: "c", SuspendAfter: 5 * time.Minute, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepSuspend,
			Token: tenants.NewSecret("FlyV1 fm2_a,fm2_b")}, tenants.Upstream{Port: 5432, TLS: tenants.TLSDisable}, "fly/own/c"},
		{"here", &tenants.Machine{Provider: tenants.ProviderLocal, App: "", ID: "", Name: "acme", SuspendAfter: 5 * time.Minute, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepStop}, tenants.Upstream{TLS: tenants.TLSDisable}, "local/acme"},
		{"frozen", &tenants.Machine{Provider: tenants.ProviderLocal, App: "", ID: "", Name: "1_b-c", SuspendAfter: 10 * time.Second, Wake: tenants.WakeOnConnect, Sleep: tenants.SleepSuspend}, tenants.Upstream{TLS: tenants.TLSDisable}, "local/1_b-c"},
	} {
		got, _ := s.Tenant(c.id)
		if d := cmp.Diff(c.want, got.Machine, cmp.Transformer("reveal", tenants.Secret.Reveal)); d != "" {
			t.Errorf("%s: %s", c.id, d)
		}
		up := got.Upstream
		if (up.RootCAs != nil) != (c.id == "long") {
			t.Errorf("%s: certificates of its own: %v", c.id, up.RootCAs != nil)
		}
		if (up.RootPEM != "") != (up.RootCAs != nil) {
			t.Errorf("%s: the text of the certificates is not kept", c.id)
		}
		up.RootCAs, up.RootPEM = nil, ""
		if d := cmp.Diff(c.up, up, cmp.Transformer("reveal", tenants.Secret.Reveal)); d != "" {
			t.Errorf("%s: %s", c.id, d)
		}
		if c.want != nil && got.Machine.Key() != c.key {
			t.Errorf("%s: key %q, want %q", c.id, got.Machine.Key(), c.key)
		}
	}
	if d := cmp.Diff(map[string]string{"fly.token_file": "short", "fly": "own", "local": "here"}, s.Providers()); d != "" {
		t.Error(d)
	}
}

func TestProvidersOfNoMachines(t *testing.T) {
	if p := newSnapshot(when, []*tenants.Tenant{{ID: "a"}}).Providers(); len(p) != 0 {
		t.Errorf("got %v", p)
	}
}

func TestMachineProblems(t *testing.T) {
	const (
		at    = "tenants[0].machine"
		app   = " is not the name of a Fly app: it must match ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
		id    = " is not the id of a Fly machine: it must match ^[a-z0-9]{1,63}$"
		name  = " is not the name of a machine: it must match " + tenants.IDPattern
		clear = "tenants[0].users[0].upstream.auth: sends the password in clear text, which needs a server with tls: verify-full"
		unit  = ".suspend_after: needs a unit, such as 30s or 5m"
		after = ".suspend_after: must be at least 1s, or 0s for never"
	)
	long := strings.Repeat("a", 64)
	fly := func(more string) string {
		return "machine: {provider: fly, app: a, id: b, server_name: c, " + more + "}"
	}
	local := func(more string) string { return "machine: {provider: local, name: n, " + more + "}" }
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"machine: ", []string{at + ": must be a mapping of keys to values, not null"}},
		{"machine: fly", []string{at + ": must be a mapping of keys to values, not text"}},
		{"machine: {}", []string{at + ": provider is missing"}},
		{"machine: {app: a, name: n, port: 1, tls: require}", []string{at + ": provider is missing"}},
		{"machine: {provider: aws}", []string{at + ".provider: must be one of fly, local"}},
		{"machine: {provider: fly, provider: local, name: n}", []string{at + ".provider: the key is there twice",
			at + ": app is missing: a fly machine needs it", at + ": id is missing: a fly machine needs it",
			at + ".name: means nothing to a fly machine",
			at + ": server_name is missing: verify-full needs it, since the machine is reached by an address"}},
		{fly("host: h"), []string{at + ".host: unknown key"}},
		{fly("suspend: 5m"), []string{at + ".suspend: unknown key"}},
		{"upstream: {host: h}, " + fly(""), []string{at + ": a tenant has either an upstream or a machine, not both"}},

		{"machine: {provider: fly, tls: disable}", []string{at + ": app is missing: a fly machine needs it", at + ": id is missing: a fly machine needs it"}},
		{"machine: {provider: fly, app: Acme, id: ../b, tls: disable}", []string{at + `.app: "Acme"` + app, at + `.id: "../b"` + id}},
		{"machine: {provider: fly, app: -a, id: B, tls: disable}", []string{at + `.app: "-a"` + app, at + `.id: "B"` + id}},
		{"machine: {provider: fly, app: a_b, id: a-b, tls: disable}", []string{at + `.app: "a_b"` + app, at + `.id: "a-b"` + id}},
		{"machine: {provider: fly, app: a-, id: '', tls: disable}", []string{at + `.app: "a-"` + app, at + `.id: must not be empty`}},
		{"machine: {provider: fly, app: " + long + ", id: " + long + ", tls: disable}", []string{at + `.app: "` + long + `"` + app, at + `.id: "` + long + `"` + id}},
		{"machine: {provider: fly, app: 7, id: 9080e6, tls: disable}", []string{
			at + ".app: must be text, not a number (put it in quotes if you mean its digits)",
			at + ".id: must be text, not a number (put it in quotes if you mean its digits)"}},
		{fly("name: n"), []string{at + ".name: means nothing to a fly machine"}},
		{fly("port: 0"), []string{at + ".port: must be between 1 and 65535"}},
		{fly("tls: prefer"), []string{at + ".tls: must be one of disable, require, verify-full"}},
		{fly("tls: disable"), []string{at + ".server_name: means nothing with tls: disable"}},
		{fly("tls: require, ca: ca.pem"), []string{at + ".ca: is obeyed with tls: verify-full only"}},
		{fly("ca: missing.pem"), []string{at + ".ca: open DIR/missing.pem: no such file or directory"}},
		{"machine: {provider: fly, app: a, id: b}", []string{at + ": server_name is missing: verify-full needs it, since the machine is reached by an address"}},
		{"machine: {provider: fly, app: a, id: b, tls: verify-full, ca: ca.pem}", []string{at + ": server_name is missing: verify-full needs it, since the machine is reached by an address"}},
		{"machine: {provider: fly, app: a, id: b, server_name: ''}", []string{at + ".server_name: must not be empty"}},

		{fly("token: t"), []string{at + ".token: unknown key"}},
		{fly("token_file: missing"), []string{at + ".token_file: open DIR/missing: no such file or directory"}},
		{fly("token_file: blank.pw"), []string{at + ".token_file: DIR/blank.pw: is empty"}},
		{fly("token_file: two-lines.pw"), []string{at + ".token_file: is no token: it must be one word, with FlyV1 or Bearer and a space before it or without"}},
		{local("token_file: fly.token"), []string{at + ".token_file: means nothing to a local machine"}},
		{"machine: {provider: local}", []string{at + ": name is missing: a local machine needs it"}},
		{"machine: {provider: local, name: ../etc}", []string{at + `.name: "../etc"` + name}},
		{"machine: {provider: local, name: .}", []string{at + `.name: "."` + name}},
		{"machine: {provider: local, name: Acme}", []string{at + `.name: "Acme"` + name}},
		{"machine: {provider: local, name: 7}", []string{at + ".name: must be text, not a number (put it in quotes if you mean its digits)"}},
		{local("app: a, id: b, port: 5432"), []string{at + ".app: means nothing to a local machine",
			at + ".id: means nothing to a local machine", at + ".port: means nothing to a local machine"}},
		{local("tls: require"), []string{at + ".tls: must be disable: a local machine has no TLS"}},
		{local("tls: verify-full, ca: ca.pem, server_name: s"), []string{at + ".tls: must be disable: a local machine has no TLS"}},
		{local("tls: prefer"), []string{at + ".tls: must be one of disable, require, verify-full"}},
		{local("ca: ca.pem, server_name: s"), []string{at + ".ca: is obeyed with tls: verify-full only", at + ".server_name: means nothing with tls: disable"}},

		{local("suspend_after: 300"), []string{at + unit}},
		{local("suspend_after: 0"), []string{at + unit}},
		{local("suspend_after: '0'"), []string{at + unit}},
		{local("suspend_after: 1.5"), []string{at + unit}},
		{local("suspend_after: 5 minutes"), []string{at + ".suspend_after: must be a duration with its unit, such as 30s or 5m"}},
		{local("suspend_after: never"), []string{at + ".suspend_after: must be a duration with its unit, such as 30s or 5m"}},
		{local("suspend_after: "), []string{at + ".suspend_after: must be text, not null"}},
		{local("suspend_after: 999ms"), []string{at + after}},
		{local("suspend_after: -5m"), []string{at + after}},
		{local("wake: never"), []string{at + ".wake: must be one of connect, query"}},
		{local("wake: "), []string{at + ".wake: must be text, not null"}},
		{local("sleep: kill"), []string{at + ".sleep: must be one of suspend, stop"}},

		{local("") + ", users: [{name: u, password_file: web.pw, upstream: {auth: password}}]", []string{clear}},
		{"users: [{name: u, password_file: web.pw, upstream: {auth: password}}], " + fly("tls: require"), []string{clear}},
		{fly("") + ", auth_query: {user: x}", []string{"tenants[0].auth_query: password is missing: Postern logs in with it to ask for the roles"}},

		{"=tenants:\n- {id: a, machine: {provider: local, name: n}}\n- {id: b, machine: {provider: local, name: m}}\n- id: c\n  machine:\n    {provider: local, name: n, sleep: suspend}",
			[]string{"tenants[2].machine: machine local/n is another tenant's already, in line 2 (line 6)"}},
		{"=tenants:\n- {id: a, machine: {provider: fly, app: x, id: y, server_name: s}}\n- {id: b, machine: {provider: fly, app: x, id: y, tls: disable, port: 1}}",
			[]string{"tenants[1].machine: machine fly/x/y is another tenant's already, in line 2 (line 3)"}},
		{"=tenants:\n- {id: a, machine: {provider: fly, tls: disable}}\n- {id: b, machine: {provider: fly, tls: disable}}", []string{
			"tenants[0].machine: app is missing: a fly machine needs it (line 2)", "tenants[0].machine: id is missing: a fly machine needs it (line 2)",
			"tenants[1].machine: app is missing: a fly machine needs it (line 3)", "tenants[1].machine: id is missing: a fly machine needs it (line 3)"}},
	} {
		checkProblems(t, c.in, c.want)
	}
}

// checkAccepted is for machines that were loaded from any bytes.
func checkAccepted(t *testing.T, m *tenants.Machine, u tenants.Upstream) {
	t.Helper()
	isFly := m.Provider == tenants.ProviderFly && regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`).MatchString(m.App) && regexp.MustCompile(`^[a-z0-9]{1,63}$`).MatchString(m.ID) && m.Name == "" && u.Port != 0
	isLocal := m.Provider == tenants.ProviderLocal && tenants.ValidID(m.Name) && m.App == "" && m.ID == "" && u.Port == 0 && u.TLS == tenants.TLSDisable
	if isFly == isLocal || u.Host != "" || u.TLS == tenants.TLSVerifyFull && u.ServerName == "" ||
		m.SuspendAfter != 0 && m.SuspendAfter < time.Second || m.Wake == "" || m.Sleep == "" {
		t.Fatalf("accepted: %+v, %+v", m, u)
	}
}
