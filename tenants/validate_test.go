// Tests of the rules: each has a row with what breaks it and where.

package tenants

import (
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
)

// good is a tenant with an upstream, and fly and local ones with machines.
func good(id string) *Tenant {
	t := New(id)
	t.Upstream.Host = "h"
	t.Users["app"] = &User{Name: "app", Verifier: NewSecret("v")}
	t.Users["web"] = &User{Name: "web", Password: NewSecret("p")}
	t.Complete()
	return t
}

func fly(id string) *Tenant {
	t := good(id)
	t.Upstream, t.Machine = Upstream{ServerName: "s"}, &Machine{Provider: ProviderFly, App: "app", ID: id}
	t.Complete()
	return t
}

func local(id string) *Tenant {
	t := good(id)
	t.Upstream, t.Machine = Upstream{}, &Machine{Provider: ProviderLocal, Name: id}
	t.Complete()
	return t
}

func checkVerifier(s string) error {
	if s != "v" {
		return errors.New("not of the form")
	}
	return nil
}

var long = strings.Repeat("x", 2049)

// rules has every rule: a change of a good tenant, and what is then said.
var rules = []struct {
	of     func(string) *Tenant
	change func(*Tenant)
	want   string
}{
	{good, func(t *Tenant) { t.ID = "" }, "id: id is missing"},
	{good, func(t *Tenant) { t.ID = "Acme" }, `id: "Acme" is no tenant id: it must match ` + IDPattern},
	{good, func(t *Tenant) { t.Upstream = Upstream{} }, "upstream: upstream or machine is missing"},
	{good, func(t *Tenant) { t.Machine = local("l").Machine }, "machine: a tenant has either an upstream or a machine, not both"},
	{good, func(t *Tenant) { t.Upstream.Host = "" }, "upstream.host: host is missing"},
	{good, func(t *Tenant) { t.Upstream.Host = "h:5432" }, "upstream.host: must be a host name or an IP address, without brackets and without a port"},
	{good, func(t *Tenant) { t.Upstream.Port = 0 }, "upstream.port: must be between 1 and 65535"},
	{good, func(t *Tenant) { t.Upstream.TLS = "prefer" }, "upstream.tls: must be one of disable, require, verify-full"},
	{good, func(t *Tenant) { t.Upstream.TLS, t.Upstream.RootCAs = TLSRequire, x509.NewCertPool() }, "upstream.ca: is obeyed with tls: verify-full only"},
	{good, func(t *Tenant) { t.Upstream.TLS, t.Upstream.ServerName = TLSDisable, "s" }, "upstream.server_name: means nothing with tls: disable"},
	{good, func(t *Tenant) { t.Upstream.TLS, t.Upstream.ClientKey = TLSDisable, NewSecret("k") }, "upstream.client_key: means nothing with tls: disable"},
	{good, func(t *Tenant) { t.Upstream.ServerName = "a\x00" }, "upstream.server_name: must not contain a NUL character"},

	{fly, func(t *Tenant) { t.Machine.Provider = "" }, "machine.provider: provider is missing"},
	{fly, func(t *Tenant) { t.Machine.Provider = "aws" }, "machine.provider: must be one of fly, local"},
	{fly, func(t *Tenant) { t.Machine.App = "" }, "machine.app: app is missing: a fly machine needs it"},
	{fly, func(t *Tenant) { t.Machine.App = "-a" }, `machine.app: "-a" is not the name of a Fly app: it must match ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`},
	{fly, func(t *Tenant) { t.Machine.ID = "" }, "machine.id: id is missing: a fly machine needs it"},
	{fly, func(t *Tenant) { t.Machine.ID = "../b" }, `machine.id: "../b" is not the id of a Fly machine: it must match ^[a-z0-9]{1,63}$`},
	{fly, func(t *Tenant) { t.Machine.Name = "n" }, "machine.name: means nothing to a fly machine"},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("fm2_a b") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret(" fm2_a") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("fm2_a\n") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("fm2_a\x00") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("fm2_ä") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("Basic fm2_a") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("FlyV1") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret("Bearer ") }, notToken},
	{fly, func(t *Tenant) { t.Machine.Token = NewSecret(strings.Repeat("x", 16<<10+1)) }, "machine.token: must not be longer than 16384 bytes"},
	{local, func(t *Tenant) { t.Machine.Token = NewSecret("fm2_a") }, "machine.token: means nothing to a local machine"},
	{fly, func(t *Tenant) { t.Upstream.Port = 0 }, "machine.port: must be between 1 and 65535"},
	{fly, func(t *Tenant) { t.Upstream.ServerName = "" }, "machine.server_name: server_name is missing: verify-full needs it, since the machine is reached by an address"},
	{fly, func(t *Tenant) { t.Upstream.TLS = TLSDisable }, "machine.server_name: means nothing with tls: disable"},
	{fly, func(t *Tenant) { t.Upstream.TLS, t.Upstream.RootCAs = TLSRequire, x509.NewCertPool() }, "machine.ca: is obeyed with tls: verify-full only"},
	{fly, func(t *Tenant) { t.Machine.SuspendAfter = time.Millisecond }, "machine.suspend_after: must be at least 1s, or 0s for never"},
	{fly, func(t *Tenant) { t.Machine.SuspendAfter = -time.Hour }, "machine.suspend_after: must be at least 1s, or 0s for never"},
	{fly, func(t *Tenant) { t.Machine.Wake = "never" }, "machine.wake: must be one of connect, query"},
	{fly, func(t *Tenant) { t.Machine.Sleep = "kill" }, "machine.sleep: must be one of suspend, stop"},
	{local, func(t *Tenant) { t.Machine.Name = "" }, "machine.name: name is missing: a local machine needs it"},
	{local, func(t *Tenant) { t.Machine.Name = "../etc" }, `machine.name: "../etc" is not the name of a machine: it must match ` + IDPattern},
	{local, func(t *Tenant) { t.Machine.App = "a" }, "machine.app: means nothing to a local machine"},
	{local, func(t *Tenant) { t.Machine.ID = "a" }, "machine.id: means nothing to a local machine"},
	{local, func(t *Tenant) { t.Upstream.Port = 5432 }, "machine.port: means nothing to a local machine"},
	{local, func(t *Tenant) { t.Upstream.TLS = TLSRequire }, "machine.tls: must be disable: a local machine has no TLS"},

	{good, func(t *Tenant) { t.Database = "" }, "database: must not be empty"},
	{good, func(t *Tenant) { t.Database = "a\x00b" }, "database: must not contain a NUL character"},
	{good, func(t *Tenant) { t.Databases = []string{"app"} }, `database: the default database "postgres" is not among databases`},
	{good, func(t *Tenant) { t.Databases = []string{"postgres", ""} }, "databases[1]: must not be empty"},
	{good, func(t *Tenant) { t.Databases = []string{"postgres", "\x00"} }, "databases[1]: must not contain a NUL character"},
	{good, func(t *Tenant) { t.Databases = []string{"postgres", "a", "postgres"} }, `databases[2]: "postgres" is there already`},

	{good, func(t *Tenant) { t.Users["web"] = nil }, `users["web"]: is not filed under its own name`},
	{good, func(t *Tenant) { t.Users["web"].Name = "app" }, `users["web"]: is not filed under its own name`},
	{good, func(t *Tenant) { t.Users["web"].Name = "" }, `users["web"].name: name is missing`},
	{good, func(t *Tenant) {
		t.Users["a\x00"] = &User{Name: "a\x00", Password: NewSecret("p"), ServerUser: "a", ServerAuth: AuthSCRAM}
	}, `users["a\x00"].name: must not contain a NUL character`},
	{good, func(t *Tenant) { t.Users["web"].Password = Secret{} }, `users["web"]: needs exactly one of verifier and password`},
	{good, func(t *Tenant) { t.Users["web"].Verifier = NewSecret("v") }, `users["web"]: needs exactly one of verifier and password`},
	{good, func(t *Tenant) { t.Users["app"].Verifier = NewSecret("hunter2") }, `users["app"].verifier: is not a verifier: not of the form`},
	{good, func(t *Tenant) { t.Users["web"].Password = NewSecret("p\x00") }, `users["web"].password: must not contain a NUL character`},
	{good, func(t *Tenant) { t.Users["web"].PoolSize = -1 }, `users["web"].pool_size: must be between 1 and 1000000`},
	{good, func(t *Tenant) { t.Users["web"].PoolSize = MaxCount + 1 }, `users["web"].pool_size: must be between 1 and 1000000`},
	{good, func(t *Tenant) { t.Users["web"].MaxClients = -1 }, `users["web"].max_clients: must be between 0 and 1000000`},
	{good, func(t *Tenant) { t.Users["web"].MaxServers = MaxCount + 1 }, `users["web"].max_servers: must be between 0 and 1000000`},
	{good, func(t *Tenant) { t.Users["web"].Timeouts.Query = new(-time.Second) }, `users["web"].timeouts.query: must not be negative`},
	{good, func(t *Tenant) { t.Users["web"].ServerUser = "" }, `users["web"].upstream.user: must not be empty`},
	{good, func(t *Tenant) { t.Users["web"].ServerUser = "\x00" }, `users["web"].upstream.user: must not contain a NUL character`},
	{good, func(t *Tenant) { t.Users["web"].ServerPassword = NewSecret("\x00") }, `users["web"].upstream.password: must not contain a NUL character`},
	{good, func(t *Tenant) { t.Users["web"].ServerAuth = "trust" }, `users["web"].upstream.auth: must be one of scram, md5, password, cert`},
	{good, func(t *Tenant) { t.Users["app"].ServerAuth = AuthMD5 }, `users["app"].upstream.auth: needs a password for the server, which a verifier is not: add upstream.password`},
	{local, func(t *Tenant) { t.Users["web"].ServerAuth = AuthPassword }, `users["web"].upstream.auth: sends the password in clear text, which needs a server with tls: verify-full`},

	{good, func(t *Tenant) { t.ClientCert = CertVerifyCA }, "client_cert: means nothing without client_ca"},
	{good, func(t *Tenant) { t.ClientCAs = x509.NewCertPool() }, "client_cert: must be one of verify-ca, verify-full, instead"},
	{good, func(t *Tenant) { t.ClientCAs, t.ClientCert = x509.NewCertPool(), CertInstead }, `users["app"].upstream.password: upstream.password is missing: with client_cert: instead there is no client's password to log in to the server with`},
	{good, func(t *Tenant) {
		t.ClientCAs, t.ClientCert = x509.NewCertPool(), CertInstead
		t.Users["app"].Password = NewSecret("p")
	}, `users["app"]: needs exactly one of verifier and password`},
	{good, func(t *Tenant) {
		t.ClientCAs, t.ClientCert, t.AuthQuery = x509.NewCertPool(), CertInstead, &AuthQuery{User: "a", Password: NewSecret("x")}
		t.Users["app"].ServerPassword = NewSecret("p")
	}, "auth_query: means nothing with client_cert: instead: who proves no password brings nothing to log in to the server with"},
	{good, func(t *Tenant) { t.Service = &Service{Password: NewSecret("x")} }, "service.user: user is missing"},
	{good, func(t *Tenant) { t.Service = &Service{User: "a"} }, "service.password: password is missing: Postern logs in with it to count connections"},
	{good, func(t *Tenant) { t.Service = &Service{User: "a\x00", Password: NewSecret("x")} }, "service.user: must not contain a NUL character"},
	{good, func(t *Tenant) { t.Service = &Service{User: "a", Password: NewSecret("\x00")} }, "service.password: must not contain a NUL character"},
	{good, func(t *Tenant) { t.Residency.Ingress = []string{"ams", "a b"} }, "residency.ingress[1]: must be a region: letters, digits and any of . : _ -, 64 at most"},
	{good, func(t *Tenant) { t.Residency.Ingress = []string{""} }, "residency.ingress[0]: must be a region: letters, digits and any of . : _ -, 64 at most"},
	{good, func(t *Tenant) { t.Residency.Ingress = slices.Repeat([]string{"ams"}, maxRegions+1) }, "residency.ingress: has more than 100 regions"},
	{good, func(t *Tenant) { t.Upstream.ClientKey = keyPEM }, "upstream.client_cert: client_cert is missing: client_key needs it"},
	{fly, func(t *Tenant) { t.Upstream.ClientCert = certPEM }, "machine.client_key: client_key is missing: client_cert needs it"},
	{good, func(t *Tenant) { t.Upstream.ClientCert, t.Upstream.ClientKey = certPEM, NewSecret("hunter2") }, "upstream.client_key: is not the key of client_cert, in PEM and without a password"},
	{fly, func(t *Tenant) {
		t.Upstream.TLS, t.Upstream.ServerName, t.Upstream.ClientCert, t.Upstream.ClientKey = TLSDisable, "", certPEM, keyPEM
	}, "machine.client_cert: means nothing with tls: disable"},
	{good, func(t *Tenant) { t.Users["web"].ServerAuth = AuthCert }, `users["web"].upstream.auth: needs a server with tls: verify-full, and a client_cert to show to it`},
	{good, func(t *Tenant) {
		t.Upstream.ClientCert, t.Upstream.ClientKey = certPEM, keyPEM
		t.Users["web"].ServerAuth, t.Users["web"].ServerPassword = AuthCert, NewSecret("p")
	}, `users["web"].upstream.password: means nothing with auth: cert`},

	{good, func(t *Tenant) { t.Pool.Size = 0 }, "pool.size: must be between 1 and 1000000"},
	{good, func(t *Tenant) { t.Pool.MaxClients = 0 }, "pool.max_clients: must be between 1 and 1000000"},
	{good, func(t *Tenant) { t.Pool.MaxServers = MaxCount + 1 }, "pool.max_servers: must be between 1 and 1000000"},
	{good, func(t *Tenant) { t.ConnectionRate = -1 }, "connection_rate: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Allow = manyRules(MaxRules + 1) }, "allow_list: has more than 20000 rules"},
	{good, func(t *Tenant) { t.Users["a\xff"] = new(*t.Users["web"]); t.Users["a\xff"].Name = "a\xff" }, `users["a\xff"].name: is not UTF-8`},
	{good, func(t *Tenant) {
		long := strings.Repeat("x", 1001)
		t.Users[long] = new(*t.Users["web"])
		t.Users[long].Name = long
	}, UserPath(strings.Repeat("x", 1001)) + ".name: has more than 1000 bytes"},
	{good, func(t *Tenant) { t.Users["web"].Password = NewSecret(long) }, `users["web"].password: must not be longer than 2048 bytes`},
	{good, func(t *Tenant) { t.Users["web"].ServerPassword = NewSecret(long) }, `users["web"].upstream.password: must not be longer than 2048 bytes`},
	{good, func(t *Tenant) { t.Users["app"].Verifier = NewSecret(long) }, `users["app"].verifier: must not be longer than 2048 bytes`},
	{good, func(t *Tenant) { t.AuthQuery = &AuthQuery{User: "a", Password: NewSecret(long)} }, "auth_query.password: must not be longer than 2048 bytes"},
	{good, func(t *Tenant) {
		t.Upstream.ClientCert, t.Upstream.ClientKey = "c", NewSecret(strings.Repeat("x", 64<<10+1))
	}, "upstream.client_key: must not be longer than 65536 bytes"},
	{good, func(t *Tenant) { t.ClientCAPEM = "\x00" }, "client_ca: must not contain a NUL character"},
	{good, func(t *Tenant) { t.Upstream.RootPEM = "\x00" }, "upstream.ca: must not contain a NUL character"},
	{good, func(t *Tenant) { t.NeverBan = make([]netip.Prefix, 101) }, "never_ban: has more than 100 networks"},
	{good, func(t *Tenant) { t.Pool.Mode = "fast" }, `pool.mode: must be one of "", session, transaction, statement`},
	{good, func(t *Tenant) { t.Pool.Min = -1 }, "pool.min: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Pool.Reserve = -1 }, "pool.reserve: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Pool.ReserveAfter = 0 }, "pool.reserve_after: must be more than 0s; without a reserve, leave reserve out"},
	{good, func(t *Tenant) { t.Pool.MaxDatabaseClients = -1 }, "pool.max_database_clients: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Pool.MaxDatabaseServers = math.MaxInt }, "pool.max_database_servers: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Caps.Size = -1 }, "caps.size: must be between 0 and 1000000"},
	{good, func(t *Tenant) { t.Caps.Size = t.Pool.Size - 1 }, "pool.size: must be between 1 and 19, which is what caps.size says"},
	{good, func(t *Tenant) { t.Caps.MaxClients = 3 }, "pool.max_clients: must be between 1 and 3, which is what caps.max_clients says"},
	{good, func(t *Tenant) { t.Caps.MaxServers = 3 }, "pool.max_servers: must be between 1 and 3, which is what caps.max_servers says"},
	{good, func(t *Tenant) { t.Caps.MaxDatabaseClients = 3 }, "pool.max_database_clients: must be between 1 and 3, which is what caps.max_database_clients says"},
	{good, func(t *Tenant) { t.Caps.MaxDatabaseServers, t.Pool.MaxDatabaseServers = 3, 4 }, "pool.max_database_servers: must be between 1 and 3, which is what caps.max_database_servers says"},
	{good, func(t *Tenant) { t.Timeouts.QueryWait = new(time.Duration) }, "timeouts.query_wait: must be more than 0s: every wait has a bound"},
	{good, func(t *Tenant) { t.Timeouts.ServerIdle = new(-time.Second) }, "timeouts.server_idle: must not be negative"},
	{good, func(t *Tenant) { t.Restrictions = "" }, "restrictions_mode: must be one of enforce, observe"},
	{good, func(t *Tenant) { t.Flycast = netip.MustParseAddr("2001:db8::1") }, "flycast: must be an address of Flycast's, which begin with fdaa:"},
	{good, func(t *Tenant) { t.AuthQuery = &AuthQuery{Password: NewSecret("x")} }, "auth_query.user: user is missing"},
	{good, func(t *Tenant) { t.AuthQuery = &AuthQuery{User: "a"} }, "auth_query.password: password is missing: Postern logs in with it to ask for the roles"},
	{good, func(t *Tenant) { t.AuthQuery = &AuthQuery{User: "a", Password: NewSecret("x"), Database: "\x00"} }, "auth_query.database: must not contain a NUL character"},
	{good, func(t *Tenant) { t.ClientAddress = "" }, "client_address: must be one of off, application_name, guc"},
	{good, func(t *Tenant) { t.State[StateSet] = "drop" }, "state.set: must be one of track, pin, reset, refuse, allow"},
	{good, func(t *Tenant) { delete(t.State, StateSeed) }, "state.seed: must be one of track, pin, reset, refuse, allow"},
	{good, func(t *Tenant) { t.State[StateTemp] = PolicyTrack }, "state.temp: cannot be tracked: only parameters can be set again on another server"},
	{good, func(t *Tenant) { t.State["tmp"] = PolicyPin }, `state: there is no kind of session state called "tmp"`},
}

