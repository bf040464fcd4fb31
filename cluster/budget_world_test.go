// A world for tests of the budget: a ledger in memory, and nodes with gates that keep to what they are granted.

package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	worldTenant = "acme"
	worldSilent = 5 * time.Second
	connectTime = 10 * time.Second
	worldLapse  = worldSilent + 2*time.Minute
	worldLinger = 30 * time.Second
)

// pools are the scopes of the world's two pools; each server counts against its own and against the tenant's.
var worldPools = [2]string{tenants.PoolScope("app", "db"), tenants.PoolScope("web", "db")}

// world is a store, which is the truth about time and rows, and what really is open at Postgres.
type world struct {
	now     time.Time
	ahead   time.Duration // of the store's clock
	limits  map[string]int
	aside   int       // servers that are set aside
	settles time.Time // when rows of before are not missing any more
	service bool
	rows    map[rowKey]tenants.Portion
	seen    map[string]time.Time // by boot
	alone   map[string]time.Time // by boot: noticed
	nodes   []*worldNode
	boots   int
	step    time.Duration // of run
	// calm says that nobody has stood still for long. Else who goes on may write down, for a moment, what it had before its portion was
	// handed on: it opens nothing of that.
	calm bool

	told []string // what has happened, for who reads why a test has failed

	// interrupt is called inside of calls to the store: before it is asked, when it has done, and has what others do meanwhile.
	interrupt func(n *worldNode) error
}

type rowKey struct{ scope, boot string }

type condition int

const (
	up condition = iota
	frozen
	dead
)

// worldNode is a process. The world's steps do nothing for one that is not up, or inside of a call.
type worldNode struct {
	w          *world
	name, boot string
	state      condition
	inside     bool
	noStore    bool // cannot reach the store
	side       int  // who is on another one is not reached
	blind      bool // it sees nobody in the gossip, but can call
	saw        map[string]time.Time
	known      []string      // boots of rows that it has read
	jump       time.Duration // its clock is ahead
	b          *Budget
	asked      time.Time
	surveyed   time.Time
	toGate     []grantNews
	heard      bool
	gate       worldGate
}

type grantNews struct {
	number int64
	all    []tenants.Grant
}

type serverState int

const (
	atDial serverState = iota
	idle
	active
	closing // closed here, and its end was not seen
)

// worldServer is a connection. It counts at Postgres from its first message to its end there.
type worldServer struct {
	pool  int
	state serverState
	real  bool
	begun time.Time // when the dial began, by the clock of the node
	since time.Time // in this state
}

type worldGate struct {
	number  int64
	granted map[string]int
	servers []*worldServer
	waiting [2]int
	dirty   bool
	claimed time.Time
}

func newWorld(nodes int, limit int, pools [2]int) *world {
	w := &world{now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), limits: map[string]int{tenants.ScopeTenant: limit, worldPools[0]: pools[0], worldPools[1]: pools[1]},
		step: 5 * time.Millisecond, calm: true, rows: make(map[rowKey]tenants.Portion), seen: make(map[string]time.Time), alone: make(map[string]time.Time), service: true,
		interrupt: func(*worldNode) error { return nil }}
	for i := range nodes {
		w.nodes = append(w.nodes, w.start(string(rune('a'+i))))
	}
	return w
}

func (w *world) start(name string) *worldNode {
	w.boots++
	n := &worldNode{w: w, name: name, boot: name + "-" + string(rune('0'+w.boots)), saw: make(map[string]time.Time), gate: worldGate{granted: make(map[string]int)}}
	n.b = NewBudget(BudgetOptions{Ledger: n, Node: n.name, Boot: n.boot, MaxNodes: w.aside, Floor: func(string) bool { return w.aside > 0 },
		Granted: func(_ string, number int64, g []tenants.Grant) {
			n.toGate = append(n.toGate, grantNews{number, slices.Clone(g)})
		},
		Strangers: func(context.Context, string) (int, bool, error) { return w.strangers(n) },
		Alive:     func(_, boot string) bool { return w.gossips(n, boot) },
		CutOff:    func(context.Context) (bool, []string) { return w.cutOff(n) },
		Log:       slog.New(slog.DiscardHandler),
	})
	n.b.now = func() time.Time { return w.now.Add(n.jump) }
	w.seen[n.boot] = w.storeNow()
	return n
}

func (w *world) storeNow() time.Time { return w.now.Add(w.ahead) }

