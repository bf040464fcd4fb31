// Results of the driver's calls: what the rules learn from each.

package machines

import (
	"errors"
	"time"
)

// Asked is the result of Ask.
func (r *Rules) Asked(s Status, err error, now time.Time) {
	r.running, r.check = Nothing, false
	r.connected = r.connected && (err != nil || s.Power != Asleep)
	switch r.state {
	case StateReady:
		r.askedReady(s, err, now)
	case StateWaking:
		r.askedWaking(s, err, now)
	default:
		r.askedUnknown(s, err, now)
	}
}

func (r *Rules) askedUnknown(s Status, err error, now time.Time) {
	switch {
	case err != nil && r.wanted && r.mayRun && !lasting(err):
		// Who cannot be asked says nothing about a machine that could not be put to
		// sleep: Postgres itself is asked, where it was, and not for long.
		r.enter(StateWaking, now)
		r.deadline = now.Add(lookAfter)
		r.startProbing(r.generation, r.endpoint, now)
	case err != nil && (r.wanted || r.state == StateFailed || KindOf(err) == Gone):
		r.fail(err, after(err), now)
	case err != nil:
		r.askAt = now.Add(later(err))
	case s.Power == Running:
		r.found(s.Generation, now)
	case s.Power == Asleep || r.wanted:
		// Or it is starting or stopping by another hand: a driver's Wake copes with both.
		r.enter(StateAsleep, now)
	default:
		r.waitAndSee(now)
	}
}

// askedReady is what a state check after a failed dial has shown, or after news from another process.
func (r *Rules) askedReady(s Status, err error, now time.Time) {
	told := r.asks
	r.asks = false
	switch {
	case err != nil:
		if lasting(err) {
			r.fail(err, after(err), now)
		} // else who cannot be asked says nothing about a machine that runs
	case s.Power == Running && sameRun(s.Generation, r.generation):
		r.locate = !told
	case s.Power == Running:
		r.found(s.Generation, now)
	case told && s.Power == Asleep:
		r.slept = true
		r.enter(StateAsleep, now)
	case told:
		r.waitAndSee(now)
	default:
		// Stopped behind our back. A dial has failed, so somebody waits.
		r.wanted, r.reason = true, "stopped"
		r.enter(StateAsleep, now)
	}
}

// askedWaking is what a state check has shown while Postgres did not answer.
func (r *Rules) askedWaking(s Status, err error, now time.Time) {
	r.lookAt = now.Add(lookAfter)
	switch {
	case err != nil:
		if lasting(err) {
			r.fail(err, after(err), now)
		}
	case s.Power == Running:
		r.generation, r.locate = s.Generation, true
	case s.Power == Asleep && r.started:
		r.fail(errStopped, 0, now) // starting it again and again would help nobody
	case r.started: // it is changing: who wakes it waits for that
	case s.Power == Asleep || r.wanted:
		r.enter(StateAsleep, now)
	default:
		r.waitAndSee(now)
	}
}

// found is what to do about a machine that runs without our doing. It may have
// come up this moment; until it answers it is as one that wakes.
func (r *Rules) found(g Generation, now time.Time) {
	r.enter(StateWaking, now)
	r.deadline = now.Add(r.set.WakeLimit)
	r.startProbing(g, Endpoint{}, now)
	r.locate = true
}

// waitAndSee is for a machine that somebody else is changing and nobody wants.
func (r *Rules) waitAndSee(now time.Time) {
	if r.state != StateUnknown {
		r.enter(StateUnknown, now)
	}
	r.askAt = now.Add(askAgain)
}

// Started is the result of Start: the machine runs, or not.
func (r *Rules) Started(s Status, at Endpoint, err error, now time.Time) {
	r.running = Nothing
	if err != nil {
		r.fail(err, after(err), now)
		return
	}
	r.startProbing(s.Generation, at, now)
}

func (r *Rules) startProbing(g Generation, at Endpoint, now time.Time) {
	r.generation, r.endpoint = g, at
	r.probeAt, r.pause = now, probeMin
	r.lookAt = now.Add(lookAfter)
}

// Probed is the result of Probe: nil means that Postgres takes logins.
func (r *Rules) Probed(err error, now time.Time) {
	r.running = Nothing
	if err == nil {
		r.ready(now)
		return
	}
	late := !now.Before(r.deadline)
	if errors.Is(err, ErrUnguarded) && (late || !errors.Is(err, ErrUnanswered)) {
		r.fail(err, 0, now)
		return
	}
	if late {
		r.fail(ErrSlow, 0, now)
		return
	}
	// Between half of the pause and all of it.
	wait := r.pause - time.Duration(float64(r.pause)/2*r.random())
	r.pause = min(2*r.pause, probeMax)
	if r.probeAt = now.Add(wait); r.probeAt.After(r.deadline) {
		r.probeAt = r.deadline
	}
}

// Located is the result of Locate.
func (r *Rules) Located(at Endpoint, err error, now time.Time) {
	r.running = Nothing
	r.lookAt = now.Add(lookAfter) // first it is tried there
	switch {
	case err != nil && (lasting(err) || r.endpoint == Endpoint{}):
		r.fail(err, after(err), now)
	case err != nil || at == r.endpoint:
	default:
		r.endpoint = at
		if r.state == StateReady {
			r.begin() // the old connections lead elsewhere
		}
	}
}

func (r *Rules) ready(now time.Time) {
	if r.started {
		r.lastWake = r.act.ended("ok", now)
	}
	r.begin()
	r.enter(StateReady, now)
	r.err, r.failures, r.wanted, r.started = nil, 0, false, false
	r.idle = now
}

// begin opens an epoch, unless it is the same run of the machine still, of
// which no more is known than that it could not be reached for a while.
func (r *Rules) begin() {
	if now := (run{r.generation, r.endpoint}); r.epoch == 0 || r.started || r.slept || !r.of.same(now) {
		r.epoch++
		r.of, r.slept = now, false
	}
}

// Slept is the result of Sleep.
func (r *Rules) Slept(err error, now time.Time) {
	r.running, r.slept = Nothing, true
	result := "ok"
	switch {
	case err == nil:
		r.enter(StateAsleep, now)
	case errors.Is(err, ErrInUse) && !r.lastRetirement():
		// Nothing was done to it. It is not used here, so that the last one who does can put it to sleep.
		r.enter(StateUnknown, now)
		r.shared = true
		wait := min(max(r.set.SuspendAfter, sharedMin), sharedMax)
		r.askAt = now.Add(wait + time.Duration(float64(wait/4)*r.random()))
		r.sleptRetired(err, now)
		return
	case r.cut:
		result = "cancelled"
		r.enter(StateAsleep, now) // on its way, and wanted: it is started next
	default:
		result = resultOf(err)
		r.enter(StateUnknown, now)
		r.mayRun = true
		r.askAt = now.Add(later(err))
	}
	r.lastSleep = r.act.ended(result, now)
	r.sleptRetired(err, now)
}

// fail remembers a failure, and for how long it is told without trying again.
func (r *Rules) fail(err error, atLeast time.Duration, now time.Time) {
	if r.started {
		r.lastWake = r.act.ended(resultOf(err), now)
	}
	pause := min(failMin<<min(r.failures, 5), failMax)
	r.failures++
	r.enter(StateFailed, now)
	r.err, r.wanted, r.started = err, false, false
	r.until = now.Add(max(pause, min(atLeast, time.Minute)))
	r.askAt = now.Add(lookAgain)
}
