// Fairness among the pools of a tenant: who gets a slot, who makes room, and nobody starves.

package pool

import (
	"testing"
	"time"
)

func TestTheSlotGoesToTheLongestWaiting(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	a, b, full := w.tenant.NewPool(5), w.tenant.NewPool(5), w.tenant.NewPool(0)
	var c [6]Client
	for i, p := range []*Pool{full, b, a, b, a, a} {
		w.acquire(p, &c[i], nil)
		w.pass(time.Millisecond)
	}
	pools, started, _ := w.dials()
	// The clients' order counts, not that of the pools' first clients: b's is the oldest until a server is there.
	if len(pools) != 3 || pools[0] != b || pools[1] != a || pools[2] != b {
		t.Fatalf("order of dials: %v", pools)
	}
	w.expectNext(b.DialDone(started[0], w.now), Next{Client: &c[1]})
	w.expectNext(a.DialDone(started[1], w.now), Next{Client: &c[2]})
	w.expectNext(b.DialDone(started[2], w.now), Next{Client: &c[3]})
	b.RemoveServer(started[0])
	if pools, _, _ = w.dials(); len(pools) != 1 || pools[0] != a {
		t.Fatalf("the freed slot went to %v", pools)
	}
}

func TestTheLongestIdleServerMakesRoom(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	a, b, hungry := w.tenant.NewPool(5), w.tenant.NewPool(5), w.tenant.NewPool(2)
	s := w.connect(a, 1)
	w.pass(time.Second)
	s = append(s, w.connect(b, 1)...)
	w.pass(time.Second)
	s = append(s, w.connect(a, 1)...)
	var c [3]Client
	for i := range c {
		w.acquire(hungry, &c[i], nil)
	}
	pools, _, victims := w.dials()
	if len(pools) != 2 || len(victims) != 2 || victims[0] != s[0] || victims[1] != s[1] {
		t.Fatalf("dials %v, victims %v", pools, victims)
	}
	if victims[0].State() != Closed {
		t.Error("a victim is still in its pool")
	}
	// Above a lowered limit nothing is evicted for a dial: the sweep must bring the number down first.
	hungry.SetSize(3)
	w.tenant.SetSettings(Settings{MaxServers: 2})
	if p, victim := w.tenant.NextDial(w.now); p != nil || victim != nil {
		t.Error("dial above the limit")
	}
}

func TestYield(t *testing.T) {
	for _, test := range []struct {
		name   string
		setUp  func(w *world, busy, hungry *Pool) // busy has the tenant's two servers, both active
		yields bool
	}{
		{"nobody waits", func(*world, *Pool, *Pool) {}, false},
		{"own waiter only", func(w *world, busy, _ *Pool) { w.acquire(busy, new(Client), nil) }, false},
		{"other waiter only", func(w *world, _, hungry *Pool) { w.acquire(hungry, new(Client), nil) }, true},
		{"other waiter in a pool that may not grow", func(w *world, _, hungry *Pool) {
			hungry.SetSize(0)
			w.acquire(hungry, new(Client), nil)
		}, false},
		{"room for both", func(w *world, _, hungry *Pool) {
			w.tenant.SetSettings(Settings{MaxServers: 3})
			w.acquire(hungry, new(Client), nil)
		}, false},
		{"something idle can make room", func(w *world, busy, hungry *Pool) {
			w.tenant.SetSettings(Settings{MaxServers: 3})
			w.connect(hungry, 1)
			w.acquire(w.tenant.NewPool(1), new(Client), nil)
		}, false},
		{"other is much older but has a dial under way", func(w *world, busy, hungry *Pool) {
			w.tenant.SetSettings(Settings{MaxServers: 3})
			w.acquire(hungry, new(Client), nil)
			w.acquire(hungry, new(Client), nil)
			w.dial()
			w.pass(time.Hour)
			w.acquire(busy, new(Client), nil)
		}, false},
		{"other is a little older", func(w *world, busy, hungry *Pool) {
			w.acquire(hungry, new(Client), nil)
			w.pass(yieldAfter)
			w.acquire(busy, new(Client), nil)
		}, false},
		{"other is much older", func(w *world, busy, hungry *Pool) {
			w.acquire(hungry, new(Client), nil)
			w.pass(yieldAfter + 1)
			w.acquire(busy, new(Client), nil)
		}, true},
		{"own is older", func(w *world, busy, hungry *Pool) {
			w.acquire(busy, new(Client), nil)
			w.pass(time.Hour)
			w.acquire(hungry, new(Client), nil)
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Settings{MaxServers: 2})
			busy, hungry := w.tenant.NewPool(2), w.tenant.NewPool(2)
			s := w.connect(busy, 2)
			w.acquire(busy, new(Client), s[1])
			w.acquire(busy, new(Client), s[0])
			test.setUp(w, busy, hungry)
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
			if next := busy.Release(s[1], w.now); next.Close != Keep {
				t.Fatalf("a second server was given up: %v", next.Close)
			}
		})
	}
}

// TestBusyPoolStarvesNobody keeps one pool so busy that its servers never become idle, and lets a client of another
// pool of the same tenant come along.
func TestBusyPoolStarvesNobody(t *testing.T) {
	const servers, clients, transaction, login = 4, 40, 5 * time.Millisecond, 20 * time.Millisecond
	w := newWorld(t, Settings{MaxServers: servers})
	busy, rare := w.tenant.NewPool(servers), w.tenant.NewPool(servers)
	s := w.connect(busy, servers)
	c := make([]Client, clients)
	for i := range c {
		busy.Acquire(&c[i], nil, w.now)
	}
	var late Client
	loginDone := map[*Server]time.Time{}
	moved := 0
	rare.Acquire(&late, nil, w.now)
	for late.Server() == nil {
		if w.now.Sub(start) > yieldAfter+time.Second {
			t.Fatal("starved")
		}
		w.pass(transaction)
		for _, x := range s {
			if x.State() != Active || x.Pool() != busy {
				continue
			}
			done := x.Client()
			if busy.Release(x, w.now).Close != Keep {
				moved++
			}
			busy.Acquire(done, nil, w.now)
		}
		for p, _ := w.tenant.NextDial(w.now); p != nil; p, _ = w.tenant.NextDial(w.now) {
			x := &Server{}
			p.StartDial(x, w.now)
			loginDone[x] = w.now.Add(login)
		}
		for x, at := range loginDone {
			if !w.now.Before(at) {
				x.Pool().DialDone(x, w.now)
				delete(loginDone, x)
			}
		}
		w.check()
	}
	if moved != 1 {
		t.Errorf("%d servers moved for one client", moved)
	}
}
