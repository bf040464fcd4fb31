package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// demand has clients of a node want servers of both pools.
func (n *worldNode) demand(app, web int) { n.gate.waiting = [2]int{app, web} }

// quiet has all clients of a node go.
func (n *worldNode) quiet() {
	n.demand(0, 0)
	for _, s := range n.gate.servers {
		if s.state == active {
			n.move(s, idle)
		}
	}
	n.settle()
	n.claim()
}

// open is how many servers of the tenant a node really has.
func (n *worldNode) open() int { return n.real(tenants.ScopeTenant) }

func (w *world) check(t interface {
	Logf(string, ...any)
	Fatalf(string, ...any)
}) {
	for scope, limit := range w.limits {
		if w.aside > 0 && scope != tenants.ScopeTenant {
			continue // floors keep to the tenant's limit alone
		}
		real, rows := 0, 0
		for _, n := range w.nodes {
			real += n.real(scope)
		}
		for key, row := range w.rows {
			if key.scope == scope {
				rows += row.Servers
			}
		}
		if real > limit || w.calm && rows > limit {
			t.Logf("%s", strings.Join(w.told, "\n"))
			t.Fatalf("%q: %d servers are open and %d in rows, of %d: %+v", scope, real, rows, limit, w.rows)
		}
	}
}

// gone fails unless nothing is left of anything.
func (w *world) gone(t interface {
	Logf(string, ...any)
	Fatalf(string, ...any)
}) {
	for _, n := range w.nodes {
		if n.state == up && (len(n.b.accounts) > 0 || len(n.b.due) > 0) {
			for _, a := range n.b.accounts {
				t.Fatalf("node %s: %d accounts: %+v %+v", n.name, len(n.b.accounts), a, a.parts)
			}
			t.Fatalf("node %s: %d due", n.name, len(n.b.due))
		}
	}
	if len(w.rows) > 0 {
		for _, n := range w.nodes {
			t.Logf("%s: state %v, silent %v, alone %v, seen %v, now %v, surveyed %v %v", n.boot, n.state, w.silent(n.boot), w.alone[n.boot], w.seen[n.boot], w.storeNow(), n.surveyed.Add(w.ahead), n.jump)
		}
		t.Fatalf("rows: %+v", w.rows)
	}
}

const (
	forever = time.Hour
	many    = 1 << 30 // clients
)

func TestAllOfALimitGoesWhereItIsWanted(t *testing.T) {
	w := newWorld(3, 12, [2]int{12, 12})
	w.run(3*time.Second, 0, forever)
	for _, n := range w.nodes {
		n.demand(20, 0)
		n.claim()
		w.run(2*time.Second, 0, forever)
		w.check(t)
		if n.open() != 12 {
			t.Fatalf("node %s has %d of 12 after two seconds", n.name, n.open())
		}
		n.quiet() // its servers stay open, idle
	}
	for _, n := range w.nodes {
		n.quiet()
	}
	w.run(5*time.Second, 0, time.Second)
	w.gone(t)
}

func TestWhoComesLaterGetsAnEvenShare(t *testing.T) {
	w := newWorld(3, 12, [2]int{12, 12})
	for i, n := range w.nodes {
		n.demand(many, 0)
		n.claim()
		w.run(2*time.Second, 20*time.Millisecond, forever)
		w.check(t)
		for _, o := range w.nodes[:i+1] {
			if o.open() != 12/(i+1) {
				t.Errorf("of %d nodes, %s has %d", i+1, o.name, o.open())
			}
			o.demand(many, 0)
		}
	}
}

