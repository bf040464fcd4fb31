// Tables for lending, queueing and cleaning, and for what must panic.

package pool

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is a tenant with a hand-moved clock; its methods check the books after every step.
type world struct {
	testing.TB
	tenant *Tenant
	now    time.Time
}

func newWorld(t testing.TB, settings Settings) *world {
	return &world{TB: t, tenant: NewTenant(settings), now: start}
}

func (w *world) check() {
	w.Helper()
	if err := w.tenant.Check(); err != nil {
		w.Fatal(err)
	}
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// connect dials n servers for p while nobody waits, so that they become idle; the last one is lent first.
func (w *world) connect(p *Pool, n int) []*Server {
	w.Helper()
	var servers []*Server
	for i := range n {
		s := &Server{Owner: i}
		p.StartDial(s, w.now)
		w.expectNext(p.DialDone(s, w.now), Next{})
		servers = append(servers, s)
	}
	return servers
}

func (w *world) acquire(p *Pool, c *Client, want *Server) {
	w.Helper()
	if got := p.Acquire(c, nil, w.now); got != want {
		w.Fatalf("Acquire = %v, want %v", name(got), name(want))
	}
	if c.Server() != want || c.Waiting() != (want == nil) || !c.WaitedSince().Equal(w.now) {
		w.Fatalf("client after Acquire: server %v, waiting %v, since %v", name(c.Server()), c.Waiting(), c.WaitedSince())
	}
	w.check()
}

func (w *world) release(p *Pool, s *Server, want Next) {
	w.Helper()
	w.expectNext(p.Release(s, w.now), want)
}

func (w *world) expectNext(got, want Next) {
	w.Helper()
	if got != want {
		w.Fatalf("Next = {%p %v}, want {%p %v}", got.Client, got.Close, want.Client, want.Close)
	}
	w.check()
}

func (w *world) expectCounts(p *Pool, want Counts) {
	w.Helper()
	if got := p.Counts(); got != want {
		w.Fatalf("counts %+v, want %+v", got, want)
	}
}

// swept returns what Sweep closes, as "owner reason" in order.
func (w *world) swept() string {
	w.Helper()
	var out []string
	w.tenant.Sweep(w.now, func(s *Server, why Reason) {
		if s.State() != Closed {
			w.Errorf("swept server is %v", s.State())
		}
		out = append(out, fmt.Sprint(s.Owner, " ", why))
	})
	w.check()
	return strings.Join(out, ", ")
}

func name(s *Server) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("server %v (%v)", s.Owner, s.State())
}

func TestIdleServersAreLentLastInFirstOut(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(3, nil, nil)
	s := w.connect(p, 3)
	var c [3]Client
	w.acquire(p, &c[0], s[2])
	w.acquire(p, &c[1], s[1])
	w.release(p, s[2], Next{})
	w.acquire(p, &c[2], s[2])
	w.acquire(p, &c[0], s[0])
	w.expectCounts(p, Counts{Active: 3})
	if s[1].Client() != &c[1] {
		t.Error("server does not know its client")
	}
}

func TestPreferredServer(t *testing.T) {
	w := newWorld(t, Settings{})
	p, other := w.tenant.NewPool(3, nil, nil), w.tenant.NewPool(1, nil, nil)
	s := w.connect(p, 3)
	foreign := w.connect(other, 1)[0]
	var c [3]Client
	for i, test := range []struct {
		prefer, want *Server
	}{
		{s[0], s[0]},    // idle: taken although it is not the last
		{s[0], s[2]},    // lent already: the last
		{foreign, s[1]}, // of another pool: the last
	} {
		if got := p.Acquire(&c[i], test.prefer, w.now); got != test.want {
			t.Errorf("%d: got %v, want %v", i, name(got), name(test.want))
		}
		w.check()
	}
}

