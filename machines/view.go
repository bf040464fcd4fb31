// What others see of a machine.

package machines

import (
	"context"
	"errors"
	"time"
)

// View is a machine as it stands. It is a value: it never changes.
type View struct {
	State      State
	Since      time.Time
	Epoch      uint64 // of the connections that are good: it grows with every run of the machine, and with its address
	Generation Generation
	Endpoint   Endpoint  // meaningful while ready
	Err        error     // why it has failed
	Until      time.Time // until when the failure is told without trying again
	SuspendsAt time.Time // when it will be put to sleep if nobody uses it; zero: not
	LastWake   Outcome
	LastSleep  Outcome
}

// View returns what is known.
func (r *Rules) View() View {
	v := View{State: r.state, Since: r.since, Epoch: r.epoch, Generation: r.generation, Endpoint: r.endpoint, LastWake: r.lastWake, LastSleep: r.lastSleep}
	switch r.state {
	case StateFailed:
		v.Err, v.Until = r.err, r.until
	case StateReady:
		if !r.busy && r.set.SuspendAfter > 0 {
			v.SuspendsAt = r.idle.Add(r.set.SuspendAfter)
		}
	}
	return v
}

// resultOf is an error as a metric label.
func resultOf(err error) string {
	switch {
	case errors.Is(err, ErrSlow), errors.Is(err, context.DeadlineExceeded):
		return "slow"
	case errors.Is(err, ErrBudget):
		return "budget"
	case errors.Is(err, errStopped):
		return "stopped"
	}
	return KindOf(err).String()
}

// after is for how long a driver says that trying again is pointless.
func after(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.After
	}
	return 0
}

// later is when to look again, on our own account, after a failure.
func later(err error) time.Duration { return min(max(failMax, after(err)), lookAgain) }

// lasting reports whether an error says that the machine is lost, not only
// that it could not be asked.
func lasting(err error) bool { k := KindOf(err); return k == Gone || k == Unreachable }
