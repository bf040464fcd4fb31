// Random schedules of the rules against a world with a machine in it.

package machines

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const cutTakes = time.Second // how long a driver needs to give up a suspend, in this world

// world is a machine as it is, one holder of it, and the call under way.
type world struct {
	*rapid.T
	r        *Rules
	set      Settings
	now      time.Time
	again    time.Time
	nameless bool // the driver cannot tell when it was started

	power  Power
	run    int // counts the machine's real starts
	at     Endpoint
	silent bool // Postgres does not answer

	call     Action
	callAt   Endpoint // of a Probe
	callEnds time.Time
	cut      bool

	view    View
	busy    bool
	drained bool // said while draining
	lost    bool
	lastUse time.Time
	waiting []time.Time    // since when, of those who were not answered
	conns   map[uint64]int // run that connections of an epoch were made to

	seen    int // run that a driver's answer was about last
	runOf   map[uint64]int
	placeOf map[uint64]Endpoint
	starts  []time.Time
	forced  bool
}

func newWorld(t *rapid.T) *world {
	set := Settings{
		SuspendAfter: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "suspend after"),
		WakeLimit:    rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, time.Minute}).Draw(t, "wake limit"),
		Burst:        rapid.IntRange(0, 3).Draw(t, "burst"),
		Refill:       rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "refill"),
	}
	w := &world{T: t, set: set, now: noon, at: here, conns: map[uint64]int{}, runOf: map[uint64]int{}, placeOf: map[uint64]Endpoint{},
		nameless: rapid.Bool().Draw(t, "nameless"), power: rapid.SampledFrom([]Power{Asleep, Running, Changing}).Draw(t, "power")}
	jitter := rapid.Float64Range(0, 0.999).Draw(t, "jitter")
	w.r = NewRules(set, func() float64 { return jitter }, noon)
	w.view = w.r.View()
	return w
}

// step does what an owner does, and judges it.
func (w *world) step() {
	for {
		do, again := w.r.Next(w.now)
		w.again = again
		switch {
		case do == Nothing:
			w.look()
			return
		case do == CutShort:
			if w.call != Sleep || w.cut || len(w.waiting) == 0 {
				w.Fatalf("cut short: %v for %d clients", w.call, len(w.waiting))
			}
			w.cut, w.callEnds = true, w.now.Add(cutTakes)
			continue
		case w.call != Nothing:
			w.Fatalf("%v beside %v", do, w.call)
		}
		w.begin(do)
	}
}

func (w *world) begin(do Action) {
	w.call, w.callAt, w.cut = do, w.r.endpoint, false
	limit := askLimit
	switch do {
	case Probe:
		limit = probeLimit
		if w.callAt == (Endpoint{}) {
			w.Fatal("a probe of nowhere")
		}
	case Start:
		limit = w.set.WakeLimit
		w.judgeStart()
	case Sleep:
		limit = suspendLimit
		w.judgeSleep()
	}
	w.callEnds = w.now.Add(limit)
}

func (w *world) judgeStart() {
	if len(w.waiting) == 0 && !w.lost {
		w.Fatal("started for nobody")
	}
	if w.view.State == StateFailed && w.now.Before(w.view.Until) {
		w.Fatalf("started %v before the pause is over", w.view.Until.Sub(w.now))
	}
	w.starts = append(w.starts, w.now)
	if w.set.Burst == 0 {
		return
	}
	for i, from := range w.starts {
		allowed := float64(w.set.Burst) + 1e-6
		if w.set.Refill > 0 {
			allowed += float64(w.now.Sub(from)) / float64(w.set.Refill)
		}
		if n := len(w.starts) - i; float64(n) > allowed {
			w.Fatalf("%d starts in %v", n, w.now.Sub(from))
		}
	}
}

func (w *world) judgeSleep() {
	switch {
	case w.busy:
		w.Fatal("put to sleep while in use")
	case !w.drained || len(w.conns) > 0:
		w.Fatalf("put to sleep with connections to it: drained %v, %v", w.drained, w.conns)
	case !w.forced && (w.set.SuspendAfter == 0 || w.now.Sub(w.lastUse) < w.set.SuspendAfter):
		w.Fatalf("put to sleep %v after it was used", w.now.Sub(w.lastUse))
	}
}

