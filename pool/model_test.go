// A state machine test: random operations, each compared with a model that is nothing but slices.

package pool

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelPool is what a pool should hold. Idle is a stack, the last one is lent next; waiting is a queue.
type modelPool struct {
	*Pool
	user, database                  int // which of the model's
	dialing, idle, active, cleaning []*Server
	waiting                         []*Client
	parked                          []*Server // of those that are dialed
	leaving                         []*Server
	limit                           int // of the size
	size, reserve                   int // portions; -1: the whole
}

func (m *modelPool) n() int { return len(m.dialing) + len(m.idle) + len(m.active) + len(m.cleaning) }

// used is how many there are at the other end.
func (m *modelPool) used() int { return m.n() - len(m.parked) + len(m.leaving) }

type model struct {
	tenant  *Tenant
	now     time.Time
	limits  limits
	yielded time.Time // when somebody yielded last
	pools   []*modelPool
	clients []*Client
	lentTo  map[*Server]*Client
	retired map[*Server]bool
	dead    []*Server // taken out while dialing: their dials still end some day
	linger  bool      // who leaves may still be there
}

func without[T comparable](list []T, x T) []T {
	i := slices.Index(list, x)
	if i < 0 {
		panic("the model does not have it")
	}
	return slices.Delete(slices.Clone(list), i, i+1)
}

// drop forgets a server that left the pool, and which may linger unless it never connected.
func (m *model) drop(t *rapid.T, s *Server, from *[]*Server) {
	*from = without(*from, s)
	delete(m.lentTo, s)
	if s.State() != Closed || s.Client() != nil {
		t.Fatalf("a server that left is %v", s.State())
	}
	p := m.poolOf(s.Pool())
	if slices.Contains(p.parked, s) {
		p.parked = without(p.parked, s)
		return
	}
	if m.linger {
		s.Pool().Linger(s)
		p.leaving = append(p.leaving, s)
	}
}

// settle moves a server in the model as Next says, after judging whether Next may say so.
func (m *model) settle(t *rapid.T, p *modelPool, s *Server, from *[]*Server, next Next) {
	settings := m.tenant.Settings()
	age := m.now.Sub(s.ConnectedAt())
	over := m.over(p)
	switch {
	case (next.Close == Retired) != m.retired[s]:
		t.Fatalf("retired %v, closed because %v", m.retired[s], next.Close)
	case next.Close == Lifetime && age < settings.ServerLifetime*4/5,
		next.Close == Keep && age >= settings.ServerLifetime:
		t.Fatalf("age %v, closed because %v", age, next.Close)
	case next.Close == Surplus && !over, next.Close == Keep && over:
		t.Fatalf("%v, %+v, closed because %v", p.Pool, m.limits, next.Close)
	case next.Close == Yielded && !m.stopsSomebody(p):
		t.Fatalf("yielded to nobody or without need")
	case next.Close > Surplus && next.Close != Yielded:
		t.Fatalf("closed because %v", next.Close)
	}
	if next.Close == Yielded {
		m.yielded = m.now
	}
	if next.Close != Keep {
		m.drop(t, s, from)
		return
	}
	*from = without(*from, s)
	delete(m.lentTo, s)
	if len(p.waiting) == 0 {
		if next.Client != nil {
			t.Fatal("handed to somebody who did not wait")
		}
		p.idle = append(p.idle, s)
		return
	}
	if next.Client != p.waiting[0] {
		t.Fatal("not first come, first served")
	}
	m.lend(p, s, p.waiting[0])
	p.waiting = p.waiting[1:]
}

func (m *model) lend(p *modelPool, s *Server, c *Client) {
	p.active = append(p.active, s)
	m.lentTo[s] = c
}

// pick draws one of the servers in the given lists of all pools; nil if there is none.
func pick(t *rapid.T, m *model, list func(*modelPool) *[]*Server) (*modelPool, *Server, *[]*Server) {
	var all []*Server
	for _, p := range m.pools {
		all = append(all, *list(p)...)
	}
	if len(all) == 0 {
		return nil, nil, nil
	}
	s := rapid.SampledFrom(all).Draw(t, "server")
	p := m.poolOf(s.Pool())
	return p, s, list(p)
}