func TestWaitersAreServedFirstComeFirstServed(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(1, nil, nil)
	s := w.connect(p, 1)[0]
	c := make([]Client, 5)
	w.acquire(p, &c[0], s)
	for i := 1; i < 5; i++ {
		w.pass(time.Second)
		c[i].Noticed = true
		w.acquire(p, &c[i], nil)
		if c[i].Noticed {
			t.Error("Acquire keeps the old notice")
		}
	}
	if got := p.OldestWait(w.now); got != 3*time.Second {
		t.Errorf("OldestWait = %v", got)
	}
	if !p.Leave(&c[2]) || p.Leave(&c[2]) {
		t.Error("Leave must say yes once")
	}
	var order []*Client
	for x := p.FirstWaiter(); x != nil; x = p.NextWaiter(x) {
		order = append(order, x)
	}
	if len(order) != 3 || order[0] != &c[1] || order[1] != &c[3] || order[2] != &c[4] {
		t.Errorf("wrong order: %v", order)
	}
	w.release(p, s, Next{Client: &c[1]})
	w.release(p, s, Next{Client: &c[3]})
	if c[1].Server() != nil || c[3].Server() != s {
		t.Error("the hand-over left the old client tied")
	}
	p.BeginCleaning(s)
	w.check()
	w.expectCounts(p, Counts{Cleaning: 1, Waiting: 1})
	if c[3].Server() != nil {
		t.Error("cleaning server keeps its client")
	}
	w.expectNext(p.EndCleaning(s, w.now), Next{Client: &c[4]})
	w.release(p, s, Next{})
	w.expectCounts(p, Counts{Idle: 1})
	if got := p.OldestWait(w.now); got != 0 {
		t.Errorf("OldestWait of nobody = %v", got)
	}
}

func TestRemoveServerFromEveryState(t *testing.T) {
	for _, state := range []State{Dialing, Idle, Active, Cleaning, Closed} {
		t.Run(state.String(), func(t *testing.T) {
			w := newWorld(t, Settings{MaxServers: 1})
			p := w.tenant.NewPool(1, nil, nil)
			s, c := &Server{}, &Client{}
			p.StartDial(s, w.now)
			if state != Dialing {
				p.DialDone(s, w.now)
			}
			if state == Active || state == Cleaning {
				w.acquire(p, c, s)
			}
			if state == Cleaning {
				p.BeginCleaning(s)
			}
			if state == Closed {
				p.RemoveServer(s)
			}
			if s.State() != state {
				t.Fatalf("server is %v", s.State())
			}
			p.RemoveServer(s)
			w.check()
			if s.State() != Closed || c.Server() != nil || !p.Empty() || w.tenant.Servers() != 0 {
				t.Errorf("left behind: %v, %v", name(s), p)
			}
			w.connect(p, 1) // the slot is free again
			if state == Dialing {
				w.expectNext(p.DialDone(s, w.now), Next{Close: Removed})
				p.DialFailed(s, errRefused, Passing, w.now)
				if !p.DialAfter().IsZero() {
					t.Error("an abandoned dial counts as a failure")
				}
			}
		})
	}
}

