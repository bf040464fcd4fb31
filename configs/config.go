// The types of the configuration file.

package configs

import (
	"net/netip"
	"time"
)

// Config is the whole configuration of a process. The mapstructure tags are the keys of the file.
type Config struct {
	Listeners []Listener `mapstructure:"listeners"`
	TLS       TLS        `mapstructure:"tls"`
	Auth      Auth       `mapstructure:"auth"`
	Admin     Admin      `mapstructure:"admin"`
	Tenants   Tenants    `mapstructure:"tenants"`
	Region    string     `mapstructure:"region"` // where this process is; empty: FLY_REGION, and else it does not say
	Cluster   Cluster    `mapstructure:"cluster"`
	Machines  Machines   `mapstructure:"machines"`
	Timeouts  Timeouts   `mapstructure:"timeouts"`
	Limits    Limits     `mapstructure:"limits"`
	Loops     int        `mapstructure:"loops"` // event loops; 0: one per core
	IOUring   string     `mapstructure:"io_uring"`
	TCP       TCP        `mapstructure:"tcp"`
	Log       Log        `mapstructure:"log"`

	// Dir is the folder of the file; Load resolves relative paths against it. Empty in a Config made by hand.
	Dir string `mapstructure:"-"`
}

// Values of Listener.PoolMode.
const (
	PoolSession     = "session"
	PoolTransaction = "transaction"
	PoolStatement   = "statement"
)

// Values of Listener.ProxyProtocol.
const (
	ProxyRequire = "require" // each connection opens with one header from a trusted sender
	ProxyOff     = "off"     // the peer of the socket is the client
)

// Listener is one address that clients connect to, and its policy.
type Listener struct {
	Name           string         `mapstructure:"name"`            // in logs; unique
	Address        string         `mapstructure:"address"`         // host:port, the host an IP address or nothing; see Network
	PoolMode       string         `mapstructure:"pool_mode"`       // session, transaction or statement
	ProxyProtocol  string         `mapstructure:"proxy_protocol"`  // require or off
	TrustedProxies []netip.Prefix `mapstructure:"trusted_proxies"` // who may send PROXY headers
	Console        bool           `mapstructure:"console"`         // the admin console answers here, for Admin.ConsoleUsers

	Timeouts ListenerTimeouts `mapstructure:"timeouts"`
}

// ListenerTimeouts are those of a listener's clients; nil is what Timeouts says. Tenants and users may say otherwise.
type ListenerTimeouts struct {
	Query           *time.Duration `mapstructure:"query"`
	Transaction     *time.Duration `mapstructure:"transaction"`
	IdleTransaction *time.Duration `mapstructure:"idle_transaction"`
	ClientIdle      *time.Duration `mapstructure:"client_idle"`
	QueryWait       *time.Duration `mapstructure:"query_wait"`
}

// TLS is what clients are offered. Without certificates TLS is not offered.
type TLS struct {
	Certificates []CertificateFile `mapstructure:"certificates"`  // chosen by SNI; the first one is for all others
	TenantDomain string            `mapstructure:"tenant_domain"` // SNI <tenant>.<domain> names a tenant; empty: SNI does not route
}

// CertificateFile is a certificate chain and its key, both PEM.
type CertificateFile struct {
	Cert string `mapstructure:"cert"`
	Key  string `mapstructure:"key"`
}

// Auth is how clients are authenticated beyond what their tenants say.
type Auth struct {
	MockSecretFile string   `mapstructure:"mock_secret_file"` // seeds the salts of unknown users; empty: random per process
	Throttle       Throttle `mapstructure:"throttle"`
}

// Throttle slows the guessing of passwords down. An address is an IPv4 address or an IPv6 /64.
type Throttle struct {
	TenantFailures  int           `mapstructure:"tenant_failures"`  // of an address at one tenant, then it is blocked there
	AddressFailures int           `mapstructure:"address_failures"` // of an address at all tenants together, then it is blocked everywhere
	Window          time.Duration `mapstructure:"window"`           // failures count together for so long
	Block           time.Duration `mapstructure:"block"`            // how long a block lasts
}

// Admin is the HTTP side: health, metrics and the API.
type Admin struct {
	Address       string        `mapstructure:"address"`        // as Listener.Address; empty: no admin HTTP
	TokenFile     string        `mapstructure:"token_file"`     // bearer token; empty: what needs one answers 401
	ConsoleUsers  []ConsoleUser `mapstructure:"console_users"`  // needed where a listener has Console
	MetricsPublic bool          `mapstructure:"metrics_public"` // /metrics needs no token
	Hosts         []string      `mapstructure:"hosts"`          // names by which clients call it, beside addresses and names without a dot
}

// ConsoleUser may log in to the admin console. The verifier is in the text form of pg_authid.rolpassword; whether its
// numbers are sound is for whoever uses it to say.
type ConsoleUser struct {
	Name     string `mapstructure:"name"`
	Verifier Secret `mapstructure:"verifier"`
}

// Tenants is where tenants are read from: exactly one of its fields is set.
type Tenants struct {
	File     string          `mapstructure:"file"`
	Postgres TenantsPostgres `mapstructure:"postgres"`
}

