package postgres

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/document"
	"github.com/postern/postern/test/harness"
)

// drawTenant draws a tenant that is complete, every field of which may be what it is not by default.
func drawTenant(t *rapid.T, id, ca string) *tenants.Tenant {
	x := tenants.New(id)
	number := rapid.IntRange(0, 50)
	length := func(name string) *time.Duration {
		if !rapid.Bool().Draw(t, "has "+name) {
			return nil
		}
		return new(time.Duration(rapid.Int64Range(0, 1e12).Draw(t, name)))
	}
	limits := func() tenants.Timeouts {
		return tenants.Timeouts{Query: length("query"), Transaction: length("transaction"), IdleTransaction: length("idle"), ClientIdle: length("client"),
			QueryWait: length("wait"), ServerIdle: length("server"), ServerLifetime: length("life")}
	}
	x.Database = rapid.SampledFrom([]string{"postgres", "x", "ä \"'\n"}).Draw(t, "database")
	x.Databases = rapid.SampledFrom([][]string{nil, {x.Database}, {"a", x.Database}}).Draw(t, "databases")
	x.RequireTLS, x.ResetAlways = rapid.Bool().Draw(t, "tls"), rapid.Bool().Draw(t, "reset")
	x.Paused, x.Disabled = rapid.Bool().Draw(t, "paused"), rapid.Bool().Draw(t, "disabled")
	x.Timeouts = limits()
	x.ClientAddress = rapid.SampledFrom([]tenants.ClientAddress{tenants.AddressOff, tenants.AddressName, tenants.AddressGUC}).Draw(t, "address")
	for kind := range x.State {
		x.State[kind] = rapid.SampledFrom([]tenants.Policy{tenants.PolicyPin, tenants.PolicyReset, tenants.PolicyAllow}).Draw(t, "policy")
	}
	x.Pool = tenants.Pool{Size: number.Draw(t, "size"), Min: number.Draw(t, "min"), Reserve: number.Draw(t, "reserve"), ReserveAfter: time.Duration(number.Draw(t, "after")) * time.Second,
		MaxClients: number.Draw(t, "clients"), MaxServers: number.Draw(t, "servers"), MaxDatabaseClients: number.Draw(t, "dc"), MaxDatabaseServers: number.Draw(t, "ds"),
		PerNode: rapid.Bool().Draw(t, "per node"), Mode: rapid.SampledFrom([]string{"", "session", "transaction"}).Draw(t, "mode")}
	x.Caps = tenants.Caps{Size: number.Draw(t, "cap"), MaxClients: number.Draw(t, "cap"), MaxServers: number.Draw(t, "cap"), MaxDatabaseClients: number.Draw(t, "cap"), MaxDatabaseServers: number.Draw(t, "cap")}
	x.Upstream = tenants.Upstream{Port: uint16(number.Draw(t, "port")), TLS: rapid.SampledFrom([]tenants.TLSMode{"", tenants.TLSRequire, tenants.TLSVerifyFull}).Draw(t, "mode"), ServerName: "acme"}
	if rapid.Bool().Draw(t, "ca") {
		pool, err := tenants.ParseRoots([]byte(ca))
		if err != nil {
			t.Fatal(err)
		}
		x.Upstream.RootCAs, x.Upstream.RootPEM = pool, ca
	}
	if rapid.Bool().Draw(t, "pair") {
		x.Upstream.ClientCert = ca
	}
	if rapid.Bool().Draw(t, "client ca") {
		x.ClientCAs, x.ClientCAPEM = x.Upstream.RootCAs, x.Upstream.RootPEM
		x.ClientCert = rapid.SampledFrom([]tenants.ClientCert{"", tenants.CertVerifyCA, tenants.CertInstead}).Draw(t, "certificates")
	}
	if rapid.Bool().Draw(t, "machine") {
		x.Machine = &tenants.Machine{Provider: rapid.SampledFrom([]tenants.Provider{tenants.ProviderFly, tenants.ProviderLocal}).Draw(t, "provider"), App: "a", ID: "b", Name: "c",
			SuspendAfter: time.Duration(number.Draw(t, "suspend")) * time.Second, Wake: tenants.WakeOnQuery, Sleep: tenants.SleepStop}
	} else {
		x.Upstream.Host = "db.internal"
	}
	if n := rapid.IntRange(-1, 3).Draw(t, "networks"); n >= 0 {
		all := []netrestrict.Rule{{Network: netip.MustParsePrefix("10.0.0.0/8")}, {Endpoint: netrestrict.Endpoint{Provider: netrestrict.Azure, ID: "7"}}, {Flycast: netip.MustParseAddr("fdaa::3")}}[:n]
		for i := range all {
			all[i].Comment = rapid.SampledFrom([]string{"", "ä \"'"}).Draw(t, "comment")
			if rapid.Bool().Draw(t, "expires") {
				all[i].Expires = time.Unix(rapid.Int64Range(0, 1e10).Draw(t, "until"), rapid.Int64Range(0, 1e9-1).Draw(t, "nanoseconds"))
			}
		}
		var err error
		if x.Allow, err = netrestrict.CompileRules(all); err != nil {
			t.Fatal(err)
		}
	}
	x.ConnectionRate = number.Draw(t, "rate")
	if rapid.Bool().Draw(t, "never ban") {
		x.NeverBan = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	}
	if rapid.Bool().Draw(t, "auth_query") {
		x.AuthQuery = &tenants.AuthQuery{User: "asker", Database: rapid.SampledFrom([]string{"", "other"}).Draw(t, "where")}
	}
	if rapid.Bool().Draw(t, "service") {
		x.Service = &tenants.Service{User: "watcher"}
	}
	if rapid.Bool().Draw(t, "residency") {
		x.Residency.Ingress = []string{"ams", "fra"}
	}
	for _, s := range document.TenantSecrets() {
		if secret := s.Of(x); secret != nil && rapid.Bool().Draw(t, s.Field) {
			*secret = tenants.NewSecret(rapid.StringN(1, 20, 80).Draw(t, "text"))
		}
	}
	x.Restrictions = rapid.SampledFrom([]tenants.Restrictions{tenants.RestrictionsEnforce, tenants.RestrictionsObserve}).Draw(t, "restrictions")
	x.Flycast = rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("fdaa:0:1::3")}).Draw(t, "flycast")
	for i := range rapid.IntRange(0, 3).Draw(t, "users") {
		u := &tenants.User{Name: fmt.Sprint("u", i), PoolSize: number.Draw(t, "size"), MaxClients: number.Draw(t, "clients"), MaxServers: number.Draw(t, "servers"), Timeouts: limits(),
			ServerUser: rapid.SampledFrom([]string{"", "other"}).Draw(t, "as"), ServerAuth: rapid.SampledFrom([]tenants.ServerAuth{"", tenants.AuthMD5}).Draw(t, "auth")}
		for _, s := range document.Secrets() {
			if rapid.Bool().Draw(t, s.Field) {
				*s.Of(u) = tenants.NewSecret(rapid.StringN(1, 20, 80).Draw(t, "text"))
			}
		}
		x.Users[u.Name] = u
	}
	x.Complete()
	return x
}