func TestOneServerServesThreeNodesInTurns(t *testing.T) {
	w := newWorld(3, 1, [2]int{1, 1})
	for _, n := range w.nodes {
		n.demand(many, 0)
		n.claim()
	}
	w.run(3*time.Second, 5*time.Millisecond, forever)
	for range 10 {
		before := make([]int, len(w.nodes))
		for i, n := range w.nodes {
			before[i] = n.gate.waiting[0]
		}
		w.run(2*time.Second, 5*time.Millisecond, forever)
		w.check(t)
		for i, n := range w.nodes {
			if served := before[i] - n.gate.waiting[0]; served < 10 {
				t.Errorf("node %s served %d within two seconds", n.name, served)
			}
		}
	}
	for _, n := range w.nodes {
		n.quiet()
	}
	w.run(5*time.Second, 0, time.Second)
	w.gone(t)
}

// Users whose limits cross: all that one server needs comes to the same node at the same time.
func TestTurnsOfAllScopesAreTheSame(t *testing.T) {
	w := newWorld(3, 1, [2]int{1, 1})
	w.nodes[0].demand(many, 0)
	w.nodes[1].demand(0, many)
	w.nodes[2].demand(many, many)
	for _, n := range w.nodes {
		n.claim()
	}
	w.run(2*time.Second, 5*time.Millisecond, forever)
	for range 5 {
		before := make([]int, len(w.nodes))
		for i, n := range w.nodes {
			before[i] = n.gate.waiting[0] + n.gate.waiting[1]
		}
		w.run(2*time.Second, 5*time.Millisecond, forever)
		w.check(t)
		for i, n := range w.nodes {
			if before[i] == n.gate.waiting[0]+n.gate.waiting[1] {
				t.Errorf("node %s served nobody within two seconds", n.name)
			}
		}
	}
}

// kill ends a process at once. Its connections stay at Postgres until they are ended.
func (n *worldNode) kill() { n.state = dead }

func TestPortionsOfTheDeadComeBackWhenTheirServersHaveEnded(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(4, 0)
	a.claim()
	w.run(time.Second, 0, forever)
	a.kill()
	b.demand(10, 0)
	b.claim()
	w.run(2*time.Second, 0, forever)
	w.pass(worldLapse)
	w.run(30*time.Second, 0, forever)
	w.check(t)
	if b.open() != 0 {
		t.Fatalf("it has %d although the dead one's are still open", b.open())
	}
	for i, s := range a.gate.servers {
		a.end(s)
		w.run(15*time.Second, 0, forever)
		w.check(t)
		if b.open() != i+1 {
			t.Fatalf("it has %d when %d have ended", b.open(), i+1)
		}
	}
}

func TestWithoutAServiceAccountTimeDecides(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	w.service = false
	a, b := w.nodes[0], w.nodes[1]
	a.demand(4, 0)
	a.claim()
	w.run(time.Second, 0, forever)
	a.kill()
	for _, s := range a.gate.servers {
		a.end(s)
	}
	b.demand(10, 0)
	b.claim()
	w.run(60*time.Second, 0, forever)
	if b.open() != 0 {
		t.Fatal("too early")
	}
	w.run(70*time.Second, 0, forever)
	if b.open() != 4 {
		t.Fatalf("it has %d", b.open())
	}
}

// Nobody uses the tenant any more: somebody finds what is left of the dead nevertheless.
func TestPortionsOfTheDeadAreFoundWithoutDemand(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(4, 0)
	a.claim()
	w.run(time.Second, 0, forever)
	a.kill()
	w.pass(worldLapse)
	b.ask(true)
	w.run(time.Second, 0, forever)
	if len(w.rows) == 0 {
		t.Fatal("its servers are still open")
	}
	for _, s := range a.gate.servers {
		a.end(s)
	}
	b.ask(true)
	w.run(time.Second, 0, forever)
	w.gone(t)
}

