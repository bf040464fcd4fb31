// What is known about one tenant.

package tenants

import (
	"cmp"
	"crypto/x509"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"time"

	"github.com/postern/postern/netrestrict"
)

// IDPattern is what a tenant's id looks like: fit for a DNS label, a file name and a metric label.
const IDPattern = `^[a-z0-9][a-z0-9_-]{0,62}$`

var idPattern = regexp.MustCompile(IDPattern) // immutable, safe for concurrent use

// ValidID reports whether id has the form of a tenant's id.
func ValidID(id string) bool { return idPattern.MatchString(id) }

// Tenant is one tenant. Like everything it points to, it never changes once it is in a Directory.
type Tenant struct {
	ID        string
	Upstream  Upstream               // without a Host if there is a Machine, and without a Port if that is local
	Machine   *Machine               // nil: the server is always there
	Database  string                 // offered when the client names none
	Databases []string               // the only ones allowed; empty: any
	Users     map[string]*User       // by the name that the client gives, case-sensitive
	Allow     *netrestrict.AllowList // nil: everyone
	// Restrictions says whether Allow refuses anybody.
	Restrictions Restrictions
	// Flycast names the tenant, as the destination in a PROXY header, to whoever names none; zero: it does not.
	Flycast    netip.Addr
	RequireTLS bool // not judged for CancelRequests
	// ClientCAs sign the certificates that clients have to show, which CancelRequests need not; nil: clients need none.
	ClientCAs   *x509.CertPool
	ClientCAPEM string // what ClientCAs was read from, for stores to keep; it decides nothing
	ClientCert  ClientCert
	Timeouts    Timeouts             // of its clients; a user's own win
	State       map[StateKind]Policy // in pool modes that share servers; has every kind
	// ResetAlways resets a server after every transaction, for those whose functions leave state that no text shows.
	ResetAlways   bool
	ClientAddress ClientAddress
	Pool          Pool
	Caps          Caps           // what Pool may not exceed
	NeverBan      []netip.Prefix // whom failed logins never ban here; what they come to at all tenants together counts
	AuthQuery     *AuthQuery     // nil: Users are all there are
	Service       *Service       // nil: Postern never logs in for itself
	Residency     Residency
	// ConnectionRate is how many clients may come in a second, on average; 0: no limit.
	ConnectionRate int
	// Paused has its clients wait, and Disabled keeps new ones out: what commands say of the tenant where all nodes read it.
	Paused, Disabled bool
}

// Refuses reports whether the tenant's restrictions keep somebody out now.
func (t *Tenant) Refuses(now time.Time, who netrestrict.Who) bool {
	return t.Restrictions != RestrictionsObserve && !t.Allow.Decide(now, who).Allowed
}

// Restrictions says what becomes of somebody whom an allowlist does not allow.
type Restrictions string

// The ways.
const (
	RestrictionsEnforce Restrictions = "enforce" // refused
	RestrictionsObserve Restrictions = "observe" // counted and listed, and let in
)

// Equal reports whether both say the same. Certificates and allowlists are compared by content.
func (t *Tenant) Equal(o *Tenant) bool {
	if !t.Allow.Equal(o.Allow) || !t.Upstream.Same(o.Upstream) || !maps.Equal(t.State, o.State) || !t.ClientCAs.Equal(o.ClientCAs) {
		return false
	}
	a, b := *t, *o
	for _, x := range []*Tenant{&a, &b} {
		x.Allow, x.Upstream, x.State, x.ClientCAs, x.ClientCAPEM = nil, Upstream{}, nil, nil, ""
	}
	return reflect.DeepEqual(a, b) // all that is left are plain values, however deep
}

// NeverBans reports whether all of a network is in the tenant's NeverBan.
func (t *Tenant) NeverBans(net netip.Prefix) bool {
	addr := net.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(t.NeverBan, func(p netip.Prefix) bool { return p.Bits() <= net.Bits() && p.Contains(addr) })
}

// User returns the user that a client calls name. The name is compared byte by byte, as Postgres does.
func (t *Tenant) User(name string) (*User, bool) {
	u, ok := t.Users[name]
	return u, ok
}

// AuthQuery says how to ask a tenant's Postgres for its roles, which may then log in beside the tenant's users.
type AuthQuery struct {
	User     string // has the right to list roles, and no other
	Password Secret
	Database string // where the function is that lists them; "": the tenant's
}

// Service is a role of the tenant's Postgres that is Postern's alone: a member of pg_monitor, which clients do not use.
type Service struct {
	User     string
	Password Secret
}

// Residency says where what is a tenant's may be.
type Residency struct {
	Ingress []string // regions whose nodes may serve its clients; empty: all, also those of nodes that do not say where they are
}

// ServedIn reports whether a node in a region may serve the tenant's clients. Others pass them on, and read nothing of what they say.
func (r Residency) ServedIn(region string) bool {
	return len(r.Ingress) == 0 || slices.Contains(r.Ingress, region)
}

// AllowsDatabase reports whether clients of this tenant may use the database called name.
func (t *Tenant) AllowsDatabase(name string) bool {
	return len(t.Databases) == 0 || slices.Contains(t.Databases, name)
}

// DatabaseOf returns the database that a client means: the tenant's where it named none. One that libpq may have filled in
// counts as named only if it is listed: then somebody has said that it exists.
func (t *Tenant) DatabaseOf(r Route) string {
	if r.Database == "" || r.Filled && !slices.Contains(t.Databases, r.Database) {
		return t.Database
	}
	return r.Database
}

// TLSMode says how a server connection is protected.
type TLSMode string

