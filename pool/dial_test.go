// Tables for dialing: when, how often, and what failures mean.

package pool

import (
	"errors"
	"testing"
	"time"
)

var (
	errRefused   = errors.New("connection refused")
	errUnknownDB = errors.New("database does not exist")
)

// dials starts every dial that is wanted and returns the pools in order and the victims.
func (w *world) dials() (pools []*Pool, started, victims []*Server) {
	w.Helper()
	for {
		p := w.tenant.NextDial(w.now, func(s *Server) { victims = append(victims, s) })
		w.check()
		if p == nil {
			return pools, started, victims
		}
		s := &Server{}
		p.StartDial(s, w.now)
		w.check()
		pools, started = append(pools, p), append(started, s)
	}
}

// dial starts the one dial that must be wanted now.
func (w *world) dial() *Server {
	w.Helper()
	_, started, _ := w.dials()
	if len(started) != 1 {
		w.Fatalf("%d dials at %v, want 1", len(started), w.now.Sub(start))
	}
	return started[0]
}

func TestOneDialPerWaiterWithinTheLimits(t *testing.T) {
	for _, test := range []struct{ size, max, waiters, want int }{
		{5, 0, 0, 0}, {5, 0, 3, 3}, {5, 0, 9, 5}, {5, 2, 9, 2}, {0, 0, 9, 0},
	} {
		w := newWorld(t, Settings{MaxServers: test.max})
		p := w.tenant.NewPool(test.size, nil, nil)
		clients := make([]Client, test.waiters)
		for i := range clients {
			w.acquire(p, &clients[i], nil)
		}
		_, started, victims := w.dials()
		if len(started) != test.want || victims != nil {
			t.Errorf("%+v: %d dials, %d victims", test, len(started), len(victims))
		}
		for i, s := range started {
			w.expectNext(p.DialDone(s, w.now), Next{Client: &clients[i]})
		}
	}
}

func TestDialServesWhoeverWaitsLongestWhenItIsDone(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(2, nil, nil)
	var a, b Client
	w.acquire(p, &a, nil)
	w.acquire(p, &b, nil)
	_, started, _ := w.dials()
	p.Leave(&a)
	w.expectNext(p.DialDone(started[1], w.now), Next{Client: &b})
	w.expectNext(p.DialDone(started[0], w.now), Next{})
	if !started[0].ConnectedAt().Equal(w.now) || !started[0].IdleSince().Equal(w.now) {
		t.Error("times are not noted")
	}
}

func TestBackoff(t *testing.T) {
	for _, test := range []struct {
		name   string
		random func() float64
		want   []time.Duration // pauses in milliseconds
	}{
		{"plain", nil, []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000}},
		{"spread", func() float64 { return 0.5 }, []time.Duration{75, 150, 300, 600}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, Settings{FailFor: time.Hour, Random: test.random})
			p := w.tenant.NewPool(5, nil, nil)
			c := make([]Client, 3)
			for i := range c {
				w.acquire(p, &c[i], nil)
			}
			// The first dials run side by side and fail together: one failure.
			_, started, _ := w.dials()
			w.pass(time.Millisecond)
			for _, s := range started {
				p.DialFailed(s, errRefused, Passing, w.now)
				w.check()
			}
			for i, want := range test.want {
				pause := p.DialAfter().Sub(w.now)
				if pause != want*time.Millisecond {
					t.Fatalf("pause %d is %v, want %vms", i, pause, int(want))
				}
				w.pass(pause - 1)
				if _, started, _ := w.dials(); started != nil {
					t.Fatal("dialed within the pause")
				}
				w.pass(1)
				s := w.dial() // only one, although three wait
				w.pass(time.Millisecond)
				p.DialFailed(s, errRefused, Passing, w.now)
			}
			// Success brings everybody a dial again and the first pause next time.
			w.now = p.DialAfter()
			s := w.dial()
			w.expectNext(p.DialDone(s, w.now), Next{Client: &c[0]})
			if _, started, _ = w.dials(); len(started) != 2 {
				t.Fatalf("%d dials after success, want 2", len(started))
			}
		})
	}
}

