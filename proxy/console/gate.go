// What the console needs of the gate: what there is to show, and who does what is asked for.

package console

import "time"

// Gate is what the console shows and rules. Its methods are called one at a
// time and may take a while.
type Gate interface {
	Version() string
	Settings() []Setting
	Databases() []Database
	Pools() []Pool
	Clients() []Socket
	Servers() []Socket
	Lists() Lists
	Users() []User
	Stats() []Stats
	Memory() []Memory
	Tenants() []Tenant
	Bans() []Ban
	Refusals() []Refusal
	Nodes() []Node
	State() State
	// Do carries a control command out and returns when it is done. An error of
	// type *pgwire.Error is told as it is.
	Do(Command) error
}

// Setting is one row of SHOW CONFIG.
type Setting struct{ Key, Value, Default string }

// Database is a tenant's database that was named in its configuration or is in use.
type Database struct {
	Tenant, Name          string
	Host                  string // "": a machine that sleeps
	Port                  int
	PoolSize, MinPoolSize int
	ReservePoolSize       int
	ServerLifetime        time.Duration
	Mode                  string // "": the listener's
	MaxServers, Servers   int    // the tenant's limit, if the database has none of its own
	MaxClients, Clients   int    // likewise
	Paused, Disabled      bool   // which tenants are, not databases
}

// Pool is the census of one user's connections to one database.
type Pool struct {
	Tenant, Database, User                         string
	ClientsActive, ClientsWaiting                  int // active: all that do not wait
	CancelsActive                                  int // servers at which a cancel is aimed
	ServersActive, ServersIdle, ServersTested, New int // Tested: being reset; New: logging in
	MaxWait                                        time.Duration
	Mode                                           string
}

// Socket is a client or a server connection.
type Socket struct {
	Server                 bool
	Tenant, Database, User string
	State                  string // active, idle, waiting, tested, new
	Replication            string // physical or logical; "": none
	Addr, LocalAddr        string // "": not known
	Port, LocalPort        int
	Connected, Requested   time.Time
	Wait                   time.Duration // of a client that waits
	CloseNeeded            bool
	Ptr, Link              string // who it is, and whom it serves or is served by
	PID                    int64  // of a server's process
	TLS                    string
	Application            string
	Statements             int // prepared ones
	ID                     int64
	Received, Pending      int // bytes held of its input, and of its output

	Pins  []string  // why a client keeps its server
	Since time.Time // when it got that server
}

// Lists are the counts of SHOW LISTS.
type Lists struct {
	Databases, Users, Pools                int
	FreeClients, UsedClients, LoginClients int
	UsedServers                            int
}

// User is a tenant's user.
type User struct {
	Tenant, Name           string
	PoolSize               int // 0: the tenant's
	ReservePoolSize        int // of each of the user's pools
	Servers, Clients       int
	MaxServers, MaxClients int // 0: none of its own
}

// Counters only grow.
type Counters struct {
	Assignments, Transactions, Queries, Received, Sent uint64
}

// Stats are a tenant's counters, as they are now and as they were Period ago.
type Stats struct {
	Name     string
	Now, Old Counters
	Period   time.Duration // 0: there is no earlier look
}

// Memory is one row of SHOW MEM: how many units of Size bytes are in use and free.
type Memory struct {
	Name             string
	Size, Used, Free int64
}

// Tenant is one row of SHOW TENANTS.
type Tenant struct {
	ID                                  string
	Machine                             string // its state; "": the tenant has none
	Since                               time.Time
	SuspendsAt                          time.Time
	Needs                               []string // what keeps the machine awake
	Clients, Waiting, Pinned            int
	Servers, ServersActive, ServersIdle int
	MaxClients, MaxServers              int
	Paused, Disabled                    bool
}

// Ban is an address that has failed to log in too often.
type Ban struct {
	Tenant   string // where; "": everywhere
	Address  string // an IPv4 address, or an IPv6 network
	Left     time.Duration
	Failures int
}

// Refusal is an address that a tenant has turned away for one reason, however often.
type Refusal struct {
	Tenant, Address, Reason string
	Mode                    string // enforce, or observe: it was let in
	User                    string // that it named last, fit to be shown; "": none
	Count                   uint64
	First, Last             time.Time
}

// Node is a process on the same database of tenants, where they are a cluster.
type Node struct {
	Name, Region, Address string
	Member                string // alive, suspect or left, as the gossip has it; "": it does not know it
	Since                 time.Time
	Seen                  time.Time // by the store; zero: it has no row
	Silent, Leaving       bool
	Protocol              int
	Applied               int64
}

// State is whether a PAUSE of everything is in force.
type State struct{ Paused bool }