const notToken = "machine.token: is no token: it must be one word, with FlyV1 or Bearer and a space before it or without"

func TestTokensOfMachines(t *testing.T) {
	for _, text := range []string{"x", "fo1_abc", "fm2_a=,fm2_b/+", "FlyV1 fm2_a,fm2_b", "Bearer fo1_a", strings.Repeat("x", 16<<10)} {
		of := fly("a")
		of.Machine.Token = NewSecret(text)
		if problems := Validate(of, nil); len(problems) > 0 {
			t.Errorf("%.20q: %v", text, problems)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, of := range []func(string) *Tenant{good, fly, local} {
		if problems := Validate(of("a"), checkVerifier); len(problems) > 0 {
			t.Errorf("a good one: %v", problems)
		}
	}
	for _, rule := range rules {
		tenant := rule.of("a")
		rule.change(tenant)
		var got []string
		for _, p := range Validate(tenant, checkVerifier) {
			got = append(got, p.Error())
		}
		if d := cmp.Diff([]string{rule.want}, got); d != "" {
			t.Error(d)
		}
	}
	capped := good("a")
	capped.Caps = Caps{}.Over(capped.Pool)
	if problems := Validate(capped, checkVerifier); len(problems) > 0 || capped.Caps != (Caps{DefaultPoolSize, DefaultMaxClients, DefaultMaxServers, MaxCount, MaxCount}) {
		t.Errorf("one at its caps, %v: %v", capped.Caps, problems)
	}
	if problems := Validate(&Tenant{}, nil); len(problems) < 5 { // and no panic
		t.Errorf("one that says nothing: %v", problems)
	}
}

// TestValidateSaysAll: rules do not hide each other, and what is said does not depend on the order of a map.
func TestValidateSaysAll(t *testing.T) {
	tenant := good("Acme")
	tenant.Upstream.Host, tenant.Database, tenant.Pool.Size = "", "", 0
	tenant.Users["app"].PoolSize, tenant.Users["web"].PoolSize = -1, -1
	want := []string{"id", "upstream.host", "database", `users["app"].pool_size`, `users["web"].pool_size`, "pool.size"}
	for range 20 {
		var paths []string
		for _, p := range Validate(tenant, nil) {
			paths = append(paths, p.Path)
		}
		if d := cmp.Diff(want, paths); d != "" {
			t.Fatal(d)
		}
	}
}

// TestValidateRepeatsNoSecret, whatever is wrong with it.
func TestValidateRepeatsNoSecret(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := func(name string) Secret {
			return NewSecret(rapid.SampledFrom([]string{"", "hunter2", "hunter2\x00", "\nhunter2"}).Draw(r, name))
		}
		u := &User{Name: "u", Verifier: text("verifier"), Password: text("password"), ServerPassword: text("server"),
			ServerAuth: rapid.SampledFrom([]ServerAuth{"", AuthMD5, AuthPassword}).Draw(r, "auth")}
		tenant := good("a")
		tenant.Users["u"] = u
		for _, p := range Validate(tenant, checkVerifier) {
			if strings.Contains(p.Error(), "hunter") {
				r.Fatal(p)
			}
		}
	})
}

