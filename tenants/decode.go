// One entry of the tenants file: the keys of a tenant and what they may say.

package tenants

import (
	"cmp"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/netrestrict"
)

// tenant reads one tenant. It is complete only if no problem was reported.
func (l *loader) tenant(v value) *Tenant {
	t := &Tenant{
		Database:      DefaultDatabase,
		State:         defaultState(),
		ClientAddress: AddressOff,
		Users:         map[string]*User{},
		Pool:          Pool{Size: DefaultPoolSize, ReserveAfter: DefaultReserveAfter, MaxClients: DefaultMaxClients, MaxServers: DefaultMaxServers},
	}
	var machine, database, cleartext []value // judged at the end, when the rest is known
	seen := v.keys(map[string]func(value){
		"id":          func(v value) { t.ID = tenantID(v) },
		"upstream":    func(v value) { t.Upstream = l.upstream(v) },
		"machine":     func(v value) { t.Machine, t.Upstream = l.machine(v); machine = append(machine, v) },
		"database":    func(v value) { t.Database = v.name(); database = append(database, v) },
		"databases":   func(v value) { t.Databases = names(v) },
		"users":       func(v value) { cleartext = l.users(v, t.Users) },
		"allow_list":  func(v value) { t.Allow = allowList(v) },
		"require_tls": func(v value) { t.RequireTLS = v.boolean() },
		"pool":        func(v value) { pool(v, &t.Pool) },
		"timeouts":    func(v value) { timeouts(v, &t.Timeouts) },

		"auth_query":          func(v value) { v.notBuilt("auth_query") },
		"client_address":      func(v value) { t.ClientAddress = oneOf(v, AddressOff, AddressName, AddressGUC) },
		"state":               func(v value) { state(v, t.State) },
		"server_reset_always": func(v value) { t.ResetAlways = v.boolean() },
		"regions":             regions,
	})
	if seen == nil {
		return t
	}
	if !seen["id"] {
		v.fail("id is missing")
	}
	for _, m := range machine {
		if seen["upstream"] {
			m.fail("a tenant has either an upstream or a machine, not both")
		}
	}
	if !seen["upstream"] && !seen["machine"] {
		v.fail("upstream or machine is missing")
	}
	if t.Database != "" && !t.AllowsDatabase(t.Database) {
		if database == nil {
			database = []value{v}
		}
		database[0].fail("the default database %q is not among databases", t.Database)
	}
	for _, c := range cleartext {
		if t.Upstream.TLS == TLSDisable || t.Upstream.TLS == TLSRequire {
			c.fail("sends the password in clear text, which needs a server with tls: verify-full")
		}
	}
	return t
}

func tenantID(v value) string {
	id, ok := v.text()
	if ok && !ValidID(id) {
		v.fail("%q is no tenant id: it must match %s", id, IDPattern)
		return ""
	}
	return id
}

