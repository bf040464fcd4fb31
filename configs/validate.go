// The rules that a configuration must keep.

package configs

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Validate returns every rule that c breaks, as joined Problems; nil if there are none. It opens no file. Load has already
// called it.
func (c *Config) Validate() error { return c.validate().err() }

func (c *Config) validate() problems {
	var ps problems
	c.checkListeners(&ps)
	c.checkTLS(&ps)
	c.checkThrottle(&ps)
	c.checkAdmin(&ps)
	c.checkConsole(&ps)
	c.checkTenants(&ps)
	c.checkCluster(&ps)
	c.checkMachines(&ps)
	c.checkTimeouts(&ps)
	c.checkNumbers(&ps)
	c.checkEnums(&ps)
	return ps
}

// name is what a listener may be called: a plain word for logs, as a tenant's id.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

func (c *Config) checkListeners(ps *problems) {
	if len(c.Listeners) == 0 {
		ps.add("listeners", "needs at least one listener")
	}
	names, addresses := make(map[string]int), make(map[netip.AddrPort]int)
	for i, l := range c.Listeners {
		at := fmt.Sprintf("listeners[%d]", i)
		if !name.MatchString(l.Name) {
			ps.add(at+".name", "must match %s", name)
		} else if first, taken := names[l.Name]; taken {
			ps.add(at+".name", "listeners[%d] has the same name", first)
		} else {
			names[l.Name] = i
		}
		if ap, err := parseAddress(l.Address); err != nil {
			ps.add(at+".address", "%v", err)
		} else if first, taken := addresses[ap]; taken {
			ps.add(at+".address", "listeners[%d] has the same address", first)
		} else if ap.Port() != 0 {
			addresses[ap] = i
		}
		oneOf(ps, at+".pool_mode", l.PoolMode, PoolSession, PoolTransaction, PoolStatement)
		oneOf(ps, at+".proxy_protocol", l.ProxyProtocol, ProxyRequire, ProxyOff)
		l.checkTrusted(ps, at+".trusted_proxies")
	}
	if ap, err := parseAddress(c.Admin.Address); err == nil {
		if i, taken := addresses[ap]; taken {
			ps.add("admin.address", "listeners[%d] has the same address", i)
		}
	}
}

func (l Listener) checkTrusted(ps *problems, path string) {
	switch {
	case l.ProxyProtocol == ProxyRequire && len(l.TrustedProxies) == 0:
		ps.add(path, "must say who may send PROXY headers, since proxy_protocol is %q", ProxyRequire)
	case l.ProxyProtocol == ProxyOff && len(l.TrustedProxies) > 0:
		ps.add(path, "has no meaning while proxy_protocol is %q", ProxyOff)
	}
	for i, p := range l.TrustedProxies {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case !p.IsValid():
			ps.add(at, "must be an address block, such as 172.16.0.0/12")
		case p.Addr().Is4In6():
			ps.add(at, "must be written as IPv4, since senders are compared after unmapping")
		case p != p.Masked():
			ps.add(at, "has bits set beyond its length: %s or %s?", p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		}
	}
}

// hostname is a DNS name of letters, digits and hyphens (RFC 1123 §2.1) with at least one dot, and none at either end.
var hostname = regexp.MustCompile(`^(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.(?i:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?))+$`)

func (c *Config) checkTLS(ps *problems) {
	for i, f := range c.TLS.Certificates {
		if f.Cert == "" {
			ps.add(fmt.Sprintf("tls.certificates[%d].cert", i), "is missing")
		}
		if f.Key == "" {
			ps.add(fmt.Sprintf("tls.certificates[%d].key", i), "is missing")
		}
	}
	switch d := c.TLS.TenantDomain; {
	case d == "":
	case !hostname.MatchString(d) || len(d) > 253:
		ps.add("tls.tenant_domain", "must be a domain, such as db.example.com")
	case len(c.TLS.Certificates) == 0:
		ps.add("tls.tenant_domain", "has no meaning without tls.certificates: a client sends SNI only within TLS")
	}
}

// What nobody means: a throttle that guesses pass through, or that never ends.
const (
	maxFailures = 10_000
	maxBlock    = 24 * time.Hour
)