func dialingOf(p *modelPool) *[]*Server  { return &p.dialing }
func idleOf(p *modelPool) *[]*Server     { return &p.idle }
func activeOf(p *modelPool) *[]*Server   { return &p.active }
func cleaningOf(p *modelPool) *[]*Server { return &p.cleaning }

func (m *model) away(c *Client) bool {
	for _, p := range m.pools {
		if slices.Contains(p.waiting, c) {
			return false
		}
	}
	for _, x := range m.lentTo {
		if x == c {
			return false
		}
	}
	return true
}

func (m *model) acquire(t *rapid.T) {
	free := slices.DeleteFunc(slices.Clone(m.clients), func(c *Client) bool { return !m.away(c) })
	if len(free) == 0 {
		return
	}
	c := rapid.SampledFrom(free).Draw(t, "client")
	p := rapid.SampledFrom(m.pools).Draw(t, "pool")
	var prefer *Server
	if rapid.Bool().Draw(t, "prefers") {
		_, prefer, _ = pick(t, m, idleOf)
	}
	got := p.Acquire(c, prefer, m.now)
	if len(p.idle) == 0 {
		if got != nil {
			t.Fatal("served out of nothing")
		}
		p.waiting = append(p.waiting, c)
		return
	}
	want := p.idle[len(p.idle)-1]
	if slices.Contains(p.idle, prefer) {
		want = prefer
	}
	if got != want {
		t.Fatal("not last in, first out")
	}
	p.idle = without(p.idle, got)
	m.lend(p, got, c)
}

func (m *model) dial(t *rapid.T) {
	var victims []*modelPool
	p := m.tenant.NextDial(m.now, func(s *Server) {
		owner := m.poolOf(s.Pool())
		m.drop(t, s, &owner.idle)
		victims = append(victims, owner)
	})
	if p == nil {
		m.expectNoneCould(t)
		return
	}
	q := m.poolOf(p)
	for _, owner := range victims {
		if m.sharesNothing(owner, q) {
			t.Fatal("a server was closed in vain")
		}
	}
	if m.now.Before(p.DialAfter()) {
		t.Fatal("dial within the pause")
	}
	if q.n() >= m.sizeOf(q) && m.now.Sub(q.waiting[len(q.dialing)].since) < reserveAfter {
		t.Fatal("the reserve was opened too early")
	}
	s := &Server{}
	place := m.hasPlace(q)
	if p.StartDial(s, m.now) != place {
		t.Fatalf("%v: it may connect: %v", p, !place)
	}
	q.dialing = append(q.dialing, s)
	if !place {
		q.parked = append(q.parked, s)
	}
	if m.over(q) || len(q.dialing) > len(q.waiting) {
		t.Fatalf("one dial too many: %v", p)
	}
}

// connect gives the servers that are to connect their turns, and fails if one that could gets none.
func (m *model) connect(t *rapid.T) {
	for s := m.tenant.NextConnect(); s != nil; s = m.tenant.NextConnect() {
		p := m.poolOf(s.Pool())
		if !m.hasPlace(p) {
			t.Fatalf("%v: there is no place", p.Pool)
		}
		p.parked = without(p.parked, s)
	}
	for _, p := range m.pools {
		if len(p.parked) > 0 && m.hasPlace(p) {
			t.Fatalf("%v: somebody could connect", p.Pool)
		}
	}
}

// gone ends a server that lingers.
func (m *model) gone(t *rapid.T) {
	if p, s, l := pick(t, m, func(p *modelPool) *[]*Server { return &p.leaving }); s != nil {
		p.Gone(s)
		*l = without(*l, s)
		if p.Gone(s); s.State() != Closed {
			t.Fatal("it is not gone")
		}
	}
}

// connected picks a server that is dialed and has had its turn.
func (m *model) connected(t *rapid.T) (*modelPool, *Server, *[]*Server) {
	p, s, l := pick(t, m, dialingOf)
	if s != nil && slices.Contains(p.parked, s) {
		return nil, nil, nil
	}
	return p, s, l
}