// TestRulesAreOfEveryField: a field that no row breaks has no rule, and is in this list.
func TestRulesAreOfEveryField(t *testing.T) {
	free := []string{"Tenant.Allow", "Tenant.RequireTLS", "Tenant.ResetAlways", "Pool.PerNode", "Tenant.Paused", "Tenant.Disabled", "Upstream.RootPEM", "Tenant.ClientCAPEM"} // an AllowList is good from the start
	broken := map[string]bool{}
	for _, rule := range rules {
		before, after := rule.of("a"), rule.of("a")
		rule.change(after)
		note(broken, reflect.ValueOf(*before), reflect.ValueOf(*after))
	}
	for _, of := range []any{Tenant{}, Upstream{}, Machine{}, Pool{}, User{}} {
		typ := reflect.TypeOf(of)
		for i := range typ.NumField() {
			name := typ.Name() + "." + typ.Field(i).Name
			if !broken[name] && !slices.Contains(free, name) {
				t.Errorf("no row of rules breaks %s", name)
			}
		}
	}
}

// note collects the fields that differ.
func note(into map[string]bool, a, b reflect.Value) {
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		if reflect.DeepEqual(x.Interface(), y.Interface()) {
			continue
		}
		into[a.Type().Name()+"."+a.Type().Field(i).Name] = true
		switch x.Interface().(type) {
		case Upstream, Pool:
			note(into, x, y)
		case *Machine:
			if !x.IsNil() {
				note(into, x.Elem(), y.Elem())
			}
		case map[string]*User:
			for _, key := range x.MapKeys() {
				if now := y.MapIndex(key); now.IsValid() && !now.IsNil() {
					note(into, x.MapIndex(key).Elem(), now.Elem())
				}
			}
		}
	}
}

