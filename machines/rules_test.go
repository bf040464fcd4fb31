// Tests of the rules: each state with each event, and the stories of a machine's life.

package machines

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEachStateWithEachEvent(t *testing.T) {
	states := map[string]func(*story){
		"unknown":    func(*story) {},
		"asking":     func(s *story) { s.r.Check(); s.next(Ask) },
		"asleep":     func(s *story) { s.sleeping() },
		"starting":   func(s *story) { s.sleeping().starting() },
		"probing":    func(s *story) { s.sleeping().starting().r.Started(runs(1), here, nil, s.now); s.next(Probe) },
		"ready":      func(s *story) { s.ready() },
		"draining":   func(s *story) { s.ready().draining() },
		"forced":     func(s *story) { s.ready().r.Suspend("operator"); s.next(Nothing, drainLimit) },
		"suspending": func(s *story) { s.ready().suspending() },
		"failed":     func(s *story) { s.sleeping().failed(errBusy) },
		"tellable":   func(s *story) { s.sleeping().failed(errBusy); s.pass(failMin - 1) },
		"failed ago": func(s *story) { s.sleeping().failed(errBusy); s.pass(failMin) },
	}
	events := map[string]func(*story){
		"want":    func(s *story) { s.r.Want("client", s.now) },
		"check":   func(s *story) { s.r.Check() },
		"busy":    func(s *story) { s.r.Busy(true, s.now) },
		"used":    func(s *story) { s.r.Used(s.now) },
		"drained": func(s *story) { s.r.Drained() },
		"suspend": func(s *story) { s.r.Suspend("operator") },
		"lost":    func(s *story) { s.r.Lost(s.r.View().Epoch, s.now) },
		"told":    func(s *story) { s.r.Told(false, s.now) },
		"orphan":  func(s *story) { s.r.Told(true, s.now) },
		"old lie": func(s *story) { s.r.Lost(s.r.View().Epoch-1, s.now) },
	}
	type then struct {
		state State
		do    Action
	}
	stays := map[string]State{
		"unknown": StateUnknown, "asking": StateUnknown, "asleep": StateAsleep, "starting": StateWaking, "probing": StateWaking, "ready": StateReady,
		"draining": StateDraining, "forced": StateDraining, "suspending": StateSuspending, "failed": StateFailed, "tellable": StateFailed, "failed ago": StateFailed,
	}
	changes := map[[2]string]then{
		{"unknown", "want"}:      {StateUnknown, Ask},
		{"unknown", "check"}:     {StateUnknown, Ask},
		{"unknown", "told"}:      {StateUnknown, Ask},
		{"unknown", "orphan"}:    {StateUnknown, Ask},
		{"asleep", "orphan"}:     {StateUnknown, Ask},
		{"ready", "told"}:        {StateReady, Ask},
		{"ready", "orphan"}:      {StateReady, Ask},
		{"failed", "told"}:       {StateFailed, Ask},
		{"failed", "orphan"}:     {StateFailed, Ask},
		{"tellable", "told"}:     {StateFailed, Ask},
		{"tellable", "orphan"}:   {StateFailed, Ask},
		{"failed ago", "told"}:   {StateFailed, Ask},
		{"failed ago", "orphan"}: {StateFailed, Ask},
		{"asleep", "want"}:       {StateWaking, Start},
		{"ready", "lost"}:        {StateReady, Ask},
		{"ready", "suspend"}:     {StateDraining, Nothing},
		{"draining", "want"}:     {StateReady, Nothing},
		{"draining", "busy"}:     {StateReady, Nothing},
		{"draining", "used"}:     {StateReady, Nothing},
		{"draining", "drained"}:  {StateSuspending, Sleep},
		{"forced", "want"}:       {StateReady, Nothing},
		{"forced", "busy"}:       {StateReady, Nothing},
		{"forced", "drained"}:    {StateSuspending, Sleep},
		{"suspending", "want"}:   {StateSuspending, CutShort},
		{"failed ago", "want"}:   {StateUnknown, Ask},
	}
	for state, reach := range states {
		for event, tell := range events {
			t.Run(state+"/"+event, func(t *testing.T) {
				s := newStory(t, usual)
				reach(s)
				want, ok := changes[[2]string{state, event}]
				if !ok {
					want = then{state: stays[state]}
				}
				tell(s)
				s.next(want.do)
				s.is(want.state, s.r.View().Epoch)
				s.next(Nothing) // once is enough
			})
		}
	}
}

