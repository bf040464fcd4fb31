// Fly's own lease of a machine: the fence where other processes share it. While one has it, Fly refuses what the others send.
//
// Whoever changes the machine takes Fly's lease, then has its right confirmed by the store, then sends. Whoever has the right next has it from
// the store before it takes Fly's lease. So a process that stood still before it was confirmed is told there that its right is gone, and for
// one that stood still afterwards either Fly's lease has not been taken since, and is its own, or it has, and Fly refuses the old nonce.

package fly

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern/postern/machines"
)

const (
	flyLease = 20 * time.Second
	// useLease is for how long after a lease was taken something is sent under it: what is late must find it held, not over.
	useLease = flyLease / 2
)

// right is a lease of Fly's that was taken for one call that changes the machine. Its zero value is for a machine that nobody shares.
type right struct {
	m     *Machine
	fence machines.Fence
	nonce string
	taken time.Time // before it was asked for
}

var errLateLease = &machines.Error{Kind: machines.Busy, Err: errors.New("fly: the lease is too old to act under: this process stood still")}

// right takes Fly's lease if the change has a fence. Whoever got it releases it.
func (m *Machine) right(ctx context.Context) (right, error) {
	f, ok := machines.FenceOf(ctx)
	if !ok {
		return right{}, nil
	}
	f.At(atLease)
	taken := time.Now()
	nonce, err := m.client.Lease(ctx, m.opts.App, m.opts.ID, fmt.Sprintf("postern %.60s %d", f.Holder, f.Epoch), flyLease)
	if err != nil {
		return right{}, err
	}
	r := right{m, f, nonce, taken}
	f.At(atConfirm)
	if err := f.Confirmed(ctx); err != nil {
		m.giveBack(ctx, r)
		return right{}, &machines.Error{Kind: machines.Busy, Err: fmt.Errorf("fly: the right to change the machine is not this process's any more: %w", err)}
	}
	return r, nil
}

// Where a change stands: what comes next.
const (
	atLease   = "Fly's lease is asked for"
	atConfirm = "the right is confirmed"
	atCheck   = "the right is checked"
	atSend    = "the change is sent"
	atRelease = "Fly's lease is given back"
)

// check says whether something may be sent under the lease still, by the clock that is set and by the one that is not.
func (r right) check(ctx context.Context) error {
	if r.nonce == "" {
		return nil
	}
	r.fence.At(atCheck)
	now := time.Now()
	if max(now.Sub(r.taken), now.Round(0).Sub(r.taken.Round(0))) > useLease {
		return errLateLease
	}
	if err := r.fence.Over(ctx); err != nil {
		return err
	}
	r.fence.At(atSend)
	return nil
}

// giveBack releases a right. Who has the machine's turn waits for that at the end.
func (m *Machine) giveBack(ctx context.Context, r right) {
	r.fence.At(atRelease)
	m.ending.Go(func() { r.release(ctx) })
}

// release gives the lease back, also when ctx has ended.
func (r right) release(ctx context.Context) {
	if r.nonce == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	if err := r.m.client.Release(ctx, r.m.opts.App, r.m.opts.ID, r.nonce); err != nil {
		r.m.log.Warn("Fly's lease of a machine was not given back, and ends with its time", "error", err)
	}
}

// unfenced reports whether the holder of the right before may act still.
func (w *waking) unfenced(ctx context.Context) bool {
	f, ok := machines.FenceOf(ctx)
	return ok && f.Takeover && !w.fenced
}

// takeover makes sure that Fly refuses what the holder of the right before may be about to send: its lease has ended when ours was taken.
func (m *Machine) takeover(ctx context.Context) error {
	r, err := m.right(ctx)
	if err == nil {
		r.release(ctx)
	}
	return err
}
