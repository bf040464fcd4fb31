// Tests of what becomes of machines that nobody holds any more.

package machines

import (
	"strings"
	"testing"
	"time"
)

// A machine that is retired is put to sleep from any state, after what is under way, and is woken and asked no more.
func TestRetiredFromEachState(t *testing.T) {
	for name, c := range map[string]struct {
		reach func(*story)
		ends  func(*story) // of what is under way
		calls []Action
	}{
		"unknown":               {reach: func(*story) {}, calls: []Action{Sleep}},
		"asking":                {func(s *story) { s.r.Check(); s.next(Ask) }, func(s *story) { s.r.Asked(runs(1), nil, s.now) }, []Action{Sleep}},
		"asking, and it sleeps": {func(s *story) { s.r.Check(); s.next(Ask) }, func(s *story) { s.r.Asked(sleeps, nil, s.now) }, nil},
		"asleep":                {reach: func(s *story) { s.sleeping() }},
		"wanted":                {func(s *story) { s.r.Want("client", s.now); s.next(Ask) }, func(s *story) { s.r.Asked(sleeps, nil, s.now) }, nil},
		"starting":              {func(s *story) { s.sleeping().starting() }, func(s *story) { s.r.Started(runs(1), here, nil, s.now) }, []Action{Sleep}},
		"starting, in vain":     {func(s *story) { s.sleeping().starting() }, func(s *story) { s.r.Started(Status{}, Endpoint{}, errBusy, s.now) }, []Action{Sleep}},
		"probing": {func(s *story) { s.sleeping().starting().r.Started(runs(1), here, nil, s.now); s.next(Probe) },
			func(s *story) { s.r.Probed(nil, s.now) }, []Action{Sleep}},
		"ready":      {reach: func(s *story) { s.ready() }, calls: []Action{Sleep}},
		"busy":       {reach: func(s *story) { s.ready().r.Busy(true, s.now) }, calls: []Action{Sleep}},
		"draining":   {reach: func(s *story) { s.ready().draining() }, calls: []Action{Sleep}},
		"suspending": {func(s *story) { s.ready().suspending() }, func(s *story) { s.r.Slept(nil, s.now) }, nil},
		"suspending, and wanted": {func(s *story) { s.ready().suspending(); s.r.Want("client", s.now); s.next(CutShort) },
			func(s *story) { s.r.Slept(errBusy, s.now); s.pass(time.Minute) }, []Action{Sleep}},
		"failed": {reach: func(s *story) { s.sleeping().failed(errBusy) }, calls: []Action{Sleep}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, Settings{WakeLimit: time.Minute}) // never by itself
			if strings.Contains(name, "draining") || strings.Contains(name, "suspending") {
				s.r.Configure(usual)
			}
			c.reach(s)
			s.r.Retire("removed", s.now)
			if c.ends != nil {
				s.next(Nothing)
				c.ends(s)
			}
			for _, call := range c.calls {
				s.next(call)
				s.r.Slept(nil, s.now)
			}
			s.next(Nothing, 0)
			if v := s.r.View(); v.State != StateAsleep || !s.r.retired.over || len(c.calls) > 0 && v.LastSleep.Reason != "removed" {
				t.Errorf("in the end it is %+v", v)
			}
		})
	}
}

// Attempts are bounded, and grow apart; a machine that is gone needs none.
func TestRetiringFails(t *testing.T) {
	s := newStory(t, usual)
	s.ready().r.Retire("removed", s.now)
	pauses := []time.Duration{5, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300}
	for _, pause := range pauses {
		s.next(Sleep)
		s.r.Slept(errBusy, s.now)
		s.next(Nothing, pause*time.Second)
		s.pass(pause * time.Second)
	}
	s.next(Sleep)
	s.r.Slept(errBusy, s.now)
	s.next(Nothing, 0) // for ever
	s.pass(24 * time.Hour)
	s.next(Nothing, 0)
	if r := s.r.retired; !r.over || r.err == nil || r.tries != retireTries {
		t.Errorf("%+v", r)
	}

	s = newStory(t, usual)
	s.ready().r.Retire("removed", s.now)
	s.next(Sleep)
	s.r.Slept(failsAs(RateLimited, time.Minute), s.now)
	s.next(Nothing, time.Minute)
	s.pass(time.Minute)
	s.next(Sleep)
	s.r.Slept(failsAs(Gone, 0), s.now)
	s.next(Nothing, 0)
	if r := s.r.retired; !r.over || r.err != nil {
		t.Errorf("gone: %+v", r)
	}
}

func TestTheLastHolderRetiresTheMachine(t *testing.T) {
	inBubble(t, Running, Settings{WakeLimit: time.Minute}, func(g *rig) {
		p, q := g.hold(), g.hold()
		p.Check()
		pass(time.Minute)
		p.Use(true, true)
		p.Retire("removed")
		pass(24 * time.Hour)
		g.driver.called("suspend", 0)
		expect(t, "another's", q.View().State, StateReady)
		q.Retire("removed")
		q.Retire("removed")
		q.Want("ghost")
		pass(time.Minute)
		g.driver.called("suspend", 1)
		g.driver.called("wake", 0)
		if len(g.fleet.all) != 0 || len(g.fleet.last) != 0 {
			t.Error("the fleet remembers it")
		}
		if saw := g.observed(); len(saw) != 1 || saw[0].Reason != "removed" || saw[0].Result != "ok" {
			t.Errorf("observed %+v", saw)
		}
	})
}

// Whoever holds it again gets it, however far it is; and the next owner waits for what is under way.
func TestHeldAgainWhileItIsRetired(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "while it is told to sleep": time.Second / 2, "when it sleeps": time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Running, usual, func(g *rig) {
				p := g.hold()
				p.Check()
				pass(time.Minute)
				p.told()
				p.Retire("removed")
				pass(wait)
				q := g.hold()
				q.Want("client")
				pass(time.Minute)
				expect(t, "state", q.View().State, StateReady)
				g.driver.mu.Lock()
				expect(t, "power", g.driver.power, Running)
				g.driver.mu.Unlock()
				expect(t, "told", p.told(), []State(nil))
				if strings.Contains(g.logged(), cannotRetire) {
					t.Errorf("told: %s", g.logged())
				}
			})
		})
	}
}

func TestWhatCannotBeRetiredIsTold(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p := g.hold()
		p.Check()
		pass(time.Minute)
		g.driver.set(func() { g.driver.fail["suspend"] = errBusy })
		p.Retire("removed")
		pass(24 * time.Hour)
		g.driver.called("suspend", retireTries)
		if n := strings.Count(g.logged(), "level=ERROR msg=\""+cannotRetire); n != retireTries {
			t.Errorf("told %d times", n)
		}
		if len(g.fleet.all) != 0 {
			t.Error("the fleet remembers it")
		}
	})
	inBubble(t, Running, usual, func(g *rig) { // there is no time left
		p := g.hold()
		p.Check()
		pass(time.Minute)
		p.Retire("removed")
		g.fleet.Close()
		if !strings.Contains(g.logged(), errUnfinished.Error()) {
			t.Error("nobody is told")
		}
	})
}
