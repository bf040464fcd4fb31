// Tests of what each bad file is told.

package file

import (
	"errors"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
		{up + "residency: {ingress: []}", []string{"tenants[0].residency.ingress: must name a region: leave residency out for all"}},
		{up + "residency: {ingress: [ams, \"\"], data: [ams]}", []string{"tenants[0].residency.data: residency.data is documented but not built yet", "tenants[0].residency.ingress[1]: must not be empty"}},
		{up + "service: {user: x}", []string{"tenants[0].service: password is missing: Postern logs in with it to count connections"}},
		{up + "service: {}", []string{"tenants[0].service: user is missing", "tenants[0].service: password is missing: Postern logs in with it to count connections"}},
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
