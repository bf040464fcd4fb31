// The rules for a machine that nobody holds any more: it is put to sleep, or somebody is told that it may run for ever.

package machines

import "time"

const (
	retireTries = 12              // to put it to sleep: half an hour of them
	retireMin   = 5 * time.Second // between two; doubles
	retireMax   = 5 * time.Minute
)

// retirement is what becomes of a machine that nobody holds any more.
type retirement struct {
	begun bool
	over  bool // it sleeps, or is given up
	tries int  // that have failed
	at    time.Time
	err   error // of the last one
}

// Retire says that nobody holds it any more, and never will: it is to sleep,
// whatever is known of it. Only what is under way comes before that. A machine
// that sleeps as far as is known is left alone.
func (r *Rules) Retire(reason string, now time.Time) {
	r.retired = retirement{begun: true}
	r.wanted, r.busy, r.check, r.why = false, false, false, reason
}

// nextRetired is Next for a machine that is retired. The driver looks at it
// before it does anything, so nobody has to be asked how it stands.
func (r *Rules) nextRetired(now time.Time) (Action, time.Time) {
	t := &r.retired
	switch {
	case r.state == StateAsleep:
		t.over = true
	case !t.over && now.Before(t.at):
		return Nothing, t.at
	}
	if t.over {
		return Nothing, time.Time{}
	}
	r.act = Outcome{At: now, Reason: r.why}
	r.enter(StateSuspending, now)
	r.cut = false
	return Sleep, time.Time{}
}

// lastRetirement reports whether an attempt is the last one to put a machine to
// sleep that is retired: then it is said that others keep it awake.
func (r *Rules) lastRetirement() bool { return r.retired.begun && r.retired.tries+1 >= retireTries }

// sleptRetired takes note of how an attempt went, if it is retired: a machine
// that is gone runs no more either.
func (r *Rules) sleptRetired(err error, now time.Time) {
	t := &r.retired
	if !t.begun {
		return
	}
	if t.err = err; err == nil || KindOf(err) == Gone {
		t.err, t.over = nil, true
		return
	}
	if r.state == StateAsleep {
		r.enter(StateUnknown, now) // it was cut short for somebody who is gone: who knows how far it came
	}
	t.tries++
	t.at = now.Add(max(min(retireMin<<(t.tries-1), retireMax), min(after(err), retireMax)))
	t.over = t.tries >= retireTries
}
