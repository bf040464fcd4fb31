// Tests of the rules, on configurations made by hand.

package configs

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// messages takes a joined error apart. Each must be a Problem.
func messages(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%v is no joined error", err)
	}
	var all []string
	for _, e := range many.Unwrap() {
		var p *Problem
		if !errors.As(e, &p) {
			t.Errorf("%v is no Problem", e)
		}
		all = append(all, e.Error())
	}
	return all
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

func valid() Config {
	c := Default()
	l := DefaultListener()
	l.Name, l.Address = "main", "127.0.0.1:6432"
	c.Listeners = []Listener{l}
	c.Tenants.File = "tenants.yaml"
	return c
}

func prefixes(all ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range all {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func TestValidate(t *testing.T) {
	second := func(name, address string) func(*Config) {
		return func(c *Config) {
			c.Listeners = append(c.Listeners, Listener{Name: name, Address: address, PoolMode: PoolSession, ProxyProtocol: ProxyOff})
		}
	}
	address := func(a string) func(*Config) { return func(c *Config) { c.Listeners[0].Address = a } }
	trusted := func(ps ...string) func(*Config) {
		return func(c *Config) {
			c.Listeners[0].ProxyProtocol = ProxyRequire
			c.Listeners[0].TrustedProxies = prefixes(ps...)
		}
	}
	certs := []CertificateFile{{Cert: "c", Key: "k"}}
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string // problems, joined with newlines
	}{
		{"as it is", func(*Config) {}, ""},
		{"no listener", func(c *Config) { c.Listeners = nil }, "listeners: needs at least one listener"},
		{"no name", func(c *Config) { c.Listeners[0].Name = "" }, "listeners[0].name: must match " + name.String()},
		{"bad name", func(c *Config) { c.Listeners[0].Name = "a b" }, "listeners[0].name: must match " + name.String()},
		{"same name", second("main", ":1"), "listeners[1].name: listeners[0] has the same name"},
		{"same address", second("b", "127.0.0.1:6432"), "listeners[1].address: listeners[0] has the same address"},
		{"same address, other text", func(c *Config) {
			address("[::1]:6432")(c)
			second("b", "[0:0:0:0:0:0:0:1]:06432")(c)
		}, "listeners[1].address: listeners[0] has the same address"},
		{"any free port twice", func(c *Config) { address("127.0.0.1:0")(c); second("b", "127.0.0.1:0")(c) }, ""},
		{"same port, other address", second("b", "127.0.0.2:6432"), ""},
		{"admin at a listener's address", func(c *Config) { c.Admin.Address = "127.0.0.1:6432" }, "admin.address: listeners[0] has the same address"},
		{"no host", address(":6432"), ""},
		{"every IPv6 address", address("[::]:6432"), ""},
		{"zone", address("[fe80::1%eth0]:6432"), ""},
		{"no port", address("127.0.0.1"), "listeners[0].address: must be host:port, such as 0.0.0.0:6543, [::1]:6543 or :6543"},
		{"no address", address(""), "listeners[0].address: must be host:port, such as 0.0.0.0:6543, [::1]:6543 or :6543"},
		{"empty port", address("127.0.0.1:"), "listeners[0].address: its port must be a number from 0 to 65535 (0: any free one)"},
		{"service name", address("127.0.0.1:http"), "listeners[0].address: its port must be a number from 0 to 65535 (0: any free one)"},
		{"port too large", address("127.0.0.1:65536"), "listeners[0].address: its port must be a number from 0 to 65535 (0: any free one)"},
		{"host name", address("localhost:6432"), "listeners[0].address: its host must be an IP address, not a name, or be left out"},
		{"mapped", address("[::ffff:127.0.0.1]:6432"), "listeners[0].address: its host must be written as IPv4: 127.0.0.1"},
		{"pool mode", func(c *Config) { c.Listeners[0].PoolMode = "Session" }, "listeners[0].pool_mode: must be one of session, transaction, statement"},
		{"proxy protocol", func(c *Config) { c.Listeners[0].ProxyProtocol = "on" }, "listeners[0].proxy_protocol: must be one of require, off"},
		{"require without trust", trusted(), `listeners[0].trusted_proxies: must say who may send PROXY headers, since proxy_protocol is "require"`},
		{"require with trust", trusted("172.16.0.0/12", "fdaa::/16", "0.0.0.0/0"), ""},
		{"off with trust", func(c *Config) { c.Listeners[0].TrustedProxies = prefixes("10.0.0.0/8") }, `listeners[0].trusted_proxies: has no meaning while proxy_protocol is "off"`},
		{"bits beyond", trusted("10.0.0.0/8", "172.16.0.1/12"), "listeners[0].trusted_proxies[1]: has bits set beyond its length: 172.16.0.0/12 or 172.16.0.1/32?"},
		{"mapped trust", trusted("::ffff:10.0.0.0/104"), "listeners[0].trusted_proxies[0]: must be written as IPv4, since senders are compared after unmapping"},
		{"zero trust", func(c *Config) {
			c.Listeners[0].ProxyProtocol = ProxyRequire
			c.Listeners[0].TrustedProxies = make([]netip.Prefix, 1)
		}, "listeners[0].trusted_proxies[0]: must be an address block, such as 172.16.0.0/12"},
		{"console", consoleFor(ConsoleUser{"ops", aVerifier}, ConsoleUser{"Other user", aVerifier}), ""},
		{"console for nobody", consoleFor(), "listeners[0].console: needs admin.console_users: nobody could log in"},
		{"console users without a console", func(c *Config) { c.Admin.ConsoleUsers = []ConsoleUser{{"ops", aVerifier}} },
			"admin.console_users: has no meaning without a listener with console: true"},
		{"console users", consoleFor(ConsoleUser{}, ConsoleUser{"ops", aVerifier}, ConsoleUser{"ops", "SCRAM-SHA-256$4096:c2FsdA==$short:keys"}, ConsoleUser{"md5", "md53175bce1d3201d16594cebf9d7eb3f9d"},
			ConsoleUser{"plain", "s3cret"}, ConsoleUser{"a\x00b", aVerifier}), `admin.console_users[0].name: is missing
admin.console_users[0].verifier: must be a SCRAM-SHA-256 verifier: postern verifier makes one
admin.console_users[2].name: admin.console_users[1] has the same name
admin.console_users[2].verifier: must be a SCRAM-SHA-256 verifier: postern verifier makes one
admin.console_users[3].verifier: must be a SCRAM-SHA-256 verifier: postern verifier makes one
admin.console_users[4].verifier: must be a SCRAM-SHA-256 verifier: postern verifier makes one
admin.console_users[5].name: is missing`},
		{"certificate without key", func(c *Config) { c.TLS.Certificates = []CertificateFile{{Cert: "c"}, {Key: "k"}} },
			"tls.certificates[0].key: is missing\ntls.certificates[1].cert: is missing"},
		{"tenant domain", func(c *Config) { c.TLS = TLS{Certificates: certs, TenantDomain: "DB.example.com"} }, ""},
		{"tenant domain with a dot in front", func(c *Config) { c.TLS = TLS{Certificates: certs, TenantDomain: ".example.com"} }, "tls.tenant_domain: must be a domain, such as db.example.com"},
		{"tenant domain with a star", func(c *Config) { c.TLS = TLS{Certificates: certs, TenantDomain: "*.example.com"} }, "tls.tenant_domain: must be a domain, such as db.example.com"},
		{"tenant domain too long", func(c *Config) { c.TLS = TLS{Certificates: certs, TenantDomain: strings.Repeat("a.", 126) + "com"} }, "tls.tenant_domain: must be a domain, such as db.example.com"},
		{"tenant domain without TLS", func(c *Config) { c.TLS.TenantDomain = "db.example.com" }, "tls.tenant_domain: has no meaning without tls.certificates: a client sends SNI only within TLS"},
		{"throttle", func(c *Config) { c.Auth.Throttle = Throttle{} }, `auth.throttle.tenant_failures: must be from 1 to 10000
auth.throttle.address_failures: must be from 1 to 10000
auth.throttle.window: must be from 1s to 24h0m0s
auth.throttle.block: must be from 1s to 24h0m0s`},
		{"too much of a throttle", func(c *Config) { c.Auth.Throttle = Throttle{10_001, 10_001, 25 * time.Hour, 25 * time.Hour} }, `auth.throttle.tenant_failures: must be from 1 to 10000
auth.throttle.address_failures: must be from 1 to 10000
auth.throttle.window: must be from 1s to 24h0m0s
auth.throttle.block: must be from 1s to 24h0m0s`},
		{"the strictest throttle", func(c *Config) { c.Auth.Throttle = Throttle{1, 1, 24 * time.Hour, 24 * time.Hour} }, ""},
		{"admin on loopback", func(c *Config) { c.Admin.Address = "127.0.0.1:9187" }, ""},
		{"admin for all without token", func(c *Config) { c.Admin.Address = "0.0.0.0:9187" },
			"admin.token_file: is needed, since others can reach 0.0.0.0:9187 (or set admin.metrics_public, if they may read the metrics)"},
		{"admin on every address", func(c *Config) { c.Admin.Address = ":9187" },
			"admin.token_file: is needed, since others can reach :9187 (or set admin.metrics_public, if they may read the metrics)"},
		{"admin for all with token", func(c *Config) { c.Admin = Admin{Address: "0.0.0.0:9187", TokenFile: "t"} }, ""},
		{"admin with public metrics", func(c *Config) { c.Admin = Admin{Address: "0.0.0.0:9187", MetricsPublic: true} }, ""},
		{"admin address", func(c *Config) { c.Admin.Address = "localhost:9187" }, "admin.address: its host must be an IP address, not a name, or be left out"},
		{"admin hosts", func(c *Config) {
			c.Admin = Admin{Address: "127.0.0.1:9187", Hosts: []string{"postern.example.com", "a:1", "http://a", ""}}
		},
			`admin.hosts[1]: must be a host name without a port, such as postern.example.com
admin.hosts[2]: must be a host name without a port, such as postern.example.com
admin.hosts[3]: must be a host name without a port, such as postern.example.com`},
		{"admin hosts nowhere", func(c *Config) { c.Admin.Hosts = []string{"a"} }, "admin.hosts: has no meaning without admin.address"},
		{"public metrics nowhere", func(c *Config) { c.Admin.MetricsPublic = true }, "admin.metrics_public: has no meaning without admin.address"},
		{"no tenants", func(c *Config) { c.Tenants.File = "" }, "tenants: must say where tenants are read from: set tenants.file or tenants.postgres"},
		{"tenants twice", func(c *Config) { c.Tenants.Postgres.KeyFile = "k" },
			"tenants: must have exactly one of file and postgres"},
		{"tenants in a database", func(c *Config) { c.Tenants = Tenants{Postgres: TenantsPostgres{DSNFile: "d", KeyFile: "k"}} }, ""},
		{"a node with a name", func(c *Config) {
			c.Tenants = Tenants{Postgres: TenantsPostgres{DSNFile: "d", KeyFile: "k", Node: "gate-1:6543"}}
		}, ""},
		{"a node with a bad name", func(c *Config) {
			c.Tenants = Tenants{Postgres: TenantsPostgres{DSNFile: "d", KeyFile: "k", Node: "a/b"}}
		},
			"tenants.postgres.node: must be letters, digits and any of . : _ -, 64 at most"},
		{"a store without anything but a cache", func(c *Config) { c.Tenants = Tenants{Postgres: TenantsPostgres{CacheFile: "c"}} },
			"tenants.postgres.dsn_file: is missing: it holds the connection string of the store\ntenants.postgres.key_file: is missing: it opens the store's secrets (postern store init makes one)"},
		{"zero timeouts", func(c *Config) { c.Timeouts = Timeouts{} }, `timeouts.proxy_header: must be more than 0s: every wait has a bound
timeouts.login: must be more than 0s: every wait has a bound
timeouts.server_connect: must be more than 0s: every wait has a bound
timeouts.wake: must be more than 0s: every wait has a bound
timeouts.query_wait: must be more than 0s: every wait has a bound
timeouts.drain: must be more than 0s: every wait has a bound`},
		{"negative timeouts", func(c *Config) { c.Timeouts.Login, c.Timeouts.Query, c.Timeouts.ServerIdle = -1, -1, -1 },
			"timeouts.login: must not be negative\ntimeouts.query: must not be negative\ntimeouts.server_idle: must not be negative"},
		{"a short and a long wake", func(c *Config) { c.Timeouts.Wake = 1; c.Timeouts.Login = time.Hour }, ""},
		{"negative wake", func(c *Config) { c.Timeouts.Wake = -1 }, "timeouts.wake: must not be negative"},
		{"timeouts of sessions", func(c *Config) {
			c.Timeouts.Query, c.Timeouts.Transaction, c.Timeouts.IdleTransaction, c.Timeouts.ClientIdle = 1, 1, 1, 1
		}, ""},
		{"timeouts of a listener", func(c *Config) { c.Listeners[0].Timeouts = ListenerTimeouts{Query: new(time.Duration)} }, ""},
		{"negative timeouts of a listener", func(c *Config) { c.Listeners[0].Timeouts = ListenerTimeouts{ClientIdle: new(-time.Second)} },
			"listeners[0].timeouts.client_idle: must not be negative"},
		{"a listener without a bound for waits", func(c *Config) { c.Listeners[0].Timeouts = ListenerTimeouts{QueryWait: new(time.Duration)} },
			"listeners[0].timeouts.query_wait: must be more than 0s: every wait has a bound"},
		{"limits", func(c *Config) { c.Limits = Limits{} }, `limits.clients: must be at least 1
limits.handshakes: must be at least 1
limits.statements: must be at least 1
limits.statement_memory_mib: must be at least 1
limits.server_statements: must be at least 1
limits.pending_memory_mib: must be at least 1`},
		{"too little for one statement", func(c *Config) { c.Limits.PendingMemoryMiB = 63 },
			"limits.pending_memory_mib: must be at least 64: a tenant may have half, and the longest statement takes that"},
		{"too large limits", func(c *Config) { c.Limits = Limits{1, 1, 1_000_001, 1_000_001, 1<<20 + 1, 1_000_001, 1<<20 + 1} }, `limits.statements: must be at most 1000000
limits.statement_memory_mib: must be at most 1048576
limits.server_statements: must be at most 1000000
limits.pending_memory_mib: must be at most 1048576
limits.address_rate: must be from 0 to 1000000 (0: no limit)`},
		{"a negative rate", func(c *Config) { c.Limits.AddressRate = -1 }, "limits.address_rate: must be from 0 to 1000000 (0: no limit)"},
		{"fewest", func(c *Config) { c.Limits = Limits{1, 1, 0, 1, 1, 1, 64} }, ""},
		{"negative loops", func(c *Config) { c.Loops = -1 }, "loops: must be from 0 to 1024 (0: one per core)"},
		{"io_uring", func(c *Config) { c.IOUring = "on" }, "io_uring: must be one of auto, off"},
		{"too many loops", func(c *Config) { c.Loops = 1025 }, "loops: must be from 0 to 1024 (0: one per core)"},
		{"no TCP settings", func(c *Config) { c.TCP = TCP{} }, ""},
		{"TCP units", func(c *Config) { c.TCP = TCP{1500 * time.Millisecond, -time.Second, 128, time.Microsecond} },
			`tcp.keepalive_idle: must be a multiple of 1s, at most 9h6m7s (0s: the system's own)
tcp.keepalive_interval: must be a multiple of 1s, at most 9h6m7s (0s: the system's own)
tcp.user_timeout: must be a multiple of 1ms, at most 24h0m0s (0s: the system's own)
tcp.keepalive_count: must be from 0 to 127 (0: the system's own)`},
		{"log", func(c *Config) { c.Log = Log{Level: "INFO", Format: "logfmt"} },
			"log.level: must be one of debug, info, warn, error\nlog.format: must be one of json, text"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := valid()
			tc.change(&c)
			got := strings.Join(sorted(messages(t, c.Validate())), "\n")
			want := strings.Join(sorted(strings.Split(tc.want, "\n")), "\n")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestCheckExposure(t *testing.T) {
	for _, tc := range []struct {
		address, mode string
		exposed       bool
	}{
		{"127.0.0.1:1", ProxyOff, false},
		{"127.8.9.1:1", ProxyOff, false},
		{"[::1]:1", ProxyOff, false},
		{"0.0.0.0:1", ProxyOff, true},
		{"[::]:1", ProxyOff, true},
		{":1", ProxyOff, true},
		{"10.0.0.1:1", ProxyOff, true},
		{"[fdaa::1]:1", ProxyOff, true},
		{"0.0.0.0:1", ProxyRequire, false},
	} {
		c := valid()
		c.Listeners = append(c.Listeners, Listener{Name: "other", Address: tc.address, ProxyProtocol: tc.mode})
		if err := c.CheckExposure(false); err != nil {
			t.Errorf("%s %s without an allow_list: %v", tc.address, tc.mode, err)
		}
		err := c.CheckExposure(true)
		if (err != nil) != tc.exposed {
			t.Errorf("%s %s: got %v, want an error: %t", tc.address, tc.mode, err, tc.exposed)
		}
		if err != nil && (!strings.Contains(err.Error(), `"other"`) || !strings.HasPrefix(err.Error(), "listeners[1].proxy_protocol: ")) {
			t.Errorf("%v does not name the listener", err)
		}
	}
}

// TestNetwork listens for real: an IPv4 literal must not turn into a dual-stack socket.
func TestNetwork(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:0": "tcp4", "127.0.0.1:0": "tcp4", "[::]:0": "tcp6", "[::1]:0": "tcp6", ":0": "tcp", "nonsense": "tcp",
	} {
		if got := (Listener{Address: address}).Network(); got != want {
			t.Errorf("listener at %s: got %s, want %s", address, got, want)
		}
		if got := (Admin{Address: address}).Network(); got != want {
			t.Errorf("admin at %s: got %s, want %s", address, got, want)
		}
	}
	l := Listener{Address: "0.0.0.0:0"}
	ln, err := net.Listen(l.Network(), l.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if ip := ln.Addr().(*net.TCPAddr).IP; ip.To4() == nil {
		t.Errorf("listens on %v", ip)
	}
}

// aVerifier has the shape of one.
const aVerifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$c3RvcmVkc3RvcmVkc3RvcmVkc3RvcmVkc3RvcmVkMTI=:c2VydmVyc2VydmVyc2VydmVyc2VydmVyc2VydmVyMTI="

// consoleFor has a console on the first listener.
func consoleFor(users ...ConsoleUser) func(*Config) {
	return func(c *Config) {
		c.Listeners[0].Console = true
		c.Admin.ConsoleUsers = users
	}
}
