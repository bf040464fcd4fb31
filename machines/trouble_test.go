// Tests of the rules in trouble: failures, lost machines, slow ones, and what connections survive.

package machines

import (
	"errors"
	"testing"
	"time"
)

func TestFailuresPause(t *testing.T) {
	s := newStory(t, usual)
	s.sleeping().failed(errBusy)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		want *= time.Second
		v := s.r.View()
		if v.State != StateFailed || !errors.Is(v.Err, errBusy) || v.Until.Sub(s.now) != want {
			t.Fatalf("failed with %v for %v, want %v for %v", v.Err, v.Until.Sub(s.now), errBusy, want)
		}
		s.pass(want)
		s.r.Want("client", s.now)
		s.next(Ask)
		s.r.Asked(sleeps, nil, s.now)
		s.next(Start)
		s.r.Started(Status{}, Endpoint{}, errBusy, s.now)
		s.next(Nothing, lookAgain)
	}
	s.pass(time.Minute)
	s.r.Want("client", s.now)
	s.next(Ask)
	s.r.Asked(sleeps, nil, s.now)
	s.next(Start)
	s.started(1)
	if v := s.r.View(); v.Err != nil || !v.Until.IsZero() {
		t.Errorf("ready with %v", v.Err)
	}
	s.r.Lost(1, s.now)
	s.next(Ask)
	s.r.Asked(Status{}, failsAs(Gone, 0), s.now)
	if got := s.r.View().Until.Sub(s.now); got != failMin {
		t.Errorf("the first failure after a success is told for %v", got)
	}
}

func TestFailuresAreToldForAsLongAsTheDriverSays(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{0: time.Second, 20 * time.Second: 20 * time.Second, time.Hour: time.Minute} {
		s := newStory(t, usual)
		s.sleeping().failed(failsAs(Capacity, after))
		v := s.r.View()
		if got := v.Until.Sub(s.now); got != want || v.LastWake.Result != "capacity" {
			t.Errorf("After %v: told for %v, %+v", after, got, v.LastWake)
		}
	}
}

// A failed machine that nobody wants may run all the same, and cost money.
func TestFailedIsLookedAtLater(t *testing.T) {
	s := newStory(t, usual)
	s.sleeping().failed(errBusy)
	s.pass(lookAgain)
	s.next(Ask)
	s.is(StateFailed, 0)
	s.r.Asked(Status{}, errBusy, s.now)
	s.next(Nothing, lookAgain)
	s.pass(lookAgain)
	s.next(Ask)
	s.r.Want("client", s.now) // joins in
	s.next(Nothing)
	s.r.Asked(runs(1), nil, s.now)
	s.next(Locate)
	s.r.Located(here, nil, s.now)
	s.next(Probe)
	s.r.Probed(nil, s.now)
	s.is(StateReady, 1)
	for _, c := range []struct {
		status Status
		state  State
		wait   time.Duration
	}{{sleeps, StateAsleep, 0}, {changes, StateUnknown, askAgain}} {
		s := newStory(t, usual)
		s.sleeping().failed(errBusy)
		s.pass(lookAgain)
		s.next(Ask)
		s.r.Asked(c.status, nil, s.now)
		s.next(Nothing, c.wait)
		s.is(c.state, 0)
	}
}

// What a state check after a failed dial leads to.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		name   string
		status Status
		err    error
		state  State
		do     Action
	}{
		{"runs on", runs(1), nil, StateReady, Locate},
		{"another run", runs(2), nil, StateWaking, Locate},
		{"a run of which nobody knows", Status{Power: Running}, nil, StateWaking, Locate},
		{"stopped", sleeps, nil, StateWaking, Start},
		{"on its way", changes, nil, StateWaking, Start},
		{"cannot be asked", Status{}, errBusy, StateReady, Nothing},
		{"token expired", Status{}, failsAs(Auth, 0), StateReady, Nothing},
		{"gone", Status{}, failsAs(Gone, 0), StateFailed, Nothing},
		{"unreachable", Status{}, failsAs(Unreachable, 0), StateFailed, Nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, usual)
			s.ready().r.Lost(1, s.now)
			s.next(Ask)
			s.r.Asked(c.status, c.err, s.now)
			s.next(c.do)
			s.is(c.state, 1)
		})
	}
}

func TestOneCheckPerSecond(t *testing.T) {
	s := newStory(t, usual)
	s.ready()
	for range 3 {
		s.r.Lost(1, s.now)
		s.next(Ask)
		s.r.Lost(1, s.now)
		s.r.Asked(runs(1), nil, s.now)
		s.next(Locate)
		s.r.Located(here, nil, s.now)
		s.r.Lost(1, s.now)
		s.next(Nothing, askPause)
		s.pass(askPause)
	}
	s.is(StateReady, 1)
}

