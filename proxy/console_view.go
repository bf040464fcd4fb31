// What the console shows, collected from the loops: a few tenants at a time, so that none is held up.

package proxy

import (
	"runtime"
	"slices"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/tenants"
)

const (
	// tenantsAtATime and clientsAtATime bound what a loop does for the console in one go.
	tenantsAtATime = 16
	clientsAtATime = 1000
)

// eachTenant runs f on the loop of every tenant in use, one at a time.
func (g *Gate) eachTenant(f func(*tenant)) {
	byLoop := make(map[*loop.Loop][]*tenant)
	for _, t := range g.runtimeTenants() {
		byLoop[t.loop] = append(byLoop[t.loop], t)
	}
	for l, mine := range byLoop {
		for some := range slices.Chunk(mine, tenantsAtATime) {
			l.Call(func() {
				for _, t := range some {
					f(t)
				}
			})
		}
	}
}

// sorted orders rows by what names them.
func sorted[T any](list []T, name func(*T) string) []T {
	slices.SortStableFunc(list, func(a, b T) int {
		x, y := name(&a), name(&b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return list
}

// Version implements console.Gate, as does everything below.
func (v *consoleGate) Version() string { return v.gate.opts.Console.Version }

// Settings are the process's configuration.
func (v *consoleGate) Settings() []console.Setting { return v.gate.opts.Console.Settings }

// Nodes are those of the cluster, as far as this one knows them.
func (v *consoleGate) Nodes() []console.Node {
	if v.gate.opts.Console.Nodes == nil {
		return nil
	}
	return v.gate.opts.Console.Nodes()
}

// State is whether a PAUSE of everything is in force.
func (v *consoleGate) State() console.State {
	return console.State{Paused: v.gate.consoles.pausedAll()}
}

// use is what a tenant in use says of itself.
type use struct {
	databases map[string]*connections
	users     map[string]*connections
	census    pool.Counts
	paused    bool
	pinned    int
	clients   int
	host      string
	port      uint16
	row       console.Tenant
}

// connections are a database's or a user's.
type connections struct{ clients, servers int }

func count(m map[string]*connections, key string) *connections {
	if m[key] == nil {
		m[key] = new(connections)
	}
	return m[key]
}

// use counts the tenant's connections. On its loop.
func (t *tenant) use() *use {
	u := &use{databases: make(map[string]*connections), users: make(map[string]*connections), census: t.books.Counts(), paused: t.paused,
		clients: len(t.clients)}
	for _, c := range t.clients {
		count(u.databases, c.database).clients++
		count(u.users, c.pool.key.user).clients++
		if c.pinned() != 0 {
			u.pinned++
		}
	}
	for key, p := range t.pools {
		count(u.databases, key.database).servers += p.books.Servers()
		count(u.users, key.user).servers += p.books.Servers()
	}
	if h := t.machine.holder; h != nil {
		view := t.machine.view
		u.host, u.port = view.Endpoint.Host, view.Endpoint.Port
		u.row.Machine, u.row.Since, u.row.SuspendsAt, u.row.Needs = view.State.String(), view.Since, h.View().SuspendsAt, t.needs()
	}
	return u
}

// uses collects that of all tenants in use.
func (g *Gate) uses() map[string]*use {
	out := make(map[string]*use)
	g.eachTenant(func(t *tenant) { out[t.id] = t.use() })
	return out
}

// Tenants are all that are registered.
func (v *consoleGate) Tenants() (out []console.Tenant) {
	uses := v.gate.uses()
	for _, conf := range v.gate.opts.Directory.All() {
		row := console.Tenant{}
		if u := uses[conf.ID]; u != nil {
			row = u.row
			n := u.census
			row.Clients, row.Waiting, row.Pinned, row.Paused = u.clients, n.Waiting, u.pinned, u.paused
			row.Servers, row.ServersActive, row.ServersIdle = n.Dialing+n.Idle+n.Active+n.Cleaning, n.Active, n.Idle
		} else if conf.Machine != nil {
			row.Machine = "unknown"
		}
		row.ID, row.MaxClients, row.MaxServers = conf.ID, conf.Pool.MaxClients, conf.Pool.MaxServers
		row.Paused = row.Paused || conf.Paused
		row.Disabled = v.gate.disabled(conf)
		out = append(out, row)
	}
	return sorted(out, func(t *console.Tenant) string { return t.ID })
}

// Databases are those that configurations name, and those in use.
func (v *consoleGate) Databases() (out []console.Database) {
	uses := v.gate.uses()
	for _, conf := range v.gate.opts.Directory.All() {
		u := uses[conf.ID]
		names := append([]string{conf.Database}, conf.Databases...)
		if u != nil {
			for name := range u.databases {
				names = append(names, name)
			}
		} else {
			u = &use{}
		}
		slices.Sort(names)
		host, port := conf.Upstream.Host, conf.Upstream.Port
		if conf.Machine != nil {
			host, port = u.host, u.port
		}
		limits := conf.Pool
		for _, name := range slices.Compact(names) {
			d := console.Database{Tenant: conf.ID, Name: name, Host: host, Port: int(port), PoolSize: limits.Size, MinPoolSize: limits.Min,
				ReservePoolSize: limits.Reserve, Mode: limits.Mode, ServerLifetime: orZero(conf.Timeouts.Over(v.gate.opts.Session).ServerLifetime),
				MaxServers: tighter(limits.MaxDatabaseServers, limits.MaxServers), MaxClients: tighter(limits.MaxDatabaseClients, limits.MaxClients),
				Paused: u.paused || conf.Paused, Disabled: v.gate.disabled(conf)}
			if n := u.databases[name]; n != nil {
				d.Servers, d.Clients = n.servers, n.clients
			}
			out = append(out, d)
		}
	}
	return sorted(out, func(d *console.Database) string { return d.Tenant + "/" + d.Name })
}

// tighter is a limit of its own, 0 for none, within one that holds as well.
func tighter(own, outer int) int {
	if own == 0 {
		return outer
	}
	return min(own, outer)
}

// Users are those of all registered tenants.
func (v *consoleGate) Users() (out []console.User) {
	uses := v.gate.uses()
	for _, conf := range v.gate.opts.Directory.All() {
		for _, user := range conf.Users {
			row := console.User{Tenant: conf.ID, Name: user.Name, PoolSize: user.PoolSize, ReservePoolSize: conf.Pool.Reserve,
				MaxServers: user.MaxServers, MaxClients: user.MaxClients}
			if u := uses[conf.ID]; u != nil && u.users[user.Name] != nil {
				row.Servers, row.Clients = u.users[user.Name].servers, u.users[user.Name].clients
			}
			out = append(out, row)
		}
	}
	return sorted(out, func(u *console.User) string { return u.Name + "." + u.Tenant })
}

// Lists are the counts of everything.
func (v *consoleGate) Lists() (l console.Lists) {
	g := v.gate
	l.Databases = len(v.Databases())
	for _, conf := range g.opts.Directory.All() {
		l.Users += len(conf.Users)
	}
	g.eachTenant(func(t *tenant) {
		l.Pools += len(t.pools)
		l.UsedServers += t.books.Servers()
	})
	l.UsedClients, l.LoginClients = int(g.clients.Load()), len(g.handshakes)
	l.FreeClients = max(0, int(g.admits.Load())-l.UsedClients)
	return l
}

// Memory is what Go's runtime says of the heap and of all it has of the system, in KiB.
func (v *consoleGate) Memory() []console.Memory {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	const unit = 1 << 10
	return []console.Memory{
		{Name: "heap", Size: unit, Used: int64(m.HeapAlloc) / unit, Free: int64(m.HeapSys-m.HeapAlloc) / unit},
		{Name: "stacks", Size: unit, Used: int64(m.StackInuse) / unit, Free: int64(m.StackSys-m.StackInuse) / unit},
		{Name: "other", Size: unit, Used: int64(m.Sys-m.HeapSys-m.StackSys) / unit},
	}
}

// Pools are those of the tenants in use.
func (v *consoleGate) Pools() (out []console.Pool) {
	v.gate.eachTenant(func(t *tenant) { out = append(out, t.consolePools()...) })
	return sorted(out, func(p *console.Pool) string { return p.Tenant + "/" + p.Database + "\x00" + p.User })
}

// consolePools is the census of the tenant's pools. On its loop.
func (t *tenant) consolePools() (out []console.Pool) {
	type clients struct {
		n     int
		modes map[poolMode]bool
	}
	of := make(map[*serverPool]*clients)
	for _, p := range t.pools {
		of[p] = &clients{modes: make(map[poolMode]bool)}
	}
	for _, c := range t.clients {
		if n := of[c.pool]; n != nil {
			n.n++
			n.modes[c.mode] = true
		}
	}
	for key, p := range t.pools {
		n, row := p.books.Counts(), console.Pool{Tenant: t.id, Database: key.database, User: key.user}
		row.ClientsWaiting, row.ClientsActive = n.Waiting, of[p].n-n.Waiting
		row.ServersActive, row.ServersIdle, row.ServersTested, row.New = n.Active, n.Idle, n.Cleaning, n.Dialing
		row.MaxWait = p.books.OldestWait(time.Now())
		row.Mode = modeName(t.conf, of[p].modes)
		out = append(out, row)
	}
	for s := range t.servers {
		if s.cancels == 0 {
			continue
		}
		for i := range out {
			if out[i].Database == s.pool.key.database && out[i].User == s.pool.key.user {
				out[i].CancelsActive += s.cancels
			}
		}
	}
	return out
}

// modeName is how a pool's clients share its servers: clients of listeners of
// different modes may share one pool.
func modeName(conf *tenants.Tenant, modes map[poolMode]bool) string {
	if conf != nil && conf.Pool.Mode != "" {
		return conf.Pool.Mode
	}
	name := ""
	for m := range modes {
		if name != "" {
			return "mixed"
		}
		name = m.String()
	}
	return name
}
