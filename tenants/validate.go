// The rules of a tenant: what its values may be, whichever store they come from.

package tenants

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern/postern/netrestrict"
)

// MaxCount bounds counts far above anything sensible and far below an overflow.
const MaxCount = 1_000_000

// MaxRules is how many rules an allow_list may have: every node keeps them all, and Supabase's routes add to what there is.
const MaxRules = 20_000

// maxUserName is in bytes, far above the 63 that Postgres keeps of a name, and below what an index takes.
const maxUserName = 1000

// maxNeverBan is how many networks a tenant may keep from being banned: each failed login asks them all.
const maxNeverBan = 100

// maxSecret is in bytes, for passwords and verifiers: above the longest verifier, and above what clients can send of a password.
const maxSecret = 2 << 10

// Problem is one thing wrong with a tenant. Its text repeats no secret.
type Problem struct {
	Path    string // of a value: pool.size, users["app"].verifier; "" for the tenant as a whole
	Message string
}

// Error implements error.
func (p Problem) Error() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// UserPath is the Path of the user that is filed under name.
func UserPath(name string) string { return fmt.Sprintf("users[%q]", name) }

// Validate judges a tenant that is complete, see [Tenant.Complete], and returns every problem, or none. A problem about a
// value that is missing has the Path that the value would have, and its Message names the value.
//
// verifier judges a verifier's text; its errors must not repeat it. nil: any text will do.
//
// What no tenant can judge alone is the Directory's: see [ConflictError].
func Validate(t *Tenant, verifier func(string) error) []Problem {
	var all []Problem
	p := place{problems: &all}
	switch id := p.key("id"); {
	case t.ID == "":
		id.fail("id is missing")
	case !ValidID(t.ID):
		id.fail("%q is no tenant id: it must match %s", t.ID, IDPattern)
	}
	validateServer(p, t)
	validateClientCert(p, t)
	p.key("client_ca").text(t.ClientCAPEM)
	validateDatabases(p, t)
	for _, name := range slices.Sorted(maps.Keys(t.Users)) {
		u, at := t.Users[name], place{path: UserPath(name), problems: &all}
		if u == nil || u.Name != name && u.Name != "" {
			at.fail("is not filed under its own name")
			continue
		}
		validateUser(at, u, t, verifier)
	}
	validateAuthQuery(p.key("auth_query"), t)
	validateService(p.key("service"), t.Service)
	validatePool(p.key("pool"), t.Pool)
	validateCaps(p, t.Caps, t.Pool)
	validateTimeouts(p.key("timeouts"), t.Timeouts)
	if t.Allow.Len() > MaxRules {
		p.key("allow_list").fail("has more than %d rules", MaxRules)
	}
	oneOf(p.key("restrictions_mode"), t.Restrictions, RestrictionsEnforce, RestrictionsObserve)
	if t.Flycast.IsValid() && !netrestrict.IsFlycast(t.Flycast) {
		p.key("flycast").fail("must be an address of Flycast's, which begin with fdaa:")
	}
	oneOf(p.key("client_address"), t.ClientAddress, AddressOff, AddressName, AddressGUC)
	validateState(p.key("state"), t.State)
	validateIngress(p.key("residency").key("ingress"), t.Residency.Ingress)
	p.key("connection_rate").between(t.ConnectionRate, 0, MaxCount)
	if len(t.NeverBan) > maxNeverBan {
		p.key("never_ban").fail("has more than %d networks", maxNeverBan)
	}
	return all
}

// place is a value's path, and where problems go.
type place struct {
	path     string
	problems *[]Problem
}

func (p place) key(name string) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{name, p.problems}
}

func (p place) item(i int) place { return place{fmt.Sprintf("%s[%d]", p.path, i), p.problems} }

func (p place) fail(format string, args ...any) {
	*p.problems = append(*p.problems, Problem{p.path, fmt.Sprintf(format, args...)})
}

