// Fairness under load that goes on: what users get in the long run, and how long anybody waits.

package pool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// load has clients that think, ask, and use a server for a while, over and over.
type load struct {
	*world
	random             *rand.Rand
	transaction, login time.Duration // at most
	clients            []*loadClient
	dialing            []*Server
	ends               map[*Server]time.Time // of what goes on at a server
	logins             int
}

type loadClient struct {
	Client
	pool   *Pool
	think  time.Duration // at most, between two transactions
	thinks time.Time     // until when; zero: it does not
	served int
	worst  time.Duration // it has waited
}

func newLoad(w *world, seed uint64) *load {
	return &load{world: w, random: rand.New(rand.NewPCG(seed, 1)), ends: make(map[*Server]time.Time)}
}

// in returns a time between half of d and d from now.
func (l *load) in(d time.Duration) time.Time {
	return l.now.Add(d/2 + time.Duration(l.random.Float64()*float64(d)/2))
}

func (l *load) join(p *Pool, n int, think time.Duration) (all []*loadClient) {
	for range n {
		c := &loadClient{pool: p, think: think}
		c.Owner = c
		l.clients, all = append(l.clients, c), append(all, c)
		l.ask(c)
	}
	return all
}

func (l *load) ask(c *loadClient) {
	c.thinks = time.Time{}
	if s := c.pool.Acquire(&c.Client, nil, l.now); s != nil {
		l.serve(c, s)
		return
	}
	l.dialMore()
}

func (l *load) serve(c *loadClient, s *Server) {
	c.served++
	c.worst = max(c.worst, l.now.Sub(c.WaitedSince()))
	l.ends[s] = l.in(l.transaction)
}

func (l *load) settle(s *Server, next Next) {
	if next.Client != nil {
		l.serve(next.Client.Owner.(*loadClient), s)
	}
	if next.Close != Keep {
		l.dialMore()
	}
}

func (l *load) dialMore() {
	for p := l.tenant.NextDial(l.now, func(*Server) {}); p != nil; p = l.tenant.NextDial(l.now, func(*Server) {}) {
		s := &Server{}
		p.StartDial(s, l.now)
		l.dialing, l.ends[s] = append(l.dialing, s), l.in(l.login)
		l.logins++
	}
}

// pass lets time go by, in steps of a millisecond; every half second the tenant is looked after.
func (l *load) pass(d time.Duration) {
	for until := l.now.Add(d); l.now.Before(until); {
		l.now = l.now.Add(time.Millisecond)
		if l.now.Sub(start)%(500*time.Millisecond) == 0 {
			l.tenant.Sweep(l.now, func(*Server, Reason) {})
			l.dialMore()
		}
		dialing := l.dialing
		l.dialing = nil
		for _, s := range dialing {
			if l.now.Before(l.ends[s]) {
				l.dialing = append(l.dialing, s)
			} else {
				l.settle(s, s.Pool().DialDone(s, l.now))
			}
		}
		for _, c := range l.clients {
			switch s := c.Server(); {
			case !c.thinks.IsZero() && !l.now.Before(c.thinks):
				l.ask(c)
			case s != nil && !l.now.Before(l.ends[s]):
				c.thinks = l.in(c.think)
				l.settle(s, s.Pool().Release(s, l.now))
			}
		}
	}
	l.check()
}

// served is how often the clients were served, and longest is how long the least lucky one has waited, or waits.
func (l *load) served(clients []*loadClient) (served int, longest time.Duration) {
	for _, c := range clients {
		served += c.served
		longest = max(longest, c.worst)
		if c.Waiting() {
			longest = max(longest, l.now.Sub(c.WaitedSince()))
		}
	}
	return served, longest
}