// The TLS modes.
const (
	TLSDisable    TLSMode = "disable"     // plain text
	TLSRequire    TLSMode = "require"     // encrypted; the certificate is not judged
	TLSVerifyFull TLSMode = "verify-full" // encrypted; the certificate is trusted and names the host
)

// Upstream is where a tenant's Postgres listens, and how to log in to it.
type Upstream struct {
	Host       string // a name or an IP address; "": a Machine is asked
	Port       uint16 // 0: a Machine is asked
	TLS        TLSMode
	RootCAs    *x509.CertPool // for verify-full; nil: the system's
	RootPEM    string         // what RootCAs was read from, for stores to keep; it decides nothing
	ServerName string         // sent as SNI and, with verify-full, looked for in the certificate; "": Host
	ClientCert string         // in PEM, shown to a server that asks for one; see KeyPair
	ClientKey  Secret         // its key, in PEM
}

// Same reports whether both lead to the same server in the same way, so that connections to one may serve for the other.
// Trusted certificates are compared by content: a replaced CA file is a change, a renamed one is not.
func (u Upstream) Same(o Upstream) bool {
	return u.Host == o.Host && u.Port == o.Port && u.TLS == o.TLS && u.ServerName == o.ServerName && u.RootCAs.Equal(o.RootCAs) &&
		u.ClientCert == o.ClientCert && u.ClientKey == o.ClientKey
}

// ServerAuth is the one way in which we prove a password to a server. A server that asks for another is refused.
type ServerAuth string

// The ways.
const (
	AuthSCRAM    ServerAuth = "scram"
	AuthMD5      ServerAuth = "md5"
	AuthPassword ServerAuth = "password" // in clear text, hence only with verify-full
	AuthCert     ServerAuth = "cert"     // not at all: the server takes the upstream's ClientCert; only with verify-full
)

// User is one login of a tenant. Exactly one of Verifier and Password is set; with CertInstead, at most one.
type User struct {
	Name     string // as clients give it
	Verifier Secret // in the text form of pg_authid.rolpassword
	Password Secret
	PoolSize int // 0: the tenant's
	Timeouts Timeouts

	MaxClients int // over all databases; 0: no limit of its own
	MaxServers int // over all databases; 0: no limit of its own

	ServerUser     string // the role on the server; Name unless its store says otherwise
	ServerPassword Secret // zero: log in with Password or, with a Verifier, with the ClientKey that the client's proof gives away, or see AuthCert
	ServerAuth     ServerAuth
}

// Timeouts bound what a client may do once it is logged in, and how old its servers get. Nil leaves it to the next level: of
// user, tenant, listener and process the first that says something counts. 0 is no bound.
type Timeouts struct {
	Query           *time.Duration // a request, until all of it is answered; then it is cancelled, and the session stays
	Transaction     *time.Duration // from a transaction's first request to its end
	IdleTransaction *time.Duration // between two requests inside a transaction
	ClientIdle      *time.Duration // between two transactions
	QueryWait       *time.Duration // for a server to become free; more than 0

	// Of servers, which a listener has none of.
	ServerIdle     *time.Duration // without a client; then it is closed
	ServerLifetime *time.Duration // then it is not lent again
}

// Over returns t where it says something, and what outer says elsewhere.
func (t Timeouts) Over(outer Timeouts) Timeouts {
	return Timeouts{
		Query:           cmp.Or(t.Query, outer.Query),
		Transaction:     cmp.Or(t.Transaction, outer.Transaction),
		IdleTransaction: cmp.Or(t.IdleTransaction, outer.IdleTransaction),
		ClientIdle:      cmp.Or(t.ClientIdle, outer.ClientIdle),
		QueryWait:       cmp.Or(t.QueryWait, outer.QueryWait),
		ServerIdle:      cmp.Or(t.ServerIdle, outer.ServerIdle),
		ServerLifetime:  cmp.Or(t.ServerLifetime, outer.ServerLifetime),
	}
}

// Pool holds a tenant's limits. Each holds beside the others, so the smallest counts.
type Pool struct {
	Size         int           // server connections per (user, database); a user's PoolSize wins
	Min          int           // of them, kept even if nobody needs them
	Reserve      int           // server connections above Size, for clients that have waited for ReserveAfter
	ReserveAfter time.Duration // more than 0

	MaxClients         int // per tenant
	MaxServers         int // per tenant
	MaxDatabaseClients int // per database; 0: no limit of its own
	MaxDatabaseServers int // per database; 0: no limit of its own

	// PerNode says that each node has these limits for itself. Otherwise limits of servers hold over all nodes together.
	PerNode bool

	Mode string // "session", "transaction", "statement"; "": the listener's
}

// Caps are the operator's limits on a pool whose numbers are the owner's to set. 0: there is none.
type Caps struct {
	Size               int
	MaxClients         int
	MaxServers         int
	MaxDatabaseClients int
	MaxDatabaseServers int
}

// Over is what caps a pool whose numbers an owner is about to change: c, and where it has no cap, what the pool has, which so far
// was the operator's. Where that is no limit the cap is MaxCount: else the owner's own number would be taken for the operator's
// the next time.
func (c Caps) Over(p Pool) Caps {
	return Caps{
		Size:               cmp.Or(c.Size, p.Size),
		MaxClients:         cmp.Or(c.MaxClients, p.MaxClients),
		MaxServers:         cmp.Or(c.MaxServers, p.MaxServers),
		MaxDatabaseClients: cmp.Or(c.MaxDatabaseClients, p.MaxDatabaseClients, MaxCount),
		MaxDatabaseServers: cmp.Or(c.MaxDatabaseServers, p.MaxDatabaseServers, MaxCount),
	}
}