func TestADay(t *testing.T) {
	s := newStory(t, usual)
	s.next(Nothing, 0)
	s.r.Want("client", s.now)
	s.r.Want("another", s.now)
	s.next(Ask)
	s.pass(time.Second)
	s.r.Asked(sleeps, nil, s.now)
	s.next(Start)
	s.is(StateWaking, 0)
	s.pass(time.Second)
	s.r.Started(runs(1), here, nil, s.now)
	for range 3 {
		s.next(Probe)
		s.r.Probed(errBusy, s.now)
		s.next(Nothing)
		s.now = s.again
	}
	s.next(Probe)
	s.r.Probed(nil, s.now)
	s.next(Nothing, usual.SuspendAfter)
	s.is(StateReady, 1)

	s.r.Busy(true, s.now)
	s.next(Nothing, 0)
	s.pass(time.Hour)
	s.next(Nothing, 0)
	s.r.Busy(false, s.now)
	s.next(Nothing, usual.SuspendAfter)
	s.pass(time.Minute)
	s.r.Used(s.now)
	s.next(Nothing, usual.SuspendAfter)
	s.draining()
	s.is(StateDraining, 1)
	s.r.Drained()
	s.next(Sleep)
	s.is(StateSuspending, 1)
	asleep := s.now
	s.pass(3 * time.Second)
	s.r.Slept(nil, s.now)
	s.next(Nothing, 0)
	s.is(StateAsleep, 1)

	took := 35*time.Millisecond + time.Second
	want := View{State: StateAsleep, Since: s.now, Epoch: 1, Generation: runs(1).Generation, Endpoint: here,
		LastWake:  Outcome{At: noon.Add(time.Second), Reason: "client", Result: "ok", Took: took},
		LastSleep: Outcome{At: asleep, Reason: "idle", Result: "ok", Took: 3 * time.Second}}
	if diff := cmp.Diff(want, s.r.View()); diff != "" {
		t.Error(diff)
	}
	s.starting().started(2)
	s.is(StateReady, 2)
}

// A machine that an earlier process left running is found, and put to sleep when nobody comes.
func TestFoundRunning(t *testing.T) {
	s := newStory(t, usual)
	s.r.Check()
	s.next(Ask)
	s.r.Asked(runs(1), nil, s.now)
	s.is(StateWaking, 0)
	s.next(Locate)
	s.r.Located(here, nil, s.now)
	s.next(Probe)
	s.r.Probed(nil, s.now)
	s.is(StateReady, 1)
	s.next(Nothing, usual.SuspendAfter)
	s.suspending().r.Slept(nil, s.now)
	if v := s.r.View(); !v.LastWake.At.IsZero() || v.LastSleep.Result != "ok" {
		t.Errorf("found running: %+v", v)
	}
}

func TestFoundRunningButNowhere(t *testing.T) {
	s := newStory(t, usual)
	s.r.Check()
	s.next(Ask)
	s.r.Asked(runs(1), nil, s.now)
	s.next(Locate)
	s.r.Located(Endpoint{}, errBusy, s.now)
	s.next(Nothing, lookAgain)
	s.is(StateFailed, 0)
}