// text is for what goes to Postgres, which knows no NUL.
func (p place) text(s string) {
	if strings.Contains(s, "\x00") {
		p.fail("must not contain a NUL character")
	}
}

// secret is for passwords and verifiers. It reports whether there is something else to judge.
func (p place) secret(s Secret) bool {
	p.text(s.Reveal())
	if len(s.Reveal()) > maxSecret {
		p.fail("must not be longer than %d bytes", maxSecret)
		return false
	}
	return !s.IsZero()
}

func (p place) between(n, least, most int) { p.allowing(n, least, least, most) }

// allowing is between for a number that may be one more, which no person writes.
func (p place) allowing(n, unsaid, least, most int) {
	if n != unsaid && (n < least || n > most) {
		p.fail("must be between %d and %d", least, most)
	}
}

// oneOf judges one of a few words.
func oneOf[T ~string](p place, s T, words ...T) {
	if slices.Contains(words, s) {
		return
	}
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		quoted = append(quoted, cmp.Or(string(w), `""`))
	}
	p.fail("must be one of %s", strings.Join(quoted, ", "))
}

// validateServer judges where the server is and how to get there.
func validateServer(p place, t *Tenant) {
	switch {
	case t.Machine != nil && t.Upstream.Host != "":
		p.key("machine").fail("a tenant has either an upstream or a machine, not both")
	case t.Machine != nil:
		validateMachine(p.key("machine"), t.Machine, t.Upstream)
	case t.Upstream == Upstream{}:
		p.key("upstream").fail("upstream or machine is missing")
	default:
		validateUpstream(p.key("upstream"), t.Upstream)
	}
}

// hostPattern is generous with names, because resolvers are, and refuses what is certainly no host: ports, URLs, paths.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})$`)

func validateUpstream(p place, u Upstream) {
	host := p.key("host")
	if u.Host == "" {
		host.fail("host is missing")
	} else if _, err := netip.ParseAddr(u.Host); err != nil && !hostPattern.MatchString(u.Host) {
		host.fail("must be a host name or an IP address, without brackets and without a port")
	}
	p.key("port").between(int(u.Port), 1, math.MaxUint16)
	validateTLS(p, u)
}

// validateTLS judges how server connections are protected, of an upstream or a machine.
func validateTLS(p place, u Upstream) {
	oneOf(p.key("tls"), u.TLS, TLSDisable, TLSRequire, TLSVerifyFull)
	if u.RootCAs != nil && (u.TLS == TLSDisable || u.TLS == TLSRequire) {
		p.key("ca").fail("is obeyed with tls: verify-full only")
	}
	if u.ServerName != "" && u.TLS == TLSDisable {
		p.key("server_name").fail("means nothing with tls: disable")
	}
	p.key("server_name").text(u.ServerName)
	p.key("ca").text(u.RootPEM)
	p.key("client_cert").text(u.ClientCert)
	validateKeyPair(p, u)
}

