// Waking: at most one start in flight, and a look before each.

package fly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/postern/postern/machines"
)

const (
	waitSlice  = 10 * time.Second       // of a long poll: a machine that fails instead is noticed after it
	settle     = 5 * time.Second        // in which a machine whose start was accepted may look asleep still
	patience   = 5 * time.Second        // for somebody else's start, after a 429
	firstPause = 250 * time.Millisecond // before another look; doubles
	lastPause  = 5 * time.Second
	doubtLimit = 3 * time.Second
	looksMax   = 5 // failed looks in a row
)

// startsMax is how many starts one Wake sends before it gives up, by what the last was refused with. Busy has no limit
// but time: whoever holds a lease lets go of it, and the pauses are long by then.
func startsMax(k machines.Kind) int {
	switch k {
	case machines.Transient:
		return 4
	case machines.RateLimited:
		return 3
	case machines.Unreachable:
		return 2
	case machines.Busy:
		return math.MaxInt
	}
	return 0 // capacity, auth, gone: trying again at once does not help
}

// doubt is about a suspend that was sent and whose end nobody has seen: for a moment the machine may look as if it ran on.
type doubt struct {
	until time.Time           // zero: no doubt
	run   machines.Generation // the one that the suspend was to end
}

func (d doubt) covers(s machines.Status) bool {
	return s.Power == machines.Running && s.Generation.Same(d.run) && time.Now().Before(d.until)
}

// waking is the state of one Wake.
type waking struct {
	m        *Machine
	last     error         // of the call before, while nothing has gone right since
	looks    int           // that have failed in a row
	starts   int           // sent
	accepted time.Time     // when a start was accepted; zero: none was
	pause    time.Duration // before the next look
	fenced   bool          // nobody who had the right before can act any more
}

// Wake implements machines.Driver.
func (m *Machine) Wake(ctx context.Context) (machines.Status, error) {
	if err := m.take(ctx); err != nil {
		return machines.Status{}, failure(inWake, err)
	}
	defer m.release()
	defer m.ending.Wait()
	w := &waking{m: m, pause: firstPause}
	for {
		s, over, err := w.step(ctx)
		if over && err == nil && w.unfenced(ctx) { // it runs without our doing
			if err = m.takeover(ctx); err == nil {
				w.fenced = true
			} else {
				w.last = err
				w.backOff(ctx, afterOf(err))
			}
			over = err != nil && kindOf(err) != machines.Busy
		}
		switch {
		case ctx.Err() != nil && (!over || err != nil):
			return machines.Status{}, ended(ctx, inWake, w.last)
		case over && err != nil:
			return machines.Status{}, failure(inWake, err)
		case over:
			m.after = doubt{}
			return s, nil
		}
	}
}

// step looks at the machine and does the one thing that is to be done. over says that there is nothing more to do.
func (w *waking) step(ctx context.Context) (_ machines.Status, over bool, _ error) {
	s, i, err := w.m.look(ctx)
	if err != nil {
		return s, w.lookFailed(ctx, err), err
	}
	w.looks = 0
	switch {
	case w.m.after.covers(s):
		w.rest(ctx, firstPause)
	case s.Power == machines.Running:
		return s, true, nil
	case i.State == "stopping":
		w.wait(ctx, WaitFor{State: "stopped", Instance: i.InstanceID, Timeout: waitSlice})
	case s.Power == machines.Asleep || i.State == "suspending":
		over, err = w.asleep(ctx, i)
	default: // starting, or somebody is changing it
		w.last = nil // what was in the way is no more
		w.wait(ctx, WaitFor{State: "started", Timeout: waitSlice})
	}
	return s, over, err
}

