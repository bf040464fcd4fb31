package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
)

// leaseStore is a store of one lease. Its time is that of the bubble.
type leaseStore struct {
	mu      sync.Mutex
	epoch   int64
	until   time.Time
	away    error         // what calls end with; nil: it is there
	slow    time.Duration // the answer takes
	renewed int
	dropped []bool // changed
	left    int
}

func (s *leaseStore) call(ctx context.Context, f func() error) error {
	s.mu.Lock()
	slow, err := s.slow, s.away
	if err == nil {
		err = f()
	}
	s.mu.Unlock()
	select {
	case <-time.After(slow):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *leaseStore) take(ctx context.Context, ttl time.Duration) (l tenants.Lease, err error) {
	err = s.call(ctx, func() error {
		if left := time.Until(s.until); left > 0 {
			return &tenants.HeldError{Owner: "other", For: left}
		}
		s.epoch++
		s.until = time.Now().Add(ttl)
		l = tenants.Lease{Key: "k", Epoch: s.epoch}
		return nil
	})
	return l, err
}

func (s *leaseStore) RenewLease(ctx context.Context, l tenants.Lease, ttl time.Duration) error {
	return s.call(ctx, func() error {
		if l.Epoch != s.epoch || time.Now().After(s.until) {
			return tenants.ErrLeaseLost
		}
		s.renewed++
		s.until = time.Now().Add(ttl)
		return nil
	})
}

func (s *leaseStore) DropLease(ctx context.Context, l tenants.Lease, changed bool) error {
	return s.call(ctx, func() error {
		if l.Epoch == s.epoch {
			s.until, s.dropped = time.Time{}, append(s.dropped, changed)
		}
		return nil
	})
}

func (s *leaseStore) LeaveLease(ctx context.Context, l tenants.Lease, changed bool) error {
	return s.call(ctx, func() error {
		if l.Epoch == s.epoch {
			s.until, s.left = time.Time{}, s.left+1
		}
		return nil
	})
}

// seenIn is a look at it while calls may be under way.
func seenIn[V any](s *leaseStore, look func() V) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	return look()
}

func (s *leaseStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// holderWorld is a holder in a bubble, whose wall clock can be set.
type holderWorld struct {
	*testing.T
	store *leaseStore
	h     *Holder
	mu    sync.Mutex
	off   time.Duration // of the wall clock
}

func inHolder(t *testing.T, f func(w *holderWorld)) {
	synctest.Test(t, func(t *testing.T) {
		w := &holderWorld{T: t, store: new(leaseStore)}
		start := time.Now()
		w.h = NewHolder(HolderOptions{Leases: w.store, Log: slog.New(slog.DiscardHandler), TTL: 16 * time.Second, Clocks: func() (time.Time, time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(w.off), time.Since(start)
		}})
		f(w)
		w.h.Close()
	})
}

func (w *holderWorld) hold() *Held {
	w.Helper()
	held, err := w.h.Hold(w.Context(), w.store.take)
	if err != nil {
		w.Fatal(err)
	}
	return held
}

// ends is after which time the right has ended, and why.
func (w *holderWorld) ends(held *Held) (time.Duration, error) {
	began := time.Now()
	<-held.Context().Done()
	return time.Since(began), context.Cause(held.Context())
}

func TestHolderRenews(t *testing.T) {
	t.Parallel()
	inHolder(t, func(w *holderWorld) {
		held := w.hold()
		time.Sleep(10 * time.Minute)
		if err := held.Check(); err != nil || held.Context().Err() != nil {
			t.Errorf("a lease that is renewed has ended: %v", err)
		}
		if n := seenIn(w.store, func() int { return w.store.renewed }); n < 100 || n > 130 {
			t.Errorf("renewed %d times in ten minutes", n)
		}
		held.End(true)
		held.End(false)
		synctest.Wait()
		if len(w.store.dropped) != 1 || !w.store.dropped[0] || held.Context().Err() == nil {
			t.Errorf("given back %v, right %v", w.store.dropped, held.Context().Err())
		}
		next := w.hold() // at once
		if next.Lease.Epoch != 2 {
			t.Errorf("epoch %d", next.Lease.Epoch)
		}
		next.Leave(true)
		synctest.Wait()
		if len(w.store.dropped) != 1 || w.store.left != 1 {
			t.Error("who leaves gives the lease back, or does not say so")
		}
	})
}

func TestHolderEndsBeforeTheLease(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do       func(w *holderWorld)
		want     error
		min, max time.Duration
	}{
		"the store is away":   {func(w *holderWorld) { w.store.set(func() { w.store.away = tenants.ErrAway }) }, ErrLeaseOver, 11 * time.Second, 13 * time.Second},
		"it does not answer":  {func(w *holderWorld) { w.store.set(func() { w.store.slow = time.Hour }) }, ErrLeaseOver, 11 * time.Second, 13 * time.Second},
		"it was restored":     {func(w *holderWorld) { w.store.set(func() { w.store.epoch = 100 }) }, tenants.ErrLeaseLost, 5 * time.Second, 7 * time.Second},
		"the clock was set":   {func(w *holderWorld) { w.off = 2 * time.Second }, ErrClockJumped, 0, 200 * time.Millisecond},
		"and back by an hour": {func(w *holderWorld) { w.off = -time.Hour }, ErrClockJumped, 0, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHolder(t, func(w *holderWorld) {
				held := w.hold()
				w.mu.Lock()
				c.do(w)
				w.mu.Unlock()
				took, err := w.ends(held)
				if !errors.Is(err, c.want) || took < c.min || took > c.max {
					t.Errorf("ended after %v: %v", took, err)
				}
				if seenIn(w.store, func() time.Time { return w.store.until }).Before(time.Now()) {
					t.Error("the store had given it to others by then")
				}
				w.store.set(func() { w.store.slow, w.store.away = 0, nil })
				held.Leave(false)
			})
		})
	}
}

