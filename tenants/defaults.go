// The defaults of a tenant, where its store says nothing.

package tenants

import (
	"cmp"
	"time"
)

// Defaults of a tenant.
const (
	DefaultDatabase   = "postgres"
	DefaultPort       = 5432
	DefaultPoolSize   = 20
	DefaultMaxClients = 1000
	DefaultMaxServers = 60
	// DefaultReserveAfter is PgBouncer's reserve_pool_timeout.
	DefaultReserveAfter = 5 * time.Second
	// DefaultSuspendAfter is how long a machine stays unused before it is put to sleep.
	DefaultSuspendAfter = 5 * time.Minute
)

// New returns a tenant of which nothing was said but its id: with all defaults that stand alone, and nowhere to go. What
// follows from the rest is filled in by Complete.
func New(id string) *Tenant {
	return &Tenant{
		ID: id, Database: DefaultDatabase, State: defaultState(), ClientAddress: AddressOff, Restrictions: RestrictionsEnforce, Users: make(map[string]*User),
		Pool: Pool{Size: DefaultPoolSize, ReserveAfter: DefaultReserveAfter, MaxClients: DefaultMaxClients, MaxServers: DefaultMaxServers},
	}
}

// Complete fills in what was not said and follows from what was: how to get to the server, how its machine sleeps, what its clients'
// certificates are for, and as whom each user logs in there. It is for who makes a tenant, before Validate.
func (t *Tenant) Complete() {
	tls, port := TLSVerifyFull, uint16(DefaultPort)
	if m := t.Machine; m != nil {
		sleep := SleepSuspend
		if m.Provider == ProviderLocal { // which picks its port itself and speaks no TLS
			tls, port, sleep = TLSDisable, 0, SleepStop
		}
		m.Wake, m.Sleep = cmp.Or(m.Wake, WakeOnConnect), cmp.Or(m.Sleep, sleep)
	}
	if u := &t.Upstream; t.Machine != nil || *u != (Upstream{}) {
		u.TLS, u.Port = cmp.Or(u.TLS, tls), cmp.Or(u.Port, port)
	}
	if t.ClientCAs != nil {
		t.ClientCert = cmp.Or(t.ClientCert, CertVerifyFull)
	}
	for _, u := range t.Users {
		if u == nil {
			continue // which Validate has something to say about
		}
		u.ServerUser, u.ServerAuth = cmp.Or(u.ServerUser, u.Name), cmp.Or(u.ServerAuth, AuthSCRAM)
	}
}
