// What a gate is made from.

package proxy

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/tenants"
)

// Options configure a Gate. They are only read.
type Options struct {
	Listeners []Listener
	Directory *tenants.Directory
	// Certificate chooses what a client is shown; nil: TLS is not offered. Safe for concurrent use.
	Certificate  func(*tls.ClientHelloInfo) *tls.Certificate
	TenantDomain string // SNI names a tenant only below it; "": never
	MockSecret   []byte // makes mock salts stable; empty: random for this process
	Timeouts     Timeouts
	Session      tenants.Timeouts // of clients and their servers, where nobody says otherwise
	Limits       Limits
	OpenFiles    int // that the process may have; 0: any number. Limits are cut to what fits
	TCP          TCP
	Loops        int  // 0: one per core
	NoIOUring    bool // every write is a system call of its own
	Throttle     netrestrict.ThrottleConfig
	// TellBan is told of every ban at a tenant, or at all tenants, that begins here and, with nothing left of it, of every one that is
	// lifted here, for other nodes. It returns at once. nil: there are none. What they tell goes to Gate.ApplyBan.
	TellBan func(Ban)
	// Cluster reaches the other nodes; nil: there are none.
	Cluster Cluster
	// Region is where this node is; "": it does not say.
	Region string
	// Streams leads to nodes in other regions. nil: there are none, and tenants that may not be served here are refused.
	Streams Streams
	// Budget divides limits of tenants among nodes. nil: there is one node, or each has all of them.
	Budget Budget
	// Driver makes, or finds, what runs the machine of a tenant that has one.
	Driver func(*tenants.Tenant) (machines.Driver, error)
	// Stalled is called once when a loop or a lock of the gate has not moved for half a minute, which it will not again: with its
	// name, for the log. It ends the process. nil: nobody watches.
	Stalled    func(what string)
	Known      *Known    // what is known of servers that sleep; nil: nothing is kept
	Roles      RoleStore // keeps the roles that servers have listed; nil: they are known until the process ends
	Console    *Console  // nil: there is no admin console
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Listener is one address that clients connect to.
type Listener struct {
	Name    string
	Network string // tcp4 where the address is an IPv4 literal
	Address string
	Mode    string // session, transaction or statement
	// ProxyProtocol demands a PROXY header, from Trusted senders only.
	ProxyProtocol bool
	Trusted       []netip.Prefix
	Timeouts      tenants.Timeouts // of its clients, where neither user nor tenant says otherwise
	Console       bool             // the admin console answers here
}

// Timeouts bound the waits that are the same for everybody.
type Timeouts struct {
	ProxyHeader, Login, ServerConnect, Wake time.Duration
}

// Limits bound what strangers and clients may take.
type Limits struct {
	Clients          int         // logged in
	Handshakes       int         // not yet
	AddressRate      int         // connections of one address in a second, on average; 0: no limit
	Statements       link.Limits // of each client
	ServerStatements int         // that a server holds; 0: link.DefaultLimit
	Pending          int         // bytes of input that waits for its rest or for a server, of all clients; 0: no limit
}

// TCP is the socket options of clients and servers alike.
type TCP struct {
	KeepaliveIdle, KeepaliveInterval time.Duration
	KeepaliveCount                   int
	UserTimeout                      time.Duration // see loop.EndSilent
}
