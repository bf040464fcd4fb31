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
}

// HolderOptions make a Holder.
type HolderOptions struct {
	Leases Leases
	Log    *slog.Logger
	TTL    time.Duration // of leases; 0: 15 s

	now func() moment // nil: the computer's clocks
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
	if o.now == nil {
		start := time.Now()
		o.now = func() moment {
			now := time.Now()
			return moment{wall: now.Round(0), mono: now.Sub(start)}
		}
	}
	return &Holder{o: o, waiting: make(map[string]chan struct{})}
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
	sent := h.o.now()
	call, cancel := context.WithTimeout(ctx, leaseCall)
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
	l.mu.Lock()
	err := l.term.over(l.holder.o.now())
	l.mu.Unlock()
	if err != nil {
		l.cancel(err)
	}
	return err
}

// End gives the right up, and has other nodes told that it is free, or that what it was about was changed. It does not wait for that.
func (l *Held) End(changed bool) {
	l.once.Do(func() {
		l.cancel(nil)
		l.holder.work.Go(func() {
			<-l.kept
			ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), leaseCall)
			defer cancel()
			if err := l.holder.o.Leases.DropLease(ctx, l.Lease, changed); err != nil {
				l.holder.o.Log.Warn("a lease was not given back, and ends with its time", "lease", l.Lease.Key, "error", err)
			}
		})
	})
}

// Leave gives the right up without a word: the lease ends with its time, and whoever takes it next knows that it was not given back.
func (l *Held) Leave() { l.once.Do(func() { l.cancel(nil) }) }

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
		sent := l.holder.o.now()
		l.mu.Lock()
		due := l.term.due(sent)
		l.mu.Unlock()
		if due {
			renewing.Go(func() { l.renew(sent) })
		}
	}
}

func (l *Held) renew(sent moment) {
	ctx, cancel := context.WithTimeout(l.ctx, leaseCall)
	defer cancel()
	err := l.holder.o.Leases.RenewLease(ctx, l.Lease, l.holder.o.TTL)
	switch {
	case err == nil:
		l.mu.Lock()
		l.term.renewed(sent)
		l.mu.Unlock()
	case errors.Is(err, tenants.ErrLeaseLost):
		l.cancel(err)
	case l.ctx.Err() == nil:
		l.holder.o.Log.Debug("a lease could not be renewed yet", "lease", l.Lease.Key, "error", err)
	}
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