func TestWhoStoodStillDialsNothing(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(4, 0)
	a.claim()
	w.run(time.Second, 0, forever)
	a.quiet()
	for _, s := range a.gate.servers {
		a.move(s, closing)
	}
	a.gate.servers = nil // closed, and its portion not yet given back
	a.state = frozen
	w.pass(worldLapse)
	b.demand(many, 0)
	b.claim()
	w.run(20*time.Second, 0, forever)
	if b.open() != 4 {
		t.Fatalf("it has %d", b.open())
	}
	a.state = up
	if !a.b.Away() || b.b.Away() {
		t.Error("it cannot ask for more yet, the other one can")
	}
	a.demand(many, 0)
	a.settle()
	if a.count(0, atDial) != 4 {
		t.Fatal("the thawed one does not know yet")
	}
	for _, s := range a.gate.servers {
		a.connect(s)
	}
	w.check(t)
	w.run(5*time.Second, 20*time.Millisecond, forever)
	if !a.b.Away() {
		t.Error("nor while what it has begun before may go on")
	}
	for range 40 {
		w.run(500*time.Millisecond, 20*time.Millisecond, forever)
		w.check(t)
	}
	if a.open() != 2 || b.open() != 2 {
		t.Errorf("%d and %d", a.open(), b.open())
	}
	if a.b.Away() {
		t.Error("all is well again")
	}
}

func TestPortionsAndFloorsWhileTheStoreIsAway(t *testing.T) {
	w := newWorld(0, 10, [2]int{10, 10})
	w.aside = 3
	for _, name := range []string{"a", "b", "c"} {
		w.nodes = append(w.nodes, w.start(name))
	}
	a, b := w.nodes[0], w.nodes[1]
	a.demand(20, 0)
	a.claim()
	w.run(2*time.Second, 0, forever)
	if a.open() != 7 {
		t.Fatalf("%d of 10 less 3", a.open())
	}
	for _, n := range w.nodes {
		n.noStore = true
	}
	w.run(2*time.Second, 0, forever)
	for _, s := range a.gate.servers { // and dials them again
		a.move(s, closing)
	}
	b.demand(20, 0)
	b.claim()
	w.run(3*time.Minute, time.Second, forever)
	w.check(t)
	if a.open() != 7 || b.open() != 1 {
		t.Fatalf("%d and a floor of %d", a.open(), b.open())
	}
	for _, n := range w.nodes {
		n.noStore = false
		n.demand(20, 0)
	}
	w.run(10*time.Second, 0, forever)
	w.check(t)
}

// A node that can reach nobody cannot know whether others think that it is gone.
func TestWhoIsCutOffKeepsItsFloorOnly(t *testing.T) {
	w := newWorld(0, 10, [2]int{10, 10})
	w.aside = 3
	for _, name := range []string{"a", "b", "c"} {
		w.nodes = append(w.nodes, w.start(name))
	}
	a, b := w.nodes[0], w.nodes[1]
	a.demand(many, 0)
	a.claim()
	w.run(2*time.Second, 100*time.Millisecond, forever)
	a.noStore, a.side = true, 1
	w.run(50*time.Second, 100*time.Millisecond, forever)
	if a.open() != 7 {
		t.Fatalf("it has %d", a.open())
	}
	w.run(20*time.Second, 100*time.Millisecond, forever)
	if a.open() != 1 {
		t.Fatalf("it has %d", a.open())
	}
	w.service = false
	b.demand(many, 0)
	b.claim()
	w.run(worldLapse, 100*time.Millisecond, forever)
	w.check(t)
	if b.open() != 7 {
		t.Fatalf("the other one has %d", b.open())
	}
}

func TestPortionsOfWhoIsSeenToLiveStay(t *testing.T) {
	w := newWorld(3, 4, [2]int{4, 4})
	w.service = false
	a, b := w.nodes[0], w.nodes[1]
	a.demand(many, 0)
	a.claim()
	w.run(time.Second, 100*time.Millisecond, forever)
	a.noStore = true // it sees the other nodes
	b.demand(many, 0)
	b.claim()
	w.run(2*worldLapse, 100*time.Millisecond, forever)
	w.check(t)
	if a.open() != 4 || b.open() != 0 {
		t.Fatalf("%d and %d", a.open(), b.open())
	}
	a.noStore = false
	w.run(3*time.Second, 100*time.Millisecond, forever)
	if a.open() != 2 || b.open() != 2 {
		t.Fatalf("%d and %d", a.open(), b.open())
	}
}