// TenantsPostgres is a store of tenants in a database.
type TenantsPostgres struct {
	DSNFile   string `mapstructure:"dsn_file"`   // holds a connection string
	KeyFile   string `mapstructure:"key_file"`   // opens and seals the secrets of the store
	CacheFile string `mapstructure:"cache_file"` // what is known, for a start without the store; empty: it is not kept
	Node      string `mapstructure:"node"`       // the name of this process among those that follow the store; empty: it is made up
}

// InPostgres reports whether tenants are read from a database, not from a file.
func (t Tenants) InPostgres() bool { return t.Postgres != (TenantsPostgres{}) }

// Cluster makes this process a node among others on the same database of tenants.
type Cluster struct {
	Name      string   `mapstructure:"name"`      // of this node; empty: as of Tenants.Postgres.Node
	Bind      string   `mapstructure:"bind"`      // as Listener.Address: of the gossip; the next port is for other nodes' calls
	Advertise string   `mapstructure:"advertise"` // an IP address, perhaps with a port, at which others reach Bind; empty: found out
	Join      []string `mapstructure:"join"`      // addresses and DNS names, perhaps with a port, beside those of the database
	KeyFile   string   `mapstructure:"key_file"`  // that all nodes share
	MaxNodes  int      `mapstructure:"max_nodes"` // there will be no more
}

// Configured reports whether there is a cluster at all.
func (c Cluster) Configured() bool {
	return c.Name != "" || c.Bind != "" || c.Advertise != "" || len(c.Join) > 0 || c.KeyFile != "" || c.MaxNodes != 0
}

// Machines is what starts and stops the machines of tenants. A provider that is left out runs none.
type Machines struct {
	Fly       FlyMachines   `mapstructure:"fly"`
	Local     LocalMachines `mapstructure:"local"`
	StateFile string        `mapstructure:"state_file"` // see KnownFile
}

// FlyMachines reaches Fly's Machines API.
type FlyMachines struct {
	API       string `mapstructure:"api"`        // http or https, with a host and perhaps a port
	TokenFile string `mapstructure:"token_file"` // bearer token
}

// LocalMachines are PostgreSQL clusters on this computer.
type LocalMachines struct {
	Dir string `mapstructure:"dir"` // holds a folder for each
}

// Timeouts bound every wait. Login covers accept to AuthenticationOk; ServerConnect and QueryWait apply after it.
type Timeouts struct {
	ProxyHeader     time.Duration `mapstructure:"proxy_header"`     // for a whole PROXY header
	Login           time.Duration `mapstructure:"login"`            // from accept to AuthenticationOk
	ServerConnect   time.Duration `mapstructure:"server_connect"`   // dial, TLS and login of a server connection
	Wake            time.Duration `mapstructure:"wake"`             // for a sleeping machine
	QueryWait       time.Duration `mapstructure:"query_wait"`       // for a server connection
	Query           time.Duration `mapstructure:"query"`            // a request, then it is cancelled; 0: no bound, here and below
	Transaction     time.Duration `mapstructure:"transaction"`      // from a transaction's first request to its end
	IdleTransaction time.Duration `mapstructure:"idle_transaction"` // between two requests inside a transaction
	ClientIdle      time.Duration `mapstructure:"client_idle"`      // between two transactions
	ServerIdle      time.Duration `mapstructure:"server_idle"`      // an idle server connection is closed after it; 0: never
	ServerLifetime  time.Duration `mapstructure:"server_lifetime"`  // an older server connection is not lent again; 0: no limit
	Drain           time.Duration `mapstructure:"drain"`            // from SIGTERM until everything is closed
}

// Limits are for the whole process; tenants have their own.
type Limits struct {
	Clients            int `mapstructure:"clients"`              // connections that are logged in, at most
	Handshakes         int `mapstructure:"handshakes"`           // connections between accept and AuthenticationOk, at most
	AddressRate        int `mapstructure:"address_rate"`         // connections of one address in a second, on average; 0: no limit
	Statements         int `mapstructure:"statements"`           // named prepared statements of one client, at most
	StatementMemoryMiB int `mapstructure:"statement_memory_mib"` // of their texts and names together, at most
	ServerStatements   int `mapstructure:"server_statements"`    // prepared statements that a server connection keeps; the least used goes first
	PendingMemoryMiB   int `mapstructure:"pending_memory_mib"`   // of messages that are not complete or wait for a server; half of it for one tenant
}

// TCP holds for client and server sockets. A zero leaves the system's own setting.
type TCP struct {
	KeepaliveIdle     time.Duration `mapstructure:"keepalive_idle"`     // whole seconds
	KeepaliveInterval time.Duration `mapstructure:"keepalive_interval"` // whole seconds
	KeepaliveCount    int           `mapstructure:"keepalive_count"`
	UserTimeout       time.Duration `mapstructure:"user_timeout"` // whole milliseconds; how long sent bytes may stay unacknowledged
}

// Values of Config.IOUring.
const (
	IOUringAuto = "auto" // where the kernel allows it, what a loop writes in one turn is one system call
	IOUringOff  = "off"  // each write is a system call of its own
)

// Values of Log.Format.
const (
	LogJSON = "json"
	LogText = "text"
)

// Log is what is logged, and how.
type Log struct {
	Level  string `mapstructure:"level"`  // debug, info, warn or error
	Format string `mapstructure:"format"` // json or text
}
