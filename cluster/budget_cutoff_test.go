// Nodes that reach neither the store nor those who do.

package cluster

import (
	"testing"
	"time"
)

// TestTwoThatAreCutOffTogether: that one other node answers does not say that nobody can ask the store.
func TestTwoThatAreCutOffTogether(t *testing.T) {
	for _, service := range []bool{true, false} {
		w := newWorld(3, 12, [2]int{12, 12})
		w.service = service
		a, b, c := w.nodes[0], w.nodes[1], w.nodes[2]
		a.demand(many, 0)
		a.claim()
		w.run(2*time.Second, 100*time.Millisecond, forever)
		a.noStore, c.noStore, a.side, c.side = true, true, 1, 1
		a.quiet() // its servers end, and it could have them again
		w.run(20*time.Second, 100*time.Millisecond, 5*time.Second)
		if a.open() != 0 {
			t.Fatalf("%d are open", a.open())
		}
		b.demand(many, 0)
		b.claim()
		w.run(worldLapse+worldLinger+20*time.Second, 100*time.Millisecond, forever)
		a.demand(many, 0)
		a.claim()
		w.run(5*time.Second, 100*time.Millisecond, forever)
		if a.open() != 0 || b.open() != 12 {
			t.Errorf("service %v: %d and %d of 12", service, a.open(), b.open())
		}
		a.noStore, c.noStore, a.side, c.side = false, false, 0, 0
		w.run(300*time.Millisecond, 0, forever)
		w.check(t)
	}
}

// TestPortionsThatWereLostWhileClientsWait: that a look was tried does not say that the rows were seen.
func TestPortionsThatWereLostWhileClientsWait(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	w.step = 50 * time.Millisecond
	a := w.nodes[0]
	for _, n := range w.nodes { // each has half of what it wants
		n.demand(many, 0)
		n.claim()
	}
	w.run(2*time.Second, 100*time.Millisecond, forever)
	a.noStore = true
	w.run(2*time.Minute, 100*time.Millisecond, forever)
	for key := range w.rows {
		delete(w.rows, key)
	}
	a.noStore = false
	w.seen[a.boot] = w.storeNow()
	tried := a.b.accounts[worldTenant].retryAt
	w.interrupt = func(n *worldNode) error { // the store is asked, and not known to be back
		if n == a && a.b.accounts[worldTenant].retryAt.Equal(tried) {
			w.pass(awayPause + time.Millisecond)
			for a.work() {
			}
		}
		return nil
	}
	if a.ask(true); a.b.accounts[worldTenant].retryAt.Equal(tried) {
		t.Fatal("it has not tried to look")
	}
	if a.b.MayDial() {
		t.Error("it may dial")
	}
}

// TestWhoIsNotSeenForAMoment keeps its portion: it answers.
func TestWhoIsNotSeenForAMoment(t *testing.T) {
	for _, service := range []bool{true, false} {
		w := newWorld(2, 4, [2]int{4, 4})
		w.service = service
		a, b := w.nodes[0], w.nodes[1]
		a.demand(many, 0)
		a.claim()
		w.run(time.Second, 100*time.Millisecond, forever)
		a.noStore = true
		b.demand(many, 0)
		b.claim()
		w.run(worldLapse+10*time.Second, 100*time.Millisecond, forever)
		b.blind = true
		w.run(1500*time.Millisecond, 100*time.Millisecond, forever)
		b.blind = false
		w.run(20*time.Second, 100*time.Millisecond, forever)
		w.check(t)
		if b.open() != 0 {
			t.Errorf("service %v: the other one has %d", service, b.open())
		}
	}
}

// TestWhoStoodStillAndCannotAsk: that others see it again does not say that they have not handed on its portions.
func TestWhoStoodStillAndCannotAsk(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(many, 0)
	a.claim()
	w.run(time.Second, 100*time.Millisecond, forever)
	if a.open() != 4 {
		t.Fatalf("at first %d are open", a.open())
	}
	a.state, a.gate.servers = frozen, nil // which Postgres has ended
	w.step = 50 * time.Millisecond
	b.demand(many, 0)
	b.claim()
	w.run(worldLapse+worldLinger+20*time.Second, 100*time.Millisecond, forever)
	if b.open() != 4 {
		t.Fatalf("the other one has %d", b.open())
	}
	a.state, a.noStore = up, true
	w.look(b)
	w.look(a)
	if a.ask(false); a.b.MayDial() {
		t.Error("it may dial")
	}
	a.settle()
	a.claim()
	w.run(lostPause+5*time.Second, 100*time.Millisecond, forever)
	w.check(t)
	if a.open() != 0 || b.open() != 4 {
		t.Errorf("%d and %d of 4", a.open(), b.open())
	}
}

// TestOneLateAnswer costs nothing: only who does not answer for long may see this node no more.
func TestOneLateAnswer(t *testing.T) {
	began := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	s := time.Second
	for name, c := range map[string]struct {
		ask  func(t *trust, asked time.Time) bool
		want bool
	}{
		"one":                      {func(t *trust, at time.Time) bool { return t.cutOff(at, false, []string{"b"}) }, false},
		"one that does not see it": {func(t *trust, at time.Time) bool { return t.cutOff(at, true, nil) }, true},
		"one that answers again": {func(t *trust, at time.Time) bool {
			return t.cutOff(at, false, []string{"b"}) || t.cutOff(at.Add(7*s), false, nil) || t.cutOff(at.Add(14*s), false, []string{"b"})
		}, false},
		"one after the other": {func(t *trust, at time.Time) bool {
			return t.cutOff(at, false, []string{"b"}) || t.cutOff(at.Add(7*s), false, []string{"c"}) || t.cutOff(at.Add(14*s), false, []string{"b"})
		}, false},
		"one for long": {func(t *trust, at time.Time) bool {
			return !t.cutOff(at, false, []string{"b"}) && !t.cutOff(at.Add(muteFor-1), false, []string{"b", "c"}) && t.cutOff(at.Add(muteFor), false, []string{"b"})
		}, true},
	} {
		if got := c.ask(&trust{}, began); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestPortionsThatWereLostMeanwhile: who was away from the store for long has lost what the store does not have, although it knew all the time
// that the store was away.
func TestPortionsThatWereLostMeanwhile(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(many, 0)
	a.claim()
	w.run(time.Second, 100*time.Millisecond, forever)
	a.noStore = true
	w.run(2*time.Minute, 100*time.Millisecond, forever)
	for key := range w.rows {
		delete(w.rows, key)
	}
	a.quiet()
	w.run(time.Second, 100*time.Millisecond, 100*time.Millisecond)
	b.demand(many, 0)
	b.claim()
	w.run(2*time.Second, 100*time.Millisecond, forever)
	if b.open() != 4 {
		t.Fatalf("the other one has %d", b.open())
	}
	a.demand(many, 0)
	a.noStore = false
	w.seen[a.boot] = w.storeNow() // it says so first
	a.ask(true)
	if a.b.MayDial() {
		t.Error("it may dial")
	}
	w.run(100*time.Millisecond, 0, forever)
	w.check(t)
}
