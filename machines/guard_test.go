// Tests of machines that processes share: several fleets with one machine, and a guard that remembers who has what.

package machines

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shared is a machine that processes share, and what is written down about it.
type shared struct {
	*testing.T
	processes []*process

	mu        sync.Mutex
	away      bool          // nobody can be asked
	takes     time.Duration // an answer
	patience  time.Duration // after which nobody waits for one
	broken    error         // what the machine says when it is asked
	abandoned bool
	holder    *process
	uses      map[*process]bool
	news      chan struct{}
	power     Power
	run       int
	starts    int
	suspends  int
	takeovers int
}

// process is one of them: its guard, its driver, and its tenant's part in the machine.
type process struct {
	s     *shared
	fleet *Fleet
	part  *Holder

	mu   sync.Mutex
	view View
	work bool // it has a client that needs the machine, and connections to it while it is ready
}

func inShared(t *testing.T, processes int, p Power, test func(s *shared)) {
	synctest.Test(t, func(t *testing.T) {
		s := &shared{T: t, uses: make(map[*process]bool), news: make(chan struct{}), power: p}
		for range processes {
			p := &process{s: s, fleet: NewFleet()}
			views := make(chan View, 1000)
			defer close(views)
			s.processes = append(s.processes, p)
			p.part = p.fleet.Hold("m", Options{Driver: Guarded(p, p, "m"), Settings: usual, Log: slog.New(slog.DiscardHandler),
				Probe: func(context.Context, Endpoint) error {
					s.mu.Lock()
					defer s.mu.Unlock()
					if s.power != Running {
						return errors.New("connection refused")
					}
					return nil
				}}, func(v View) { views <- v })
			go func() {
				for v := range views {
					p.is(v)
				}
			}()
		}
		test(s)
		for _, p := range s.processes {
			p.fleet.Close()
		}
	})
}

// is follows the machine as a tenant does.
func (p *process) is(v View) {
	p.mu.Lock()
	p.view = v
	work := p.work
	p.mu.Unlock()
	switch {
	case v.State == StateDraining && !work:
		p.part.Drained()
	case work && v.State != StateReady:
		p.part.Want("client")
	}
}

func (p *process) works(work bool) {
	p.mu.Lock()
	p.work = work
	p.mu.Unlock()
	p.part.Use(work, true)
	if work {
		p.part.Want("client")
	}
}

func (p *process) state() State { return p.part.View().State }

// State implements Driver, as do the next three.
func (p *process) State(context.Context) (Status, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	s := runs(p.s.run)
	s.Power = p.s.power
	return s, p.s.broken
}

func (p *process) Wake(ctx context.Context) (Status, error) {
	time.Sleep(time.Second)
	if ctx.Err() != nil {
		return Status{}, ctx.Err()
	}
	p.s.mu.Lock()
	if f, ok := FenceOf(ctx); ok && f.Takeover {
		p.s.takeovers++
	}
	if p.s.power != Running {
		p.s.power = Running
		p.s.starts++
		p.s.run++
	}
	p.s.mu.Unlock()
	return p.State(ctx)
}

func (p *process) Suspend(ctx context.Context) error {
	time.Sleep(time.Second)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.power = Asleep
	p.s.suspends++
	for i, other := range p.s.processes {
		other.mu.Lock()
		if other.work && other.view.State == StateReady {
			p.s.Errorf("it was put to sleep while process %d used it", i)
		}
		other.mu.Unlock()
	}
	return nil
}

func (p *process) Endpoint(context.Context) (Endpoint, error) { return here, nil }