// What names look like to Fly. Each becomes a part of an address of its API.
var (
	flyApp = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`) // also the label of a DNS name
	flyID  = regexp.MustCompile(`^[a-z0-9]{1,63}$`)
)

func validateMachine(p place, m *Machine, u Upstream) {
	switch m.Provider {
	case ProviderFly:
		p.needs("app", m.App, ProviderFly, flyApp, "the name of a Fly app")
		p.needs("id", m.ID, ProviderFly, flyID, "the id of a Fly machine")
		p.refuses("name", m.Name != "", ProviderFly)
		validateToken(p.key("token"), m.Token)
		p.key("port").between(int(u.Port), 1, math.MaxUint16)
		if u.ServerName == "" && u.TLS == TLSVerifyFull {
			p.key("server_name").fail("server_name is missing: verify-full needs it, since the machine is reached by an address")
		}
	case ProviderLocal: // picks its port itself and speaks no TLS
		p.needs("name", m.Name, ProviderLocal, idPattern, "the name of a machine")
		p.refuses("app", m.App != "", ProviderLocal)
		p.refuses("id", m.ID != "", ProviderLocal)
		p.refuses("port", u.Port != 0, ProviderLocal)
		p.refuses("token", !m.Token.IsZero(), ProviderLocal)
		if u.TLS == TLSRequire || u.TLS == TLSVerifyFull {
			p.key("tls").fail("must be disable: a %s machine has no TLS", ProviderLocal)
		}
	case "":
		p.key("provider").fail("provider is missing")
	default:
		oneOf(p.key("provider"), m.Provider, ProviderFly, ProviderLocal)
	}
	validateTLS(p, u)
	if m.SuspendAfter != 0 && m.SuspendAfter < leastSuspendAfter {
		p.key("suspend_after").fail("must be at least %v, or 0s for never", leastSuspendAfter)
	}
	oneOf(p.key("wake"), m.Wake, WakeOnConnect, WakeOnQuery)
	oneOf(p.key("sleep"), m.Sleep, SleepSuspend, SleepStop)
}

// needs judges a name that a provider's machines have.
func (p place) needs(key, value string, of Provider, form *regexp.Regexp, what string) {
	switch {
	case value == "":
		p.key(key).fail("%s is missing: a %s machine needs it", key, of)
	case !form.MatchString(value):
		p.key(key).fail("%q is not %s: it must match %s", value, what, form)
	}
}

func (p place) refuses(key string, is bool, of Provider) {
	if is {
		p.key(key).fail("means nothing to a %s machine", of)
	}
}

func validateDatabases(p place, t *Tenant) {
	database := p.key("database")
	database.text(t.Database)
	if t.Database == "" {
		database.fail("must not be empty")
	} else if !t.AllowsDatabase(t.Database) {
		database.fail("the default database %q is not among databases", t.Database)
	}
	for i, name := range t.Databases {
		at := p.key("databases").item(i)
		at.text(name)
		if name == "" {
			at.fail("must not be empty")
		} else if slices.Contains(t.Databases[:i], name) {
			at.fail("%q is there already", name)
		}
	}
}

func validateAuthQuery(p place, t *Tenant) {
	q := t.AuthQuery
	if q == nil {
		return
	}
	if t.ClientCert == CertInstead {
		p.fail("means nothing with client_cert: instead: who proves no password brings nothing to log in to the server with")
	}
	user, password := p.key("user"), p.key("password")
	if user.text(q.User); q.User == "" {
		user.fail("user is missing")
	}
	if password.secret(q.Password); q.Password.IsZero() {
		password.fail("password is missing: Postern logs in with it to ask for the roles")
	}
	p.key("database").text(q.Database)
}

// maxRegions is how many a tenant may name.
const maxRegions = 100

var regionPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`) // as of nodes; immutable, safe for concurrent use

func validateIngress(p place, regions []string) {
	if len(regions) > maxRegions {
		p.fail("has more than %d regions", maxRegions)
	}
	for i, region := range regions {
		if !regionPattern.MatchString(region) {
			p.item(i).fail("must be a region: letters, digits and any of . : _ -, 64 at most")
		}
	}
}

func validateService(p place, s *Service) {
	if s == nil {
		return
	}
	user, password := p.key("user"), p.key("password")
	if user.text(s.User); s.User == "" {
		user.fail("user is missing")
	}
	if password.secret(s.Password); s.Password.IsZero() {
		password.fail("password is missing: Postern logs in with it to count connections")
	}
}