func (c *Config) checkThrottle(ps *problems) {
	t := c.Auth.Throttle
	for _, n := range []struct {
		key   string
		value int
	}{{"tenant_failures", t.TenantFailures}, {"address_failures", t.AddressFailures}} {
		if n.value < 1 || n.value > maxFailures {
			ps.add("auth.throttle."+n.key, "must be from 1 to %d", maxFailures)
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{{"window", t.Window}, {"block", t.Block}} {
		if d.value < time.Second || d.value > maxBlock {
			ps.add("auth.throttle."+d.key, "must be from 1s to %v", maxBlock)
		}
	}
}

func (c *Config) checkAdmin(ps *problems) {
	a := c.Admin
	if a.Address == "" {
		if a.MetricsPublic {
			ps.add("admin.metrics_public", "has no meaning without admin.address")
		}
		if len(a.Hosts) > 0 {
			ps.add("admin.hosts", "has no meaning without admin.address")
		}
		return
	}
	if _, err := parseAddress(a.Address); err != nil {
		ps.add("admin.address", "%v", err)
	} else if !isLoopback(a.Address) && a.TokenFile == "" && !a.MetricsPublic {
		ps.add("admin.token_file", "is needed, since others can reach %s (or set admin.metrics_public, if they may read the metrics)", a.Address)
	}
	for i, host := range a.Hosts {
		if !hostname.MatchString(host) || len(host) > 253 {
			ps.add(fmt.Sprintf("admin.hosts[%d]", i), "must be a host name without a port, such as postern.example.com")
		}
	}
}

// verifier is the shape of a SCRAM-SHA-256 verifier: iterations, salt, stored key and server key.
var verifier = regexp.MustCompile(`^SCRAM-SHA-256\$[1-9][0-9]*:[A-Za-z0-9+/]+={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`)

func (c *Config) checkConsole(ps *problems) {
	for i, l := range c.Listeners {
		if l.Console && len(c.Admin.ConsoleUsers) == 0 {
			ps.add(fmt.Sprintf("listeners[%d].console", i), "needs admin.console_users: nobody could log in")
		}
	}
	names := make(map[string]int)
	for i, u := range c.Admin.ConsoleUsers {
		at := fmt.Sprintf("admin.console_users[%d]", i)
		if u.Name == "" || strings.ContainsRune(u.Name, 0) {
			ps.add(at+".name", "is missing")
		} else if first, taken := names[u.Name]; taken {
			ps.add(at+".name", "admin.console_users[%d] has the same name", first)
		} else {
			names[u.Name] = i
		}
		if !verifier.MatchString(string(u.Verifier)) {
			ps.add(at+".verifier", "must be a SCRAM-SHA-256 verifier: postern verifier makes one")
		}
	}
	if len(names) > 0 && !slices.ContainsFunc(c.Listeners, func(l Listener) bool { return l.Console }) {
		ps.add("admin.console_users", "has no meaning without a listener with console: true")
	}
}

func (c *Config) checkTenants(ps *problems) {
	switch p := c.Tenants.Postgres; {
	case c.Tenants.File == "" && !c.Tenants.InPostgres():
		ps.add("tenants", "must say where tenants are read from: set tenants.file or tenants.postgres")
	case c.Tenants.File != "" && c.Tenants.InPostgres():
		ps.add("tenants", "must have exactly one of file and postgres")
	case c.Tenants.File != "":
	default:
		if p.DSNFile == "" {
			ps.add("tenants.postgres.dsn_file", "is missing: it holds the connection string of the store")
		}
		if p.KeyFile == "" {
			ps.add("tenants.postgres.key_file", "is missing: it opens the store's secrets (postern store init makes one)")
		}
		if p.Node != "" && !nodeName.MatchString(p.Node) {
			ps.add("tenants.postgres.node", "must be letters, digits and any of . : _ -, 64 at most")
		}
	}
}

func (c *Config) checkTimeouts(ps *problems) {
	t := c.Timeouts
	checkDurations(ps, "timeouts.", []bound{
		{"proxy_header", t.ProxyHeader, false},
		{"login", t.Login, false},
		{"server_connect", t.ServerConnect, false},
		{"wake", t.Wake, false},
		{"query_wait", t.QueryWait, false},
		{"query", t.Query, true},
		{"transaction", t.Transaction, true},
		{"idle_transaction", t.IdleTransaction, true},
		{"client_idle", t.ClientIdle, true},
		{"server_idle", t.ServerIdle, true},
		{"server_lifetime", t.ServerLifetime, true},
		{"drain", t.Drain, false},
	})
	for i, l := range c.Listeners {
		t, unset := l.Timeouts, time.Second
		checkDurations(ps, fmt.Sprintf("listeners[%d].timeouts.", i), []bound{
			{"query", *cmp.Or(t.Query, &unset), true},
			{"transaction", *cmp.Or(t.Transaction, &unset), true},
			{"idle_transaction", *cmp.Or(t.IdleTransaction, &unset), true},
			{"client_idle", *cmp.Or(t.ClientIdle, &unset), true},
			{"query_wait", *cmp.Or(t.QueryWait, &unset), false},
		})
	}
}

// bound is a timeout, and whether it may be left out by 0.
type bound struct {
	key      string
	value    time.Duration
	zeroIsOK bool
}

func checkDurations(ps *problems, at string, bounds []bound) {
	for _, d := range bounds {
		switch {
		case d.value < 0:
			ps.add(at+d.key, "must not be negative")
		case d.value == 0 && !d.zeroIsOK:
			ps.add(at+d.key, "must be more than 0s: every wait has a bound")
		}
	}
}

// maxLoops is far above any count of cores: more is a slip of the finger, and each loop costs a thread.
const maxLoops = 1024

// What nobody means, and what a count of bytes can hold.
const (
	maxStatements   = 1_000_000
	maxStatementMiB = 1 << 20
	maxRate         = 1_000_000
	minPendingMiB   = 64 // a tenant's half is what the longest statement takes while it comes
)

func (c *Config) checkNumbers(ps *problems) {
	for _, n := range []struct {
		key         string
		value, most int
	}{
		{"clients", c.Limits.Clients, math.MaxInt},
		{"handshakes", c.Limits.Handshakes, math.MaxInt},
		{"statements", c.Limits.Statements, maxStatements},
		{"statement_memory_mib", c.Limits.StatementMemoryMiB, maxStatementMiB},
		{"server_statements", c.Limits.ServerStatements, maxStatements},
		{"pending_memory_mib", c.Limits.PendingMemoryMiB, maxStatementMiB},
	} {
		switch {
		case n.value < 1:
			ps.add("limits."+n.key, "must be at least 1")
		case n.value > n.most:
			ps.add("limits."+n.key, "must be at most %d", n.most)
		}
	}
	if n := c.Limits.PendingMemoryMiB; n > 0 && n < minPendingMiB {
		ps.add("limits.pending_memory_mib", "must be at least %d: a tenant may have half, and the longest statement takes that", minPendingMiB)
	}
	if n := c.Limits.AddressRate; n < 0 || n > maxRate {
		ps.add("limits.address_rate", "must be from 0 to %d (0: no limit)", maxRate)
	}
	if c.Loops < 0 || c.Loops > maxLoops {
		ps.add("loops", "must be from 0 to %d (0: one per core)", maxLoops)
	}
	oneOf(ps, "io_uring", c.IOUring, IOUringAuto, IOUringOff)
	// The bounds are those of Linux: tcp(7), and MAX_TCP_KEEP* in its headers.
	wholeUnits(ps, "tcp.keepalive_idle", c.TCP.KeepaliveIdle, time.Second, 32767*time.Second)
	wholeUnits(ps, "tcp.keepalive_interval", c.TCP.KeepaliveInterval, time.Second, 32767*time.Second)
	wholeUnits(ps, "tcp.user_timeout", c.TCP.UserTimeout, time.Millisecond, 24*time.Hour)
	if c.TCP.KeepaliveCount < 0 || c.TCP.KeepaliveCount > 127 {
		ps.add("tcp.keepalive_count", "must be from 0 to 127 (0: the system's own)")
	}
}

// wholeUnits demands 0, or whole units up to a bound: the kernel would cut off the rest.
func wholeUnits(ps *problems, path string, d, unit, most time.Duration) {
	if d < 0 || d > most || d%unit != 0 {
		ps.add(path, "must be a multiple of %v, at most %v (0s: the system's own)", unit, most)
	}
}

func (c *Config) checkEnums(ps *problems) {
	oneOf(ps, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(ps, "log.format", c.Log.Format, LogJSON, LogText)
}

func oneOf(ps *problems, path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		ps.add(path, "must be one of %s", strings.Join(allowed, ", "))
	}
}
