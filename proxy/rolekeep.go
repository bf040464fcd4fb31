// Keeping lists of roles over a restart, where there is a store that can.

package proxy

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern/postern/proxy/roles"
)

// RoleStore keeps lists of roles, sealed: they are secret. How old a list is goes by the store's clock: those of nodes differ. Safe
// for concurrent use.
type RoleStore interface {
	// ReadRoles returns a tenant's list, and how long ago its server gave it; nil: there is none.
	ReadRoles(ctx context.Context, tenant string) (list []byte, age time.Duration, err error)
	// WriteRoles keeps a tenant's list, unless there is a newer one.
	WriteRoles(ctx context.Context, tenant string, list []byte, age time.Duration) error
}

const (
	// roleStoring bounds one call of the store, and roleStorePause is between two readings of one tenant's list. It doubles up to
	// roleStoreMax while they bring nothing new: strangers can ask for them.
	roleStoring    = 2 * time.Second
	roleStorePause = 5 * time.Second
	roleStoreMax   = time.Minute
	// roleWritePause is between two writings of one tenant's list: a server that gives another one each time costs the store no more.
	roleWritePause = time.Minute
)

// rolesKept is what a book knows of its list in the store.
type rolesKept struct {
	reading bool
	read    bool      // once at least
	free    time.Time // not read before
	pause   time.Duration
	dirty   bool      // there is a newer list here
	written time.Time // last
}

// startReading reads a list that is not known, or that another node may know better, as of a machine that sleeps. The caller holds the
// book. True: that is under way.
func (g *Gate) startReading(b *roleBook, now time.Time) bool {
	k := &b.kept
	if g.opts.Roles == nil || k.reading {
		return k.reading
	}
	if now.Before(k.free) || k.read && !b.schedule.TakeDoubt() {
		return false
	}
	id := b.said.ID
	k.reading = g.spawn(func() {
		ctx, cancel := context.WithTimeout(g.ctx, roleStoring)
		defer cancel()
		asked := time.Now() // hence no list looks newer than it is
		text, age, err := g.opts.Roles.ReadRoles(ctx, id)
		var list *roles.List
		if err == nil && text != nil {
			list, err = roles.Decode(text)
		}
		g.rolesRead(b, list, asked.Add(-age), err)
	})
	return k.reading
}

// rolesRead takes over a list of the store.
func (g *Gate) rolesRead(b *roleBook, list *roles.List, at time.Time, err error) {
	g.roles.changing.Lock()
	defer g.roles.changing.Unlock()
	b.mu.Lock()
	k := &b.kept
	k.reading, k.read = false, k.read || err == nil
	said := b.said
	news := err == nil && list != nil && said != nil && at.After(b.listed)
	if news {
		b.schedule.Known = true
	}
	dirty := k.dirty
	b.mu.Unlock()
	if news {
		news = g.takeRoles(b, list, at)
	}
	b.mu.Lock()
	switch {
	case news:
		k.pause, k.dirty = roleStorePause, dirty // it is there already
	case err != nil:
		k.pause = roleStorePause
	default:
		k.pause = min(max(2*k.pause, roleStorePause), roleStoreMax)
	}
	k.free = time.Now().Add(k.pause)
	b.tell()
	b.mu.Unlock()
	if err != nil && said != nil && g.ctx.Err() == nil {
		g.limited.log(g.log, slog.LevelWarn, logKey{said.ID, "auth_query_store"}, "a list of roles was not read from the store", "tenant", said.ID, "error", err)
	}
}

// keepRoles writes a list that the store does not have, or leaves that to the next listing.
func (g *Gate) keepRoles(b *roleBook, id string) {
	now := time.Now()
	b.mu.Lock()
	list, at, k := b.list, b.listed, &b.kept
	due := g.opts.Roles != nil && k.dirty && now.Sub(k.written) >= roleWritePause
	if due {
		k.dirty, k.written = false, now
	}
	b.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, roleStoring)
	defer cancel()
	if err := g.opts.Roles.WriteRoles(ctx, id, list.Encode(), time.Since(at)); err != nil && g.ctx.Err() == nil {
		b.mu.Lock()
		b.kept.dirty = true
		b.mu.Unlock()
		g.limited.log(g.log, slog.LevelWarn, logKey{id, "auth_query_store"}, "a list of roles was not written to the store", "tenant", id, "error", err)
	}
}
