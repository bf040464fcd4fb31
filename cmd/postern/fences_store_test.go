// The store as a process of fences_model_test.go has it: it is away, or an answer is lost.

package main

import (
	"context"
	"time"

	"github.com/postern/postern/tenants"
)

// ask asks the store, unless it is away. The answer may be lost.
func (n *modelNode) ask(f func() error) error {
	n.mu.Lock()
	away, lose := n.away, n.lose
	n.lose = lose && away
	n.mu.Unlock()
	if away {
		return tenants.ErrAway
	}
	if err := f(); !lose {
		return err
	}
	return tenants.ErrAway
}

func (n *modelNode) setStore(away, lose bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away, n.lose = away, lose
}

func (n *modelNode) take(ctx context.Context, key string, ttl time.Duration, take func(context.Context, string, time.Duration) (tenants.Lease, error)) (l tenants.Lease, err error) {
	err = n.ask(func() error {
		if l, err = take(ctx, key, ttl); err != nil {
			return err
		}
		n.m.locking(func() {
			if l.Epoch <= n.m.epoch {
				n.m.breaks("epoch %d after %d", l.Epoch, n.m.epoch)
			}
			n.m.epoch = l.Epoch
		})
		return nil
	})
	return l, err
}

// TakeToUse implements ledger, as do the others.
func (n *modelNode) TakeToUse(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error) {
	return n.take(ctx, key, ttl, n.ledger.TakeToUse)
}

// TakeUnused takes what is not used.
func (n *modelNode) TakeUnused(ctx context.Context, key string, ttl time.Duration) (tenants.Lease, error) {
	return n.take(ctx, key, ttl, n.ledger.TakeUnused)
}

// Use says that it is used.
func (n *modelNode) Use(ctx context.Context, key string) error {
	if n.Uses(key) {
		return nil
	}
	return n.ask(func() error { return n.ledger.Use(ctx, key) })
}

// RenewLease renews one.
func (n *modelNode) RenewLease(ctx context.Context, l tenants.Lease, ttl time.Duration) error {
	return n.ask(func() error { return n.ledger.RenewLease(ctx, l, ttl) })
}

// DropLease gives one back.
func (n *modelNode) DropLease(ctx context.Context, l tenants.Lease, changed bool) error {
	return n.ask(func() error { return n.ledger.DropLease(ctx, l, changed) })
}

// LeaveLease leaves one.
func (n *modelNode) LeaveLease(ctx context.Context, l tenants.Lease, changed bool) error {
	return n.ask(func() error { return n.ledger.LeaveLease(ctx, l, changed) })
}
