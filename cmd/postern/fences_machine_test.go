// What the processes of fences_model_test.go share, beside the store: a machine, with a lock and an epoch as on this computer, or with leases as
// at Fly. It obeys as much as it may: a lease that has ended counts until another one is given out.

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern/postern/machines"
)

// modelMachine is guarded by the model's mu.
type modelMachine struct {
	leases  bool
	running bool
	once    bool                // it was started under a right that the store knew at that moment
	using   map[*modelNode]bool // have connections to it

	epoch  int64      // that it has obeyed last
	locked *modelNode // has the lock

	nonce int // of the last lease that it has given out
	until time.Duration
}

const modelLease = 20 * time.Second

func (m *fenceModel) locking(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *fenceModel) breaks(format string, args ...any) {
	m.broken = append(m.broken, fmt.Sprintf(format, args...))
}

func (m *fenceModel) runs() (runs bool) {
	m.locking(func() { runs = m.machine.running })
	return runs
}

func (m *fenceModel) uses(n *modelNode) (uses bool) {
	m.locking(func() { uses = m.machine.using[n] })
	return uses
}

// leave closes a process's connections.
func (m *fenceModel) leave(n *modelNode) {
	m.locking(func() { delete(m.machine.using, n) })
}

// claim has a process use the machine, if it runs.
func (m *fenceModel) claim(n *modelNode) (runs bool) {
	m.locking(func() {
		if runs = m.machine.running; runs {
			m.machine.using[n] = true
		}
	})
	return runs
}

// act is done to the machine, with mu held. Who stood still, or cannot ask the store, may start it beside somebody who has the right: what runs
// goes on running.
func (m *fenceModel) act(n *modelNode, what machines.Action, f machines.Fence, fenced bool) {
	valid := fenced && m.valid(f.Epoch)
	switch {
	case what == machines.Start && m.machine.running && m.machine.once && valid:
		m.breaks("process %d starts what runs", n.i)
	case what == machines.Sleep && !fenced:
		m.breaks("process %d puts it to sleep without a right", n.i)
	case what == machines.Sleep:
		for other := range m.machine.using {
			m.breaks("process %d puts to sleep what %d uses", n.i, other.i)
		}
	}
	if !m.machine.running {
		m.machine.once = valid
	}
	m.machine.running = what == machines.Start
}

// valid reports whether a right lasts by the store's clock.
func (m *fenceModel) valid(epoch int64) (lasts bool) {
	if err := m.store.QueryRow(context.Background(), `SELECT EXISTS (SELECT FROM postern.leases WHERE key = $1 AND epoch = $2 AND owner <> '' AND until > clock_timestamp() AND store <> 'before')`,
		leasePrefix+m.key, epoch).Scan(&lasts); err != nil {
		m.breaks("%v", err)
	}
	return lasts
}

// modelDriver does to the machine what the drivers do.
type modelDriver struct{ n *modelNode }

// State implements machines.Driver.
func (d *modelDriver) State(context.Context) (machines.Status, error) {
	if d.n.m.runs() {
		return machines.Status{Power: machines.Running}, nil
	}
	return machines.Status{Power: machines.Asleep}, nil
}

// Endpoint implements machines.Driver.
func (d *modelDriver) Endpoint(context.Context) (machines.Endpoint, error) {
	return machines.Endpoint{}, nil
}

// Wake implements machines.Driver.
func (d *modelDriver) Wake(ctx context.Context) (machines.Status, error) {
	if err := d.change(ctx, machines.Start); err != nil {
		return machines.Status{}, err
	}
	return d.State(ctx)
}

// Suspend implements machines.Driver.
func (d *modelDriver) Suspend(ctx context.Context) error { return d.change(ctx, machines.Sleep) }

func refuse(why string) error {
	return &machines.Error{Kind: machines.Busy, Err: errors.New(why)}
}

func (d *modelDriver) change(ctx context.Context, what machines.Action) error {
	f, fenced := machines.FenceOf(ctx)
	if d.n.m.machine.leases {
		return d.underALease(ctx, what, f, fenced)
	}
	return d.underTheLock(ctx, what, f, fenced)
}

// underTheLock is package local's way.
func (d *modelDriver) underTheLock(ctx context.Context, what machines.Action, f machines.Fence, fenced bool) (err error) {
	n, m := d.n, d.n.m
	n.step("the lock is taken")
	for got := false; !got; {
		m.locking(func() {
			if got = m.machine.locked == nil; got {
				m.machine.locked = n
			}
		})
		if !got {
			n.step("the lock is tried again")
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	defer m.locking(func() { m.machine.locked = nil })
	if fenced {
		n.step("the epoch is compared")
		m.locking(func() {
			if f.Epoch < m.machine.epoch {
				err = refuse("an old epoch")
				return
			}
			m.machine.epoch = f.Epoch
		})
		if err != nil {
			return err
		}
		n.step("the right is checked")
		if err := f.Over(ctx); err != nil {
			return err
		}
	}
	n.step("it is changed")
	m.locking(func() {
		if m.machine.running != (what == machines.Start) {
			m.act(n, what, f, fenced)
		}
	})
	n.step("the lock is given back")
	return nil
}

// underALease is package fly's way: it looks, and what is sent may come late.
func (d *modelDriver) underALease(ctx context.Context, what machines.Action, f machines.Fence, fenced bool) error {
	n, m := d.n, d.n.m
	for taken := !f.Takeover; ; {
		n.step("it is looked at")
		sends := m.runs() != (what == machines.Start)
		if !sends && (taken || what == machines.Sleep) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		nonce := 0
		if fenced {
			n.step("its lease is asked for")
			if nonce = m.lease(); nonce == 0 {
				continue
			}
			n.step("the right is confirmed")
			err := f.Confirmed(ctx)
			if err == nil && sends {
				n.step("the right is checked")
				err = f.Over(ctx)
			}
			if err != nil {
				m.release(nonce)
				return err
			}
			taken = true
		}
		if sends {
			n.step("it is sent")
			m.send(n, what, f, nonce)
		}
		n.step("its lease is given back")
		m.release(nonce)
	}
}

// lease is a new one's nonce; 0: another one lasts.
func (m *fenceModel) lease() (nonce int) {
	m.locking(func() {
		if m.now >= m.machine.until {
			m.machine.nonce++
			m.machine.until = m.now + modelLease
			nonce = m.machine.nonce
		}
	})
	return nonce
}

func (m *fenceModel) release(nonce int) {
	m.locking(func() {
		if nonce == m.machine.nonce {
			m.machine.until = m.now
		}
	})
}

// send is done if it comes with the last lease that was given out, or without one while none lasts.
func (m *fenceModel) send(n *modelNode, what machines.Action, f machines.Fence, nonce int) {
	m.locking(func() {
		if nonce == m.machine.nonce || nonce == 0 && m.now >= m.machine.until {
			m.act(n, what, f, nonce != 0)
		}
	})
}
