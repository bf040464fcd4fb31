// The budget: no more calls than Fly allows.

package fly

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Fly's limits are one call per second for each action of a machine or app, three at once; five per second for get, ten
// at once. Ours refill a tenth slower, because calls may come closer together at Fly than they left here.
const (
	actionEvery, actionBurst = 1100 * time.Millisecond, 3
	getEvery, getBurst       = 220 * time.Millisecond, 10
)

// sweepAt is how many buckets there may be before full ones are thrown away.
const sweepAt = 1024

// spender is who has a limit of its own.
type spender struct{ app, id, op string }

// budget has a bucket for everyone who has spent lately. Safe for concurrent use.
type budget struct {
	mu      sync.Mutex // guards what follows
	buckets map[spender]*rate.Limiter
	sweep   int // the number of buckets at which to look for full ones
}

func newBudget() *budget { return &budget{buckets: map[spender]*rate.Limiter{}, sweep: sweepAt} }

// take waits for a turn. When ctx would end before, it fails at once, as if ctx had ended.
func (b *budget) take(ctx context.Context, s spender) error {
	if err := b.bucket(s).Wait(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w before the call's turn", context.DeadlineExceeded)
	}
	return nil
}

func (b *budget) bucket(s spender) *rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.buckets[s]
	if l != nil {
		return l
	}
	if len(b.buckets) >= b.sweep {
		for s, l := range b.buckets { // a full bucket is as good as a new one
			if l.Tokens() >= float64(l.Burst()) {
				delete(b.buckets, s)
			}
		}
		b.sweep = max(sweepAt, 2*len(b.buckets))
	}
	if s.op == opGet {
		l = rate.NewLimiter(rate.Every(getEvery), getBurst)
	} else {
		l = rate.NewLimiter(rate.Every(actionEvery), actionBurst)
	}
	b.buckets[s] = l
	return l
}
