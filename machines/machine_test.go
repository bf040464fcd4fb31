// Tests of the owner: that it carries out the rules on time, alone, and tells of it.

package machines

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestManyClientsOneWake(t *testing.T) {
	inBubble(t, Asleep, usual, func(g *rig) {
		p, q := g.hold(), g.hold()
		began := time.Now()
		var clients sync.WaitGroup
		for i := range 200 {
			clients.Go(func() { []*part{p, q}[i%2].Want("client") })
		}
		clients.Wait()
		pass(time.Minute)
		for _, p := range []*part{p, q} {
			expect(t, "told", p.told(), []State{StateUnknown, StateWaking, StateReady})
		}
		g.driver.called("state", 1)
		g.driver.called("wake", 1)
		// A second for each of state; wake, endpoint, probe.
		expect(t, "observed", g.observed(), []observed{{Start, Outcome{At: began.Add(time.Second), Reason: "client", Result: "ok", Took: 3 * time.Second}}})
		p.Want("client")
		pass(time.Minute)
		g.driver.called("wake", 1)
		if got := strings.Count(g.logged(), "machine wake ended"); got != 1 {
			t.Errorf("%d lines about one wake:\n%s", got, g.logged())
		}
	})
}

func TestSleepsWhenUnused(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p := g.hold()
		p.Check()
		pass(3 * time.Second) // state, endpoint, probe
		ready := time.Now()
		expect(t, "told", p.told(), []State{StateUnknown, StateWaking, StateReady})
		pass(usual.SuspendAfter - time.Millisecond)
		expect(t, "told too early", p.told(), []State(nil))
		pass(time.Millisecond)
		expect(t, "told", p.told(), []State{StateDraining})
		p.Drained()
		pass(time.Minute)
		expect(t, "told", p.told(), []State{StateSuspending, StateAsleep})
		expect(t, "observed", g.observed(), []observed{{Sleep, Outcome{At: ready.Add(usual.SuspendAfter), Reason: "idle", Result: "ok", Took: time.Second}}})
		g.driver.called("wake", 0)
		g.driver.called("suspend", 1)
	})
}

func TestCutShortByAClient(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		g.driver.gives = 300 * time.Millisecond
		p := g.hold()
		p.Want("client")
		pass(usual.SuspendAfter + 3*time.Second)
		p.Drained()
		pass(time.Second / 2)
		p.told()
		p.Want("client")
		p.Want("another")
		pass(time.Minute)
		expect(t, "told", p.told(), []State{StateWaking, StateReady})
		saw := g.observed()
		for i := range saw {
			saw[i].At = time.Time{}
		}
		expect(t, "observed", saw, []observed{
			{Sleep, Outcome{Reason: "idle", Result: "cancelled", Took: 800 * time.Millisecond}},
			{Start, Outcome{Reason: "client", Result: "ok", Took: 3 * time.Second}}})
		g.driver.called("suspend", 1)
		g.driver.called("wake", 1)
		if strings.Contains(g.logged(), "machine call failed") {
			t.Errorf("what we cut short ourselves is no failure:\n%s", g.logged())
		}
	})
}

// A call that hangs is given up at its limit.
func TestCallsAreBounded(t *testing.T) {
	for _, c := range []struct {
		hangs string
		power Power
		limit time.Duration
		state State
		saw   []observed
	}{
		{"state", Asleep, askLimit, StateFailed, nil},
		{"endpoint", Running, time.Second + askLimit, StateFailed, nil},
		{"wake", Asleep, time.Second + usual.WakeLimit, StateFailed, []observed{{Start, Outcome{Reason: "client", Result: "slow", Took: usual.WakeLimit}}}},
		{"suspend", Running, 3*time.Second + usual.SuspendAfter + suspendLimit, StateUnknown, []observed{{Sleep, Outcome{Reason: "idle", Result: "slow", Took: suspendLimit}}}},
	} {
		t.Run(c.hangs, func(t *testing.T) {
			inBubble(t, c.power, usual, func(g *rig) {
				began := time.Now()
				g.driver.hangs = c.hangs
				p := g.hold()
				p.Want("client")
				for !strings.Contains(g.logged(), "machine call failed") && time.Since(began) < time.Hour {
					if p.View().State == StateDraining {
						p.Drained()
					}
					pass(time.Second)
				}
				expect(t, "after", time.Since(began), c.limit)
				expect(t, "state", p.View().State, c.state)
				saw := g.observed()
				for i := range saw {
					saw[i].At = time.Time{}
				}
				expect(t, "observed", saw, c.saw)
			})
		})
	}
}

