// The rules of one machine's life: what is known of it, who wants it, and what to do next. Pure.

package machines

import (
	"errors"
	"time"
)

// State is where a machine stands, for those who want to use it.
type State uint8

// The states. See the package's diagram.
const (
	StateUnknown State = iota
	StateAsleep
	StateWaking
	StateReady
	StateDraining
	StateSuspending
	StateFailed
)

// States lists all of them, in order.
func States() []State {
	return []State{StateUnknown, StateAsleep, StateWaking, StateReady, StateDraining, StateSuspending, StateFailed}
}

// String is the state as a metric label.
func (s State) String() string {
	return [...]string{"unknown", "asleep", "waking", "ready", "draining", "suspending", "failed"}[s]
}

// Action is what the owner is to do next.
type Action uint8

// The actions. Each but Nothing and CutShort is one call that is under way until its result is told.
const (
	Nothing  Action = iota
	Ask             // Driver.State, then Asked
	Start           // Driver.Wake and Driver.Endpoint, then Started
	Probe           // see whether Postgres answers at the endpoint, then Probed
	Locate          // Driver.Endpoint, then Located
	Sleep           // Driver.Suspend, then Slept
	CutShort        // end the context of the Sleep under way: somebody has come
)

// String names the action for logs.
func (a Action) String() string {
	return [...]string{"nothing", "ask", "start", "probe", "locate", "sleep", "cut short"}[a]
}

const (
	probeMin   = 5 * time.Millisecond // between two probes; doubles
	probeMax   = 250 * time.Millisecond
	lookAfter  = 2 * time.Second // of failing probes: does it run at all, and where?
	askAgain   = 5 * time.Second // while the machine is changing and nobody wants it
	askPause   = time.Second     // between two state checks after failed dials
	failMin    = time.Second     // how long a failure is remembered; doubles
	failMax    = 30 * time.Second
	lookAgain  = 5 * time.Minute // at a failed machine that nobody wants: it may run after all
	drainLimit = 10 * time.Second
	sharedMin  = 5 * time.Second // between two looks whether others still keep a machine awake
	sharedMax  = time.Minute
)

// ErrSlow means that Postgres did not answer within the wake limit.
var ErrSlow = errors.New("machine: Postgres did not answer in time")

// ErrBudget means that the machine was woken too often.
var ErrBudget = errors.New("machine: the wake budget is used up")

// errStopped means that it did not stay awake.
var errStopped = errors.New("machine: it was started and sleeps again")

// Settings are what may change while a machine is owned.
type Settings struct {
	SuspendAfter time.Duration // unused for so long, it is put to sleep; 0: never
	WakeLimit    time.Duration // for a whole wake, from the start to Postgres's answer
	Burst        int           // wakes in a row; 0: no budget
	Refill       time.Duration // until one more is allowed
}

// Outcome is how a wake or a suspend went.
type Outcome struct {
	At     time.Time // when it began; zero: there was none yet
	Reason string    // who wanted it
	Result string    // ok, or why not: a Kind, slow, stopped, budget, cancelled
	Took   time.Duration
}

func (o Outcome) ended(result string, now time.Time) Outcome {
	o.Result, o.Took = result, now.Sub(o.At)
	return o
}

// Rules is the state machine of one machine. It does no I/O and reads no
// clock: now is handed in and must not run backwards. Not safe for concurrent
// use. Tell it what happened, then ask Next until there is nothing to do.
type Rules struct {
	set    Settings
	random func() float64 // in [0, 1)

	state State
	since time.Time

	running Action // the call under way
	cut     bool   // the Sleep under way was cut short
	wanted  bool   // somebody waits for it to be ready
	reason  string // why it is wanted
	check   bool   // somebody asks how it stands
	busy    bool
	idle    time.Time // since when it is not busy
	drained bool
	forced  bool   // it is to sleep now, whatever SuspendAfter says
	why     string // it is forced
	retired retirement

	generation Generation
	endpoint   Endpoint
	epoch      uint64
	of         run  // what the epoch is of
	slept      bool // since then, or was told to
	connected  bool // since it was ready, and until it was seen asleep or is to be: there may be connections to it, whatever else is known
	mayRun     bool // at endpoint: it was told to sleep, and that failed

	act      Outcome   // the wake or suspend under way
	started  bool      // there is a wake under way, and it has called Start
	deadline time.Time // of what is waking
	probeAt  time.Time
	pause    time.Duration // between probes
	lookAt   time.Time     // when it is asked how a machine stands that does not answer
	locate   bool          // it was seen running; where, is asked next
	lost     bool          // a dial has failed
	lastAsk  time.Time     // after a failed dial
	askAt    time.Time     // the next state check that nobody has asked for; zero: none

	told   bool // another process may have changed it
	asks   bool // the Ask under way is about that
	shared bool // it is not used here, and others keep it awake: when they do not any more, it is put to sleep from here

	err      error // why it failed
	failures int   // in a row
	until    time.Time

	tokens    float64
	tokensAt  time.Time
	lastWake  Outcome
	lastSleep Outcome
}