func validateUser(p place, u *User, t *Tenant, verifier func(string) error) {
	if u.Name == "" {
		p.key("name").fail("name is missing")
	}
	p.key("name").text(u.Name)
	switch {
	case len(u.Name) > maxUserName:
		p.key("name").fail("has more than %d bytes", maxUserName)
	case !utf8.ValidString(u.Name): // which no store can keep
		p.key("name").fail("is not UTF-8")
	}
	validateProof(p, u, t)
	if p.key("verifier").secret(u.Verifier) && verifier != nil {
		if err := verifier(u.Verifier.Reveal()); err != nil {
			p.key("verifier").fail("is not a verifier: %v", err)
		}
	}
	p.key("password").secret(u.Password)
	p.key("pool_size").allowing(u.PoolSize, 0, 1, MaxCount)
	p.key("max_clients").between(u.MaxClients, 0, MaxCount)
	p.key("max_servers").between(u.MaxServers, 0, MaxCount)
	validateTimeouts(p.key("timeouts"), u.Timeouts)

	login := p.key("upstream")
	if u.ServerUser == "" && u.Name != "" {
		login.key("user").fail("must not be empty")
	}
	login.key("user").text(u.ServerUser)
	login.key("password").secret(u.ServerPassword)
}

func validatePool(p place, l Pool) {
	p.key("size").between(l.Size, 1, MaxCount)
	p.key("max_clients").between(l.MaxClients, 1, MaxCount)
	p.key("max_servers").between(l.MaxServers, 1, MaxCount)
	oneOf(p.key("mode"), l.Mode, "", "session", "transaction", "statement")
	p.key("min").between(l.Min, 0, MaxCount)
	p.key("reserve").between(l.Reserve, 0, MaxCount)
	if l.ReserveAfter <= 0 {
		p.key("reserve_after").fail("must be more than 0s; without a reserve, leave reserve out")
	}
	p.key("max_database_clients").between(l.MaxDatabaseClients, 0, MaxCount)
	p.key("max_database_servers").between(l.MaxDatabaseServers, 0, MaxCount)
}

// validateCaps judges caps, and a pool by them. 0 in a pool is no limit, and so above every cap but the highest.
func validateCaps(p place, c Caps, l Pool) {
	for _, x := range []struct {
		key     string
		cap, is int
	}{
		{"size", c.Size, l.Size}, {"max_clients", c.MaxClients, l.MaxClients}, {"max_servers", c.MaxServers, l.MaxServers},
		{"max_database_clients", c.MaxDatabaseClients, l.MaxDatabaseClients}, {"max_database_servers", c.MaxDatabaseServers, l.MaxDatabaseServers},
	} {
		p.key("caps").key(x.key).between(x.cap, 0, MaxCount)
		if x.cap > 0 && (x.is > x.cap || x.is == 0 && x.cap < MaxCount) {
			p.key("pool").key(x.key).fail("must be between 1 and %d, which is what caps.%s says", x.cap, x.key)
		}
	}
}

func validateTimeouts(p place, t Timeouts) {
	for _, x := range []struct {
		key string
		is  *time.Duration
	}{
		{"query", t.Query}, {"transaction", t.Transaction}, {"idle_transaction", t.IdleTransaction}, {"client_idle", t.ClientIdle},
		{"query_wait", t.QueryWait}, {"server_idle", t.ServerIdle}, {"server_lifetime", t.ServerLifetime},
	} {
		switch {
		case x.is == nil:
		case *x.is < 0:
			p.key(x.key).fail("must not be negative")
		case *x.is == 0 && x.key == "query_wait":
			p.key(x.key).fail("must be more than 0s: every wait has a bound")
		}
	}
}

// validateState judges what is done about each kind of session state.
func validateState(p place, policies map[StateKind]Policy) {
	known := defaultState()
	for _, kind := range slices.Sorted(maps.Keys(known)) {
		at := p.key(string(kind))
		policy := policies[kind]
		oneOf(at, policy, PolicyTrack, PolicyPin, PolicyReset, PolicyRefuse, PolicyAllow)
		if policy == PolicyTrack && kind != StateSet {
			at.fail("cannot be tracked: only parameters can be set again on another server")
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(policies)) {
		if _, ok := known[kind]; !ok {
			p.fail("there is no kind of session state called %q", string(kind))
		}
	}
}