func (n *worldNode) runs() bool { return n.state == up && !n.inside }

// answers reports whether a process answers a call of another one.
func (w *world) answers(by *worldNode, boot string) (*worldNode, bool) {
	i := slices.IndexFunc(w.nodes, func(o *worldNode) bool { return o.boot == boot })
	if i < 0 {
		return nil, false
	}
	o := w.nodes[i]
	return o, o.state == up && o.side == by.side
}

// look is what the gossip does.
func (w *world) look(n *worldNode) {
	for _, o := range w.nodes {
		if _, ok := w.answers(n, o.boot); ok && n.state == up && !n.blind {
			n.saw[o.boot] = w.now
		}
	}
}

// gossips reports whether a process can be seen to live, or could a moment ago, by others than the store.
func (w *world) gossips(by *worldNode, boot string) bool {
	saw, ok := by.saw[boot]
	return ok && !by.blind && w.now.Sub(saw) < worldLinger
}

// cutOff is what package main has for it.
func (w *world) cutOff(n *worldNode) (unseen bool, mute []string) {
	late := n.call() != nil
	for _, boot := range n.known {
		if boot == n.boot {
			continue
		}
		switch o, ok := w.answers(n, boot); {
		case late, !ok:
			mute = append(mute, boot)
		case o.blind:
			unseen = true
		}
	}
	return unseen, mute
}

// strangers counts what is open and no living node says is its own, as package main does.
func (w *world) strangers(n *worldNode) (k int, ok bool, err error) {
	for _, o := range w.nodes {
		_, there := w.seen[o.boot]
		switch _, answers := w.answers(n, o.boot); {
		case !there:
			k += o.real("")
		case !w.silent(o.boot) && !answers && w.service && o != n:
			return 0, true, ErrAway
		case w.silent(o.boot) && answers && o != n:
			return 0, w.service, ErrNotCounted
		case w.silent(o.boot):
			k += o.real("")
		}
	}
	return k, w.service, nil
}

func (w *world) silent(boot string) bool {
	seen, ok := w.seen[boot]
	return !ok || w.storeNow().Sub(seen) > worldSilent
}

// real counts what is open at Postgres, by scope.
func (n *worldNode) real(scope string) (k int) {
	for _, s := range n.gate.servers {
		if s.real && (scope == tenants.ScopeTenant || worldPools[s.pool] == scope) {
			k++
		}
	}
	return k
}

// Portions implements Ledger, as the next four do.
func (n *worldNode) Portions(_ context.Context, _ string, f func(tenants.Portions) tenants.PortionsChange) error {
	if n.noStore {
		return tenants.ErrAway
	}
	if err := n.call(); err != nil {
		return err
	}
	w := n.w
	s := tenants.Portions{Now: w.storeNow(), Settling: w.storeNow().Before(w.settles)}
	for key, row := range w.rows {
		row.Silent = w.silent(key.boot)
		since, ok := w.seen[key.boot]
		if !ok {
			if since, ok = w.alone[key.boot]; !ok || since.After(w.storeNow()) {
				since = w.storeNow()
				w.alone[key.boot] = since
			}
		}
		row.Lapsed, row.Lapses = w.storeNow().Sub(since) > worldLapse, since.Add(worldLapse)
		s.All = append(s.All, row)
	}
	slices.SortFunc(s.All, func(a, b tenants.Portion) int {
		return self{a.Scope, a.Boot}.compare(self{b.Scope, b.Boot})
	})
	c := f(s)
	w.note("%s looks: %+v; writes %+v, gone %+v", n.boot, s.All, c.Mine, c.Gone)
	for key := range w.rows {
		if key.boot == n.boot {
			delete(w.rows, key)
		}
	}
	for _, row := range c.Mine {
		w.rows[rowKey{row.Scope, row.Boot}] = row
	}
	for _, row := range c.Gone {
		if key := (rowKey{row.Scope, row.Boot}); row.Servers > 0 {
			w.rows[key] = row
		} else {
			delete(w.rows, key)
		}
	}
	if c.Tell {
		for _, o := range w.nodes {
			o.heard = o.heard || o != n
		}
	}
	return n.call()
}

