// The holder: leases of this process while it acts. The right ends a margin before the lease does, whatever happens.

package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	// leaseTTL is for how long nobody else acts after the one who acted was cut off from the store.
	leaseTTL   = 15 * time.Second
	leaseLook  = 100 * time.Millisecond // at the clocks, while a lease is held
	leaseCall  = 5 * time.Second        // for the store to answer
	leaseWaits = time.Second            // at most, for news about a lease that another node has
)

// Why a right has ended.
var (
	ErrLeaseOver   = errors.New("the lease was not renewed in time")
	ErrClockJumped = errors.New("the clock was set, or this computer stood still: the lease may be another's by now")
)

// Leases is where they are written down: package tenants/postgres has it.
type Leases interface {
	RenewLease(ctx context.Context, lease tenants.Lease, ttl time.Duration) error
	DropLease(ctx context.Context, lease tenants.Lease, changed bool) error
	LeaveLease(ctx context.Context, lease tenants.Lease, changed bool) error
}

// HolderOptions make a Holder.
type HolderOptions struct {
	Leases Leases
	Log    *slog.Logger
	TTL    time.Duration // of leases; 0: 15 s

	// Clocks read the computer's: the one on the wall, and how long it has run by the one that is never set. nil: as Go reads them.
	Clocks func() (wall time.Time, steady time.Duration)
}

// Holder holds leases. Its methods may be called by any number of goroutines.
type Holder struct {
	o    HolderOptions
	work sync.WaitGroup // renewals, and leases that are given back

	mu      sync.Mutex
	waiting map[string]chan struct{} // by key: closed when there is news of it
}

// NewHolder makes a Holder.
func NewHolder(o HolderOptions) *Holder {
	if o.TTL == 0 {
		o.TTL = leaseTTL
	}
	if o.Clocks == nil {
		start := time.Now()
		o.Clocks = func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Round(0), now.Sub(start)
		}
	}
	return &Holder{o: o, waiting: make(map[string]chan struct{})}
}

func (h *Holder) now() moment {
	wall, mono := h.o.Clocks()
	return moment{wall, mono}
}

// Close waits until all leases that were given back are.
func (h *Holder) Close() { h.work.Wait() }

// Held is the right to act, until its context or End ends it.
type Held struct {
	Lease  tenants.Lease
	holder *Holder
	ctx    context.Context
	cancel context.CancelCauseFunc
	kept   chan struct{} // closed when nobody renews it any more
	once   sync.Once

	mu   sync.Mutex // guards what follows
	term term
}

// Hold takes a lease by take, which asks the store for one of this length, and keeps it until End. Errors are take's.
func (h *Holder) Hold(ctx context.Context, take func(ctx context.Context, ttl time.Duration) (tenants.Lease, error)) (*Held, error) {
	sent := h.now()
	call, cancel := context.WithTimeout(ctx, h.o.TTL) // then it would be over
	defer cancel()
	lease, err := take(call, h.o.TTL)
	if err != nil {
		return nil, err
	}
	held := &Held{Lease: lease, holder: h, kept: make(chan struct{}), term: newTerm(h.o.TTL, sent)}
	held.ctx, held.cancel = context.WithCancelCause(ctx)
	h.work.Go(held.keep)
	if err := held.Check(); err != nil { // the answer took too long
		held.End(false)
		return nil, err
	}
	return held, nil
}

// Context ends when the right does. Its cause says why.
func (l *Held) Context() context.Context { return l.ctx }

// Check says why the right has ended; nil: it has not.
func (l *Held) Check() error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	now := l.holder.now()
	l.mu.Lock()
	err := l.term.over(now)
	l.mu.Unlock()
	if err != nil {
		l.cancel(err)
	}
	return err
}

// Confirm asks the store whether the right lasts. If the store cannot say so it has ended, too: nobody acts on what may be another's.
func (l *Held) Confirm(ctx context.Context) error {
	err := l.prolong(ctx)
	if err != nil && ctx.Err() == nil {
		l.cancel(err)
	}
	return err
}

// End gives the right up, and has other nodes told that it is free, or that what it was about was changed. It does not wait for that.
func (l *Held) End(changed bool) { l.end(l.holder.o.Leases.DropLease, changed) }

// Leave gives the right up unfinished: whoever takes the lease next is told that what was done under it may not have ended yet.
func (l *Held) Leave(changed bool) { l.end(l.holder.o.Leases.LeaveLease, changed) }

func (l *Held) end(give func(context.Context, tenants.Lease, bool) error, changed bool) {
	l.once.Do(func() {
		l.cancel(nil)
		l.holder.work.Go(func() {
			<-l.kept
			ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), leaseCall)
			defer cancel()
			err := give(ctx, l.Lease, changed)
			if errors.Is(err, tenants.ErrLeaseLost) {
				l.holder.o.Log.Debug("a lease that is given back was another's by then, or has a newer epoch", "lease", l.Lease.Key)
			} else if err != nil {
				l.holder.o.Log.Warn("a lease was not given back, and ends with its time", "lease", l.Lease.Key, "error", err)
			}
		})
	})
}

// keep looks at the clocks and renews the lease, until the right ends.
func (l *Held) keep() {
	defer close(l.kept)
	var renewing sync.WaitGroup
	defer renewing.Wait()
	tick := time.NewTicker(leaseLook)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		if l.Check() != nil {
			l.holder.o.Log.Warn("a right has ended before its act", "lease", l.Lease.Key, "error", context.Cause(l.ctx))
			return
		}
		now := l.holder.now()
		l.mu.Lock()
		due := l.term.due(now)
		l.mu.Unlock()
		if due {
			renewing.Go(l.renew)
		}
	}
}

func (l *Held) renew() {
	err := l.prolong(l.ctx)
	switch {
	case err == nil:
	case errors.Is(err, tenants.ErrLeaseLost):
		l.cancel(err)
	case l.ctx.Err() == nil:
		l.holder.o.Log.Debug("a lease could not be renewed yet", "lease", l.Lease.Key, "error", err)
	}
}

// prolong has the lease last longer, counted from before the store is asked.
func (l *Held) prolong(ctx context.Context) error {
	sent := l.holder.now()
	ctx, cancel := context.WithTimeout(ctx, leaseCall)
	defer cancel()
	err := l.holder.o.Leases.RenewLease(ctx, l.Lease, l.holder.o.TTL)
	if err == nil {
		l.mu.Lock()
		l.term.renewed(sent)
		l.mu.Unlock()
	}
	return err
}

// Await returns when there is news of a key, or after d, a second at most.
func (h *Holder) Await(ctx context.Context, key string, d time.Duration) {
	h.mu.Lock()
	news := h.waiting[key]
	if news == nil {
		news = make(chan struct{})
		h.waiting[key] = news
	}
	h.mu.Unlock()
	timer := time.NewTimer(min(d, leaseWaits))
	defer timer.Stop()
	select {
	case <-news:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Tell says that there is news of a key.
func (h *Holder) Tell(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if news := h.waiting[key]; news != nil {
		close(news)
		delete(h.waiting, key)
	}
}