// TestRowsHoldTenants: what is written down of a tenant makes the same tenant again.
func TestRowsHoldTenants(t *testing.T) {
	ca, _ := harness.SelfSigned(t)
	k := testKeys(t, "k1")
	rapid.Check(t, func(t *rapid.T) {
		want := drawTenant(t, "acme", ca)
		var r document.Reader
		got, err := rowTenant(&r, rowOf(want, 1, k), k)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(want) || got.Upstream.RootPEM != want.Upstream.RootPEM || got.ClientCAPEM != want.ClientCAPEM {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		if steps := difference([]*tenants.Tenant{got}, []*tenants.Tenant{want}, nil, true); len(steps) != 0 {
			t.Fatalf("they differ: %v", steps[0].lines())
		}
	})
}

// TestDocumentsHaveEveryField: a field that is new in a tenant must not be forgotten. drawTenant and the documents are to be
// amended with it.
func TestDocumentsHaveEveryField(t *testing.T) {
	for typ, want := range map[reflect.Type]int{
		reflect.TypeFor[tenants.Tenant](): 26, reflect.TypeFor[tenants.Residency](): 1, reflect.TypeFor[tenants.Upstream](): 8, reflect.TypeFor[tenants.Machine](): 8, reflect.TypeFor[tenants.User](): 10,
		reflect.TypeFor[tenants.Timeouts](): 7, reflect.TypeFor[tenants.AuthQuery](): 3, reflect.TypeFor[tenants.Service](): 2, reflect.TypeFor[tenants.Pool](): 10, reflect.TypeFor[tenants.Caps](): 5,
	} {
		if n := typ.NumField(); n != want {
			t.Errorf("%v has %d fields, the documents know %d: amend package document, drawTenant and this number", typ, n, want)
		}
	}
}

// TestSealsAreBound: what was sealed for one place opens there alone, with that key alone, and as it was alone.
func TestSealsAreBound(t *testing.T) {
	k := testKeys(t, "k1")
	at := userPlace("acme", "app", "password")
	sealed := k.seal(at, []byte("s3cret"))
	if text, err := k.open(at, sealed); err != nil || string(text) != "s3cret" {
		t.Fatalf("%q, %v", text, err)
	}
	if bytes.Contains(sealed, []byte("s3cret")) || bytes.Equal(sealed, k.seal(at, []byte("s3cret"))) {
		t.Error("the seal shows what it hides")
	}
	for _, other := range []place{tenantPlace("acme", "password"), userPlace("acme", "app", "server_password"), userPlace("acme", "ap", "password"), userPlace("acmea", "pp", "password"),
		userPlace("globex", "app", "password"), {table: at.table, row: []string{"acme\x00app"}, field: at.field}, {table: at.table, row: []string{"", "acme", "app"}, field: at.field},
		{table: "users\x00password", row: at.row[1:], field: "acme"}, {table: "tokens", row: at.row, field: at.field}, {table: at.table, row: []string{"acme"}, field: at.field}} {
		if text, err := k.open(other, sealed); err == nil {
			t.Errorf("opens at %v: %q", other, text)
		}
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if text, err := k.open(at, changed); err == nil {
			t.Errorf("opens with byte %d changed: %q", i, text)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Error(err)
		}
		if _, err := k.open(at, sealed[:i]); err == nil {
			t.Errorf("opens when cut to %d bytes", i)
		}
	}
	// Two keys: the first seals, both open.
	both := testKeys(t, "k2", "k1")
	if text, err := both.open(at, sealed); err != nil || string(text) != "s3cret" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := k.open(at, both.seal(at, []byte("x"))); err == nil || !strings.Contains(err.Error(), "no key k2") {
		t.Errorf("a key that is not there: %v", err)
	}
	// The same id, another key.
	if _, err := testKeys(t, "k2").open(at, sealed); err == nil {
		t.Error("another key opens")
	}
}

func TestKeyFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "has no key",
		"# nothing\n\n":                          "has no key",
		"k1\n":                                   "line 1",
		"k1 c2hvcnQ=\n":                          "line 1: the key must be 32 bytes",
		"k 1 " + strings.Repeat("A", 43) + "=\n": "line 1",
		"k1 " + strings.Repeat("A", 43) + "=\nk1 " + strings.Repeat("B", 43) + "=\n": "line 2: the id is there already",
	} {
		if _, err := parseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "AAAA") || strings.Contains(err.Error(), "c2hv") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	path := t.TempDir() + "/store.key"
	for i, want := range []bool{true, false} {
		if made, err := MakeKeyFile(path); made != want || err != nil {
			t.Errorf("call %d: %v, %v", i, made, err)
		}
	}
	if _, err := ReadKeys(path); err != nil {
		t.Error(err)
	}
}
