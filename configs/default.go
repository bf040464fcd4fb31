// The defaults: what holds where the file says nothing.

package configs

import "time"

// Default returns the configuration of an empty file. It has no listener and no tenants yet, so it does not pass Validate.
func Default() Config {
	return Config{
		Auth: Auth{Throttle: Throttle{TenantFailures: 10, AddressFailures: 50, Window: 150 * time.Second, Block: 2 * time.Minute}},
		Timeouts: Timeouts{
			ProxyHeader:    5 * time.Second,
			Login:          15 * time.Second,
			ServerConnect:  10 * time.Second,
			Wake:           time.Minute,
			QueryWait:      2 * time.Minute,
			ServerIdle:     10 * time.Minute,
			ServerLifetime: time.Hour,
			Drain:          4*time.Minute + 30*time.Second, // Fly kills after five minutes
		},
		Limits: Limits{Clients: 100_000, Handshakes: 1000, Statements: 5000, StatementMemoryMiB: 64, ServerStatements: 200, PendingMemoryMiB: 256},
		TCP: TCP{
			KeepaliveIdle:     30 * time.Second,
			KeepaliveInterval: 5 * time.Second,
			KeepaliveCount:    5,
			UserTimeout:       time.Minute,
		},
		IOUring: IOUringAuto,
		Log:     Log{Level: "info", Format: LogJSON},
	}
}

// DefaultListener returns what holds for a listener that leaves a key out. Session mode breaks no client, and PgBouncer's
// users expect it; `off` trusts nobody, and CheckExposure guards it.
func DefaultListener() Listener {
	return Listener{PoolMode: PoolSession, ProxyProtocol: ProxyOff}
}

// DefaultFlyAPI is the Machines API as seen from inside Fly's private network.
const DefaultFlyAPI = "http://_api.internal:4280"

// setDefaults fills in what the file left out, if it wants machines of Fly at all.
func (f *FlyMachines) setDefaults() {
	if f.TokenFile != "" && f.API == "" {
		f.API = DefaultFlyAPI
	}
}

// DefaultMaxNodes is how many nodes of a cluster are counted with.
const DefaultMaxNodes = 8

// setDefaults fills in what the file left out, if there is to be a cluster at all.
func (c *Cluster) setDefaults() {
	if c.Configured() && c.MaxNodes == 0 {
		c.MaxNodes = DefaultMaxNodes
	}
}

// setDefaults fills in what the file left out of a listener.
func (l *Listener) setDefaults() {
	d := DefaultListener()
	if l.PoolMode == "" {
		l.PoolMode = d.PoolMode
	}
	if l.ProxyProtocol == "" {
		l.ProxyProtocol = d.ProxyProtocol
	}
}