func (m *model) dialDone(t *rapid.T) {
	if p, s, l := m.connected(t); s != nil {
		m.settle(t, p, s, l, p.DialDone(s, m.now))
	}
}

func (m *model) dialFailed(t *rapid.T) {
	p, s, l := m.connected(t)
	if s == nil {
		return
	}
	p.DialFailed(s, errRefused, rapid.SampledFrom([]Failure{Passing, Final, Answered}).Draw(t, "kind"), m.now)
	m.drop(t, s, l)
	if pause := p.DialAfter().Sub(m.now); pause < DefaultBackoffMin/2 || pause > DefaultBackoffMax {
		t.Fatalf("pause of %v", pause)
	}
}

func (m *model) deadDialsEnd(t *rapid.T) {
	for _, s := range m.dead {
		if next := s.Pool().DialDone(s, m.now); next != (Next{Close: Removed}) {
			t.Fatalf("a dead dial is used: %+v", next)
		}
		s.Pool().DialFailed(s, errRefused, Final, m.now)
	}
	m.dead = nil
}

func (m *model) release(t *rapid.T) {
	if p, s, l := pick(t, m, activeOf); s != nil {
		m.settle(t, p, s, l, p.Release(s, m.now))
	}
}

func (m *model) beginCleaning(t *rapid.T) {
	if p, s, l := pick(t, m, activeOf); s != nil {
		p.BeginCleaning(s)
		*l = without(*l, s)
		delete(m.lentTo, s)
		p.cleaning = append(p.cleaning, s)
	}
}

func (m *model) endCleaning(t *rapid.T) {
	if p, s, l := pick(t, m, cleaningOf); s != nil {
		m.settle(t, p, s, l, p.EndCleaning(s, m.now))
	}
}

func (m *model) leave(t *rapid.T) {
	p := rapid.SampledFrom(m.pools).Draw(t, "pool")
	if len(p.waiting) == 0 {
		return
	}
	c := rapid.SampledFrom(p.waiting).Draw(t, "client")
	if !p.Leave(c) {
		t.Fatal("a waiting client did not leave")
	}
	p.waiting = without(p.waiting, c)
}

func (m *model) resize(t *rapid.T) {
	p := rapid.SampledFrom(m.pools).Draw(t, "pool")
	p.limit = rapid.IntRange(0, 4).Draw(t, "size")
	p.SetSize(p.limit)
}

func (m *model) pass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 8000).Draw(t, "ms")) * time.Millisecond)
}

func (m *model) poolOf(p *Pool) *modelPool {
	return m.pools[slices.IndexFunc(m.pools, func(q *modelPool) bool { return q.Pool == p })]
}

func (m *model) removeAny(t *rapid.T) {
	list := rapid.SampledFrom([]func(*modelPool) *[]*Server{dialingOf, idleOf, activeOf, cleaningOf}).Draw(t, "state")
	p, s, l := pick(t, m, list)
	if s == nil {
		return
	}
	if s.State() == Dialing {
		m.dead = append(m.dead, s)
	}
	p.RemoveServer(s)
	m.drop(t, s, l)
	p.RemoveServer(s) // once more does no harm
}

func (m *model) retire(t *rapid.T) {
	p := rapid.SampledFrom(m.pools).Draw(t, "pool")
	for _, s := range slices.Concat(p.active, p.cleaning) {
		m.retired[s] = true
	}
	p.Retire(func(s *Server) {
		if slices.Contains(p.dialing, s) {
			m.dead = append(m.dead, s)
			m.drop(t, s, &p.dialing)
		} else {
			m.drop(t, s, &p.idle)
		}
	})
	if len(p.idle)+len(p.dialing) > 0 {
		t.Fatal("something survived")
	}
}