// run is what connections are made to. They are good in the same one only.
type run struct {
	generation Generation
	endpoint   Endpoint
}

func (r run) same(o run) bool { return r.endpoint == o.endpoint && sameRun(r.generation, o.generation) }

// sameRun is Generation.Same, but false where nobody knows when it was
// started: an instance alone lives through many runs.
func sameRun(a, b Generation) bool { return !a.Started.IsZero() && a.Same(b) }

// NewRules starts with a machine of which nothing is known. random is for
// jitter; nil: none.
func NewRules(set Settings, random func() float64, now time.Time) *Rules {
	if random == nil {
		random = func() float64 { return 0 }
	}
	return &Rules{set: set, random: random, since: now, idle: now, tokens: float64(set.Burst), tokensAt: now}
}

// Configure takes over other settings.
func (r *Rules) Configure(set Settings) {
	if r.set.Burst == 0 {
		r.tokens = float64(set.Burst)
	}
	r.set = set
}

// enter changes the state, and forgets what was only true of the one before.
func (r *Rules) enter(s State, now time.Time) {
	r.state, r.since = s, now
	r.check, r.drained, r.lost, r.locate, r.askAt = false, false, false, false, time.Time{}
	r.told, r.asks, r.shared = false, false, false
	r.forced = r.forced && s == StateDraining
	r.mayRun = r.mayRun && s != StateAsleep && s != StateReady
	r.connected = s == StateReady || r.connected && s != StateSuspending
}

// Want says that somebody needs the machine ready. A machine that has failed
// is tried again once its pause is over, and not before.
func (r *Rules) Want(reason string, now time.Time) {
	switch r.state {
	case StateReady:
		return
	case StateDraining:
		r.undrain(now)
		return
	case StateFailed:
		if now.Before(r.until) {
			return
		}
		r.enter(StateUnknown, now)
	}
	if !r.wanted {
		r.wanted, r.reason = true, reason
	}
}

// Check asks how the machine stands, if that is not known.
func (r *Rules) Check() { r.check = r.state == StateUnknown }

// Told says that another process may have changed it. Where it sleeps as far as is known here, whoever wakes it elsewhere puts it to
// sleep, unless that one is gone: orphaned.
func (r *Rules) Told(orphaned bool, now time.Time) {
	if r.state == StateAsleep && orphaned && !r.wanted {
		r.enter(StateUnknown, now)
	}
	switch r.state {
	case StateUnknown, StateFailed:
		r.check = true
	case StateReady:
		r.told = true
	}
}

// Busy says whether connections to it are in use.
func (r *Rules) Busy(busy bool, now time.Time) {
	if r.busy && !busy {
		r.idle = now
	}
	r.busy = busy
	if !busy {
		return
	}
	r.forced = false
	if r.state == StateDraining {
		r.undrain(now)
	}
}

// Used says that it was in use for a moment that nobody saw.
func (r *Rules) Used(now time.Time) {
	r.idle = now
	if r.state == StateDraining && !r.forced {
		r.undrain(now)
	}
}

func (r *Rules) undrain(now time.Time) {
	r.enter(StateReady, now)
	r.idle = now
}

// Drained says that no connection to the machine is left. It counts while the
// machine is draining.
func (r *Rules) Drained() { r.drained = true }

// Suspend puts it to sleep soon even though it was used a moment ago, unless
// it gets busy before. It says whether it will; not if it is busy, or not ready.
func (r *Rules) Suspend(reason string) bool {
	if r.state != StateReady || r.busy {
		return false
	}
	r.forced, r.why = true, reason
	return true
}

// Lost says that a dial to the endpoint of an epoch has failed, for somebody
// who needed it.
func (r *Rules) Lost(epoch uint64, now time.Time) {
	if r.state == StateReady && epoch == r.epoch {
		r.lost = true
	}
}

