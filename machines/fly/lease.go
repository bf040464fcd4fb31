// Fly's own lease of a machine: the fence where other processes share it. While one has it, Fly refuses what the others send.

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
	taken := time.Now()
	nonce, err := m.client.Lease(ctx, m.opts.App, m.opts.ID, fmt.Sprintf("postern %.60s %d", f.Holder, f.Epoch), flyLease)
	if err != nil {
		return right{}, err
	}
	return right{m, f, nonce, taken}, nil
}

// check says whether something may be sent under the lease still, by the clock that is set and by the one that is not.
func (r right) check(ctx context.Context) error {
	if r.nonce == "" {
		return nil
	}
	now := time.Now()
	if max(now.Sub(r.taken), now.Round(0).Sub(r.taken.Round(0))) > useLease {
		return errLateLease
	}
	return r.fence.Over(ctx)
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
