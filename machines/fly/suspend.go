// Putting to sleep: one request, and a long poll until the machine sleeps.

package fly

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern/postern/machines"
)

// Suspend implements machines.Driver. Only so many machines of the process are on their way to sleep at once; others wait
// for a place.
func (m *Machine) Suspend(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return failure(inSuspend, err)
	}
	defer m.release()
	defer m.ending.Wait()
	select {
	case m.client.sleeping <- struct{}{}:
		defer func() { <-m.client.sleeping }()
	case <-ctx.Done():
		return ended(ctx, inSuspend, nil)
	}
	s, i, err := m.look(ctx)
	if err != nil {
		return failure(inSuspend, err)
	}
	switch {
	case s.Power == machines.Asleep:
		return nil
	case i.State == "suspending" || i.State == "stopping":
	case s.Power != machines.Running:
		return &machines.Error{Kind: machines.Busy, Op: inSuspend, Err: fmt.Errorf("fly: the machine is %.64s", i.State)}
	default:
		if err := m.putToSleep(ctx, s.Generation); err != nil {
			return failure(inSuspend, err)
		}
	}
	return m.awaitSleep(ctx, i)
}

// putToSleep sends the one request. An error that does not say whether it was done is resolved by a look.
func (m *Machine) putToSleep(ctx context.Context, run machines.Generation) error {
	r, err := m.right(ctx)
	if err != nil {
		return err
	}
	err = m.sendToSleep(ctx, r)
	m.giveBack(ctx, r)
	m.after = doubt{until: time.Now().Add(doubtLimit), run: run}
	if err == nil || ctx.Err() != nil {
		return err
	}
	var refused *APIError
	if errors.As(err, &refused) && refused.Kind() != machines.Transient && refused.Kind() != machines.Unreachable && refused.Kind() != machines.Busy {
		m.after = doubt{}
		return err
	}
	if !sleep(ctx, firstPause) {
		return context.Cause(ctx)
	}
	s, i, lookErr := m.look(ctx)
	if lookErr != nil {
		return fmt.Errorf("%w; after: %w", lookErr, err)
	}
	if s.Power == machines.Asleep || i.State == "suspending" || i.State == "stopping" {
		return nil
	}
	return err
}

// sendToSleep suspends or, when that is not wanted or not possible, stops.
func (m *Machine) sendToSleep(ctx context.Context, r right) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	if m.opts.Sleep == Suspend && !m.stopsOnly.Load() {
		err := m.client.Suspend(ctx, m.opts.App, m.opts.ID, r.nonce)
		if !ineligible(err) {
			return err
		}
		m.stopsOnly.Store(true)
		m.stopsOnce.Do(func() { m.log.Warn("the machine cannot be suspended and is stopped instead", "error", err) })
	}
	return m.client.Stop(ctx, m.opts.App, m.opts.ID, r.nonce)
}

// awaitSleep polls until the machine sleeps, or somebody has woken it.
func (m *Machine) awaitSleep(ctx context.Context, i *Info) error {
	w := &waking{m: m, pause: firstPause} // for its waits and pauses alone
	for {
		w.wait(ctx, m.bottom(i))
		if ctx.Err() != nil {
			return ended(ctx, inSuspend, w.last)
		}
		s, now, err := m.look(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return ended(ctx, inSuspend, err)
		case err != nil:
			if w.lookFailed(ctx, err) {
				return failure(inSuspend, err)
			}
		case s.Power == machines.Asleep:
			m.after = doubt{}
			return nil
		case m.after.covers(s): // it has not moved yet
			w.rest(ctx, firstPause)
		case s.Power == machines.Running || now.State == "starting":
			m.after = doubt{}
			return &machines.Error{Kind: machines.Busy, Op: inSuspend, Err: errors.New("fly: the machine runs: somebody has started it meanwhile")}
		default:
			w.looks, i = 0, now
		}
	}
}

// bottom is the state that a machine on its way to sleep will reach.
func (m *Machine) bottom(i *Info) WaitFor {
	stops := m.opts.Sleep == Stop || m.stopsOnly.Load()
	if i.State == "stopping" || (stops && i.State != "suspending") {
		return WaitFor{State: "stopped", Instance: i.InstanceID, Timeout: waitSlice}
	}
	return WaitFor{State: "suspended", Timeout: waitSlice}
}
