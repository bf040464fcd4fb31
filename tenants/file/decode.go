// One entry of the tenants file: its keys, and the types of their values. What the values may be is tenants.Validate's.

package file

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"math"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// tenant reads one tenant, and returns the keys of its users in the order of the file as well. What could not be read is
// reported; something stands there in its place.
func (l *loader) tenant(v value) (t *tenants.Tenant, users []string) {
	t = tenants.New("")
	seen := v.keys(map[string]func(value){
		"id":                func(v value) { t.ID = v.name() },
		"upstream":          func(v value) { l.upstream(v, &t.Upstream) },
		"machine":           func(v value) { t.Machine = l.machine(v, &t.Upstream) },
		"database":          func(v value) { t.Database = v.name() },
		"databases":         func(v value) { t.Databases = names(v) },
		"users":             func(v value) { users = l.users(v, t.Users) },
		"allow_list":        func(v value) { t.Allow = allowList(v) },
		"restrictions_mode": func(v value) { t.Restrictions = word[tenants.Restrictions](v) },
		"flycast":           func(v value) { t.Flycast, _ = parsed(v, netrestrict.ParseFlycast) },
		"connection_rate":   func(v value) { t.ConnectionRate = v.number() },
		"never_ban":         func(v value) { t.NeverBan, _ = networks(v) },
		"require_tls":       func(v value) { t.RequireTLS = v.boolean() },
		"client_ca": func(v value) {
			r := l.certificates(v)
			t.ClientCAs, t.ClientCAPEM = cmp.Or(r.pool, x509.NewCertPool()), r.pem
		},
		"client_cert": func(v value) { t.ClientCert = word[tenants.ClientCert](v) },
		"pool":        func(v value) { pool(v, &t.Pool) },
		"caps":        func(v value) { caps(v, &t.Caps) },
		"timeouts":    func(v value) { timeouts(v, &t.Timeouts) },

		"auth_query":          func(v value) { t.AuthQuery = l.authQuery(v) },
		"service":             func(v value) { t.Service = l.service(v) },
		"client_address":      func(v value) { t.ClientAddress = word[tenants.ClientAddress](v) },
		"state":               func(v value) { state(v, t.State) },
		"server_reset_always": func(v value) { t.ResetAlways = v.boolean() },
		"paused":              func(v value) { t.Paused = v.boolean() },
		"disabled":            func(v value) { t.Disabled = v.boolean() },
		"residency":           func(v value) { residency(v, &t.Residency) },
		"regions":             regions,
	})
	if seen["upstream"] && seen["machine"] { // which have the one Upstream between them
		v.find("machine").fail("a tenant has either an upstream or a machine, not both")
	}
	t.Complete()
	return t, users
}

func (l *loader) upstream(v value, u *tenants.Upstream) {
	u.Port, u.TLS = tenants.DefaultPort, tenants.TLSVerifyFull // so that one without anything is not as good as none
	keys := map[string]func(value){
		"host": func(v value) { u.Host = v.name() },
		"port": func(v value) { u.Port = uint16(v.integer(1, math.MaxUint16)) },
	}
	l.security(u, keys)
	v.keys(keys)
}

// security adds the keys that say how server connections are protected, for an upstream or a machine.
func (l *loader) security(u *tenants.Upstream, keys map[string]func(value)) {
	keys["tls"] = func(v value) { u.TLS = word[tenants.TLSMode](v) }
	keys["ca"] = func(v value) {
		r := l.certificates(v)
		u.RootCAs, u.RootPEM = r.pool, r.pem
	}
	keys["server_name"] = func(v value) { u.ServerName = v.name() }
	keys["client_cert"] = func(v value) { u.ClientCert = l.chain(v) }
	keys["client_key"] = func(v value) { u.ClientKey = secret(v, l.key(v)) }
}

// machine reads a machine, and how to log in to it into u, which gets no Host, because the machine is asked for that.
func (l *loader) machine(v value, u *tenants.Upstream) *tenants.Machine {
	m := &tenants.Machine{SuspendAfter: tenants.DefaultSuspendAfter}
	*u = tenants.Upstream{}
	keys := map[string]func(value){
		"provider":      func(v value) { m.Provider = word[tenants.Provider](v) },
		"app":           func(v value) { m.App = v.name() },
		"id":            func(v value) { m.ID = v.name() },
		"token_file":    func(v value) { m.Token = secret(v, l.token(v)) },
		"name":          func(v value) { m.Name = v.name() },
		"port":          func(v value) { u.Port = uint16(v.integer(1, math.MaxUint16)) },
		"suspend_after": func(v value) { m.SuspendAfter = v.duration() },
		"wake":          func(v value) { m.Wake = word[tenants.WakeOn](v) },
		"sleep":         func(v value) { m.Sleep = word[tenants.Sleep](v) },
	}
	l.security(u, keys)
	v.keys(keys)
	return m
}

// users reads the users into byName and returns their keys there in the order of the file. One without a name, or with a name
// that is there already, is judged as well: its key is one that no name can be.
func (l *loader) users(v value, byName map[string]*tenants.User) (order []string) {
	lines := map[string]int{}
	v.each(func(i int, v value) {
		u := l.user(v)
		key, nobody := u.Name, fmt.Sprintf("\x00%d", i)
		if line, dup := lines[u.Name]; dup && u.Name != "" {
			v.say("user %q is there already, in line %d", u.Name, line)
			u.Name, u.ServerUser, key = nobody, cmp.Or(u.ServerUser, "unread"), nobody
			v.found.setUnread(v.path + ".name")
		}
		if u.Name == "" {
			key = nobody
		}
		lines[u.Name] = v.node.Line
		byName[key] = u
		order = append(order, key)
	})
	return order
}