// What is seen of a machine whose state is not known, with and without somebody who waits.
func TestAsked(t *testing.T) {
	for _, c := range []struct {
		name   string
		status Status
		err    error
		wanted bool
		state  State
		do     Action
		wait   time.Duration
	}{
		{"asleep", sleeps, nil, false, StateAsleep, Nothing, 0},
		{"asleep", sleeps, nil, true, StateWaking, Start, 0},
		{"running", runs(1), nil, false, StateWaking, Locate, 0},
		{"running", runs(1), nil, true, StateWaking, Locate, 0},
		{"changing", changes, nil, false, StateUnknown, Nothing, askAgain},
		{"changing", changes, nil, true, StateWaking, Start, 0},
		{"mystery", Status{}, nil, false, StateUnknown, Nothing, askAgain},
		{"mystery", Status{}, nil, true, StateWaking, Start, 0},
		{"error", sleeps, errBusy, false, StateUnknown, Nothing, failMax},
		{"error", sleeps, errBusy, true, StateFailed, Nothing, lookAgain},
		{"unreachable", sleeps, failsAs(Unreachable, 0), false, StateUnknown, Nothing, failMax},
		{"rate limited", sleeps, failsAs(RateLimited, time.Minute), false, StateUnknown, Nothing, time.Minute},
		{"for a year", sleeps, failsAs(RateLimited, 365*24*time.Hour), false, StateUnknown, Nothing, lookAgain},
		{"gone", sleeps, failsAs(Gone, 0), false, StateFailed, Nothing, lookAgain},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, usual)
			s.r.Check()
			if c.wanted {
				s.r.Want("client", s.now)
			}
			s.next(Ask)
			s.r.Asked(c.status, c.err, s.now)
			s.next(c.do, c.wait)
			s.is(c.state, 0)
			if c.state == StateUnknown {
				s.now = s.again
				s.next(Ask) // unasked
			}
		})
	}
}

// Whoever comes while it falls asleep cuts that short, and is served by the start that follows.
func TestCutShort(t *testing.T) {
	for _, err := range []error{nil, errBusy} {
		s := newStory(t, usual)
		s.ready().suspending()
		s.r.Want("client", s.now)
		s.next(CutShort)
		s.r.Want("another", s.now)
		s.next(Nothing, 0)
		s.pass(time.Second)
		s.r.Slept(err, s.now)
		s.next(Start)
		v := s.r.View()
		if want := map[bool]string{true: "ok", false: "cancelled"}[err == nil]; v.LastSleep.Result != want || v.LastSleep.Reason != "idle" {
			t.Errorf("Slept(%v): %+v", err, v.LastSleep)
		}
		s.started(1) // it had not even begun
		s.is(StateReady, 2)
		if v := s.r.View(); v.LastWake.Reason != "client" {
			t.Errorf("woken for %q", v.LastWake.Reason)
		}
		s.suspending()
		s.r.Slept(errBusy, s.now) // this one was not cut short
		s.is(StateUnknown, 2)
	}
}

func TestSuspendFails(t *testing.T) {
	s := newStory(t, usual)
	s.ready().suspending().r.Slept(failsAs(RateLimited, time.Minute), s.now)
	s.is(StateUnknown, 1)
	s.next(Nothing, time.Minute)
	if got := s.r.View().LastSleep; got.Result != "rate_limited" {
		t.Errorf("the suspend went %+v", got)
	}
	s.pass(time.Minute)
	s.next(Ask)
	s.r.Asked(runs(1), nil, s.now)
	s.next(Locate)
	s.r.Located(here, nil, s.now)
	s.next(Probe)
	s.r.Probed(nil, s.now)
	s.is(StateReady, 2) // who knows what it did meanwhile
	s.next(Nothing, usual.SuspendAfter)
}

func TestSuspendByHand(t *testing.T) {
	s := newStory(t, Settings{WakeLimit: time.Minute}) // never by itself
	s.ready().next(Nothing, 0)
	s.r.Busy(true, s.now)
	if s.r.Suspend("operator") {
		t.Error("a busy machine is put to sleep")
	}
	s.r.Busy(false, s.now)
	if !s.r.Suspend("operator") {
		t.Error("an unused machine is not put to sleep")
	}
	s.next(Nothing, drainLimit)
	s.r.Used(s.now) // a moment ago: that is known
	s.r.Drained()
	s.next(Sleep)
	s.r.Slept(nil, s.now)
	if got := s.r.View().LastSleep.Reason; got != "operator" {
		t.Errorf("the reason is %q", got)
	}
	s.starting().started(2)
	s.r.Lost(2, s.now)
	s.next(Ask)
	s.r.Suspend("operator")
	s.r.Busy(true, s.now) // before it came to that
	s.r.Busy(false, s.now)
	s.r.Asked(changes, errBusy, s.now)
	s.next(Nothing, 0)
	s.is(StateReady, 2)
}

// It is used after all: by a holder that does not say so.
func TestDrainLimit(t *testing.T) {
	s := newStory(t, usual)
	s.ready().draining()
	s.pass(drainLimit - 1)
	s.next(Nothing, 1)
	s.pass(1)
	s.next(Nothing, usual.SuspendAfter)
	s.is(StateReady, 1)
	s.r.Drained() // too late
	s.draining().next(Nothing, drainLimit)
	s.is(StateDraining, 1)
}

