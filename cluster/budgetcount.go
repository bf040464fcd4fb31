// Counting the servers of nodes that are gone: in goroutines of its own, because a tenant's Postgres may take as long as it likes.

package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	countAtOnce   = 16 // of each tenant one
	countPatience = 10 * time.Second
	countAgain    = 10 * time.Second // between two counts of a tenant's strangers
	countLatest   = time.Minute      // and when they have failed
)

// ErrNotCounted is what Strangers says when it is no fault that it cannot count now: another node may, or this one later.
var ErrNotCounted = errors.New("the servers of a silent node are not counted here for now")

// request has an account's strangers counted, if that is due.
func (b *Budget) request(a *account) {
	if at := a.counts(); !at.IsZero() && !at.After(b.now()) {
		a.counting = true
		b.uncounted = append(b.uncounted, a)
		wake(b.pokeCount)
	}
}

// next takes the account that is counted next: of those whose last count has not failed before others, and of those for which clients wait.
func (b *Budget) next() *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, best := -1, 4
	for i, a := range b.uncounted {
		rank := 0
		if a.failures > 0 {
			rank += 2
		}
		if len(a.parts) == 0 {
			rank++
		}
		if rank < best {
			at, best = i, rank
		}
	}
	if at < 0 {
		return nil
	}
	a := b.uncounted[at]
	b.uncounted = slices.Delete(b.uncounted, at, at+1)
	return a
}

// counter counts until ctx ends.
func (b *Budget) counter(ctx context.Context) {
	slots := make(chan struct{}, countAtOnce)
	var working sync.WaitGroup
	defer working.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		a := b.next()
		if a == nil {
			<-slots
			select {
			case <-ctx.Done():
				return
			case <-b.pokeCount:
			}
			continue
		}
		working.Go(func() {
			b.count(ctx, a)
			<-slots
		})
	}
}

// count asks how many servers of a tenant are nobody's. Others look at the account meanwhile.
func (b *Budget) count(ctx context.Context, a *account) {
	bound, cancel := context.WithTimeout(ctx, countPatience)
	defer cancel()
	began := b.now()
	n, ok, err := b.o.Strangers(bound, a.tenant)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, ErrNotCounted):
		b.o.Log.Debug("portions of limits of a silent node are kept for it", "tenant", a.tenant, "error", err)
	default:
		b.o.Log.Warn("the servers of a silent node cannot be counted: its portions of limits are kept for it", "tenant", a.tenant, "error", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch a.counting, a.counted = false, began; {
	case err != nil:
		a.uncounted()
	case ok:
		a.failures, a.strangers = 0, max(n, 0)
	default:
		a.failures, a.strangers = 0, 0
	}
	b.schedule(a, b.now())
}
