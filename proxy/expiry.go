// Expiry: when the next of all tenants' rules expires, and that the tenant's open sessions are judged again then.

package proxy

import (
	"context"
	"sync"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// clockCheck is how long the clock on the wall, which rules go by, is not looked at. It may be set, or go on while this computer
// sleeps.
const clockCheck = 10 * time.Second

// expiries knows when rules expire, of the tenants that have any that will. Others cost nothing. Safe for concurrent use.
type expiries struct {
	mu     sync.Mutex
	next   map[string]expiry // by tenant
	sooner chan struct{}     // has one if something may expire before run looks again
}

// expiry is when the next of a tenant's rules expires.
type expiry struct {
	list *netrestrict.AllowList
	at   time.Time
}

func newExpiries() expiries { return expiries{sooner: make(chan struct{}, 1)} }

// follow is told what has changed.
func (e *expiries) follow(now time.Time, all []tenants.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range all {
		delete(e.next, c.ID())
		if c.New == nil {
			continue
		}
		at, ok := c.New.Allow.NextExpiry(now)
		if !ok {
			continue
		}
		if e.next == nil {
			e.next = make(map[string]expiry)
		}
		e.next[c.ID()] = expiry{c.New.Allow, at}
		select {
		case e.sooner <- struct{}{}:
		default:
		}
	}
}

// due returns the tenants of which a rule has expired since it was asked before, and when the next will; zero: never.
func (e *expiries) due(now time.Time) (ids []string, next time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, x := range e.next {
		if !now.Before(x.at) {
			ids = append(ids, id)
			at, ok := x.list.NextExpiry(now)
			if !ok {
				delete(e.next, id)
				continue
			}
			x.at = at
			e.next[id] = x
		}
		if next.IsZero() || x.at.Before(next) {
			next = x.at
		}
	}
	return ids, next
}

// run tells of every tenant of which a rule expires, until ctx ends.
func (e *expiries) run(ctx context.Context, tell func(id string, now time.Time)) {
	for {
		now := time.Now()
		ids, next := e.due(now)
		for _, id := range ids {
			tell(id, now)
		}
		var over <-chan time.Time
		if !next.IsZero() {
			over = time.After(min(next.Sub(now), clockCheck))
		}
		select {
		case <-ctx.Done():
			return
		case <-e.sooner:
		case <-over:
		}
	}
}

// expire has a tenant's open sessions judged again, if there are any.
func (g *Gate) expire(id string, now time.Time) {
	g.mu.Lock()
	t := g.tenants[id]
	g.mu.Unlock()
	if t == nil {
		return
	}
	t.post(func() {
		if t.forgotten {
			return
		}
		t.review(now)
		t.reviewReplicas(t.conf, t.conf)
	})
}