func (m *model) sweep(t *rapid.T) {
	settings := m.tenant.Settings()
	m.tenant.Sweep(m.now, func(s *Server, why Reason) {
		switch p := m.poolOf(s.Pool()); {
		case why == IdleTimeout && m.now.Sub(s.IdleSince()) >= settings.ServerIdle,
			why == Lifetime && m.now.Sub(s.ConnectedAt()) >= settings.ServerLifetime*4/5,
			why == Surplus && m.over(p) && !slices.Contains(p.parked, s):
			m.drop(t, s, &p.idle)
		case why == Surplus && m.over(p):
			m.drop(t, s, &p.dialing)
		default:
			t.Fatalf("swept because %v: idle since %v, connected %v, now %v", why, s.IdleSince(), s.ConnectedAt(), m.now)
		}
	})
	for _, p := range m.pools {
		for _, s := range p.idle {
			if m.now.Sub(s.IdleSince()) >= settings.ServerIdle || m.now.Sub(s.ConnectedAt()) >= settings.ServerLifetime {
				t.Fatal("sweep left an old server")
			}
		}
		if len(p.idle)+len(p.parked) > 0 && m.over(p) {
			t.Fatal("sweep left a surplus server")
		}
	}
}

// check compares everything that can be seen with the model.
func (m *model) check(t *rapid.T) {
	if err := m.tenant.Check(); err != nil {
		t.Fatal(err)
	}
	var sum Counts
	for _, p := range m.pools {
		want := Counts{len(p.dialing), len(p.idle), len(p.active), len(p.cleaning), len(p.waiting)}
		if got := p.Counts(); got != want {
			t.Fatalf("counts %+v, want %+v", got, want)
		}
		if p.Empty() != (p.n() == 0 && len(p.waiting) == 0 && len(p.leaving) == 0) {
			t.Fatal("Empty is wrong")
		}
		sum = Counts{sum.Dialing + want.Dialing, sum.Idle + want.Idle, sum.Active + want.Active,
			sum.Cleaning + want.Cleaning, sum.Waiting + want.Waiting}
		c := p.FirstWaiter()
		for _, want := range p.waiting {
			if c != want {
				t.Fatal("the queue is not the model's")
			}
			c = p.NextWaiter(c)
		}
		if c != nil {
			t.Fatal("the queue is longer than the model's")
		}
		if p.Failing(time.Time{}, m.now) != nil && p.n() > 0 {
			t.Fatal("no hope although there are servers")
		}
	}
	m.checkQuotas(t)
	if got := m.tenant.Counts(); got != sum {
		t.Fatalf("tenant counts %+v, want %+v", got, sum)
	}
	for _, c := range m.clients {
		s := c.Server()
		if (s != nil) != (!c.Waiting() && !m.away(c)) || s != nil && m.lentTo[s] != c {
			t.Fatal("a client is lost")
		}
	}
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		m := &model{
			tenant: NewTenant(Settings{ServerIdle: 12 * time.Second, ServerLifetime: 30 * time.Second, FailFor: 10 * time.Second, Random: random.Float64}),
			now:    start, lentTo: map[*Server]*Client{}, retired: map[*Server]bool{},
			linger: rapid.Bool().Draw(t, "linger"),
		}
		m.populate(t)
		for range 12 {
			m.clients = append(m.clients, &Client{})
		}
		rare := map[string]func(*rapid.T){
			"leave": m.leave, "remove": m.removeAny, "retire": m.retire, "resize": m.resize, "limit": m.limit,
			"dialFailed": m.dialFailed, "deadDialsEnd": m.deadDialsEnd, "portions": m.portions,
		}
		names := slices.Sorted(maps.Keys(rare))
		actions := map[string]func(*rapid.T){
			"": m.check,
			// What makes a pool busy is named twice, to come up more often.
			"acquire": m.acquire, "acquire2": m.acquire, "dial": m.dial, "dial2": m.dial,
			"dialDone": m.dialDone, "dialDone2": m.dialDone,
			"release": m.release, "beginCleaning": m.beginCleaning, "endCleaning": m.endCleaning,
			"sweep": m.sweep, "pass": m.pass, "gone": m.gone, "connect": m.connect,
			"rare": func(t *rapid.T) { rare[rapid.SampledFrom(names).Draw(t, "rare")](t) },
		}
		for range 10 { // one Repeat is too short to fill the pools and to grow old
			t.Repeat(actions)
		}
	})
}