// look takes over the view, as a holder, and judges what it promises.
func (w *world) look() {
	v := w.r.View()
	switch v.State {
	case StateReady:
		if run, ok := w.runOf[v.Epoch]; ok && run != w.seen {
			w.Fatalf("epoch %d is of run %d and of run %d", v.Epoch, run, w.seen)
		}
		if at, ok := w.placeOf[v.Epoch]; ok && at != v.Endpoint {
			w.Fatalf("epoch %d is at %v and at %v", v.Epoch, at, v.Endpoint)
		}
		w.runOf[v.Epoch], w.placeOf[v.Epoch] = w.seen, v.Endpoint
		if v.Epoch != w.view.Epoch {
			clear(w.conns)
		}
		w.waiting = nil
	case StateFailed:
		w.waiting = nil
		w.lost = w.lost && w.call != Nothing
	case StateSuspending:
		w.forced = false
	}
	if v.State != StateDraining {
		w.drained = false
	}
	if v.Epoch < w.view.Epoch {
		w.Fatal("an epoch came back")
	}
	w.view = v
	// A machine that was found running may turn out to be asleep; then there are two wakes' time.
	bound := 2*w.set.WakeLimit + 5*askLimit + 2*probeLimit + cutTakes
	for _, since := range w.waiting {
		if w.now.Sub(since) > bound {
			w.Fatalf("no answer after %v: %v", w.now.Sub(since), v.State)
		}
	}
}

// advance lets time go by, with the timer of the owner and the limits of its calls.
func (w *world) advance(d time.Duration) {
	for end := w.now.Add(d); ; {
		next := end
		if w.call != Nothing && w.callEnds.Before(next) {
			next = w.callEnds
		}
		if !w.again.IsZero() && w.again.Before(next) {
			next = w.again
		}
		if w.now.Before(next) {
			w.now = next
		}
		if w.call != Nothing && !w.now.Before(w.callEnds) {
			w.finish(context.DeadlineExceeded, false)
			continue
		}
		w.step()
		if !w.now.Before(end) {
			return
		}
	}
}

func (w *world) status() Status {
	w.seen = w.run
	s := runs(w.run)
	if s.Power = w.power; w.nameless {
		s.Generation.Started = time.Time{}
	}
	return s
}

func (w *world) wake() {
	if w.power != Running {
		w.power = Running
		w.run++
	}
}

// finish ends the call under way; one that fails may have done its work.
func (w *world) finish(err error, done bool) {
	call := w.call
	w.call = Nothing
	switch call {
	case Ask:
		if err != nil {
			w.r.Asked(Status{}, err, w.now)
		} else {
			w.r.Asked(w.status(), nil, w.now)
		}
	case Start:
		if err == nil || done {
			w.wake()
		}
		if err != nil {
			w.r.Started(Status{}, Endpoint{}, err, w.now)
		} else {
			w.r.Started(w.status(), w.at, nil, w.now)
		}
	case Probe:
		if err == nil && (w.power != Running || w.silent || w.callAt != w.at) {
			err = errBusy
		}
		w.r.Probed(err, w.now)
	case Locate:
		w.r.Located(w.at, err, w.now)
	case Sleep:
		if err == nil || done {
			w.power = Asleep
		}
		w.r.Slept(err, w.now)
	}
	w.step()
}

// use is what a holder does with a ready machine: it connects, and queries on every connection that it thinks is good.
func (w *world) use() {
	if w.view.State != StateReady {
		return
	}
	w.busy = true
	w.r.Busy(true, w.now)
	reached := w.power == Running && !w.silent && w.view.Endpoint == w.at
	if run, ok := w.conns[w.view.Epoch]; ok && w.run == w.seen && run != w.run {
		w.Fatalf("a query on run %d, in run %d", run, w.run)
	}
	if _, ok := w.conns[w.view.Epoch]; reached && !ok {
		w.conns[w.view.Epoch] = w.run
	}
	if !reached {
		w.lose()
	}
}