// Next says what to do now, or else when to ask again (zero: when something
// has happened). A call that it names counts as under way.
func (r *Rules) Next(now time.Time) (do Action, again time.Time) {
	if r.running != Nothing {
		if r.running == Sleep && r.wanted && !r.cut {
			r.cut = true
			return CutShort, time.Time{}
		}
		return Nothing, time.Time{}
	}
	do, again = r.next(now)
	r.running = do
	return do, again
}

func (r *Rules) next(now time.Time) (Action, time.Time) {
	if r.retired.begun {
		return r.nextRetired(now)
	}
	switch r.state {
	case StateUnknown, StateFailed:
		return r.nextUnknown(now)
	case StateAsleep:
		if r.wanted {
			return r.wake(now)
		}
	case StateWaking:
		return r.nextWaking(now)
	case StateReady:
		return r.nextReady(now)
	case StateDraining:
		return r.nextDraining(now)
	}
	return Nothing, time.Time{}
}

func (r *Rules) nextUnknown(now time.Time) (Action, time.Time) {
	due := !r.askAt.IsZero() && !now.Before(r.askAt)
	switch {
	case r.shared && due && !r.wanted && !r.check && r.set.SuspendAfter > 0:
		r.act = Outcome{At: now, Reason: "idle"}
		r.enter(StateSuspending, now)
		r.cut = false
		return Sleep, time.Time{}
	case r.wanted || r.check || due:
		r.check, r.askAt = false, time.Time{}
		return Ask, time.Time{}
	}
	return Nothing, r.askAt
}

// wake begins a wake, if the budget allows one more.
func (r *Rules) wake(now time.Time) (Action, time.Time) {
	r.act, r.started = Outcome{At: now, Reason: r.reason}, true
	if wait := r.spend(now); wait > 0 {
		r.fail(ErrBudget, wait, now)
		return r.nextUnknown(now)
	}
	r.enter(StateWaking, now)
	r.deadline = now.Add(r.set.WakeLimit)
	return Start, time.Time{}
}

// spend takes one wake from the budget, or says how long there is none.
func (r *Rules) spend(now time.Time) time.Duration {
	if r.set.Burst == 0 {
		return 0
	}
	if r.set.Refill > 0 {
		r.tokens += float64(now.Sub(r.tokensAt)) / float64(r.set.Refill)
	}
	r.tokens, r.tokensAt = min(r.tokens, float64(r.set.Burst)), now
	if r.tokens < 1 {
		return max(time.Duration((1-r.tokens)*float64(r.set.Refill)), time.Millisecond)
	}
	r.tokens--
	return 0
}

func (r *Rules) nextWaking(now time.Time) (Action, time.Time) {
	switch {
	case r.locate:
		r.locate = false
		return Locate, time.Time{}
	case now.Before(r.probeAt):
		return Nothing, r.probeAt
	case !now.Before(r.lookAt):
		return Ask, time.Time{}
	}
	return Probe, time.Time{}
}

func (r *Rules) nextReady(now time.Time) (Action, time.Time) {
	if r.locate {
		r.locate = false
		return Locate, time.Time{}
	}
	if r.told && !r.lost {
		r.told, r.asks = false, true
		return Ask, time.Time{}
	}
	if r.lost {
		if at := r.lastAsk.Add(askPause); now.Before(at) {
			return Nothing, at
		}
		r.lost, r.lastAsk = false, now
		return Ask, time.Time{}
	}
	if !r.forced {
		if r.busy || r.set.SuspendAfter == 0 {
			return Nothing, time.Time{}
		}
		if at := r.idle.Add(r.set.SuspendAfter); now.Before(at) {
			return Nothing, at
		}
	}
	r.enter(StateDraining, now)
	return Nothing, now.Add(drainLimit)
}

func (r *Rules) nextDraining(now time.Time) (Action, time.Time) {
	at := r.since.Add(drainLimit)
	switch {
	case r.set.SuspendAfter == 0 && !r.forced, !r.drained && !now.Before(at):
		r.undrain(now) // it is never to sleep any more, or is used after all
		return r.nextReady(now)
	case !r.drained:
		return Nothing, at
	}
	r.act = Outcome{At: now, Reason: "idle"}
	if r.forced {
		r.act.Reason = r.why
	}
	r.enter(StateSuspending, now)
	r.cut = false
	return Sleep, time.Time{}
}