func TestOldFailuresAreForgotten(t *testing.T) {
	for _, test := range []struct {
		quiet   time.Duration // between the pause's end and the next dial
		failing bool
	}{
		{DefaultBackoffMax, true}, {DefaultBackoffMax + 1, false},
	} {
		w := newWorld(t, Settings{FailFor: 10 * time.Second})
		p := w.tenant.NewPool(1, nil, nil)
		var c Client
		w.acquire(p, &c, nil)
		s := w.dial()
		p.DialFailed(s, errRefused, Passing, w.now)
		w.pass(100*time.Millisecond + test.quiet)
		s = w.dial()
		w.pass(time.Millisecond)
		p.DialFailed(s, errRefused, Passing, w.now)
		if got := p.Failing(w.now, w.now) != nil; got != test.failing {
			t.Errorf("after %v of quiet: failing %v", test.quiet, got)
		}
	}
}

// TestOutage: whoever waits is told of a failed dial only while it is the reason, and of a dial only while it is the first.
func TestOutage(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(2, nil, nil)
	want := func(when string, err error, connecting bool) {
		t.Helper()
		if p.Outage() != err || p.Connecting() != connecting {
			t.Errorf("%s: outage %v, connecting %v; want %v, %v", when, p.Outage(), p.Connecting(), err, connecting)
		}
	}
	var c, d Client
	w.acquire(p, &c, nil)
	want("nothing was tried", nil, false)
	s := w.dial()
	want("the first dial", nil, true)
	p.DialFailed(s, errRefused, Passing, w.now)
	want("it failed", errRefused, false)
	w.pass(time.Second)
	s = w.dial()
	want("the next dial", errRefused, true)
	p.DialDone(s, w.now)
	want("it is there", nil, false)
	w.acquire(p, &d, nil)
	other := w.dial()
	want("another is dialed", nil, false)
	p.DialFailed(other, errRefused, Passing, w.now)
	want("it failed, and one is there", nil, false)
	p.RemoveServer(s)
	want("that is gone, too", errRefused, false)
}

// TestFreeze: where a login is known to fail, what there is is shared, and nobody else makes room.
func TestFreeze(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 2})
	p, other := w.tenant.NewPool(2, nil, nil), w.tenant.NewPool(2, nil, nil)
	s := w.connect(p, 1)[0]
	w.connect(other, 1)
	var a, b, c Client
	w.acquire(p, &a, s)
	p.Freeze(true)
	p.SetLeast(2)
	w.acquire(p, &b, nil)
	w.pass(time.Minute)
	if pools, _, victims := w.dials(); len(pools) > 0 || len(victims) > 0 || p.WantSpare(w.now) {
		t.Errorf("a frozen pool wants to log in, and %d servers make room", len(victims))
	}
	w.release(p, s, Next{Client: &b})
	p.RemoveServer(s)
	w.acquire(p, &c, nil)
	if !p.WantDial(w.now) {
		t.Error("without any server nobody is told why")
	}
}

