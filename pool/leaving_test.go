// Tables for places that are not free yet.

package pool

import "testing"

// TestWhoTakesAPlaceWaitsUntilItIsFree: at a limit the next one connects when the one before is gone, in the order of the dials.
func TestWhoTakesAPlaceWaitsUntilItIsFree(t *testing.T) {
	for name, limit := range map[string]func(w *world) *Pool{
		"tenant": func(w *world) *Pool {
			w.tenant.SetSettings(Settings{MaxServers: 2})
			return w.tenant.NewPool(9, nil, nil)
		},
		"user":     func(w *world) *Pool { return w.tenant.NewPool(9, w.tenant.NewGroup(ByUser, 2), nil) },
		"database": func(w *world) *Pool { return w.tenant.NewPool(9, nil, w.tenant.NewGroup(ByDatabase, 2)) },
		"pool":     func(w *world) *Pool { return w.tenant.NewPool(2, nil, nil) },
		"portion of the tenant": func(w *world) *Pool {
			w.tenant.Quota().SetPortion(2, false)
			return w.tenant.NewPool(9, nil, nil)
		},
		"portion of the pool": func(w *world) *Pool {
			p := w.tenant.NewPool(9, nil, nil)
			p.Quota().SetPortion(2, false)
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Settings{})
			p := limit(w)
			old := w.connect(p, 2)
			for _, s := range old {
				p.RemoveServer(s)
				p.Linger(s)
			}
			w.check()
			if p.Servers() != 0 || w.tenant.Used() != 2 || p.Empty() {
				t.Errorf("%d servers, %d used, empty: %v", p.Servers(), w.tenant.Used(), p.Empty())
			}
			var c [2]Client
			w.acquire(p, &c[0], nil)
			w.acquire(p, &c[1], nil)
			_, next, _ := w.dials()
			if len(next) != 2 || w.tenant.NextConnect() != nil || w.tenant.Used() != 2 {
				t.Fatalf("%d dials, %d used", len(next), w.tenant.Used())
			}
			for i := range old {
				p.Gone(old[i])
				w.check()
				if s := w.tenant.NextConnect(); s != next[i] {
					t.Fatalf("place %d: %v connects", i, s)
				}
				if w.tenant.NextConnect() != nil {
					t.Fatal("two connect")
				}
			}
			w.expectNext(p.DialDone(next[0], w.now), Next{Client: &c[0]})
			p.Gone(old[0]) // once more does no harm
			w.check()
		})
	}
}

// TestElsewhereNobodyWaits: where there is room, and where there is none for others.
func TestElsewhereNobodyWaits(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	p, other := w.tenant.NewPool(1, nil, nil), w.tenant.NewPool(1, nil, nil)
	s := w.connect(p, 1)[0]
	p.RemoveServer(s)
	p.Linger(s)
	w.acquire(p, new(Client), nil)
	waits := w.dial()
	if !other.StartDial(new(Server), w.now) {
		t.Error("another pool waits for it")
	}
	if w.tenant.NextConnect() != nil {
		t.Error("it does not wait")
	}
	p.RemoveServer(waits)
	w.check()
	if p.Counts() != (Counts{Waiting: 1}) {
		t.Errorf("%+v", p.Counts())
	}
	defer func() {
		if recover() == nil {
			t.Error("logged in without a connection")
		}
	}()
	p.DialDone(w.dial(), w.now)
}

// TestConnectingIsBounded: those that wait for a place do not count as logins under way, and get their turns within that bound.
func TestConnectingIsBounded(t *testing.T) {
	w := newWorld(t, Settings{MaxDialing: 2})
	p := w.tenant.NewPool(4, nil, nil)
	old := w.connect(p, 4)
	for _, s := range old {
		p.RemoveServer(s)
		p.Linger(s)
	}
	clients := make([]Client, 4)
	for i := range clients {
		w.acquire(p, &clients[i], nil)
	}
	if _, started, _ := w.dials(); len(started) != 4 {
		t.Fatalf("%d dials", len(started))
	}
	for _, s := range old {
		p.Gone(s)
	}
	first, second := w.tenant.NextConnect(), w.tenant.NextConnect()
	if first == nil || second == nil || w.tenant.NextConnect() != nil {
		t.Fatal("not two at a time")
	}
	p.DialDone(first, w.now)
	if w.tenant.NextConnect() == nil || w.tenant.NextConnect() != nil {
		t.Error("not the next")
	}
}

// TestLoweredPortion: what waits for a place goes first, then what is idle, and what is in use when it is released.
func TestLoweredPortion(t *testing.T) {
	for _, lower := range []func(w *world, p *Pool, n int){
		func(w *world, _ *Pool, n int) { w.tenant.Quota().SetPortion(n, true) },
		func(_ *world, p *Pool, n int) { p.Quota().SetPortion(n, true) },
	} {
		w := newWorld(t, Settings{MaxServers: 4})
		p := w.tenant.NewPool(4, nil, nil)
		held := w.hold(p, 2)
		s := &Server{Owner: "lingers"}
		p.StartDial(s, w.now)
		p.DialDone(s, w.now)
		p.RemoveServer(s)
		p.Linger(s)
		idle := &Server{Owner: "idle"}
		p.StartDial(idle, w.now)
		p.DialDone(idle, w.now)
		waits := &Server{Owner: "waits"}
		if p.StartDial(waits, w.now) {
			t.Fatal("it does not wait")
		}
		lower(w, p, 3)
		if got := w.swept(); got != "waits surplus" {
			t.Errorf("swept %q", got)
		}
		lower(w, p, 1)
		if got := w.swept(); got != "idle surplus" {
			t.Errorf("swept %q", got)
		}
		w.release(p, held[0], Next{Close: Surplus})
		w.release(p, held[1], Next{})
		lower(w, p, 0)
		if got := w.swept(); got != "1 surplus" {
			t.Errorf("swept %q", got)
		}
		w.acquire(p, new(Client), nil)
		if _, started, _ := w.dials(); started != nil || !p.Starved() {
			t.Errorf("%d dials without a portion, starved: %v", len(started), p.Starved())
		}
		lower(w, p, 1)
		if _, started, _ := w.dials(); len(started) != 1 || p.Starved() {
			t.Errorf("%d dials, starved: %v", len(started), p.Starved())
		}
	}
}

// TestSpareAndLeastKeepToThePortion.
func TestSpareAndLeastKeepToThePortion(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(3, nil, nil)
	p.SetLeast(3)
	p.Quota().SetPortion(1, false)
	w.connect(p, 1)
	if p.WantSpare(w.now) || p.CanGrow(w.now) {
		t.Error("more than the portion")
	}
	p.Quota().Unshare()
	if !p.WantSpare(w.now) || !p.CanGrow(w.now) {
		t.Error("the least was forgotten with the portion")
	}
}
