// Tests of reading: strictness, paths, lines, variables of the environment.

package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// minimal is the smallest file that loads.
const minimal = `
listeners:
  - name: main
    address: 127.0.0.1:6432
tenants:
  file: tenants.yaml
`

// full has every key that is built, each with another value than its default.
const full = `
listeners:
  - name: transaction
    address: 0.0.0.0:6543
    pool_mode: transaction
    proxy_protocol: require
    trusted_proxies: [172.16.0.0/12, "fdaa::/16"]
  - name: private
    address: "[::1]:6432"
    pool_mode: statement
    proxy_protocol: off
    console: true
tls:
  certificates: [{cert: server.crt, key: /keys/server.key}]
  tenant_domain: db.example.com
auth: {mock_secret_file: mock.key, throttle: {tenant_failures: 3, address_failures: 4, window: 5s, block: 6m}}
admin: {address: "0.0.0.0:9187", token_file: admin.token, metrics_public: true, hosts: [postern.example.com],
  console_users: [{name: ops, verifier: "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$c3RvcmVkc3RvcmVkc3RvcmVkc3RvcmVkc3RvcmVkMTI=:c2VydmVyc2VydmVyc2VydmVyc2VydmVyc2VydmVyMTI="}]}
tenants: {file: sub/tenants.yaml}
machines: {fly: {api: "https://api.machines.dev", token_file: fly.token}, local: {dir: clusters}, state_file: sub/known.json}
timeouts: {proxy_header: 1s, login: 2s, server_connect: 3s, wake: 4s, query_wait: 5s, query: 0s, transaction: 0s, idle_transaction: 0s, client_idle: 0s, server_idle: 0s, server_lifetime: 7m, drain: 1m30s}
limits: {clients: 10, handshakes: 2, statements: 3, statement_memory_mib: 4, server_statements: 5, pending_memory_mib: 66, address_rate: 7}
loops: 3
io_uring: off
tcp: {keepalive_idle: 10s, keepalive_interval: 0s, keepalive_count: 7, user_timeout: 1500ms}
log: {level: debug, format: text}
`