// lookFailed pauses after a failed look, and says whether to give up.
func (w *waking) lookFailed(ctx context.Context, err error) (over bool) {
	var known *machines.Error // what look itself found
	if errors.As(err, &known) {
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	w.last = err
	w.looks++
	switch kindOf(err) {
	case machines.Auth, machines.Gone:
		return true
	case machines.Transient, machines.Unreachable:
		if w.looks >= looksMax {
			return true
		}
	}
	w.backOff(ctx, afterOf(err))
	return false
}

// asleep starts the machine, unless it was started and has only not moved yet.
func (w *waking) asleep(ctx context.Context, i *Info) (over bool, _ error) {
	if !w.accepted.IsZero() {
		switch {
		case time.Since(w.accepted) < settle || i.State == "suspending":
			w.wait(ctx, WaitFor{State: "started", Timeout: time.Second})
			return false, nil
		case w.last != nil:
			return true, fmt.Errorf("fly: the machine was started and is %s again; last: %w", i.State, w.last)
		}
		return true, fmt.Errorf("fly: the machine was started and is %s again", i.State)
	}
	w.starts++
	r, err := w.start(ctx)
	if err == nil {
		w.accepted, w.last, w.pause = time.Now(), nil, firstPause
		if r.Migrated || r.NewHost != "" {
			w.m.log.Info("Fly has moved the machine to another host", "new_host", tidy("", r.NewHost, idLimit))
		}
		w.wait(ctx, WaitFor{State: "started", Timeout: waitSlice})
		return false, nil
	}
	if ctx.Err() != nil {
		return false, nil
	}
	w.last = err
	kind := kindOf(err)
	if w.starts >= startsMax(kind) {
		return true, err
	}
	var refused *APIError
	if errors.As(err, &refused) && refused.Status == http.StatusTooManyRequests {
		// Somebody else, in another process, is starting it: the long poll ends when they have.
		w.waitOut(ctx, max(patience, refused.After))
		return false, nil
	}
	// Refused, or not known: what it does now is seen by looking.
	w.backOff(ctx, afterOf(err))
	return false, nil
}

// start sends one start, under Fly's lease if others share the machine.
func (w *waking) start(ctx context.Context) (StartResult, error) {
	r, err := w.m.right(ctx)
	if err != nil {
		return StartResult{}, err
	}
	w.fenced = true
	defer w.m.giveBack(ctx, r)
	if err := r.check(ctx); err != nil {
		return StartResult{}, err
	}
	return w.m.client.Start(ctx, w.m.opts.App, w.m.opts.ID, r.nonce)
}

// waitOut waits for started until somebody has started it, or for d. It returns early only when it is started.
func (w *waking) waitOut(ctx context.Context, d time.Duration) {
	end := time.Now().Add(d)
	for left := d; left > 0 && ctx.Err() == nil; left = time.Until(end) {
		err := w.m.client.Wait(ctx, w.m.opts.App, w.m.opts.ID, WaitFor{State: "started", Timeout: min(max(left, time.Second), waitSlice)})
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotYet) {
			w.rest(ctx, min(time.Until(end), lastPause)) // wait has a limit of its own, which somebody may have used up
		}
	}
}

// wait is one slice of a long poll. Whatever it ends with, the next step looks.
func (w *waking) wait(ctx context.Context, f WaitFor) {
	if deadline, ok := ctx.Deadline(); ok {
		f.Timeout = min(f.Timeout, time.Until(deadline)+time.Second)
	}
	err := w.m.client.Wait(ctx, w.m.opts.App, w.m.opts.ID, f)
	if err == nil || errors.Is(err, ErrNotYet) || ctx.Err() != nil {
		return
	}
	w.last = err
	w.backOff(ctx, afterOf(err))
}

// backOff pauses a little longer each time, and not always the same, so that processes do not march in step.
func (w *waking) backOff(ctx context.Context, atLeast time.Duration) {
	d := w.pause/2 + rand.N(w.pause/2)
	w.pause = min(2*w.pause, lastPause)
	w.rest(ctx, max(d, atLeast))
}

func (w *waking) rest(ctx context.Context, d time.Duration) { _ = sleep(ctx, max(d, 0)) }