func TestConfigureInMidLife(t *testing.T) {
	s := newStory(t, usual)
	s.ready()
	s.pass(time.Minute)
	s.r.Configure(Settings{SuspendAfter: 2 * time.Minute, WakeLimit: time.Minute})
	s.next(Nothing, time.Minute)
	s.r.Configure(Settings{SuspendAfter: time.Second, WakeLimit: time.Minute})
	s.next(Nothing, drainLimit)
	s.is(StateDraining, 1)
	s.r.Configure(Settings{WakeLimit: time.Minute}) // never
	s.r.Drained()
	s.next(Nothing, 0)
	s.is(StateReady, 1)
	s.r.Configure(usual)
	s.suspending().r.Slept(nil, s.now)
	s.r.Configure(Settings{WakeLimit: time.Second})
	s.starting().r.Started(runs(2), here, nil, s.now)
	s.pass(time.Second)
	s.next(Probe)
	s.r.Probed(errBusy, s.now)
	s.is(StateFailed, 1)
}

func TestViewSaysWhenItSleeps(t *testing.T) {
	s := newStory(t, usual)
	at := func(want time.Time) {
		t.Helper()
		if got := s.r.View().SuspendsAt; !got.Equal(want) {
			t.Errorf("it sleeps at %v, want %v", got, want)
		}
	}
	at(time.Time{})
	s.ready()
	at(s.now.Add(usual.SuspendAfter))
	s.r.Busy(true, s.now)
	at(time.Time{})
	s.r.Busy(false, s.now)
	s.r.Configure(Settings{})
	at(time.Time{})
}

func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	add := func(s string) {
		if s == "" || seen[s] {
			t.Errorf("%q twice", s)
		}
		seen[s] = true
	}
	for _, s := range States() {
		add(s.String())
	}
	clear(seen)
	for a := Nothing; a <= CutShort; a++ {
		add(a.String())
	}
	clear(seen)
	for k := Transient; k <= Unreachable; k++ {
		add(failsAs(k, 0).(*Error).Kind.String())
		if got := resultOf(failsAs(k, 0)); got != k.String() {
			t.Errorf("the result of %v is %q", k, got)
		}
	}
	clear(seen)
	for p := PowerUnknown; p <= Changing; p++ {
		add(p.String())
	}
}

// TestFailedSuspend: who cannot be asked says nothing about a machine that could not be put to sleep.
func TestFailedSuspend(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	down := &Error{Kind: Transient, Op: "state", Err: errors.New("500")}
	for name, answers := range map[string]bool{"it runs": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			r := NewRules(Settings{SuspendAfter: time.Second, WakeLimit: time.Minute}, nil, now)
			expect := func(want Action) {
				t.Helper()
				if got, _ := r.Next(now); got != want {
					t.Fatalf("%v is next, want %v", got, want)
				}
			}
			r.Want("client", now)
			expect(Ask)
			r.Asked(Status{Power: Asleep}, nil, now)
			expect(Start)
			r.Started(Status{Power: Running}, Endpoint{"db", 5432}, nil, now)
			expect(Probe)
			r.Probed(nil, now)
			now = now.Add(time.Second)
			expect(Nothing) // draining
			r.Drained()
			expect(Sleep)
			r.Slept(down, now)
			epoch := r.View().Epoch

			r.Want("client", now)
			expect(Ask)
			r.Asked(Status{}, down, now)
			expect(Probe)
			if answers {
				r.Probed(nil, now)
				if v := r.View(); v.State != StateReady || v.Epoch == epoch {
					t.Errorf("%v, epoch %d after %d", v.State, v.Epoch, epoch)
				}
				return
			}
			r.Probed(errors.New("refused"), now)
			for range 100 {
				switch do, again := r.Next(now); do {
				case Probe:
					r.Probed(errors.New("refused"), now)
				case Ask:
					r.Asked(Status{}, down, now)
				default:
					if again.IsZero() || again.Sub(now) > 10*time.Second {
						break
					}
					now = again
				}
			}
			if v := r.View(); v.State != StateFailed {
				t.Errorf("%v ten seconds later", v.State)
			}
		})
	}
}