func TestFailing(t *testing.T) {
	settings := Settings{FailFor: 10 * time.Second}
	expect := func(w *world, p *Pool, want error) {
		w.Helper()
		if got := p.Failing(w.now, w.now); got != want {
			w.Fatalf("at %v: Failing = %v, want %v", w.now.Sub(start), got, want)
		}
	}
	t.Run("retryable", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(1, nil, nil)
		var c Client
		w.acquire(p, &c, nil)
		failures := 0
		for ; p.Failing(w.now, w.now) == nil; w.pass(50 * time.Millisecond) {
			if w.now.Sub(start) > 11*time.Second {
				t.Fatal("waits for too long")
			}
			if q := w.tenant.NextDial(w.now, nil); q != nil {
				failures++
				s := &Server{}
				q.StartDial(s, w.now)
				expect(w, p, nil)
				q.DialFailed(s, errRefused, Passing, w.now)
			}
		}
		if w.now.Sub(start) < 10*time.Second || failures < 5 || failures > 10 {
			t.Errorf("gave up after %v and %d failures", w.now.Sub(start), failures)
		}
		expect(w, p, errRefused)
	})
	t.Run("retryable and slow", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(1, nil, nil)
		w.acquire(p, new(Client), nil)
		s := w.dial()
		w.pass(10 * time.Second) // the dial ran into its time limit
		p.DialFailed(s, errRefused, Passing, w.now)
		expect(w, p, errRefused)
	})
	t.Run("retryable without a limit", func(t *testing.T) {
		w := newWorld(t, Settings{})
		p := w.tenant.NewPool(1, nil, nil)
		w.acquire(p, new(Client), nil)
		s := w.dial()
		w.pass(time.Hour)
		p.DialFailed(s, errRefused, Passing, w.now)
		expect(w, p, nil)
	})
	t.Run("permanent", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(1, nil, nil)
		var c Client
		w.acquire(p, &c, nil)
		s := w.dial()
		p.DialFailed(s, errUnknownDB, Final, w.now)
		expect(w, p, errUnknownDB)
		p.Leave(&c)
		w.pass(100 * time.Millisecond)
		expect(w, p, nil) // the next client may find out whether it was repaired
		w.acquire(p, &c, nil)
		s = w.dial()
		expect(w, p, nil)
		w.expectNext(p.DialDone(s, w.now), Next{Client: &c})
		expect(w, p, nil)
	})
	t.Run("answered", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(2, nil, nil)
		var before, meanwhile, after Client
		w.acquire(p, &before, nil)
		for range 8 { // the pause does not grow
			s := w.dial()
			w.pass(time.Millisecond)
			if meanwhile.Waiting() {
				p.Leave(&meanwhile)
			}
			w.acquire(p, &meanwhile, nil)
			w.pass(time.Millisecond)
			p.DialFailed(s, errUnknownDB, Answered, w.now)
			if pause := p.DialAfter().Sub(w.now); pause != DefaultBackoffMin {
				t.Fatalf("pause of %v", pause)
			}
			if p.Failing(before.WaitedSince(), w.now) != errUnknownDB {
				t.Fatal("who has waited for the answer is not told")
			}
			if p.Failing(meanwhile.WaitedSince(), w.now) != nil {
				t.Fatal("who came after it was asked is told")
			}
			expect(w, p, nil)
			w.pass(DefaultBackoffMin)
			p.Leave(&before)
			w.acquire(p, &before, nil)
		}
		p.Leave(&before)
		w.acquire(p, &after, nil)
		s := w.dial()
		w.expectNext(p.DialDone(s, w.now), Next{Client: &meanwhile})
	})
	t.Run("answered, and then gone", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(1, nil, nil)
		var c Client
		w.acquire(p, &c, nil)
		s := w.dial()
		w.pass(9 * time.Second)
		p.DialFailed(s, errUnknownDB, Answered, w.now)
		w.pass(time.Second)
		s = w.dial()
		p.DialFailed(s, errRefused, Passing, w.now)
		expect(w, p, nil) // the outage begins here
		if p.Failing(c.WaitedSince(), w.now) != nil {
			t.Fatal("who has waited for long is told of another's answer")
		}
	})
	t.Run("a live server is hope", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(2, nil, nil)
		s := w.connect(p, 1)[0]
		w.acquire(p, new(Client), s)
		w.acquire(p, new(Client), nil)
		d := w.dial()
		p.DialFailed(d, errUnknownDB, Final, w.now)
		expect(w, p, nil)
		p.BeginCleaning(s)
		expect(w, p, nil)
		p.RemoveServer(s)
		expect(w, p, errUnknownDB)
	})
	t.Run("a dial in flight is hope", func(t *testing.T) {
		w := newWorld(t, settings)
		p := w.tenant.NewPool(2, nil, nil)
		w.acquire(p, new(Client), nil)
		w.acquire(p, new(Client), nil)
		_, started, _ := w.dials()
		w.pass(10 * time.Second)
		p.DialFailed(started[0], errRefused, Passing, w.now)
		expect(w, p, nil)
		w.pass(5 * time.Second)
		p.DialFailed(started[1], errRefused, Passing, w.now)
		expect(w, p, errRefused)
	})
}