func TestLostAddress(t *testing.T) {
	for _, c := range []struct {
		at    Endpoint
		err   error
		state State
		epoch uint64
	}{
		{here, nil, StateReady, 1},
		{there, nil, StateReady, 2},
		{Endpoint{}, errBusy, StateReady, 1},
		{Endpoint{}, failsAs(Gone, 0), StateFailed, 1},
	} {
		s := newStory(t, usual)
		s.ready().r.Lost(1, s.now)
		s.next(Ask)
		s.r.Asked(runs(1), nil, s.now)
		s.next(Locate)
		s.r.Located(c.at, c.err, s.now)
		s.next(Nothing)
		s.is(c.state, c.epoch)
		if c.err == nil && s.r.View().Endpoint != c.at {
			t.Errorf("still at %v", s.r.View().Endpoint)
		}
	}
}

// Postgres never answers: probes get rarer, it is asked now and then how and where the machine is, and at the wake limit
// whoever waits is told, however long the other calls take.
func TestSlow(t *testing.T) {
	for _, callsTake := range []time.Duration{0, 3 * time.Second, askLimit} {
		for _, err := range []error{nil, errBusy} {
			s := newStory(t, usual)
			s.sleeping().starting().r.Started(runs(1), here, nil, s.now)
			did := map[Action]int{}
			tried := false
			for s.r.View().State == StateWaking {
				do, again := s.r.Next(s.now)
				did[do]++
				switch do {
				case Nothing:
					s.now = again
				case Probe:
					tried = true
					s.r.Probed(errBusy, s.now)
				case Ask:
					if !tried {
						t.Fatalf("calls of %v: asked twice, and not tried in between", callsTake)
					}
					tried = false
					s.pass(callsTake)
					s.r.Asked(runs(1), err, s.now)
				case Locate:
					s.pass(callsTake)
					s.r.Located(there, err, s.now)
				default:
					t.Fatalf("Next = %v", do)
				}
			}
			v := s.r.View()
			late := s.now.Sub(noon) - usual.WakeLimit
			if v.LastWake.Result != "slow" || !errors.Is(v.Err, ErrSlow) || late < 0 || late > 2*callsTake {
				t.Errorf("calls of %v: %v late: %+v", callsTake, late, v)
			}
			if did[Ask] < 3 || did[Ask] > 30 || did[Probe] > 300 || err == nil && did[Locate] != did[Ask] {
				t.Errorf("calls of %v: %v", callsTake, did)
			}
		}
	}
}

// What is seen of a machine that was started, or found running, and does not answer.
func TestSilent(t *testing.T) {
	for _, c := range []struct {
		name    string
		started bool
		wanted  bool
		status  Status
		err     error
		state   State
		do      Action
	}{
		{"runs on", true, true, runs(1), nil, StateWaking, Locate},
		{"stopped again", true, true, sleeps, nil, StateFailed, Nothing},
		{"starting still", true, true, changes, nil, StateWaking, Probe},
		{"cannot be asked", true, true, Status{}, errBusy, StateWaking, Probe},
		{"gone", true, true, Status{}, failsAs(Gone, 0), StateFailed, Nothing},
		{"fell asleep", false, true, sleeps, nil, StateWaking, Start},
		{"fell asleep", false, false, sleeps, nil, StateAsleep, Nothing},
		{"is falling asleep", false, true, changes, nil, StateWaking, Start},
		{"is falling asleep", false, false, changes, nil, StateUnknown, Nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory(t, usual)
			if c.started {
				s.sleeping().starting().r.Started(runs(1), here, nil, s.now)
			} else {
				s.r.Check()
				s.next(Ask)
				s.r.Asked(runs(1), nil, s.now)
				s.next(Locate)
				s.r.Located(here, nil, s.now)
			}
			if c.wanted {
				s.r.Want("client", s.now)
			}
			s.next(Probe)
			s.pass(lookAfter)
			s.r.Probed(errBusy, s.now)
			s.pass(probeMin)
			s.next(Ask)
			s.r.Asked(c.status, c.err, s.now)
			s.next(c.do)
			s.is(c.state, 0)
			if c.name == "stopped again" && s.r.View().LastWake.Result != "stopped" {
				t.Errorf("%+v", s.r.View().LastWake)
			}
		})
	}
}