// The store was restored from a time when nobody had anything.
func TestRowsThatWereLostAreWrittenAgain(t *testing.T) {
	w := newWorld(2, 4, [2]int{4, 4})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(many, 0)
	a.claim()
	w.run(time.Second, 100*time.Millisecond, forever)
	clear(w.rows)
	a.ask(true) // as after a new connection
	w.run(100*time.Millisecond, 100*time.Millisecond, forever)
	b.demand(many, 0)
	b.claim()
	w.run(3*time.Second, 100*time.Millisecond, forever)
	w.check(t)
	if a.open() != 2 || b.open() != 2 {
		t.Fatalf("%d and %d", a.open(), b.open())
	}
}

// A gate that has dropped the tenant and met it again knows no number: it is told again.
func TestAGateThatHasForgottenIsToldAgain(t *testing.T) {
	w := newWorld(1, 4, [2]int{4, 4})
	n := w.nodes[0]
	n.demand(2, 0)
	n.claim()
	w.run(time.Second, 0, forever)
	n.gate = worldGate{granted: make(map[string]int)}
	n.demand(2, 0)
	n.claim()
	w.run(time.Second, 0, forever)
	if n.open() != 2 {
		t.Fatalf("it has %d", n.open())
	}
	n.quiet()
	w.run(5*time.Second, 0, time.Second)
	w.gone(t)
}

func TestALimitThatIsLowered(t *testing.T) {
	w := newWorld(2, 8, [2]int{8, 8})
	a, b := w.nodes[0], w.nodes[1]
	for _, n := range w.nodes {
		n.demand(many, 0)
		n.claim()
	}
	w.run(2*time.Second, 50*time.Millisecond, forever)
	w.limits[tenants.ScopeTenant] = 3
	w.run(3*time.Second, 50*time.Millisecond, forever)
	w.check(t)
	if a.open()+b.open() != 3 {
		t.Fatalf("%d and %d", a.open(), b.open())
	}
}

// TestARestoredStoreHandsNothingOut: what is missing in it may be another node's, and is written again before anybody gets more.
func TestARestoredStoreHandsNothingOut(t *testing.T) {
	w := newWorld(2, 6, [2]int{6, 6})
	a, b := w.nodes[0], w.nodes[1]
	a.demand(4, 0)
	a.claim()
	w.run(time.Second, 0, forever)
	clear(w.rows)
	w.settles = w.storeNow().Add(surveyEvery + 10*time.Second)
	b.demand(many, 0)
	b.claim()
	for w.storeNow().Before(w.settles) {
		w.run(time.Second, 0, forever)
		w.check(t)
		if a.open() != 4 || b.open() > 0 {
			t.Fatalf("a has %d, b has %d", a.open(), b.open())
		}
	}
	w.run(3*time.Second, 0, forever)
	w.check(t)
	if a.open() != 4 || b.open() != 2 {
		t.Errorf("a has %d, b has %d", a.open(), b.open())
	}
}

// TestWhatIsSetAsideFollowsTheTenant, which may not have been known when somebody else wanted it to be looked at.
func TestWhatIsSetAsideFollowsTheTenant(t *testing.T) {
	w := newWorld(1, 6, [2]int{6, 6})
	a, floors := w.nodes[0], false
	a.b.o.Floor, a.b.o.MaxNodes = func(string) bool { return floors }, 2
	for _, step := range []struct{ clients, want int }{{2, 2}, {many, 4}} {
		a.demand(step.clients, 0)
		a.claim()
		w.run(time.Second, 0, forever)
		if a.open() != step.want {
			t.Errorf("floors %v: %d servers, want %d", floors, a.open(), step.want)
		}
		floors = true
	}
}
