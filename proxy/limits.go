// Limits: the handshakes of an address, how often it and a tenant's clients may come, whether there is a place for one, and groups for the servers of pools.

package proxy

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/pool"
	"github.com/postern/postern/tenants"
)

// addressShare is the part of all handshakes that one address may hold, so
// that a single stranger cannot keep everybody else out.
const addressShare = 2

// enterHandshake takes one of the places for who is not logged in yet.
func (g *Gate) enterHandshake(via *Listener) bool {
	select {
	case g.handshakes <- struct{}{}:
		return true
	default:
		g.count(denyHandshakes, "")
		g.limited.log(g.log, slog.LevelWarn, logKey{cause: "handshakes"}, "too many handshakes at a time: connection closed", "listener", via.Name)
		return false
	}
}

func (g *Gate) leaveHandshake() { <-g.handshakes }

// enterAddress takes one of those that an address may have.
func (g *Gate) enterAddress(a netip.Addr) (ok bool) {
	limit := max(1, g.room.Handshakes/addressShare)
	g.perClient.with(func(m map[netip.Addr]int) {
		if ok = m[a] < limit; ok {
			m[a]++
		}
	})
	return ok
}

func (g *Gate) leaveAddress(a netip.Addr) {
	g.perClient.with(func(m map[netip.Addr]int) {
		if m[a]--; m[a] == 0 {
			delete(m, a)
		}
	})
}

// maxRates is how many addresses, and tenants, are remembered in each of two generations.
const maxRates = 1 << 16

// rates are those of new connections.
type rates struct {
	addresses *netrestrict.Rates[netip.Prefix]
	tenants   *netrestrict.Rates[string]
}

func newRates() *rates {
	return &rates{netrestrict.NewRates[netip.Prefix](maxRates), netrestrict.NewRates[string](maxRates)}
}

// addressRate refuses an address that comes too often.
func (v *visitor) addressRate() error {
	return v.tooOften(v.gate.opts.Limits.AddressRate, func(r *rates, at time.Time, limit int) time.Duration {
		return netrestrict.TakeAddress(r.addresses, at, v.peer.Client.Addr(), limit)
	})
}

// tenantRate refuses whoever comes where too many come.
func (v *visitor) tenantRate(conf *tenants.Tenant) error {
	return v.tooOften(conf.ConnectionRate, func(r *rates, at time.Time, limit int) time.Duration { return r.tenants.Take(at, conf.ID, limit) })
}

func (v *visitor) tooOften(limit int, take func(*rates, time.Time, int) time.Duration) error {
	if limit <= 0 {
		return nil
	}
	var wait time.Duration
	v.gate.rates.with(func(r *rates) { wait = take(r, time.Now(), limit) })
	if wait == 0 {
		return nil
	}
	return denyFor(denyRate, wait)
}

// place is what the client will count against.
func (v *visitor) place(conf *tenants.Tenant) place {
	if v.startup.Replication != "" && v.startup.Replication != "database" {
		return place{user: v.route.User}
	}
	return place{v.route.User, conf.DatabaseOf(v.route)}
}

// reserve takes a place for a client that has proved its password. Where nodes share limits it may have to wait a moment.
func (g *Gate) reserve(ctx context.Context, t *tenant, conf *tenants.Tenant, at place) *denied {
	if g.clients.Add(1) > g.admits.Load() {
		g.clients.Add(-1)
		return deny(denyClients)
	}
	err := deny(denyTenantClients)
	if t.admitted.Add(1) <= int64(conf.Pool.MaxClients) {
		err = t.places.take(ctx, conf, at)
	}
	if err != nil {
		t.admitted.Add(-1)
		g.clients.Add(-1)
	}
	return err
}

// release gives a place back.
func (g *Gate) release(t *tenant, at place) {
	t.places.give(at)
	t.admitted.Add(-1)
	g.clients.Add(-1)
	t.touch()
}

// groups are the users and databases that have pools. Loop thread only, as all
// that follows.
type groups struct{ users, databases map[string]*pool.Group }

func newGroups() groups {
	return groups{make(map[string]*pool.Group), make(map[string]*pool.Group)}
}

// groupsOf returns those that a pool counts against, making them on first use.
func (t *tenant) groupsOf(key poolKey) (user, database *pool.Group) {
	user, database = t.groups.users[key.user], t.groups.databases[key.database]
	if user == nil {
		user = t.books.NewGroup(pool.ByUser, t.userServers(key.user))
		t.groups.users[key.user] = user
	}
	if database == nil {
		database = t.books.NewGroup(pool.ByDatabase, t.limits().MaxDatabaseServers)
		t.groups.databases[key.database] = database
	}
	return user, database
}

// limits are the tenant's; zero if it was removed.
func (t *tenant) limits() tenants.Pool {
	if t.conf == nil {
		return tenants.Pool{}
	}
	return t.conf.Pool
}

// user returns a user's configuration; zero if it was removed.
func (t *tenant) user(name string) tenants.User {
	if t.conf != nil {
		if u, ok := t.conf.User(name); ok {
			return *u
		}
	}
	return tenants.User{}
}

// poolSize is how many servers a pool of the user's may have.
func (t *tenant) poolSize(user string) int {
	if n := t.user(user).PoolSize; n > 0 {
		return n
	}
	return t.limits().Size
}

// userServers is how many servers a user may have over all databases; 0: no
// limit of its own.
func (t *tenant) userServers(name string) int { return t.user(name).MaxServers }

// limitGroups follows a new configuration.
func (t *tenant) limitGroups() {
	for user, group := range t.groups.users {
		group.SetLimit(t.userServers(user))
	}
	for _, group := range t.groups.databases {
		group.SetLimit(t.limits().MaxDatabaseServers)
	}
}

// forgetPool lets go of an empty pool, and of its groups if it was their last.
func (t *tenant) forgetPool(p *serverPool) {
	delete(t.pools, p.key)
	p.books.Remove()
	if g := t.groups.users[p.key.user]; g.Empty() {
		delete(t.groups.users, p.key.user)
	}
	if g := t.groups.databases[p.key.database]; g.Empty() {
		delete(t.groups.databases, p.key.database)
	}
}