// note remembers the last events.
func (w *world) note(format string, args ...any) {
	w.told = append(w.told[max(0, len(w.told)-30):], w.storeNow().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// call is what happens while a call is under way.
func (n *worldNode) call() error {
	n.inside = true
	defer func() { n.inside = false }()
	return n.w.interrupt(n)
}

func (n *worldNode) Unheard(context.Context) (time.Duration, error) {
	if n.noStore {
		return 0, tenants.ErrAway
	}
	if err := n.call(); err != nil {
		return 0, err
	}
	seen, ok := n.w.seen[n.boot]
	if !ok {
		return 0, tenants.ErrUnannounced
	}
	return n.w.storeNow().Sub(seen), n.call()
}

func (n *worldNode) Survey(context.Context) (map[string][]tenants.Portion, []string, error) {
	if n.noStore {
		return nil, nil, tenants.ErrAway
	}
	if err := n.call(); err != nil {
		return nil, nil, err
	}
	mine := make(map[string][]tenants.Portion)
	var look []string
	for key, row := range n.w.rows {
		switch {
		case key.boot == n.boot:
			mine[worldTenant] = append(mine[worldTenant], row)
		case row.Wanted > row.Servers || n.w.silent(key.boot):
			look = []string{worldTenant}
		}
	}
	return mine, look, n.call()
}

func (n *worldNode) Hear(ctx context.Context, _ func(), _ func(string)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (n *worldNode) Return(context.Context, []string) error { return nil }

// work does what is due in the budget, once.
func (n *worldNode) work() bool {
	if a := n.b.next(); a != nil {
		n.b.count(context.Background(), a)
		return true
	}
	for _, list := range []*dueList{&n.b.due, &n.b.spare} {
		if a, _ := n.b.take(list); a != nil {
			n.b.work(context.Background(), a)
			return true
		}
	}
	return false
}

func (n *worldNode) ask(wide bool) {
	n.asked = n.w.now
	if wide {
		select {
		case <-n.b.wide:
		default:
		}
	}
	if n.b.ask(context.Background(), n.b.now(), wide) {
		n.surveyed = n.asked
	}
	if !n.b.MayDial() {
		n.w.note("%s has asked, and may not dial: %+v", n.boot, n.b.trust)
	}
}

// pass lets time pass. Nodes that are up say that they live, and ask about themselves.
func (w *world) pass(d time.Duration) {
	for d > 0 {
		step := min(d, time.Second)
		d -= step
		w.now = w.now.Add(step)
		for _, n := range w.nodes {
			if n.state == up && !n.noStore && !n.inside {
				w.seen[n.boot] = w.storeNow()
				n.known = slices.Collect(maps.Keys(w.seen))
			}
			w.look(n)
			for _, s := range slices.Clone(n.gate.servers) {
				if n.runs() && s.state == atDial && n.clock().Sub(s.begun) > connectTime {
					n.end(s)
				}
			}
			if n.runs() && (w.now.Sub(n.asked) >= attendEvery || len(n.b.wide) > 0 && w.now.Sub(n.asked) >= lookEvery) {
				n.ask(len(n.b.wide) > 0 || w.now.Sub(n.surveyed) >= surveyEvery)
			}
		}
	}
}

// run lets everything that is up go on for a while, each step of a few milliseconds. think is how long a transaction takes; 0: they do not end.
// What is idle for as long as keep is closed.
func (w *world) run(d, think, keep time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.pass(w.step)
		for _, n := range w.nodes {
			if n.state != up {
				continue
			}
			for range 100 {
				if !w.stepAll(n, think, keep) {
					break
				}
			}
		}
	}
}

// stepAll does all that a node can do now, and reports whether there was something.
func (w *world) stepAll(n *worldNode, think, keep time.Duration) (did bool) {
	if n.heard {
		n.heard, did = false, true
		n.b.hear(worldTenant)
	}
	for n.work() {
		did = true
	}
	for len(n.toGate) > 0 {
		n.take()
		did = true
	}
	for _, s := range slices.Clone(n.gate.servers) {
		age := w.now.Sub(s.since)
		switch {
		case s.state == atDial && age >= 5*time.Millisecond:
			n.connect(s)
			did = true
		case s.state == closing:
			n.end(s)
			did = true
		case s.state == active && think > 0 && age >= think:
			n.finish(s)
			did = true
		case s.state == idle && age >= keep:
			n.move(s, closing)
			did = true
		}
	}
	n.settle()
	if n.gate.dirty && w.now.Sub(n.gate.claimed) >= lookEvery {
		n.claim()
	}
	return did
}