// hostPattern is generous with names, because resolvers are, and refuses what is certainly no host: ports, URLs, paths.
var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})$`)

func (l *loader) upstream(v value) Upstream {
	u := Upstream{Port: DefaultPort, TLS: TLSVerifyFull}
	keys := map[string]func(value){
		"host": func(v value) {
			u.Host = v.name()
			if _, err := netip.ParseAddr(u.Host); err != nil && u.Host != "" && !hostPattern.MatchString(u.Host) {
				v.fail("must be a host name or an IP address, without brackets and without a port")
			}
		},
		"port": func(v value) { u.Port = uint16(v.integer(1, math.MaxUint16)) },
	}
	judgeTLS := l.security(&u, keys)
	if seen := v.keys(keys); seen != nil && !seen["host"] {
		v.fail("host is missing")
	}
	judgeTLS()
	return u
}

// security adds the keys that say how server connections are protected, for an upstream or a machine. judge is for when
// all keys were read and the default of u.TLS is there.
func (l *loader) security(u *Upstream, keys map[string]func(value)) (judge func()) {
	var ca, serverName []value
	keys["tls"] = func(v value) { u.TLS = oneOf(v, TLSDisable, TLSRequire, TLSVerifyFull) }
	keys["ca"] = func(v value) {
		ca = append(ca, v)
		u.RootCAs = l.certificates(v)
	}
	keys["server_name"] = func(v value) { u.ServerName = v.name(); serverName = append(serverName, v) }
	return func() {
		for _, v := range ca {
			if u.TLS == TLSDisable || u.TLS == TLSRequire {
				v.fail("is obeyed with tls: verify-full only")
			}
		}
		for _, v := range serverName {
			if u.TLS == TLSDisable {
				v.fail("means nothing with tls: disable")
			}
		}
	}
}

// users reads the users into byName and returns those places that need an upstream with verify-full.
func (l *loader) users(v value, byName map[string]*User) (cleartext []value) {
	lines := map[string]int{}
	v.each(func(_ int, v value) {
		u, auth := l.user(v)
		if u.ServerAuth == AuthPassword {
			cleartext = append(cleartext, auth)
		}
		if u.Name == "" {
			return
		}
		if line, dup := lines[u.Name]; dup {
			v.fail("user %q is there already, in line %d", u.Name, line)
			return
		}
		lines[u.Name] = v.node.Line
		byName[u.Name] = u
	})
	return cleartext
}

// user reads one user and returns the place of its upstream.auth as well, if it has one.
func (l *loader) user(v value) (u *User, auth value) {
	u = &User{ServerAuth: AuthSCRAM}
	upstream := map[string]bool{}
	seen := v.keys(map[string]func(value){
		"name":          func(v value) { u.Name = v.name() },
		"verifier":      func(v value) { u.Verifier = l.verifier(v) },
		"password_file": func(v value) { u.Password = l.password(v) },
		"pool_size":     func(v value) { u.PoolSize = v.integer(1, maxCount) },
		"max_clients":   func(v value) { u.MaxClients = v.integer(0, maxCount) },
		"max_servers":   func(v value) { u.MaxServers = v.integer(0, maxCount) },
		"timeouts":      func(v value) { timeouts(v, &u.Timeouts) },
		"upstream": func(v value) {
			upstream = v.keys(map[string]func(value){
				"user":          func(v value) { u.ServerUser = v.name() },
				"password_file": func(v value) { u.ServerPassword = l.password(v) },
				"auth": func(v value) {
					auth = v
					u.ServerAuth = oneOf(v, AuthSCRAM, AuthMD5, AuthPassword)
				},
			})
		},
	})
	if seen == nil {
		return u, auth
	}
	if !seen["name"] {
		v.fail("name is missing")
	}
	if seen["verifier"] == seen["password_file"] {
		v.fail("needs exactly one of verifier and password_file")
	}
	if u.ServerUser == "" {
		u.ServerUser = u.Name
	}
	if (u.ServerAuth == AuthMD5 || u.ServerAuth == AuthPassword) && !seen["password_file"] && !upstream["password_file"] {
		auth.fail("needs a password for the server, which a verifier is not: add upstream.password_file")
	}
	return u, auth
}

// verifier reads a verifier. No message repeats it.
func (l *loader) verifier(v value) Secret {
	s := v.name()
	if s != "" && l.check != nil {
		if err := l.check(s); err != nil {
			v.fail("is not a verifier: %v", err)
		}
	}
	return NewSecret(s)
}

// names reads a list of different names.
func names(v value) []string {
	var all []string
	v.each(func(_ int, v value) {
		switch s := v.name(); {
		case s == "":
		case slices.Contains(all, s):
			v.fail("%q is there already", s)
		default:
			all = append(all, s)
		}
	})
	return all
}

// allowList reads a list of networks. A bad entry spoils the load, never just itself.
func allowList(v value) *netrestrict.AllowList {
	if v.isNull() {
		v.fail("must not be null: leave the key out to allow everyone, write [] to allow nobody")
		return nil
	}
	var prefixes []netip.Prefix
	if !v.each(func(_ int, v value) {
		s, ok := v.text()
		if !ok {
			return
		}
		p, err := netrestrict.ParsePrefix(s)
		if err != nil {
			v.fail("%v", err)
			return
		}
		prefixes = append(prefixes, p)
	}) {
		return nil
	}
	list, err := netrestrict.Compile(prefixes)
	if err != nil {
		v.fail("%v", err)
	}
	return list
}

// oneOf reads one of a few words; the zero value if it is none of them.
func oneOf[T ~string](v value, words ...T) T {
	s, ok := v.text()
	if !ok {
		return ""
	}
	if !slices.Contains(words, T(s)) {
		quoted := make([]string, 0, len(words))
		for _, w := range words {
			quoted = append(quoted, cmp.Or(string(w), `""`))
		}
		v.fail("must be one of %s", strings.Join(quoted, ", "))
		return ""
	}
	return T(s)
}

// maxCount bounds counts far above anything sensible and far below an overflow.
const maxCount = 1_000_000

func pool(v value, p *Pool) {
	v.keys(map[string]func(value){
		"size":        func(v value) { p.Size = v.integer(1, maxCount) },
		"max_clients": func(v value) { p.MaxClients = v.integer(1, maxCount) },
		"max_servers": func(v value) { p.MaxServers = v.integer(1, maxCount) },
		"mode":        func(v value) { p.Mode = oneOf(v, "", "session", "transaction", "statement") },
		"min":         func(v value) { p.Min = v.integer(0, maxCount) },
		"reserve":     func(v value) { p.Reserve = v.integer(0, maxCount) },
		"reserve_after": func(v value) {
			d, ok := v.duration()
			if ok && d <= 0 {
				v.fail("must be more than 0s; without a reserve, leave reserve out")
			}
			p.ReserveAfter = d
		},
		"max_database_clients": func(v value) { p.MaxDatabaseClients = v.integer(0, maxCount) },
		"max_database_servers": func(v value) { p.MaxDatabaseServers = v.integer(0, maxCount) },
	})
}

// state reads what is done about each kind of session state.
func state(v value, policies map[StateKind]Policy) {
	kinds := make(map[string]func(value))
	for kind := range policies {
		kinds[string(kind)] = func(v value) {
			p := oneOf(v, PolicyTrack, PolicyPin, PolicyReset, PolicyRefuse, PolicyAllow)
			if p == PolicyTrack && kind != StateSet {
				v.fail("cannot be tracked: only parameters can be set again on another server")
			}
			policies[kind] = p
		}
	}
	v.keys(kinds)
}

func timeouts(v value, t *Timeouts) {
	set := func(at **time.Duration, zeroIsOK bool) func(value) {
		return func(v value) {
			d, ok := v.duration()
			switch {
			case ok && d < 0:
				v.fail("must not be negative")
			case ok && d == 0 && !zeroIsOK:
				v.fail("must be more than 0s: every wait has a bound")
			}
			*at = &d
		}
	}
	v.keys(map[string]func(value){
		"query":            set(&t.Query, true),
		"transaction":      set(&t.Transaction, true),
		"idle_transaction": set(&t.IdleTransaction, true),
		"client_idle":      set(&t.ClientIdle, true),
		"query_wait":       set(&t.QueryWait, false),
		"server_idle":      set(&t.ServerIdle, true),
		"server_lifetime":  set(&t.ServerLifetime, true),
	})
}

// Keys that are documented, whose neutral value is accepted, and whose other values are not built yet.

func regions(v value) {
	if v.node.Kind != yaml.MappingNode || len(v.node.Content) > 0 {
		v.notBuilt("regions")
	}
}
