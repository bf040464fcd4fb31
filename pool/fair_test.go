// Tables for fairness: when a pool gives a server up, and for whom.

package pool

import (
	"testing"
	"time"
)

// hold connects n servers of p and lends them.
func (w *world) hold(p *Pool, n int) []*Server {
	w.Helper()
	servers := w.connect(p, n)
	for _, s := range servers {
		p.Acquire(new(Client), s, w.now)
	}
	return servers
}

func TestYield(t *testing.T) {
	const nobody = -1
	for _, test := range []struct {
		name                   string
		busy, hungry           int           // servers, all lent
		busyWaits, hungryWaits time.Duration // of their first clients
		yields                 bool
	}{
		{"nobody waits", 2, 0, nobody, nobody, false},
		{"own waiter only", 2, 0, 0, nobody, false},
		{"two more: they become more equal", 2, 0, time.Hour, 0, true},
		{"three and one", 3, 1, time.Hour, 0, true},
		{"no use for it, and the other has none", 1, 0, nobody, 0, true},
		{"one more, and the other's turn has not come", 1, 0, 0, yieldAfter, false},
		{"one more, and the other's turn has come", 1, 0, 0, yieldAfter + 1, true},
		{"one more, and own are older", 1, 0, time.Hour, 0, false},
		{"one more and idle, but it may be used at once", 2, 1, nobody, yieldAfter, false},
		{"one more and idle for the other's too long", 2, 1, nobody, yieldAfter + 1, true},
		{"one more, the other has some, and its turn has come", 2, 1, 0, yieldAfter + 1, true},
		{"as many", 2, 2, 0, time.Hour, false},
		{"as many and idle", 2, 2, nobody, time.Hour, false},
		{"fewer", 1, 2, 0, time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Settings{MaxServers: test.busy + test.hungry})
			busy, hungry := w.tenant.NewPool(9, nil, nil), w.tenant.NewPool(9, nil, nil)
			s := w.hold(busy, test.busy)
			w.hold(hungry, test.hungry)
			now := w.now.Add(2 * time.Hour)
			for p, since := range map[*Pool]time.Duration{busy: test.busyWaits, hungry: test.hungryWaits} {
				if since != nobody {
					p.Acquire(new(Client), nil, now.Add(-since))
				}
			}
			w.now = now
			next := busy.Release(s[0], w.now)
			w.check()
			if got := next.Close == Yielded; got != test.yields {
				t.Fatalf("Next = %+v", next)
			}
			if !test.yields {
				return
			}
			if pools, _, _ := w.dials(); len(pools) != 1 || pools[0] != hungry {
				t.Fatalf("the slot went to %v", pools)
			}
			if len(s) > 1 {
				if next := busy.Release(s[1], w.now); next.Close != Keep {
					t.Fatalf("a second server was given up: %v", next.Close)
				}
			}
		})
	}
}

func TestNoYieldForThoseWhoCannotUseIt(t *testing.T) {
	for name, setUp := range map[string]func(w *world, busy, hungry *Pool){
		"it may not grow":        func(_ *world, _, hungry *Pool) { hungry.SetSize(0) },
		"there is room":          func(w *world, _, _ *Pool) { w.tenant.SetSettings(Settings{MaxServers: 3}) },
		"enough dials under way": func(w *world, busy, _ *Pool) { limitDials(w) },
		"its dials fail":         func(w *world, _, hungry *Pool) { hungry.outage = outage{err: errRefused, until: w.now.Add(time.Hour)} },
		"something idle will do": idleElsewhere,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Settings{MaxServers: 2})
			busy, hungry := w.tenant.NewPool(2, nil, nil), w.tenant.NewPool(2, nil, nil)
			s := w.hold(busy, 2)
			w.acquire(hungry, new(Client), nil)
			setUp(w, busy, hungry)
			if next := busy.Release(s[0], w.now); next.Close != Keep {
				t.Errorf("Next = %+v", next)
			}
		})
	}
}

// limitDials has one dial under way, and allows no more.
func limitDials(w *world) {
	w.tenant.SetSettings(Settings{MaxServers: 3, MaxDialing: 1})
	p := w.tenant.NewPool(1, nil, nil)
	p.StartDial(&Server{}, w.now)
}

// idleElsewhere gives another pool two idle servers.
func idleElsewhere(w *world, _, _ *Pool) {
	w.tenant.SetSettings(Settings{MaxServers: 4})
	w.connect(w.tenant.NewPool(2, nil, nil), 2)
}

// TestUsersShareATenantEvenly counts a user's servers over all databases.
func TestUsersShareATenantEvenly(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	many, one := w.tenant.NewGroup(ByUser, 0), w.tenant.NewGroup(ByUser, 0)
	a, b, c := w.tenant.NewPool(5, many, nil), w.tenant.NewPool(5, many, nil), w.tenant.NewPool(5, one, nil)
	s := w.hold(a, 1)[0]
	w.hold(b, 2)
	w.acquire(a, new(Client), nil)
	var x Client
	w.acquire(c, &x, nil)
	w.release(a, s, Next{Close: Yielded}) // its own pool had no more than one
	d := w.dial()
	if d.Pool() != c {
		t.Fatal("the room went to the user who gave it up")
	}
	w.expectNext(c.DialDone(d, w.now), Next{Client: &x})
	// Now they have two and one. A third pool of the first user's gets nothing of the other's, until it starves.
	third := w.tenant.NewPool(5, many, nil)
	w.acquire(third, new(Client), nil)
	w.release(c, d, Next{})
	if p := w.tenant.NextDial(w.now, nil); p != nil {
		t.Fatalf("%v took it", p)
	}
	w.acquire(c, &x, d)
	w.pass(yieldAfter + 1)
	w.release(c, d, Next{Close: Yielded})
}

// TestIdleServersAreKeptForAWhile does not take from who has hardly more what they are likely to use again.
func TestIdleServersAreKeptForAWhile(t *testing.T) {
	for _, test := range []struct {
		has, wants int // servers
		idle       time.Duration
		evicted    bool
	}{
		{1, 3, yieldAfter - 1, false}, {1, 3, yieldAfter, true}, {2, 2, 0, false}, {2, 1, 0, false}, {3, 1, 0, true}, {1, 0, 0, true},
	} {
		w := newWorld(t, Settings{MaxServers: test.has + test.wants})
		poor, rich := w.tenant.NewPool(9, nil, nil), w.tenant.NewPool(9, nil, nil)
		w.connect(poor, test.has)
		w.hold(rich, test.wants)
		w.pass(test.idle)
		w.acquire(rich, new(Client), nil)
		if _, _, victims := w.dials(); (len(victims) == 1) != test.evicted {
			t.Errorf("%+v: %d evicted", test, len(victims))
		}
	}
}
