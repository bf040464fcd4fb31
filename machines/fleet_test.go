// Tests of the fleet: one owner however many hold a machine, and an end without leftovers.

package machines

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHoldersInCommon(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p, q := g.hold(), g.hold()
		p.Use(true, false)
		p.Check()
		pass(time.Hour)
		q.Use(false, false)
		pass(time.Hour)
		expect(t, "in use by one", p.View().State, StateReady)
		p.Use(false, true)
		pass(usual.SuspendAfter)
		expect(t, "told", q.told(), []State{StateUnknown, StateWaking, StateReady, StateDraining})
		p.Drained()
		p.Drained()
		synctest.Wait()
		expect(t, "drained by one", p.View().State, StateDraining)
		q.Use(true, false)
		expect(t, "in use", p.View().State, StateReady)
		q.Use(false, false)
		pass(usual.SuspendAfter)
		q.Drained() // what p said was about another time
		synctest.Wait()
		expect(t, "drained by one", p.View().State, StateDraining)
		p.Drained()
		pass(time.Second)
		expect(t, "drained by all", p.View().State, StateAsleep)
		g.driver.called("suspend", 1)
	})
}

// Nobody who drains keeps the machine awake.
func TestDrainIsBounded(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p, q := g.hold(), g.hold()
		p.Check()
		pass(3*time.Second + usual.SuspendAfter)
		p.Drained()
		p.told()
		pass(drainLimit)
		expect(t, "told", p.told(), []State{StateReady})
		pass(usual.SuspendAfter)
		q.Drained()
		q.Release()
		synctest.Wait()
		expect(t, "state", p.View().State, StateDraining)
		p.Drained()
		pass(time.Second)
		expect(t, "state", p.View().State, StateAsleep)
	})
}

func TestWhoLeavesIsNotWaitedFor(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p, q := g.hold(), g.hold()
		q.Use(true, false)
		p.Check()
		pass(time.Hour)
		q.Release()
		q.told()
		pass(time.Minute)
		q.Want("ghost")
		q.Use(true, true)
		q.Drained()
		q.Release()
		pass(usual.SuspendAfter - time.Minute)
		expect(t, "told", q.told(), []State(nil))
		expect(t, "state", p.View().State, StateDraining)
		r := g.hold()
		expect(t, "told", r.told(), []State{StateDraining})
		p.Drained()
		synctest.Wait()
		expect(t, "state", p.View().State, StateDraining)
		r.Release()
		pass(time.Second)
		r.Want("ghost")
		pass(time.Minute)
		expect(t, "state", p.View().State, StateAsleep)
	})
}

func TestWhoComesLaterIsToldAtOnce(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p := g.hold()
		p.Check()
		pass(time.Minute)
		g.opts.Settings.SuspendAfter = 2 * time.Minute
		q := g.hold()
		expect(t, "told", q.told(), []State{StateReady})
		expect(t, "view", q.View(), p.View())
		expect(t, "key", q.Key(), "local/acme")
		p.Configure(Settings{SuspendAfter: time.Second, WakeLimit: time.Minute})
		synctest.Wait()
		expect(t, "told", q.told(), []State{StateDraining})
	})
}

// The owner ends with its last holder, and the next one waits for its calls.
func TestNextOwnerWaits(t *testing.T) {
	for _, during := range []string{"state", "wake", "suspend"} {
		t.Run(during, func(t *testing.T) {
			inBubble(t, Asleep, usual, func(g *rig) {
				g.driver.gives = 5 * time.Second
				p := g.hold()
				p.Want("client")
				switch during {
				case "state":
					pass(time.Second / 2)
				case "wake":
					pass(3 * time.Second / 2)
				case "suspend":
					pass(time.Minute)
					p.Suspend("operator")
					p.Drained()
					pass(time.Second / 2)
				}
				g.driver.mu.Lock()
				before := g.driver.calls["state"]
				g.driver.mu.Unlock()
				p.Release()
				p.told()
				for range 3 { // impatient ones between
					q := g.hold()
					q.Want("client")
					pass(time.Second)
					q.Release()
				}
				q := g.hold()
				q.Want("client")
				g.driver.called("state", before)
				pass(time.Minute)
				expect(t, "state", q.View().State, StateReady)
				expect(t, "told", p.told(), []State(nil))
				if n := len(g.fleet.last); n != 0 {
					t.Errorf("%d owners are remembered", n)
				}
			})
		})
	}
}

func TestLastHolderEndsTheOwner(t *testing.T) {
	inBubble(t, Running, usual, func(g *rig) {
		p := g.hold()
		p.Check()
		pass(time.Minute)
		p.Release()
		pass(24 * time.Hour)
		g.driver.called("suspend", 0)
		if len(g.fleet.all) != 0 || len(g.fleet.last) != 0 {
			t.Error("the fleet remembers it")
		}
	})
}

func TestCloseWithCallsUnderWay(t *testing.T) {
	for name, when := range map[string]time.Duration{"state": time.Second / 2, "wake": 3 * time.Second / 2, "endpoint": 5 * time.Second / 2, "probe": 7 * time.Second / 2, "none": time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Asleep, usual, func(g *rig) {
				g.driver.gives = time.Second
				p := g.hold()
				p.Want("client")
				pass(when)
				p.told()
				g.fleet.Close()
				if n := g.driver.inside.Load(); n != 0 {
					t.Errorf("%d calls are under way still", n)
				}
				state := p.View().State
				p.Want("client")
				q := g.hold()
				q.Want("client")
				q.Check()
				g.driver.mu.Lock()
				calls := len(g.driver.calls)
				g.driver.mu.Unlock()
				pass(time.Hour)
				expect(t, "told", p.told(), []State(nil))
				expect(t, "told", q.told(), []State(nil))
				expect(t, "state", p.View().State, state)
				g.driver.mu.Lock()
				expect(t, "calls", len(g.driver.calls), calls)
				g.driver.mu.Unlock()
				p.Release()
				q.Release()
			})
		})
	}
}