func (l *loader) user(v value) *tenants.User {
	u := &tenants.User{}
	v.keys(map[string]func(value){
		"name":          func(v value) { u.Name = v.name() },
		"verifier":      func(v value) { u.Verifier = secret(v, v.name()) },
		"password_file": func(v value) { u.Password = secret(v, l.password(v)) },
		"pool_size":     func(v value) { u.PoolSize = v.integer(1, tenants.MaxCount) },
		"max_clients":   func(v value) { u.MaxClients = v.number() },
		"max_servers":   func(v value) { u.MaxServers = v.number() },
		"timeouts":      func(v value) { timeouts(v, &u.Timeouts) },
		"upstream": func(v value) {
			v.keys(map[string]func(value){
				"user":          func(v value) { u.ServerUser = v.name() },
				"password_file": func(v value) { u.ServerPassword = secret(v, l.password(v)) },
				"auth":          func(v value) { u.ServerAuth = word[tenants.ServerAuth](v) },
			})
		},
	})
	return u
}

func (l *loader) authQuery(v value) *tenants.AuthQuery {
	q := &tenants.AuthQuery{}
	v.keys(map[string]func(value){
		"user":          func(v value) { q.User = v.name() },
		"password_file": func(v value) { q.Password = secret(v, l.password(v)) },
		"database":      func(v value) { q.Database = v.name() },
	})
	return q
}

func (l *loader) service(v value) *tenants.Service {
	s := &tenants.Service{}
	v.keys(map[string]func(value){
		"user":          func(v value) { s.User = v.name() },
		"password_file": func(v value) { s.Password = secret(v, l.password(v)) },
	})
	return s
}

// secret makes a text a Secret. One that could not be read is not "none": that would be one more problem.
func secret(v value, text string) tenants.Secret {
	if text == "" {
		v.found.setUnread(v.path)
		text = "unread"
	}
	return tenants.NewSecret(text)
}

// names reads a list of texts.
func names(v value) (all []string) {
	v.each(func(_ int, v value) { all = append(all, v.name()) })
	return slices.Clip(all)
}

// word reads one of the words of a type.
func word[T ~string](v value) T { return T(v.name()) }

func pool(v value, p *tenants.Pool) {
	v.keys(map[string]func(value){
		"size":                 func(v value) { p.Size = v.number() },
		"max_clients":          func(v value) { p.MaxClients = v.number() },
		"max_servers":          func(v value) { p.MaxServers = v.number() },
		"mode":                 func(v value) { p.Mode, _ = v.text() },
		"min":                  func(v value) { p.Min = v.number() },
		"reserve":              func(v value) { p.Reserve = v.number() },
		"reserve_after":        func(v value) { p.ReserveAfter = v.duration() },
		"max_database_clients": func(v value) { p.MaxDatabaseClients = v.number() },
		"max_database_servers": func(v value) { p.MaxDatabaseServers = v.number() },
		"per_node":             func(v value) { p.PerNode = v.boolean() },
	})
}

func caps(v value, c *tenants.Caps) {
	v.keys(map[string]func(value){
		"size":                 func(v value) { c.Size = v.number() },
		"max_clients":          func(v value) { c.MaxClients = v.number() },
		"max_servers":          func(v value) { c.MaxServers = v.number() },
		"max_database_clients": func(v value) { c.MaxDatabaseClients = v.number() },
		"max_database_servers": func(v value) { c.MaxDatabaseServers = v.number() },
	})
}

// state reads what is done about each kind of session state.
func state(v value, policies map[tenants.StateKind]tenants.Policy) {
	kinds := make(map[string]func(value))
	for kind := range policies {
		kinds[string(kind)] = func(v value) { policies[kind] = word[tenants.Policy](v) }
	}
	v.keys(kinds)
}

func timeouts(v value, t *tenants.Timeouts) {
	set := func(at **time.Duration) func(value) { return func(v value) { *at = new(v.duration()) } }
	v.keys(map[string]func(value){
		"query":            set(&t.Query),
		"transaction":      set(&t.Transaction),
		"idle_transaction": set(&t.IdleTransaction),
		"client_idle":      set(&t.ClientIdle),
		"query_wait":       set(&t.QueryWait),
		"server_idle":      set(&t.ServerIdle),
		"server_lifetime":  set(&t.ServerLifetime),
	})
}

func residency(v value, r *tenants.Residency) {
	v.keys(map[string]func(value){
		"ingress": func(v value) {
			if r.Ingress = names(v); len(r.Ingress) == 0 {
				v.fail("must name a region: leave residency out for all")
			}
		},
		"data": func(v value) { v.notBuilt("residency.data") },
	})
}

// Keys that are documented, whose neutral value is accepted, and whose other values are not built yet.

func regions(v value) {
	if v.node.Kind != yaml.MappingNode || len(v.node.Content) > 0 {
		v.notBuilt("regions")
	}
}