func TestConflicts(t *testing.T) {
	unnamed := local("x")
	unnamed.Machine.Name = ""
	other := local("y")
	other.Machine.Name = "b"
	f, g := good("f"), good("g")
	f.Flycast = netip.MustParseAddr("fdaa::3")
	g.Flycast = f.Flycast
	got := Conflicts([]*Tenant{good("a"), local("b"), unnamed, unnamed, other, good("a"), {}, {}, f, g})
	want := []Conflict{{3, 2, &ConflictError{ID: "x", Other: "x"}}, {4, 1, &ConflictError{ID: "y", Other: "b", Machine: "local/b"}}, {5, 0, &ConflictError{ID: "a", Other: "a"}},
		{9, 8, &ConflictError{ID: "g", Other: "f", Flycast: f.Flycast}}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if s := fmt.Sprint(got[1].Err, "; ", got[2].Err, "; ", got[3].Err); s != `tenant "y": machine local/b is tenant "b"'s already; tenant "a" is there twice; tenant "g": flycast address fdaa::3 is tenant "f"'s already` {
		t.Error(s)
	}
}

// TestEqual: two that say the same are equal, and no field is forgotten.
func TestEqual(t *testing.T) {
	list := func(s string) *netrestrict.AllowList {
		p, err := netrestrict.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		a, err := netrestrict.Compile(nil)
		if s != "" {
			a, err = netrestrict.Compile(append(a.Prefixes(), p))
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	roots, err := ParseRoots([]byte(certPEM))
	if err != nil {
		t.Fatal(err)
	}
	full := func() *Tenant {
		x := fly("a")
		x.Allow, x.Databases, x.Timeouts.Query = list("10.0.0.0/8"), []string{"postgres"}, new(time.Second)
		x.Flycast = netip.MustParseAddr("fdaa::3")
		x.Users["web"].Timeouts.Query = new(time.Second)
		x.NeverBan, x.Caps, x.ConnectionRate = x.Allow.Prefixes(), Caps{Size: 99}, 7
		x.ClientCAs, x.ClientCAPEM, x.ClientCert = roots, certPEM, CertVerifyCA
		x.AuthQuery = &AuthQuery{User: "a", Password: NewSecret("p"), Database: "d"}
		x.Service = &Service{User: "a", Password: NewSecret("p")}
		x.Residency = Residency{Ingress: []string{"ams"}}
		return x
	}
	if !full().Equal(full()) {
		t.Error("it is not equal to itself")
	}
	check := func(what string, change func(*Tenant)) {
		x := full()
		change(x)
		if x.Equal(full()) || full().Equal(x) {
			t.Errorf("another %s is no change", what)
		}
	}
	for _, rule := range rules {
		if reflect.ValueOf(rule.of).Pointer() == reflect.ValueOf(fly).Pointer() {
			check(rule.want, rule.change)
		}
	}
	check("Allow", func(x *Tenant) { x.Allow = list("10.0.0.0/9") })
	check("Token of a machine", func(x *Tenant) {
		m := *x.Machine
		m.Token, x.Machine = NewSecret("t"), &m
	})
	check("no Allow", func(x *Tenant) { x.Allow = nil })
	check("Timeouts", func(x *Tenant) { *x.Timeouts.Query = time.Minute })
	check("Timeouts of a user", func(x *Tenant) { *x.Users["web"].Timeouts.Query = time.Minute })
	check("Password", func(x *Tenant) { x.Users["web"].Password = NewSecret("q") })
	check("user", func(x *Tenant) { delete(x.Users, "web") })
	check("Policy", func(x *Tenant) { x.State[StateSet] = PolicyPin })
	check("Databases", func(x *Tenant) { x.Databases = nil })
	for i := range reflect.TypeFor[AuthQuery]().NumField() {
		check("AuthQuery", func(x *Tenant) {
			q := *x.AuthQuery
			reflect.ValueOf(&q).Elem().Field(i).SetZero()
			x.AuthQuery = &q
		})
	}
	check("NeverBan", func(x *Tenant) { x.NeverBan = list("10.0.0.0/9").Prefixes() })
	check("ClientCAs", func(x *Tenant) { x.ClientCAs = x509.NewCertPool() })
	check("ClientKey", func(x *Tenant) { x.Upstream.ClientKey = keyPEM })
	check("ClientCert of the upstream", func(x *Tenant) { x.Upstream.ClientCert = certPEM })
	fields := reflect.TypeFor[Tenant]()
	for i := range fields.NumField() { // every plain one, present and future
		if fields.Field(i).Name == "ClientCAPEM" { // which decides nothing
			continue
		}
		check(fields.Field(i).Name, func(x *Tenant) { reflect.ValueOf(x).Elem().Field(i).SetZero(); flip(x, i) })
	}
}

// flip sets a field to something else than its zero value, where that is what it had.
func flip(x *Tenant, i int) {
	if f := reflect.ValueOf(x).Elem().Field(i); f.Kind() == reflect.Bool {
		f.SetBool(true)
	}
}

// TestCompleteLeavesItToValidate to say what is wrong with a user that is not there.
func TestCompleteLeavesItToValidate(t *testing.T) {
	tenant := New("acme")
	tenant.Users = map[string]*User{"app": nil}
	tenant.Complete()
	for _, p := range Validate(tenant, nil) {
		if strings.HasPrefix(p.Path, `users["app"]`) {
			return
		}
	}
	t.Error("nothing is said of the user")
}

// manyRules is a list of n addresses.
func manyRules(n int) *netrestrict.AllowList {
	var rules []netrestrict.Rule
	for i := range n {
		rules = append(rules, netrestrict.Rule{Network: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)})
	}
	list, err := netrestrict.CompileRules(rules)
	if err != nil {
		panic(err)
	}
	return list
}