func TestWakeBudget(t *testing.T) {
	set := usual
	set.Burst, set.Refill = 2, 10*time.Second
	s := newStory(t, set)
	s.sleeping()
	nap := func(n int) {
		t.Helper()
		s.starting().started(n).r.Suspend("operator")
		s.next(Nothing)
		s.r.Drained()
		s.next(Sleep)
		s.r.Slept(nil, s.now)
		s.next(Nothing)
	}
	nap(1)
	nap(2)
	refused := func(until time.Duration) {
		t.Helper()
		s.r.Want("client", s.now)
		s.next(Nothing, lookAgain)
		v := s.r.View()
		if !errors.Is(v.Err, ErrBudget) || v.LastWake.Result != "budget" || v.Until.Sub(s.now) != until {
			t.Errorf("the third wake: %v until %v, %+v", v.Err, v.Until.Sub(s.now), v.LastWake)
		}
		s.pass(until)
		s.r.Want("client", s.now)
		s.next(Ask)
		s.r.Asked(sleeps, nil, s.now)
	}
	refused(10 * time.Second)
	nap(3)
	s.pass(2 * time.Second)
	refused(8 * time.Second)
	nap(4)
	s.pass(time.Hour)
	nap(5)
	nap(6)
	refused(10 * time.Second)
	s.next(Start)
}

func TestBudgetIsConfigured(t *testing.T) {
	s := newStory(t, usual)
	s.sleeping()
	for i, c := range []struct {
		burst   int
		allowed bool
	}{{0, true}, {1, true}, {1, false}, {0, true}, {3, true}, {1, true}, {1, false}} {
		s.r.Configure(Settings{WakeLimit: time.Minute, Burst: c.burst})
		if got := s.r.spend(s.now) == 0; got != c.allowed {
			t.Errorf("%d: a wake with a burst of %d is allowed: %v", i, c.burst, got)
		}
	}
}

// Which connections survive what.
func TestEpochs(t *testing.T) {
	probed := func(s *story, at Endpoint) {
		s.next(Locate)
		s.r.Located(at, nil, s.now)
		s.next(Probe)
		s.r.Probed(nil, s.now)
	}
	unreachable := func(s *story, then Status, at Endpoint) {
		s.r.Lost(1, s.now)
		s.next(Ask)
		s.r.Asked(Status{}, failsAs(Unreachable, 0), s.now)
		s.pass(time.Minute)
		s.r.Want("client", s.now)
		s.next(Ask)
		s.r.Asked(then, nil, s.now)
		if then.Power == Running {
			probed(s, at)
			return
		}
		s.next(Start)
		s.r.Started(runs(1), at, nil, s.now)
		s.next(Probe)
		s.r.Probed(nil, s.now)
	}
	for name, c := range map[string]struct {
		happens func(*story)
		epoch   uint64
	}{
		"unreachable for a while":       {func(s *story) { unreachable(s, runs(1), here) }, 1},
		"unreachable, and moved":        {func(s *story) { unreachable(s, runs(1), there) }, 2},
		"unreachable, and restarted":    {func(s *story) { unreachable(s, runs(2), here) }, 2},
		"unreachable, and starting":     {func(s *story) { unreachable(s, changes, here) }, 2},
		"unreachable, and nobody knows": {func(s *story) { unreachable(s, Status{Power: Running, Generation: Generation{Instance: "i"}}, here) }, 2},
		"drained, and wanted":           {func(s *story) { s.draining().r.Want("client", s.now) }, 1},
		"suspended":                     {func(s *story) { s.suspending().r.Slept(nil, s.now); s.starting().started(1) }, 2},
		"suspended, and woken by others": {func(s *story) {
			s.suspending().r.Slept(errBusy, s.now)
			s.r.Want("client", s.now)
			s.next(Ask)
			s.r.Asked(runs(1), nil, s.now)
			probed(s, here)
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, usual)
			s.ready()
			c.happens(s)
			s.is(StateReady, c.epoch)
		})
	}
}

// Of a run that nobody knows the start of, nobody knows either that it is the same one still.
func TestRunsWithoutAStartAreNotTheSame(t *testing.T) {
	s := newStory(t, usual)
	nameless := Status{Power: Running, Generation: Generation{Instance: "i"}}
	comesUp := func() {
		t.Helper()
		s.next(Ask)
		s.r.Asked(nameless, nil, s.now)
		s.next(Locate)
		s.r.Located(here, nil, s.now)
		s.next(Probe)
		s.r.Probed(nil, s.now)
	}
	s.r.Check()
	comesUp()
	s.is(StateReady, 1)
	s.r.Lost(1, s.now)
	comesUp()
	s.is(StateReady, 2)
	s.r.Lost(2, s.now)
	s.pass(time.Minute)
	s.next(Ask)
	s.r.Asked(Status{}, failsAs(Unreachable, 0), s.now)
	s.pass(time.Minute)
	s.r.Want("client", s.now)
	comesUp()
	s.is(StateReady, 3)
}