func TestEachWakeAndSuspendIsObservedOnce(t *testing.T) {
	set := usual
	set.Burst = 3
	inBubble(t, Asleep, set, func(g *rig) {
		p := g.hold()
		for range 2 {
			p.Want("client")
			pass(time.Minute)
			p.Suspend("operator")
			p.Drained()
			pass(time.Minute)
		}
		g.driver.set(func() { g.driver.fail["wake"] = failsAs(Capacity, 0) })
		p.Want("client")
		p.Want("client")
		pass(2 * time.Second)
		p.Want("client") // the fourth
		pass(time.Minute)
		var got []string
		for _, o := range g.observed() {
			got = append(got, o.What.String()+" "+o.Reason+" "+o.Result)
		}
		expect(t, "observed", got, []string{"start client ok", "sleep operator ok", "start client ok", "sleep operator ok", "start client capacity", "start client budget"})
		if v := p.View(); v.State != StateFailed || !errors.Is(v.Err, ErrBudget) {
			t.Errorf("%+v", v)
		}
	})
}

func TestPanickingDriver(t *testing.T) {
	for _, name := range []string{"state", "wake", "endpoint", "probe", "suspend"} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Asleep, usual, func(g *rig) {
				g.driver.panic = name
				p := g.hold()
				p.Want("client")
				pass(2 * usual.WakeLimit)
				p.Suspend("operator")
				p.Drained()
				pass(10 * time.Second)
				want := StateFailed
				if name == "suspend" {
					want = StateUnknown
				}
				expect(t, "state", p.View().State, want)
				if log := g.logged(); !strings.Contains(log, "index out of range") || !strings.Contains(log, "fake_test.go") {
					t.Errorf("the log does not say where:\n%s", log)
				}
				g.driver.set(func() { g.driver.panic = "" })
				p.Want("client")
				pass(time.Minute)
				expect(t, "state", p.View().State, StateReady)
			})
		})
	}
}

func TestLogHoldsNoSecrets(t *testing.T) {
	inBubble(t, Asleep, usual, func(g *rig) {
		p := g.hold()
		g.driver.set(func() { g.driver.fail["wake"] = failsAs(Auth, 0) })
		p.Want("client")
		pass(time.Minute)
		g.driver.set(func() { clear(g.driver.fail) })
		p.Want("client")
		pass(time.Minute)
		p.Suspend("operator")
		p.Drained()
		pass(time.Minute)
		log := g.logged()
		for _, want := range []string{"machine call failed", "machine wake ended", "machine put to sleep", "kind=auth", "state=failed", "machine=local/acme"} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in the log", want)
			}
		}
		if strings.Contains(log, token) {
			t.Error("a token is in the log")
		}
	})
}

func TestFailureIsToldFastAndTriedAgainLater(t *testing.T) {
	inBubble(t, Asleep, usual, func(g *rig) {
		g.driver.set(func() { g.driver.fail["wake"] = failsAs(Capacity, 20*time.Second) })
		p := g.hold()
		p.Want("client")
		pass(2 * time.Second)
		expect(t, "told", p.told(), []State{StateUnknown, StateWaking, StateFailed})
		for range 19 {
			p.Want("client")
			pass(time.Second)
		}
		g.driver.called("wake", 1)
		g.driver.set(func() { clear(g.driver.fail) })
		pass(time.Second)
		p.Want("client")
		synctest.Wait()
		pass(4 * time.Second)
		expect(t, "told", p.told(), []State{StateUnknown, StateWaking, StateReady})
		g.driver.called("wake", 2)
	})
}