func TestLoadFull(t *testing.T) {
	got, err := loadBytes([]byte(full), "/etc/postern")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Listeners: []Listener{
			{Name: "transaction", Address: "0.0.0.0:6543", PoolMode: PoolTransaction, ProxyProtocol: ProxyRequire,
				TrustedProxies: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fdaa::/16")}},
			{Name: "private", Address: "[::1]:6432", PoolMode: PoolStatement, ProxyProtocol: ProxyOff, Console: true},
		},
		TLS: TLS{Certificates: []CertificateFile{{Cert: "/etc/postern/server.crt", Key: "/keys/server.key"}},
			TenantDomain: "db.example.com"},
		Auth: Auth{MockSecretFile: "/etc/postern/mock.key", Throttle: Throttle{3, 4, 5 * time.Second, 6 * time.Minute}},
		Admin: Admin{Address: "0.0.0.0:9187", TokenFile: "/etc/postern/admin.token", MetricsPublic: true, Hosts: []string{"postern.example.com"},
			ConsoleUsers: []ConsoleUser{{Name: "ops", Verifier: aVerifier}}},
		Tenants: Tenants{File: "/etc/postern/sub/tenants.yaml"},
		Machines: Machines{Fly: FlyMachines{API: "https://api.machines.dev", TokenFile: "/etc/postern/fly.token"},
			Local: LocalMachines{Dir: "/etc/postern/clusters"}, StateFile: "/etc/postern/sub/known.json"},
		Timeouts: Timeouts{ProxyHeader: time.Second, Login: 2 * time.Second, ServerConnect: 3 * time.Second, Wake: 4 * time.Second,
			QueryWait: 5 * time.Second, ServerLifetime: 7 * time.Minute, Drain: 90 * time.Second},
		Limits: Limits{Clients: 10, Handshakes: 2, Statements: 3, StatementMemoryMiB: 4, ServerStatements: 5, PendingMemoryMiB: 66, AddressRate: 7},
		Loops:  3, IOUring: IOUringOff,
		TCP: TCP{KeepaliveIdle: 10 * time.Second, KeepaliveCount: 7, UserTimeout: 1500 * time.Millisecond},
		Log: Log{Level: "debug", Format: LogText},
		Dir: "/etc/postern",
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestLoadMinimalHasTheDefaults(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "postern.yaml")
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listeners = []Listener{{Name: "main", Address: "127.0.0.1:6432", PoolMode: PoolSession, ProxyProtocol: ProxyOff}}
	want.Tenants.File = filepath.Join(dir, "tenants.yaml")
	want.Dir = dir
	if diff := cmp.Diff(&want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestDefaultsAreTheDocumented compares with the values of the documentation.
func TestDefaultsAreTheDocumented(t *testing.T) {
	documented := minimal + `
auth: {throttle: {tenant_failures: 10, address_failures: 50, window: 150s, block: 2m}}
timeouts: {proxy_header: 5s, login: 15s, server_connect: 10s, wake: 60s, query_wait: 120s, query: 0s, transaction: 0s, idle_transaction: 0s, client_idle: 0s, server_idle: 10m, server_lifetime: 1h, drain: 4m30s}
limits: {clients: 100000, handshakes: 1000}
loops: 0
tcp: {keepalive_idle: 30s, keepalive_interval: 5s, keepalive_count: 5, user_timeout: 60s}
log: {level: info, format: json}
`
	a, err := loadBytes([]byte(minimal), "/d")
	if err != nil {
		t.Fatal(err)
	}
	b, err := loadBytes([]byte(documented), "/d")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

// TestLoadProblems has one mistake a row, and compares the whole list of problems.
func TestLoadProblems(t *testing.T) {
	// The minimal file has 6 lines (the first one is empty), so that what is appended starts at line 7.
	for _, tc := range []struct {
		name, yaml string
		want       []string
	}{
		{"empty file", "", []string{"listeners: needs at least one listener", "tenants: must say where tenants are read from: set tenants.file or tenants.postgres"}},
		{"comments only", "# hello\n", []string{"listeners: needs at least one listener", "tenants: must say where tenants are read from: set tenants.file or tenants.postgres"}},
		{"not a mapping", "- a\n", []string{"must be a mapping of keys to values (line 1)", "listeners: needs at least one listener", "tenants: must say where tenants are read from: set tenants.file or tenants.postgres"}},
		{"two documents", minimal + "---\nloops: 1\n", []string{"the file must hold one YAML document, and nothing after it",
			"listeners: needs at least one listener", "tenants: must say where tenants are read from: set tenants.file or tenants.postgres"}},
		{"unknown key", minimal + "loop: 1\n", []string{"loop: unknown key (line 7)"}},
		{"unknown key without a value", minimal + "loop:\n", []string{"loop: unknown key (line 7)"}},
		{"unknown section without keys", minimal + "loop: {}\n", []string{"loop: unknown key (line 7)"}},
		{"unknown key below", minimal + "timeouts:\n  lgoin: 1s\n", []string{"timeouts.lgoin: unknown key (line 8)"}},
		{"unknown key in a list", "listeners:\n  - {name: a, address: ':1', adress: ':2'}\ntenants: {file: f}", []string{"listeners[0].adress: unknown key (line 2)"}},
		{"upper case", minimal + "Loops: 1\n", []string{"Loops: unknown key (line 7)"}},
		{"dots", minimal + "log.level: debug\n", []string{"log.level: unknown key (line 7)"}},
		{"number as a key", minimal + "1: 2\n", []string{"1: unknown key (line 7)"}},
		{"text as a key", minimal + "'s3cret pass': 2\n", []string{"has a key that is not a plain word (line 7)"}},
		{"list as a key", minimal + "? [a]\n: 2\n", []string{"has a key that is not a plain word (line 7)"}},
		{"duplicate", minimal + "loops: 1\nloops: 1\n", []string{"loops: duplicate key, first in line 7 (line 8)"}},
		{"duplicate section", minimal + "tenants: {file: a}\n", []string{"tenants: duplicate key, first in line 5 (line 7)"}},
		{"duplicate in a list", "listeners:\n  - {name: a, address: ':1', name: b}\ntenants: {file: f}", []string{"listeners[0].name: duplicate key, first in line 2 (line 2)"}},
		{"null", minimal + "loops:\n", []string{"loops: has no value: leave the key out if you mean the default (line 7)"}},
		{"empty text", minimal + "log: {level: ''}\ntls: {tenant_domain: \"\"}\n", []string{
			"log.level: is empty: leave the key out if you mean the default (line 7)",
			"tls.tenant_domain: is empty: leave the key out if you mean the default (line 8)"}},
		{"null section", minimal + "log: ~\n", []string{"log: has no value: leave the key out if you mean the default (line 7)"}},
		{"empty section", minimal + "log: {}\n", []string{"log: is empty: leave the key out if you mean the defaults (line 7)"}},
		{"null in a list", "listeners:\n  - {name: a, address: ':1', proxy_protocol: require, trusted_proxies: [~]}\ntenants: {file: f}",
			[]string{"listeners[0].trusted_proxies[0]: has no value: leave the key out if you mean the default (line 2)"}},
		{"value for a section", minimal + "log: debug\n", []string{"log: must be a mapping of keys to values (line 7)"}},
		{"mapping for a value", minimal + "loops: {a: 1}\n", []string{"loops: must be a single value (line 7)"}},
		{"mapping for a list", minimal + "admin:\n  console_users: {a: 1}\n", []string{"admin.console_users: must be a list (line 8)"}},
		{"bad item keeps the numbers", "listeners:\n  - nonsense\n  - {name: a, address: '1'}\ntenants: {file: f}", []string{
			"listeners[0]: must be a mapping of keys to values (line 2)",
			"listeners[1].address: must be host:port, such as 0.0.0.0:6543, [::1]:6543 or :6543 (line 3)"}},
		{"alias", minimal + "loops: &n 1\nlimits: {clients: *n}\n", []string{"limits.clients: is an alias, which is not supported here: write the value out (line 8)"}},
		{"merge key", minimal + "log: {<<: {level: debug}}\n", []string{"log: has a key that is not a plain word (line 7)"}},
		{"number without unit", minimal + "timeouts: {login: 15}\n", []string{"timeouts.login: needs a unit, such as 15s or 4m30s (line 7)"}},
		{"zero without unit", minimal + "timeouts: {query: 0}\n", []string{"timeouts.query: needs a unit, such as 15s or 4m30s (line 7)"}},
		{"text without unit", minimal + "timeouts: {login: '15'}\n", []string{"timeouts.login: needs a unit, such as 15s or 4m30s (line 7)"}},
		{"fraction without unit", minimal + "timeouts: {login: 1.5}\n", []string{"timeouts.login: needs a unit, such as 15s or 4m30s (line 7)"}},
		{"unknown unit", minimal + "timeouts: {login: 15 days}\n", []string{"timeouts.login: must be a duration with its unit, such as 15s or 4m30s (line 7)"}},
		{"fraction", minimal + "loops: 1.5\n", []string{"loops: must be a whole number (line 7)"}},
		{"truth for a number", minimal + "loops: true\n", []string{"loops: must be a whole number (line 7)"}},
		{"words for a number", minimal + "loops: many\n", []string{"loops: must be a whole number (line 7)"}},
		{"huge number", minimal + "limits: {clients: 18446744073709551615}\n", []string{"limits.clients: must be a whole number (line 7)"}},
		{"number for a truth", minimal + "admin: {address: '127.0.0.1:1', metrics_public: 1}\n", []string{"admin.metrics_public: must be true or false (line 7)"}},
		{"number for a text", minimal + "tls: {tenant_domain: 5}\n", []string{"tls.tenant_domain: must be text: put it in quotes if you mean just that (line 7)"}},
		{"address without length", "listeners:\n  - {name: a, address: ':1', proxy_protocol: require, trusted_proxies: [10.0.0.1]}\ntenants: {file: f}",
			[]string{"listeners[0].trusted_proxies[0]: needs its length: /32 for a single address (line 2)"}},
		{"IPv6 without length", "listeners:\n  - {name: a, address: ':1', proxy_protocol: require, trusted_proxies: ['::1']}\ntenants: {file: f}",
			[]string{"listeners[0].trusted_proxies[0]: needs its length: /128 for a single address (line 2)"}},
		{"no address", "listeners:\n  - {name: a, address: ':1', proxy_protocol: require, trusted_proxies: ['', fly, 7]}\ntenants: {file: f}",
			[]string{"listeners[0].trusted_proxies[0]: must be an address block, such as 172.16.0.0/12 (line 2)",
				"listeners[0].trusted_proxies[1]: must be an address block, such as 172.16.0.0/12 (line 2)",
				"listeners[0].trusted_proxies[2]: must be an address block, such as 172.16.0.0/12 (line 2)"}},
		{"several at once", minimal + "loop: 1\ntimeouts: {login: 15, drain: -1s}\nlog: {format: xml, level: 5}\n", []string{
			"loop: unknown key (line 7)",
			"timeouts.login: needs a unit, such as 15s or 4m30s (line 8)",
			"log.level: must be text: put it in quotes if you mean just that (line 9)",
			"timeouts.drain: must not be negative (line 8)",
			"log.format: must be one of json, text (line 9)"}},
		{"a store without its key", "listeners:\n  - {name: a, address: ':1', console: true}\ntenants: {postgres: {dsn_file: f}}\n" +
			"admin: {address: '127.0.0.1:2', console_users: [{name: ops, verifier: s3cret}]}\n", []string{
			"admin.console_users[0].verifier: must be a SCRAM-SHA-256 verifier: postern verifier makes one (line 4)",
			"tenants.postgres.key_file: is missing: it opens the store's secrets (postern store init makes one)"}},
		{"machines without anything", minimal + "machines: {}\n", []string{"machines: is empty: leave the key out if you mean the defaults (line 7)"}},
		{"providers without anything", minimal + "machines: {fly: {}, local: }\n", []string{
			"machines.fly: is empty: leave the key out if you mean the defaults (line 7)",
			"machines.local: has no value: leave the key out if you mean the default (line 7)"}},
		{"empty token file", minimal + "machines: {fly: {api: 'http://_api.internal:4280', token_file: ''}}\n", []string{
			"machines.fly.token_file: is empty: leave the key out if you mean the default (line 7)"}},
		{"no folder of machines", minimal + "machines:\n  local: {dir: ''}\n", []string{
			"machines.local.dir: is empty: leave the key out if you mean the default (line 8)"}},
		{"wake without unit", minimal + "timeouts: {wake: 60}\n", []string{"timeouts.wake: needs a unit, such as 15s or 4m30s (line 7)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := loadBytes([]byte(tc.yaml), "/d")
			if diff := cmp.Diff(sorted(tc.want), sorted(messages(t, err))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestLoadSyntaxErrorNamesTheLine(t *testing.T) {
	_, err := loadBytes([]byte("loops: 1\n\tlog: s3cret\n"), "/d")
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v, want line 2 in it", err)
	}
}

func TestLoadFileErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a folder: got no error")
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, []byte(minimal+"#"+strings.Repeat("x", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("big file: got %v", err)
	}
}

func TestLoadErrorHoldsProblems(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(path, []byte(minimal+"loop: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var p *Problem
	if !errors.As(err, &p) || p.Path != "loop" || p.Line != 7 {
		t.Errorf("got %v (%+v), want a Problem at loop, line 7", err, p)
	}
}

// TestEnvironmentOverrides sets every variable there is, one at a time, and looks for its value in the result.
func TestEnvironmentOverrides(t *testing.T) {
	special := map[string]string{"tenants.postgres.node": "n1", "region": "fra", "cluster.name": "n1", "cluster.bind": "127.0.0.1:3", "cluster.advertise": "192.0.2.7:7",
		"cluster.max_nodes": "9",
		"log.level":         "debug", "log.format": "text", "io_uring": "off", "admin.address": "127.0.0.1:1", "admin.metrics_public": "true",
		"tls.tenant_domain": "x.example.com", "tcp.keepalive_count": "9", "machines.fly.api": "http://x:1",
		"auth.throttle.tenant_failures": "9", "auth.throttle.address_failures": "9", "auth.throttle.window": "77s", "auth.throttle.block": "77s",
	}
	base := minimal + "tls: {certificates: [{cert: a, key: b}]}\nadmin: {address: '127.0.0.1:2'}\nmachines: {fly: {token_file: t}}\n"
	before, err := loadBytes([]byte(base), "/d")
	if err != nil {
		t.Fatal(err)
	}
	keys := scalarKeys(reflect.TypeFor[Config](), "")
	if len(keys) < 30 {
		t.Fatalf("only %d scalar keys: %v", len(keys), keys)
	}
	for _, key := range keys {
		t.Run(key, func(t *testing.T) {
			section, _, _ := strings.Cut(key, ".")
			value, ok := special[key]
			switch {
			case ok:
			case section == "timeouts" || section == "tcp":
				value = "77s"
			case section == "limits" || section == "loops":
				value = "77"
			default:
				value = "/f"
			}
			t.Setenv("POSTERN_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_")), value)
			base := base
			if strings.HasPrefix(key, "tenants.postgres.") || section == "cluster" { // which are beside no file
				base = strings.Replace(base, "tenants:\n  file: tenants.yaml", "tenants: {postgres: {dsn_file: a, key_file: b}}", 1)
			}
			if section == "cluster" {
				base += "cluster: {bind: '127.0.0.1:7946', key_file: c}\n"
			}
			after, err := loadBytes([]byte(base), "/d")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(at(reflect.ValueOf(*after), key)); got != value && got != fmt.Sprint(77*time.Second) {
				t.Errorf("got %s, want %s", got, value)
			}
			if cmp.Equal(before, after, cmpopts.EquateComparable(netip.Prefix{})) {
				t.Error("nothing changed")
			}
		})
	}
}

// at returns the field of the key.
func at(v reflect.Value, key string) any {
	for part := range strings.SplitSeq(key, ".") {
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("mapstructure") == part {
				v = v.Field(i)
				break
			}
		}
	}
	return v.Interface()
}

func TestEnvironmentBeatsTheFile(t *testing.T) {
	t.Setenv("POSTERN_TIMEOUTS_LOGIN", "20s")
	t.Setenv("POSTERN_LOG_LEVEL", "") // set to nothing: no override
	t.Setenv("POSTERN_TENANTS_FILE", "other.yaml")
	c, err := loadBytes([]byte(minimal+"timeouts: {login: 9s, drain: 8s}\nlog: {level: warn}\n"), "/d")
	if err != nil {
		t.Fatal(err)
	}
	if c.Timeouts.Login != 20*time.Second || c.Timeouts.Drain != 8*time.Second || c.Log.Level != "warn" || c.Tenants.File != "/d/other.yaml" {
		t.Errorf("got %+v, %+v, %+v", c.Timeouts, c.Log, c.Tenants)
	}
}

func TestEnvironmentProblemsNameTheVariable(t *testing.T) {
	t.Setenv("POSTERN_TIMEOUTS_LOGIN", "20")
	t.Setenv("POSTERN_LOOPS", "many")
	t.Setenv("POSTERN_ADMIN_METRICS_PUBLIC", "yes")
	t.Setenv("POSTERN_LOG_LEVEL", "loud")
	_, err := loadBytes([]byte(minimal+"timeouts: {login: 9s}\n"), "/d")
	want := []string{
		"timeouts.login: needs a unit, such as 15s or 4m30s (from POSTERN_TIMEOUTS_LOGIN)",
		"loops: must be a whole number (from POSTERN_LOOPS)",
		"admin.metrics_public: must be true or false (from POSTERN_ADMIN_METRICS_PUBLIC)",
		"log.level: must be one of debug, info, warn, error (from POSTERN_LOG_LEVEL)",
	}
	if diff := cmp.Diff(sorted(want), sorted(messages(t, err))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	u := ConsoleUser{Name: "ops", Verifier: "s3cret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, u); strings.Contains(got, "s3cret") || strings.Contains(got, fmt.Sprintf("%x", "s3cret")) {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if got := u.Verifier.LogValue().String() + u.Verifier.String() + u.Verifier.GoString(); strings.Contains(got, "s3cret") {
		t.Errorf("got %s", got)
	}
	if got, _ := u.Verifier.MarshalText(); strings.Contains(string(got), "s3cret") {
		t.Errorf("got %s", got)
	}
}