func (w *world) lose() {
	if w.view.State == StateReady {
		w.lost = true
	}
	w.r.Lost(w.view.Epoch, w.now)
}

func (w *world) drain() {
	if w.view.State != StateDraining {
		return
	}
	if w.busy {
		w.r.Busy(true, w.now)
		return
	}
	clear(w.conns)
	w.drained = true
	w.r.Drained()
}

func (w *world) unuse() {
	if w.busy {
		w.lastUse = w.now
	}
	w.busy = false
	w.r.Busy(false, w.now)
}

func (w *world) want() {
	w.waiting = append(w.waiting, w.now)
	if w.view.State == StateDraining {
		w.lastUse = w.now
	}
	if w.view.State == StateFailed && w.now.Before(w.view.Until) {
		w.waiting = nil // told fast
	}
	w.r.Want("client", w.now)
}

func TestRandomSchedules(t *testing.T) {
	ready, asleep := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		told := func(f func()) func(*rapid.T) {
			return func(*rapid.T) { f(); w.step() }
		}
		fails := func(t *rapid.T) {
			kind := rapid.Custom(func(t *rapid.T) Kind { return Kind(rapid.Uint8Range(0, uint8(Unreachable)).Draw(t, "kind")) })
			w.finish(failsAs(kind.Draw(t, "kind"), rapid.SampledFrom([]time.Duration{0, 5 * time.Second, time.Hour}).Draw(t, "after")), rapid.Bool().Draw(t, "done"))
		}
		goes := func(t *rapid.T) {
			pace := rapid.SampledFrom([]time.Duration{0, time.Millisecond, 100 * time.Millisecond, time.Second}).Draw(t, "pace")
			for range rapid.IntRange(1, 6).Draw(t, "calls") {
				w.advance(pace)
				w.finish(nil, true)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"want":    told(w.want),
			"want 2":  told(w.want),
			"use":     told(w.use),
			"use 2":   told(w.use),
			"unuse":   told(w.unuse),
			"used":    told(func() { w.lastUse = w.now; w.r.Used(w.now) }),
			"drain":   told(w.drain),
			"drain 2": told(w.drain),
			"check":   told(w.r.Check),
			"lost":    told(w.lose),
			"suspend": told(func() {
				if w.r.Suspend("operator") {
					w.forced = true
				}
			}),
			"goes well": goes, "goes well 2": goes, "goes well 3": goes,
			"fails": fails,
			"times out": func(*rapid.T) {
				if w.call != Nothing {
					w.advance(w.callEnds.Sub(w.now))
				}
			},
			"time": func(t *rapid.T) {
				w.advance(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 10 * time.Second, 2 * time.Minute, 10 * time.Minute}).Draw(t, "time"))
			},
			"stopped behind our back": func(*rapid.T) { w.power = Asleep },
			"started behind our back": func(*rapid.T) { w.wake() },
			"changed behind our back": func(*rapid.T) { w.power = Changing },
			"moves":                   func(t *rapid.T) { w.at = rapid.SampledFrom([]Endpoint{here, there}).Draw(t, "at") },
			"is silent":               func(t *rapid.T) { w.silent = rapid.Bool().Draw(t, "silent") },
			"": func(t *rapid.T) {
				switch w.view.State {
				case StateReady:
					ready++
				case StateAsleep:
					asleep++
				}
			},
		})
		w.settle()
	})
	t.Logf("ready %d times, asleep %d times", ready, asleep)
	if ready == 0 || asleep == 0 {
		t.Error("the schedules lead nowhere")
	}
}

// settle has the world in order again: whoever waits is served, and what nobody uses falls asleep.
func (w *world) settle() {
	w.silent = false
	w.power = Running
	w.run++
	w.r.Check()
	w.step()
	w.unuse()
	w.want()
	for range 900 {
		w.step()
		w.drain()
		w.advance(time.Second)
		if w.call != Nothing {
			w.finish(nil, true)
		}
	}
	if len(w.waiting) > 0 {
		w.Fatal("somebody waits for ever")
	}
	if w.set.SuspendAfter > 0 && w.view.State != StateAsleep {
		w.Fatalf("unused, and %v", w.view.State)
	}
}
