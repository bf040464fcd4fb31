package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/postern/postern/tenants"
)

// The model runs the real budget of three nodes, against a store in memory, in random order: calls to the store fail before or after they have
// had their effect, or take long while other nodes go on; nodes die, stand still, are cut off, and their clocks jump. Whatever happens, no
// more servers are open than a limit allows. When all is well again, there are no more in rows either, everything that is wanted is had within two
// seconds, and when nobody wants anything nothing is left.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range rapid.IntRange(20, 150).Draw(t, "steps") {
			m.step(t, 0)
			m.w.check(t)
		}
		m.heal(t)
	})
}

// maxProcesses are as many as there are in a run, those that have died among them: each may have had its floor, so as many are set aside.
const maxProcesses = 6

type model struct {
	w     *world
	depth int
}

func newModel(t *rapid.T) *model {
	m := &model{}
	limit := rapid.IntRange(1, 12).Draw(t, "limit")
	pools := [2]int{rapid.IntRange(1, 6).Draw(t, "app"), rapid.IntRange(1, 6).Draw(t, "web")}
	aside := rapid.SampledFrom([]int{0, 0, maxProcesses}).Draw(t, "aside")
	if aside > 0 { // the tenant's is the limit that is judged then
		pools = [2]int{limit + aside, limit + aside}
	}
	m.w = newWorld(0, limit, pools)
	m.w.aside, m.w.calm = aside, false
	for _, name := range []string{"a", "b", "c"} {
		m.w.nodes = append(m.w.nodes, m.w.start(name))
	}
	m.w.pass(time.Second)
	m.w.interrupt = func(*worldNode) error {
		if m.depth > 1 {
			return nil
		}
		m.depth++
		defer func() { m.depth-- }()
		switch rapid.IntRange(0, 9).Draw(t, "inside of the call") {
		case 0:
			return tenants.ErrAway
		case 1, 2:
			for range rapid.IntRange(1, 4).Draw(t, "meanwhile") {
				m.step(t, m.depth)
				m.w.check(t)
			}
		}
		return nil
	}
	return m
}

// step does something that can happen.
func (m *model) step(t *rapid.T, depth int) {
	w := m.w
	var can []func()
	add := func(weight int, f func()) {
		for range weight {
			can = append(can, f)
		}
	}
	add(6, func() {
		w.pass(rapid.SampledFrom([]time.Duration{time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, time.Second, 5 * time.Second}).Draw(t, "time"))
	})
	add(1, func() {
		w.pass(rapid.SampledFrom([]time.Duration{30 * time.Second, 70 * time.Second, worldLapse + time.Second}).Draw(t, "long time"))
	})
	add(1, func() {
		w.ahead += rapid.SampledFrom([]time.Duration{-time.Hour, -time.Second, 300 * time.Millisecond}).Draw(t, "the store's clock")
	})
	for _, n := range w.nodes {
		switch {
		case n.inside:
		case n.state == up:
			m.stepUp(t, n, add)
		case n.state == frozen:
			add(3, func() { n.state = up })
		}
		if n.state == dead {
			for _, s := range n.gate.servers {
				if s.real {
					add(2, func() { s.real = false })
				}
			}
		}
	}
	rapid.SampledFrom(can).Draw(t, "step")()
}

// stepUp adds what a node can do.
func (m *model) stepUp(t *rapid.T, n *worldNode, add func(int, func())) {
	g := &n.gate
	if len(n.b.due) > 0 {
		add(12, func() {
			if !n.work() {
				n.w.pass(100 * time.Millisecond)
			}
		})
	}
	if len(n.toGate) > 0 {
		add(8, n.take)
	}
	if n.heard {
		add(5, func() { n.heard = false; n.b.hear(worldTenant) })
	}
	if g.dirty {
		add(5, n.claim)
	}
	add(1, func() { n.ask(rapid.Bool().Draw(t, "wide")) })
	add(3, func() {
		g.waiting[rapid.IntRange(0, 1).Draw(t, "pool")] += rapid.IntRange(1, 9).Draw(t, "clients")
		n.settle()
		n.claim()
	})
	for _, s := range slices.Clone(g.servers) {
		switch s.state {
		case atDial:
			add(4, func() { n.connect(s) })
		case active:
			add(1, func() { n.finish(s) })
		case idle:
			add(1, func() { n.move(s, closing) })
		case closing:
			add(4, func() { n.end(s) })
		}
	}
	if m.depth > 0 {
		return // one thing at a time
	}
	add(1, func() { n.state = frozen })
	add(1, func() {
		n.jump += rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "jump")
	})
	add(1, func() {
		n.noStore = !n.noStore
		if n.noStore && rapid.Bool().Draw(t, "cut off") { // alone or together with others
			n.side = rapid.IntRange(1, 2).Draw(t, "side")
		} else if !n.noStore {
			n.side = 0
		}
	})
	add(1, func() { n.blind = !n.blind })
	add(1, func() {
		if len(m.w.nodes) < maxProcesses {
			n.kill()
			m.w.nodes = append(m.w.nodes, m.w.start(n.name))
			delete(m.w.seen, n.boot) // its name is another's now
		}
	})
}

// heal ends all trouble, and judges.
func (m *model) heal(t *rapid.T) {
	w := m.w
	w.interrupt = func(*worldNode) error { return nil }
	var living []*worldNode
	for _, n := range w.nodes {
		if n.state == dead {
			n.gate.servers = nil
			continue
		}
		n.state, n.noStore, n.side, n.blind = up, false, 0, false
		living = append(living, n)
	}
	w.step = 200 * time.Millisecond
	w.run(worldLapse, 0, forever) // what the dead had is found, and handed on
	w.run(3*surveyEvery, 0, forever)
	w.step = 10 * time.Millisecond
	w.calm = true
	w.check(t)
	for _, n := range living {
		n.quiet()
	}
	for _, n := range living {
		n.demand(many, 0)
		n.claim()
		w.run(2*time.Second, 0, forever)
		w.check(t)
		full := min(w.limits[worldPools[0]], w.all())
		if n.real(worldPools[0]) != full {
			for _, o := range living {
				t.Logf("%s: %d open, %+v, away %v, trust %+v, %v", o.name, o.open(), o.gate, o.b.away, o.b.trust, o.b.describe())
			}
			t.Fatalf("node %s has %d of %d after two seconds: %+v", n.name, n.real(worldPools[0]), full, w.rows)
		}
		n.quiet()
	}
	for _, n := range living {
		n.quiet()
	}
	w.run(5*time.Second, 0, time.Second)
	w.gone(t)
}

// all is what of the tenant's limit is not set aside.
func (w *world) all() int {
	if limit := w.limits[tenants.ScopeTenant]; limit > w.aside {
		return limit - w.aside
	}
	return w.limits[tenants.ScopeTenant]
}

// describe tells of all accounts, for who reads why a test has failed.
func (b *Budget) describe() (text string) {
	for _, a := range b.accounts {
		text += fmt.Sprintf("\n  account %+v", *a)
		for scope, p := range a.parts {
			text += fmt.Sprintf("\n    %q %+v", scope, *p)
		}
	}
	return text
}