// TestHolderConfirms: what the store says counts, whatever the clocks say, and what it does not say ends the right.
func TestHolderConfirms(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(s *leaseStore)
		want error
	}{
		"it lasts":           {func(*leaseStore) {}, nil},
		"another has it":     {func(s *leaseStore) { s.epoch++ }, tenants.ErrLeaseLost},
		"its time is over":   {func(s *leaseStore) { s.until = time.Now().Add(-time.Second) }, tenants.ErrLeaseLost},
		"nobody can say":     {func(s *leaseStore) { s.away = tenants.ErrAway }, tenants.ErrAway},
		"there is no answer": {func(s *leaseStore) { s.slow = time.Hour }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inHolder(t, func(w *holderWorld) {
				held := w.hold()
				w.store.set(func() { c.do(w.store) })
				if err := held.Confirm(w.Context()); !errors.Is(err, c.want) || (held.Check() == nil) != (c.want == nil) {
					t.Errorf("confirmed: %v; then %v", err, held.Check())
				}
				w.store.set(func() { w.store.slow, w.store.away = 0, nil })
				held.End(false)
			})
		})
	}
}

// TestHolderDoesNotTrustALateAnswer: the lease counts from before the request.
func TestHolderDoesNotTrustALateAnswer(t *testing.T) {
	t.Parallel()
	inHolder(t, func(w *holderWorld) {
		w.h.o.TTL = 4 * time.Second
		w.store.slow = 3500 * time.Millisecond
		if _, err := w.h.Hold(w.Context(), w.store.take); !errors.Is(err, ErrLeaseOver) {
			t.Errorf("an answer that is as old as the lease: %v", err)
		}
		time.Sleep(10 * time.Second)
		if n := seenIn(w.store, func() int { return len(w.store.dropped) }); n != 1 {
			t.Error("it is not given back")
		}
	})
}

func TestHolderAwaits(t *testing.T) {
	t.Parallel()
	inHolder(t, func(w *holderWorld) {
		for _, c := range []struct {
			tell string
			d    time.Duration
			want time.Duration
		}{{"k", time.Minute, 100 * time.Millisecond}, {"other", 300 * time.Millisecond, 300 * time.Millisecond}, {"other", time.Minute, leaseWaits}} {
			began := time.Now()
			time.AfterFunc(100*time.Millisecond, func() { w.h.Tell(c.tell) })
			w.h.Await(w.Context(), "k", c.d)
			if took := time.Since(began); took != c.want {
				t.Errorf("news of %q: waited %v, want %v", c.tell, took, c.want)
			}
		}
	})
}
