// Places: how many clients a tenant, its users and its databases have, and whether there is one more. Where nodes share these limits a login may wait
// a moment, for this node's part to grow.

package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	// placePatience is how long a login waits for places of other nodes: it has to go there and back twice.
	placePatience = 2 * time.Second
	// refuseFor is how long nobody waits for a limit after one has waited for it in vain. Places that come meanwhile are used.
	refuseFor = 5 * time.Second
)

// place is what a client counts against: its user, and its database. Physical
// replication has no database.
type place struct{ user, database string }

// nobody is a MaxClients that lets nobody in. Only a role's own limit can be that.
const nobody = -1

// limitOf says what has a limit of clients.
type limitOf uint8

const (
	ofTenant limitOf = iota
	ofUser
	ofDatabase
)

// party is one of the things that a client counts against.
type party struct {
	of   limitOf
	name string
}

// parties are all of them.
func (at place) parties() []party {
	if at.database == "" {
		return []party{{of: ofTenant}, {ofUser, at.user}}
	}
	return []party{{of: ofTenant}, {ofUser, at.user}, {ofDatabase, at.database}}
}

// limit returns how many clients a configuration allows; ok is false if it says nothing.
func (s party) limit(conf *tenants.Tenant) (n int, ok bool) {
	switch s.of {
	case ofUser:
		u, known := conf.User(s.name)
		if !known || u.MaxClients == 0 {
			return 0, false
		}
		return max(0, u.MaxClients), true
	case ofDatabase:
		return conf.Pool.MaxDatabaseClients, conf.Pool.MaxDatabaseClients > 0
	default:
		return conf.Pool.MaxClients, true
	}
}

func (s party) full() *denied {
	switch s.of {
	case ofUser:
		return deny(denyUserClients, clip(s.name))
	case ofDatabase:
		return deny(denyDatabaseClients, clip(s.name))
	default:
		return deny(denyTenantClients)
	}
}

func (s party) scope() string {
	switch s.of {
	case ofUser:
		return tenants.UserScope(s.name)
	case ofDatabase:
		return tenants.DatabaseScope(s.name)
	default:
		return tenants.ScopeTenant
	}
}

// places counts a tenant's clients. Safe for concurrent use.
type places struct {
	mu      sync.Mutex
	taken   map[party]int // no zeros
	commons *commons      // nil: no limit is shared with other nodes
}

// take counts one more client, if the configuration allows it.
func (p *places) take(ctx context.Context, conf *tenants.Tenant, at place) *denied {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, full := p.try(conf, at)
	if full != nil {
		d = p.await(ctx, conf, at, d, full)
	}
	return d
}

// try counts one more client, or says why not. full is the limit of which this node's part is full and may grow; nil: there is no more to come.
func (p *places) try(conf *tenants.Tenant, at place) (d *denied, full *common) {
	parties, shared := at.parties(), p.commons != nil && !conf.Pool.PerNode
	for _, s := range parties {
		if n, ok := s.limit(conf); ok && p.taken[s] >= n {
			return s.full(), nil
		}
	}
	if p.commons != nil {
		p.commons.follow(conf, parties, shared)
	}
	for _, s := range parties {
		if c := p.commons.at(s); c != nil && p.taken[s] >= c.most(false) && p.taken[s] >= c.most(p.commons.budget.Away()) {
			if c.granted < c.shared() {
				return s.full(), c
			}
			return s.full(), nil
		}
	}
	if p.taken == nil {
		p.taken = make(map[party]int)
	}
	for _, s := range parties {
		p.taken[s]++
	}
	p.claimSoon()
	return nil, nil
}

// give counts one client less.
func (p *places) give(at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range at.parties() {
		if p.taken[s]--; p.taken[s] <= 0 {
			delete(p.taken, s)
		}
	}
	p.changed()
	p.claimSoon()
}

// await has a login wait for a place. why is what it is denied for now, because of the limit that is full.
func (p *places) await(ctx context.Context, conf *tenants.Tenant, at place, why *denied, full *common) *denied {
	all, parties, now := p.commons, at.parties(), p.commons.now()
	if now.Before(full.refuseUntil) || all.waiters >= all.maxWaiters {
		full.refused++
		p.claimSoon()
		return why
	}
	all.waiters++
	all.each(parties, func(c *common) { c.waiting++ })
	p.claimSoon()
	patience := time.NewTimer(placePatience)
	defer patience.Stop()
	for waits := true; ; {
		changed := all.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-patience.C:
			waits = false
		case <-ctx.Done():
			waits = false
		}
		p.mu.Lock()
		d, full := p.try(conf, at)
		if full != nil && waits {
			continue
		}
		all.waiters--
		all.each(parties, func(c *common) { c.waiting = max(0, c.waiting-1) }) // it may be another one of that name
		if full != nil {
			full.refused++
			full.refuseUntil = all.now().Add(refuseFor)
		}
		p.claimSoon()
		return d
	}
}
