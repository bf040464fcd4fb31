// Stories: rules on a clock that is moved by hand.

package machines

import (
	"errors"
	"testing"
	"time"
)

var (
	noon    = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	usual   = Settings{SuspendAfter: 10 * time.Minute, WakeLimit: time.Minute}
	here    = Endpoint{Host: "fdaa::1", Port: 5432}
	there   = Endpoint{Host: "fdaa::2", Port: 5432}
	errBusy = errors.New("connection refused")

	sleeps  = Status{Power: Asleep}
	changes = Status{Power: Changing}
)

// runs is a machine in its nth run.
func runs(n int) Status {
	return Status{Power: Running, Generation: Generation{Instance: "i", Started: noon.Add(time.Duration(n) * time.Second)}}
}

func failsAs(k Kind, after time.Duration) error {
	return &Error{Kind: k, Op: "test", After: after, Err: errors.New("no")}
}

type story struct {
	*testing.T
	r     *Rules
	now   time.Time
	again time.Time // what Next said last
}

func newStory(t *testing.T, set Settings) *story {
	return &story{T: t, r: NewRules(set, nil, noon), now: noon}
}

func (s *story) pass(d time.Duration) { s.now = s.now.Add(d) }

// next expects an action, and after one that is none how long it is good for; 0: until something happens.
func (s *story) next(want Action, wait ...time.Duration) {
	s.Helper()
	var do Action
	if do, s.again = s.r.Next(s.now); do != want {
		s.Fatalf("%v after: Next = %v, want %v; %v", s.now.Sub(noon), do, want, s.r.View())
	}
	if len(wait) == 0 {
		return
	}
	got := time.Duration(0)
	if !s.again.IsZero() {
		got = s.again.Sub(s.now)
	}
	if got != wait[0] {
		s.Fatalf("%v after: to be asked again in %v, want %v", s.now.Sub(noon), got, wait[0])
	}
}

func (s *story) is(want State, epoch uint64) {
	s.Helper()
	if v := s.r.View(); v.State != want || v.Epoch != epoch {
		s.Fatalf("%v after: %v in epoch %d, want %v in %d", s.now.Sub(noon), v.State, v.Epoch, want, epoch)
	}
}

// These bring the rules into a state, from any that may lead to it.

func (s *story) sleeping() *story {
	s.Helper()
	s.r.Check()
	s.next(Ask)
	s.r.Asked(sleeps, nil, s.now)
	s.next(Nothing)
	return s
}

func (s *story) starting() *story {
	s.Helper()
	s.r.Want("client", s.now)
	s.next(Start)
	return s
}

// started is a start that went well, and answers.
func (s *story) started(n int) *story {
	s.Helper()
	s.r.Started(runs(n), here, nil, s.now)
	s.next(Probe)
	s.r.Probed(nil, s.now)
	s.next(Nothing)
	return s
}

func (s *story) ready() *story { s.Helper(); return s.sleeping().starting().started(1) }

func (s *story) draining() *story {
	s.Helper()
	s.pass(s.r.set.SuspendAfter)
	s.next(Nothing, drainLimit)
	return s
}

func (s *story) suspending() *story {
	s.Helper()
	s.draining()
	s.r.Drained()
	s.next(Sleep)
	return s
}

func (s *story) failed(err error) *story {
	s.Helper()
	s.starting()
	s.r.Started(Status{}, Endpoint{}, err, s.now)
	s.next(Nothing)
	return s
}