// TestTwoUsersShare has a user with two hundred busy clients and one with fewer share the servers of a tenant, or of a
// database. The few get the servers that they can use, up to half, and wait for a place no longer than a transaction
// and a login take, and once more. Servers move when the few come and when they have been away for a second.
func TestTwoUsersShare(t *testing.T) {
	const places, transaction, login, span = 10, 20 * time.Millisecond, 20 * time.Millisecond, 20 * time.Second
	for _, test := range []struct {
		few, logins int
		think       time.Duration
		atLeast     int // transactions of each of the few; the busiest possible has 1,333 without a wait
		longest     time.Duration
	}{
		{few: 2, think: 0, atLeast: 1200, logins: 2, longest: 2 * (transaction + login)},
		{few: 2, think: 50 * time.Millisecond, atLeast: 350, logins: 2, longest: 2 * (transaction + login)},
		{few: 4, think: 3 * time.Second, atLeast: 6, logins: 2 * 4 * 14, longest: 2 * (transaction + login)},
		{few: 100, think: 0, atLeast: 60, logins: 5, longest: 100 / (places / 2) * 2 * transaction},
	} {
		for scope, setUp := range map[string]func(*world) *Group{
			"tenant": func(w *world) *Group {
				w.tenant.SetSettings(Settings{MaxServers: places})
				return nil
			},
			"database": func(w *world) *Group { return w.tenant.NewGroup(ByDatabase, places) },
		} {
			t.Run(fmt.Sprintf("%d thinking %v, limit of the %s", test.few, test.think, scope), func(t *testing.T) {
				l := newLoad(newWorld(t, Settings{}), 1)
				l.transaction, l.login = transaction, login
				database := setUp(l.world)
				busy, rare := l.tenant.NewPool(places, nil, database), l.tenant.NewPool(places, nil, database)
				many := l.join(busy, 200, 0)
				l.pass(time.Second)
				l.logins = 0
				few := l.join(rare, test.few, test.think)
				l.pass(span)
				n, longest := l.served(few)
				all, _ := l.served(many)
				t.Logf("the few: %d times, waited %v at most; the many: %d times; %d logins", n, longest, all, l.logins)
				if n < test.few*test.atLeast || longest > test.longest || l.logins > test.logins {
					t.Errorf("want %d times, at most %v, %d logins", test.few*test.atLeast, test.longest, test.logins)
				}
			})
		}
	}
}

// TestNobodyStarves has random users and databases under random limits, where every transaction and every login ends in
// time. Whoever waits is served after the clients that came before, and a bit for each pool that had to make room.
func TestNobodyStarves(t *testing.T) {
	const transaction, login = 20 * time.Millisecond, 20 * time.Millisecond
	rapid.Check(t, func(r *rapid.T) {
		draw := func(name string, from, to int) int { return rapid.IntRange(from, to).Draw(r, name) }
		limit := func(name string) int { return max(0, draw(name, -3, 6)) } // 0 half of the time
		w := newWorld(t, Settings{MaxServers: draw("max", 1, 8), Reserve: limit("reserve") / 2, ReserveAfter: reserveAfter, MaxDialing: 16})
		l := newLoad(w, rapid.Uint64().Draw(r, "seed"))
		l.transaction, l.login = transaction, login
		var users, databases []*Group
		for range draw("users", 1, 3) {
			users = append(users, w.tenant.NewGroup(ByUser, limit("max of the user")))
		}
		for range draw("databases", 1, 2) {
			databases = append(databases, w.tenant.NewGroup(ByDatabase, limit("max of the database")))
		}
		pools := 0
		for _, u := range users {
			for _, d := range databases {
				pools++
				think := time.Duration(draw("think", 0, 2)) * 700 * time.Millisecond
				l.join(w.tenant.NewPool(draw("size", 1, 4), u, d), draw("clients", 0, 8), think)
			}
		}
		bound := time.Duration(len(l.clients))*(transaction+login) + time.Duration(pools)*2*(yieldAfter+500*time.Millisecond)
		l.pass(bound + 5*time.Second)
		if _, longest := l.served(l.clients); longest > bound {
			r.Fatalf("waited %v, not %v", longest, bound)
		}
	})
}