// Hold implements Guard.
func (p *process) Hold(ctx context.Context, _ string, what Action) (context.Context, func(bool, error), error) {
	if err := p.asks(ctx); err != nil {
		return nil, nil, err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.s.away {
		return nil, nil, &Error{Kind: Transient, Err: ErrUnguarded}
	}
	if p.s.holder != nil {
		return nil, nil, &Error{Kind: Busy, After: 100 * time.Millisecond, Err: ErrHeld}
	}
	if what == Start {
		p.s.uses[p] = true
	} else if delete(p.s.uses, p); len(p.s.uses) > 0 {
		return nil, nil, &Error{Kind: Busy, Err: ErrInUse}
	}
	held := WithFence(ctx, Fence{Takeover: p.s.abandoned})
	p.s.holder, p.s.abandoned = p, false
	return held, p.end, nil
}

func (p *process) end(changed bool, _ error) {
	p.s.mu.Lock()
	p.s.holder = nil
	close(p.s.news)
	p.s.news = make(chan struct{})
	p.s.mu.Unlock()
	for _, other := range p.s.processes {
		if changed && other != p {
			go other.fleet.Tell("m", false)
		}
	}
}

// Use implements Guard.
func (p *process) Use(ctx context.Context, _ string) error {
	if err := p.asks(ctx); err != nil {
		return err
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	switch {
	case p.s.uses[p]:
		return nil
	case p.s.away:
		return &Error{Kind: Transient, Err: ErrUnguarded}
	case p.s.holder != nil:
		return &Error{Kind: Busy, Err: ErrHeld}
	case p.s.abandoned:
		return &Error{Kind: Busy, Err: ErrAbandoned}
	}
	p.s.uses[p] = true
	return nil
}

// Await implements Guard.
func (p *process) Await(ctx context.Context, _ string, d time.Duration) {
	p.s.mu.Lock()
	news := p.s.news
	p.s.mu.Unlock()
	select {
	case <-news:
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (s *shared) counts(starts, suspends int) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starts != starts || s.suspends != suspends {
		s.Errorf("started %d times and put to sleep %d times, want %d and %d", s.starts, s.suspends, starts, suspends)
	}
}

func (s *shared) states(want ...State) {
	s.Helper()
	for i, p := range s.processes {
		if got := p.state(); got != want[i] {
			s.Errorf("process %d: the machine is %v, want %v", i, got, want[i])
		}
	}
}

// TestOneWakeOfMany: however many processes want it, it is started once, and put to sleep once, by the last one that uses it.
func TestOneWakeOfMany(t *testing.T) {
	inShared(t, 3, Asleep, func(s *shared) {
		var clients sync.WaitGroup
		for _, p := range s.processes {
			p.works(true)
			for range 100 {
				clients.Go(func() { p.part.Want("client") })
			}
		}
		clients.Wait()
		pass(10 * time.Second)
		s.states(StateReady, StateReady, StateReady)
		s.counts(1, 0)

		s.processes[0].works(false)
		pass(10 * usual.SuspendAfter)
		s.states(StateUnknown, StateReady, StateReady) // it lets go
		s.counts(1, 0)
		s.processes[1].works(false)
		s.processes[2].works(false)
		pass(3 * usual.SuspendAfter)
		s.counts(1, 1)
		s.states(StateAsleep, StateAsleep, StateAsleep)
	})
}

// TestUsedAgain: who has let go of what others keep awake comes back without a start.
func TestUsedAgain(t *testing.T) {
	inShared(t, 2, Running, func(s *shared) {
		s.processes[0].works(true)
		s.processes[1].works(true)
		pass(10 * time.Second)
		s.processes[1].works(false)
		pass(2 * usual.SuspendAfter)
		s.states(StateReady, StateUnknown)
		s.processes[1].works(true)
		pass(time.Second)
		s.states(StateReady, StateReady)
		s.processes[0].works(false)
		pass(10 * usual.SuspendAfter)
		s.states(StateUnknown, StateReady)
		s.counts(0, 0)
	})
}

// TestTheLastOneIsGone: when nobody is left who keeps it awake, one of those who have let go of it puts it to sleep.
func TestTheLastOneIsGone(t *testing.T) {
	inShared(t, 2, Running, func(s *shared) {
		s.processes[0].works(true)
		s.processes[1].part.Check()
		pass(10 * usual.SuspendAfter)
		s.states(StateReady, StateUnknown)
		gone := s.processes[0]
		gone.fleet.Close()
		pass(10 * usual.SuspendAfter)
		s.counts(0, 0)
		gone.mu.Lock()
		gone.work = false
		gone.mu.Unlock()
		s.mu.Lock()
		delete(s.uses, gone) // it was forgotten
		s.mu.Unlock()
		pass(2 * sharedMax)
		s.counts(0, 1)
	})
}

// TestOrphan: what was left awake is taken over by whoever is told.
func TestOrphan(t *testing.T) {
	inShared(t, 1, Asleep, func(s *shared) {
		p := s.processes[0]
		p.part.Check()
		pass(time.Second)
		s.mu.Lock()
		s.power = Running
		s.mu.Unlock()
		p.fleet.Tell("m", false)
		pass(time.Hour)
		s.states(StateAsleep)
		s.counts(0, 0)
		p.fleet.Tell("m", true)
		pass(time.Hour)
		s.counts(0, 1)
	})
}

// TestNobodyCanBeAsked: then who does not use it is told so at once, and who does goes on.
func TestNobodyCanBeAsked(t *testing.T) {
	inShared(t, 2, Running, func(s *shared) {
		s.processes[0].works(true)
		pass(time.Second)
		s.mu.Lock()
		s.away = true
		s.mu.Unlock()
		s.processes[1].works(true)
		pass(100 * time.Millisecond)
		s.states(StateReady, StateFailed)
		if v := s.processes[1].part.View(); !errors.Is(v.Err, ErrUnguarded) {
			t.Errorf("it has failed because of %v", v.Err)
		}
		s.processes[0].works(false)
		pass(10 * usual.SuspendAfter)
		s.counts(0, 0)
		s.mu.Lock()
		s.away = false
		s.mu.Unlock()
		pass(failMax)
		s.processes[1].works(true)
		pass(failMax)
		if got := s.processes[1].state(); got != StateReady {
			t.Errorf("afterwards it is %v", got)
		}
	})
}

// TestUnknownIsNotIdle: who has connections to a machine uses it, also when it can no longer be asked how it stands.
func TestUnknownIsNotIdle(t *testing.T) {
	inShared(t, 1, Asleep, func(s *shared) {
		p := s.processes[0]
		set := func(power Power, err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.power, s.broken = power, err
		}
		idle := func(state State, want bool) {
			t.Helper()
			pass(10 * time.Second)
			s.states(state)
			if got := p.fleet.Idle("m"); got != want {
				t.Errorf("it is %v, and idle: %v", state, got)
			}
		}
		idle(StateUnknown, true)
		set(Asleep, &Error{Kind: Unreachable, Err: errors.New("its host does not answer")})
		p.part.Check()
		p.part.Want("client")
		idle(StateFailed, true) // nobody has ever used it
		set(Asleep, nil)
		pass(failMax)
		p.works(true)
		idle(StateReady, false)

		set(Running, &Error{Kind: Unreachable, Err: errors.New("its host does not answer")})
		p.fleet.Tell("m", false)
		idle(StateFailed, false)
		p.mu.Lock()
		p.work = false // nobody waits for it
		p.mu.Unlock()
		set(Changing, nil)
		pass(failMax)
		p.fleet.Tell("m", false)
		idle(StateUnknown, false)
		set(Asleep, nil)
		idle(StateAsleep, true)
	})
}

// TestTakeover: who finds it running after somebody has gone in the middle of a change takes the right over before it uses it.
func TestTakeover(t *testing.T) {
	inShared(t, 1, Running, func(s *shared) {
		s.abandoned = true
		s.processes[0].works(true)
		pass(10 * time.Second)
		s.states(StateReady)
		if s.takeovers != 1 {
			t.Errorf("taken over %d times", s.takeovers)
		}
	})
}
