// Tests of loading: what a good file means, and what each bad one is told.

package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
    pool: {size: 3, min: 0, max_clients: 4, max_servers: 5, mode: session, reserve: 2, reserve_after: 1.5s, max_database_clients: 6, max_database_servers: 7}
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
		MaxDatabaseClients: 6, MaxDatabaseServers: 7}, a.Pool); d != "" {
		t.Error(d)
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

// TestProblems has a tenant's keys, or a whole file, and all that must be said about it.
func TestProblems(t *testing.T) {
	const up = "upstream: {host: h, tls: disable}, "
	for _, c := range []struct {
		in   string // keys of one tenant with the id a; or, if it begins with =, the file
		want []string
	}{
		{"=", []string{"the file is empty"}},
		{"=# nothing", []string{"the file is empty"}},
		{"=tenants:", []string{"tenants: must be a list, not null (line 1)"}},
		{"={}", []string{"the key tenants is missing; write tenants: [] for none (line 1)"}},
		{"=[]", []string{"must be a mapping of keys to values, not a list (line 1)"}},
		{"=tenants: []\n---\ntenants: []", []string{"the file must hold one YAML document, and nothing after it (line 1)"}},
		{"=tenants: []\ntenant: []", []string{"tenant: unknown key (line 2)"}},
		{"=tenants: []\ntenants: []", []string{"tenants: the key is there twice (line 2)"}},
		{"=tenants: [", []string{"yaml: line 1: did not find expected node content"}},
		{"=tenants: [1, null]", []string{
			"tenants[0]: must be a mapping of keys to values, not a number (put it in quotes if you mean its digits) (line 1)",
			"tenants[1]: must be a mapping of keys to values, not null (line 1)",
		}},
		{"=tenants: [{}]", []string{"tenants[0]: id is missing (line 1)", "tenants[0]: upstream or machine is missing (line 1)"}},
		{"=tenants:\n- {id: a, upstream: {host: h}}\n- {id: b, upstream: {host: h}}\n- {id: a, upstream: {host: h}}",
			[]string{`tenants[2]: tenant "a" is there already, in line 2 (line 4)`}},
		{"=tenants:\n- &x {id: a, upstream: {host: h}}\n- *x", []string{
			"tenants[1]: must be a mapping of keys to values, not an alias (those are not supported) (line 3)"}},
		{"=tenants: [{id: Acme, upstream: {host: h}}]", []string{
			`tenants[0].id: "Acme" is no tenant id: it must match ^[a-z0-9][a-z0-9_-]{0,62}$ (line 1)`}},
		{"=tenants: [{id: 7, upstream: {host: h}}]", []string{"tenants[0].id: must be text, not a number (put it in quotes if you mean its digits) (line 1)"}},

		{up + "allowlist: []", []string{"tenants[0].allowlist: unknown key"}},
		{up + `"SCRAM-SHA-256$4096:secret":`, []string{"tenants[0]: has a key that is not a plain word"}},
		{up + "<<: {require_tls: true}", []string{"tenants[0]: has a key that is not a plain word"}},
		{up + "require_tls: yes", []string{"tenants[0].require_tls: must be true or false, not text"}},
		{up + "database: 5", []string{"tenants[0].database: must be text, not a number (put it in quotes if you mean its digits)"}},
		{up + "database: ''", []string{"tenants[0].database: must not be empty"}},
		{up + `database: "a\0b"`, []string{"tenants[0].database: must not contain a NUL character"}},
		{up + "databases: [app]", []string{`tenants[0]: the default database "postgres" is not among databases`}},
		{up + "database: x, databases: [app]", []string{`tenants[0].database: the default database "x" is not among databases`}},
		{up + "databases: [postgres, postgres, null]", []string{
			`tenants[0].databases[1]: "postgres" is there already`, "tenants[0].databases[2]: must be text, not null"}},
		{up + "databases: ", []string{"tenants[0].databases: must be a list, not null"}},

		{"upstream: {}", []string{"tenants[0].upstream: host is missing"}},
		{"upstream: {host: '10.0.0.1:5432'}", []string{"tenants[0].upstream.host: must be a host name or an IP address, without brackets and without a port"}},
		{"upstream: {host: '[::1]'}", []string{"tenants[0].upstream.host: must be a host name or an IP address, without brackets and without a port"}},
		{"upstream: {host: h, port: 0}", []string{"tenants[0].upstream.port: must be between 1 and 65535"}},
		{"upstream: {host: h, port: 65536}", []string{"tenants[0].upstream.port: must be between 1 and 65535"}},
		{"upstream: {host: h, port: '5432'}", []string{"tenants[0].upstream.port: must be a whole number, not text"}},
		{"upstream: {host: h, port: 0x10}", []string{"tenants[0].upstream.port: must be a whole number in plain decimal digits"}},
		{"upstream: {host: h, port: 99999999999999999999}", []string{"tenants[0].upstream.port: must be a whole number in plain decimal digits"}},
		{"upstream: {host: h, tls: prefer}", []string{"tenants[0].upstream.tls: must be one of disable, require, verify-full"}},
		{"upstream: {host: h, tls: require, ca: ca.pem}", []string{"tenants[0].upstream.ca: is obeyed with tls: verify-full only"}},
		{"upstream: {host: h, tls: disable, server_name: x}", []string{"tenants[0].upstream.server_name: means nothing with tls: disable"}},
		{"upstream: {host: h, ca: missing.pem}", []string{"tenants[0].upstream.ca: open DIR/missing.pem: no such file or directory"}},
		{"upstream: {host: h, ca: bad.pem}", []string{"tenants[0].upstream.ca: DIR/bad.pem: certificate 1: x509: malformed certificate"}},
		{"upstream: {host: h, ca: key.pem}", []string{`tenants[0].upstream.ca: DIR/key.pem: holds a "PRIVATE KEY" besides certificates`}},
		{"upstream: {host: h, ca: web.pw}", []string{"tenants[0].upstream.ca: DIR/web.pw: holds no PEM certificate"}},

		{up + "users: [{}]", []string{"tenants[0].users[0]: name is missing", "tenants[0].users[0]: needs exactly one of verifier and password_file"}},
		{up + "users: [{name: u, verifier: v, password_file: web.pw}]", []string{"tenants[0].users[0]: needs exactly one of verifier and password_file"}},
		{up + "users: [{name: u, verifier: v}, {name: U, verifier: v}, {name: u, verifier: v}]", []string{`tenants[0].users[2]: user "u" is there already, in line 2`}},
		{up + "users: [{name: u, verifier: hunter2}]", []string{"tenants[0].users[0].verifier: is not a verifier: not of the form that Postgres stores"}},
		{up + "users: [{name: u, verifier: ''}]", []string{"tenants[0].users[0].verifier: must not be empty"}},
		{up + "users: [{name: u, verifier: }]", []string{"tenants[0].users[0].verifier: must be text, not null"}},
		{up + "users: [{name: '', verifier: v}]", []string{"tenants[0].users[0].name: must not be empty"}},
		{up + "users: [{name: u, password: secret}]", []string{"tenants[0].users[0].password: unknown key", "tenants[0].users[0]: needs exactly one of verifier and password_file"}},
		{up + "users: [{name: u, password_file: missing}]", []string{"tenants[0].users[0].password_file: open DIR/missing: no such file or directory"}},
		{up + "users: [{name: u, password_file: .}]", []string{"tenants[0].users[0].password_file: DIR is not a regular file"}},
		{up + "users: [{name: u, password_file: blank.pw}]", []string{"tenants[0].users[0].password_file: the password file is empty"}},
		{up + "users: [{name: u, password_file: two-lines.pw}]", []string{"tenants[0].users[0].password_file: the password file must hold one line of text and nothing else"}},
		{"upstream: {host: h, client_cert: bad.pem, client_key: ca.key}", []string{"tenants[0].upstream.client_cert: DIR/bad.pem: certificate 1: x509: malformed certificate"}},
		{"upstream: {host: h, client_cert: key.pem, client_key: ca.key}", []string{`tenants[0].upstream.client_cert: DIR/key.pem: holds a "PRIVATE KEY" besides certificates`}},
		{"upstream: {host: h, client_cert: ca.pem, client_key: missing}", []string{"tenants[0].upstream.client_key: open DIR/missing: no such file or directory"}},
		{"upstream: {host: h, client_cert: ca.pem, client_key: key.pem}", []string{"tenants[0].upstream.client_key: is not the key of client_cert, in PEM and without a password"}},
		{"upstream: {host: h, client_cert: ca.pem}", []string{"tenants[0].upstream: client_key is missing: client_cert needs it"}},
		{up + "client_ca: missing, client_cert: verify-ca", []string{"tenants[0].client_ca: open DIR/missing: no such file or directory"}},
		{up + "client_cert: verify-ca", []string{"tenants[0].client_cert: means nothing without client_ca"}},
		{up + "client_ca: ca.pem, client_cert: instead, users: [{name: u}]", []string{"tenants[0].users[0]: upstream.password_file is missing: with client_cert: instead there is no client's password to log in to the server with"}},
		{up + "users: [{name: u, verifier: v, pool_size: 0}]", []string{"tenants[0].users[0].pool_size: must be between 1 and 1000000"}},
		{up + "users: [{name: u, verifier: v, upstream: {auth: trust}}]", []string{"tenants[0].users[0].upstream.auth: must be one of scram, md5, password, cert"}},
		{up + "users: [{name: u, verifier: v, upstream: {auth: md5}}]", []string{"tenants[0].users[0].upstream.auth: needs a password for the server, which a verifier is not: add upstream.password_file"}},
		{up + "users: [{name: u, password_file: web.pw, upstream: {auth: password}}]", []string{"tenants[0].users[0].upstream.auth: sends the password in clear text, which needs a server with tls: verify-full"}},
		{"users: [{name: u, password_file: web.pw, upstream: {auth: password}}], upstream: {host: h, tls: require}", []string{"tenants[0].users[0].upstream.auth: sends the password in clear text, which needs a server with tls: verify-full"}},
		{up + "users: {}", []string{"tenants[0].users: must be a list, not a mapping"}},

		{up + "allow_list: null", []string{"tenants[0].allow_list: must not be null: leave the key out to allow everyone, write [] to allow nobody"}},
		{up + "allow_list: ", []string{"tenants[0].allow_list: must not be null: leave the key out to allow everyone, write [] to allow nobody"}},
		{up + "never_ban: null", []string{"tenants[0].never_ban: must be a list, not null"}},
		{up + "never_ban: [10.0.0.1/8]", []string{`tenants[0].never_ban[0]: "10.0.0.1/8" has bits set behind its prefix length: write 10.0.0.0/8`}},
		{up + "allow_list: 10.0.0.0/8", []string{"tenants[0].allow_list: must be a list, not text"}},
		{up + "allow_list: [10.0.0.0/8, 10.0.0.1/8, null, '::ffff:10.0.0.0/104', x]", []string{
			`tenants[0].allow_list[1]: "10.0.0.1/8" has bits set behind its prefix length: write 10.0.0.0/8`,
			"tenants[0].allow_list[2]: must be text, not null",
			`tenants[0].allow_list[3]: "::ffff:10.0.0.0/104" is an IPv4 network written as IPv6: write 10.0.0.0/8`,
			`tenants[0].allow_list[4]: "x" is neither an IP address nor a network such as 203.0.113.0/24 or 2001:db8::/32`,
		}},
		{up + "allow_list: [{}, {cidr: 10.0.0.0/8, flycast: 'fdaa::3'}, {comment: x}]", []string{
			"tenants[0].allow_list[0]: needs exactly one of cidr, endpoint and flycast",
			"tenants[0].allow_list[1]: needs exactly one of cidr, endpoint and flycast",
			"tenants[0].allow_list[2]: needs exactly one of cidr, endpoint and flycast",
		}},
		{up + "allow_list: [{cidr: 10.0.0.1/8}, {cidr: 10.0.0.0/8, expires: 2027-01-31, note: x}, {flycast: 10.0.0.1, expires: soon}]", []string{
			`tenants[0].allow_list[0].cidr: "10.0.0.1/8" has bits set behind its prefix length: write 10.0.0.0/8`,
			"tenants[0].allow_list[1].expires: must be a time such as 2027-01-31T18:00:00Z",
			"tenants[0].allow_list[1].note: unknown key",
			"tenants[0].allow_list[2].flycast: must be an address of Flycast's, which are in fdaa::/16",
			"tenants[0].allow_list[2].expires: must be a time such as 2027-01-31T18:00:00Z",
		}},
		{up + "allow_list: [{endpoint: vpce-1}, {endpoint: {provider: aws}}, {endpoint: {provider: oracle, id: x}}, {endpoint: {provider: azure, id: 7}}]", []string{
			"tenants[0].allow_list[0].endpoint: must be a mapping of keys to values, not text",
			"tenants[0].allow_list[1]: endpoint.id: must be the id of a VPC endpoint, such as vpce-08d2bf15fac5001c9",
			"tenants[0].allow_list[2]: endpoint.provider: must be one of aws, azure, gcp",
			"tenants[0].allow_list[3].endpoint.id: must be text, not a number (put it in quotes if you mean its digits)",
		}},
		{up + `allow_list: [{cidr: 10.0.0.0/8, comment: "a\nb"}]`, []string{"tenants[0].allow_list[0]: comment: must be printable, on one line"}},
		{up + "restrictions_mode: off", []string{"tenants[0].restrictions_mode: must be one of enforce, observe"}},
		{up + "flycast: '2001:db8::1'", []string{"tenants[0].flycast: must be an address of Flycast's, which are in fdaa::/16"}},
		{"=tenants:\n- {id: a, upstream: {host: h}, flycast: 'fdaa::3'}\n- {id: b, upstream: {host: h}, flycast: 'fdaa:0::3'}", []string{
			"tenants[1].flycast: address fdaa::3 is another tenant's already, in line 2 (line 3)"}},

		{up + "pool: {size: 0, max_clients: -1, max_servers: 1.5, mode: fast}", []string{
			"tenants[0].pool.size: must be between 1 and 1000000",
			"tenants[0].pool.max_clients: must be between 1 and 1000000",
			"tenants[0].pool.max_servers: must be a whole number in plain decimal digits",
			`tenants[0].pool.mode: must be one of "", session, transaction, statement`,
		}},
		{up + "timeouts: {query: -1s, idle: 5s, client_idle: 3}", []string{"tenants[0].timeouts.query: must not be negative",
			"tenants[0].timeouts.idle: unknown key", "tenants[0].timeouts.client_idle: needs a unit, such as 30s or 5m"}},
		{up + "timeouts: {query_wait: 0s, server_idle: -1s, server_lifetime: 1}", []string{
			"tenants[0].timeouts.query_wait: must be more than 0s: every wait has a bound",
			"tenants[0].timeouts.server_idle: must not be negative", "tenants[0].timeouts.server_lifetime: needs a unit, such as 30s or 5m"}},
		{up + "pool: {reserve: -1, reserve_after: 0s, max_database_clients: -1, max_database_servers: x}", []string{
			"tenants[0].pool.reserve: must be between 0 and 1000000",
			"tenants[0].pool.reserve_after: must be more than 0s; without a reserve, leave reserve out",
			"tenants[0].pool.max_database_clients: must be between 0 and 1000000",
			"tenants[0].pool.max_database_servers: must be a whole number, not text",
		}},
		{up + "pool: {reserve_after: 5}", []string{"tenants[0].pool.reserve_after: needs a unit, such as 30s or 5m"}},
		{up + "users: [{name: u, verifier: v, max_clients: -1, max_servers: 1.5}]", []string{
			"tenants[0].users[0].max_clients: must be between 0 and 1000000",
			"tenants[0].users[0].max_servers: must be a whole number in plain decimal digits",
		}},
		{up + "pool: {min: -1}", []string{"tenants[0].pool.min: must be between 0 and 1000000"}},
		{up + "auth_query: {user: x}", []string{"tenants[0].auth_query: password is missing: Postern logs in with it to ask for the roles"}},
		{up + "auth_query: {}", []string{"tenants[0].auth_query: user is missing", "tenants[0].auth_query: password is missing: Postern logs in with it to ask for the roles"}},
		{up + "auth_query: {user: x, query: y}", []string{"tenants[0].auth_query.query: unknown key", "tenants[0].auth_query: password is missing: Postern logs in with it to ask for the roles"}},
		{up + "client_address: yes", []string{"tenants[0].client_address: must be one of off, application_name, guc"}},
		{up + "client_address: false", []string{"tenants[0].client_address: must be text, not true or false (put it in quotes if you mean the word)"}},
		{up + "client_address: on", []string{"tenants[0].client_address: must be one of off, application_name, guc"}},
		{up + "state: {set: drop, tmp: pin, temp: track}", []string{"tenants[0].state.set: must be one of track, pin, reset, refuse, allow",
			"tenants[0].state.tmp: unknown key", "tenants[0].state.temp: cannot be tracked: only parameters can be set again on another server"}},
		{up + "regions: {ams: {}}", []string{"tenants[0].regions: regions is documented but not built yet"}},
	} {
		checkProblems(t, c.in, c.want)
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

// checkProblems loads a whole file, if in begins with =, or else the keys of one tenant with the id a, in line 2, which the
// wanted messages leave out.
func checkProblems(t *testing.T, in string, want []string) {
	t.Helper()
	whole, isFile := strings.CutPrefix(in, "=")
	if !isFile {
		whole = "tenants:\n  - {id: a, " + in + "}\n"
	}
	s, err := loadText(t, whole)
	if err == nil || s != nil {
		t.Errorf("%s\nloads", whole)
		return
	}
	got := strings.Split(err.Error(), "\n")
	for i := range got {
		got[i] = regexp.MustCompile(`/\S*/[0-9]{3}`).ReplaceAllString(got[i], "DIR")
		if !isFile {
			got[i] = strings.TrimSuffix(got[i], " (line 2)")
		}
	}
	slices.Sort(got) // in which order they are said is TestProblemsAreInOrder's
	if d := cmp.Diff(slices.Sorted(slices.Values(want)), got); d != "" {
		t.Errorf("%s\n%s", whole, d)
	}
}

// TestProblemsAreInOrder: whoever found them, they come as they stand in the file.
func TestProblemsAreInOrder(t *testing.T) {
	_, err := loadText(t, `tenants:
- id: a
  users:
  - {name: u, verifier: v}
  - {name: u, verifier: v}
  upstream:
    host: "h:1"
    port: x
  pool: {size: -1, min: y,
    reserve: -1}
- id: a
  upstream: {host: h}
  tls: disable
`)
	if err == nil {
		t.Fatal("it loads")
	}
	var paths []string
	for line := range strings.Lines(err.Error()) {
		path, _, _ := strings.Cut(line, ": ")
		paths = append(paths, path)
	}
	if d := cmp.Diff([]string{"tenants[0].users[1]", "tenants[0].upstream.host", "tenants[0].upstream.port", "tenants[0].pool.size",
		"tenants[0].pool.min", "tenants[0].pool.reserve", "tenants[1]", "tenants[1].tls"}, paths); d != "" {
		t.Error(d)
	}
}

func TestProblemsAreTyped(t *testing.T) {
	_, err := loadText(t, "tenants:\n- id: a\n  upstream: {host: h}\n  pool:\n    size: no\n")
	var p *Problem
	if !errors.As(err, &p) || p.Path != "tenants[0].pool.size" || p.Line != 5 {
		t.Errorf("error = %#v", p)
	}
	if _, err := Load(Options{Path: "missing/tenants.yaml"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
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
