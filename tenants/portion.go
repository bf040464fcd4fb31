// Portions: what nodes that share a tenant's limits tell each other, and what a gate and its node's budget do.

package tenants

import (
	"net/url"
	"strings"
	"time"
)

// ScopeTenant is the scope of all of a tenant's servers.
const ScopeTenant = ""

// ScopeUse is a scope without a limit: its servers are those of a node whose limits are its own.
const ScopeUse = "use"

// UserScope is the scope of a user's servers over all databases.
func UserScope(user string) string { return "user/" + url.PathEscape(user) }

// DatabaseScope is the scope of a database's servers of all users.
func DatabaseScope(database string) string { return "database/" + url.PathEscape(database) }

// PoolScope is the scope of the servers of a user and a database. Names may have any bytes, a slash too: scopes are plain text.
func PoolScope(user, database string) string {
	return "pool/" + url.PathEscape(user) + "/" + url.PathEscape(database)
}

// ofClients follows the name of a tenant, which has no slash.
const ofClients = "/clients"

// ClientsOf is what a tenant's limits of clients are called where others have the tenant's name: they are divided for themselves, with the
// same scopes, and a place of a client stands for a server.
func ClientsOf(tenant string) string { return tenant + ofClients }

// CutClients returns the tenant of such a name; ok is false if it is none.
func CutClients(name string) (tenant string, ok bool) { return strings.CutSuffix(name, ofClients) }

// Demand is what a gate has of a limit, and what it could use. A gate says all its demands of a tenant together; of a scope that it
// does not name it has nothing and wants nothing.
type Demand struct {
	Scope string
	// Limit is the tenant's, over all nodes; 0: there is none, and what is wanted is granted.
	Limit int
	// Held is how many servers may still be open: being dialed, open, or closed without having seen their end.
	Held int
	// Wanted is how many servers it could use now: those in use, and one for each client that waits and that the limits inside of this
	// one would let have one. Idle servers are held, not wanted.
	Wanted int
}

// Grant is how many servers of a scope a gate may have at once, those included that it has. A scope that is not named has none. If it
// has more, it closes what is idle at once, and what is in use when it is released.
type Grant struct {
	Scope   string
	Servers int
}

// Portion is a row of the store: how many servers of a scope one process may have.
type Portion struct {
	Scope      string
	Node, Boot string
	Servers    int // that it may have, or still has
	Wanted     int // that it could use, when it looked last
	// Silent says that the process was not heard of lately: it went without a goodbye, is frozen, or cannot reach the store.
	Silent bool
	// Lapses is when it will have been silent for long enough, by the store's clock; of one that is not silent it says nothing.
	Lapses time.Time
	// Lapsed says that it has been silent for so long that none of its dials can be under way any more.
	Lapsed bool
}

// Portions are all of a tenant, at one moment.
type Portions struct {
	All []Portion
	Now time.Time // by the store's clock
	// Settling says that the store has become another one lately: some may be missing.
	Settling bool
}

// PortionsChange is what a process makes of the portions.
type PortionsChange struct {
	Mine []Portion // all of its own; of a scope that is not here it has none
	Gone []Portion // lapsed ones of others that end, or shrink to what Servers says
	Tell bool      // other nodes should look at the tenant
}