func TestBugsPanicBeforeTheyDoHarm(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(w *world, p *Pool, s []*Server, c []Client) // s: active for c[0], idle; c[1] is away, c[2] waits elsewhere
	}{
		{"acquire twice", func(w *world, p *Pool, _ []*Server, c []Client) { p.Acquire(&c[0], nil, w.now) }},
		{"acquire while waiting", func(w *world, p *Pool, _ []*Server, c []Client) { p.Acquire(&c[2], nil, w.now) }},
		{"release idle", func(w *world, p *Pool, s []*Server, _ []Client) { p.Release(s[1], w.now) }},
		{"release closed", func(w *world, p *Pool, _ []*Server, _ []Client) { p.Release(new(Server), w.now) }},
		{"release elsewhere", func(w *world, _ *Pool, s []*Server, _ []Client) { w.tenant.NewPool(1, nil, nil).Release(s[0], w.now) }},
		{"clean idle", func(_ *world, p *Pool, s []*Server, _ []Client) { p.BeginCleaning(s[1]) }},
		{"cleaned without begin", func(w *world, p *Pool, s []*Server, _ []Client) { p.EndCleaning(s[0], w.now) }},
		{"dialed twice", func(w *world, p *Pool, s []*Server, _ []Client) { p.StartDial(s[0], w.now) }},
		{"dial done twice", func(w *world, p *Pool, s []*Server, _ []Client) { p.DialDone(s[0], w.now) }},
		{"dial failed after it was done", func(w *world, p *Pool, s []*Server, _ []Client) {
			p.DialFailed(s[0], errRefused, Passing, w.now)
		}},
		{"dial failed for nothing", func(w *world, p *Pool, s []*Server, _ []Client) { p.DialFailed(s[0], nil, Passing, w.now) }},
		{"dial above the pool's size", func(w *world, p *Pool, _ []*Server, _ []Client) { p.StartDial(new(Server), w.now) }},
		{"dial above the tenant's limit", func(w *world, _ *Pool, _ []*Server, _ []Client) {
			w.tenant.NewPool(1, nil, nil).StartDial(new(Server), w.now)
		}},
		{"leave while served", func(_ *world, p *Pool, _ []*Server, c []Client) { p.Leave(&c[0]) }},
		{"leave another queue", func(_ *world, p *Pool, _ []*Server, c []Client) { p.Leave(&c[2]) }},
		{"next of nobody", func(_ *world, p *Pool, _ []*Server, c []Client) { p.NextWaiter(&c[1]) }},
		{"remove a pool in use", func(_ *world, p *Pool, _ []*Server, _ []Client) { p.Remove() }},
		{"acquire from a removed pool", func(w *world, _ *Pool, _ []*Server, c []Client) {
			q := w.tenant.NewPool(1, nil, nil)
			q.Remove()
			q.Acquire(&c[1], nil, w.now)
		}},
		{"dial for a removed pool", func(w *world, _ *Pool, _ []*Server, _ []Client) {
			q := w.tenant.NewPool(1, nil, nil)
			q.Remove()
			q.StartDial(new(Server), w.now)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Settings{MaxServers: 2})
			p, elsewhere := w.tenant.NewPool(2, nil, nil), w.tenant.NewPool(2, nil, nil)
			s, c := w.connect(p, 2), make([]Client, 3)
			s[0], s[1] = s[1], s[0]
			w.acquire(p, &c[0], s[0])
			w.acquire(elsewhere, &c[2], nil)
			before := fmt.Sprint(p, elsewhere)
			defer func() {
				got, _ := recover().(string)
				if !strings.HasPrefix(got, "BUG: pool: ") {
					t.Errorf("panic %q", got)
				}
				w.check()
				if after := fmt.Sprint(p, elsewhere); after != before {
					t.Errorf("changed from %v to %v", before, after)
				}
			}()
			test.do(w, p, s, c)
		})
	}
}

func TestRemovedPoolIsGone(t *testing.T) {
	w := newWorld(t, Settings{})
	for range 3 {
		w.tenant.NewPool(1, nil, nil)
	}
	for p := range w.tenant.Pools() {
		p.Remove()
		w.check()
		if p.Tenant() != nil {
			t.Error("a removed pool has a tenant")
		}
	}
	for p := range w.tenant.Pools() {
		t.Errorf("still there: %v", p)
	}
}

func TestSpareServers(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	p := w.tenant.NewPool(2, nil, nil)
	if p.WantSpare(w.now) {
		t.Error("wants a spare server that nobody asked for")
	}
	p.SetLeast(5)
	if !p.WantSpare(w.now) {
		t.Error("wants no spare server")
	}
	s := new(Server)
	p.StartDial(s, w.now)
	if p.WantSpare(w.now) {
		t.Error("wants a second one while the first is dialed")
	}
	p.DialDone(s, w.now)
	if !p.WantSpare(w.now) {
		t.Error("does not want the second one")
	}
	w.connect(p, 1)
	if p.WantSpare(w.now) {
		t.Error("wants more than its size")
	}
	p.RemoveServer(s)
	p.SetSize(1)
	if p.WantSpare(w.now) {
		t.Error("wants more than its new size")
	}
	p.SetSize(2)
	p.SetLeast(2)
	failed := new(Server)
	p.StartDial(failed, w.now)
	p.DialFailed(failed, errors.New("refused"), Passing, w.now)
	if p.WantSpare(w.now) {
		t.Error("wants one although dials fail")
	}
}
