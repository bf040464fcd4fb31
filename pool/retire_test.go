// Tables for closing: what a sweep takes out, what a release may not keep, what retiring means.

package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestSweep(t *testing.T) {
	spread := 0.0
	settings := Settings{
		MaxServers: 10, ServerIdle: time.Minute, ServerLifetime: 10 * time.Minute,
		Random: func() float64 { return spread },
	}
	for _, test := range []struct {
		name string
		do   func(w *world, p *Pool, s []*Server) // s: three idle servers dialed at once, the third used last
		want string
	}{
		{"fresh", func(*world, *Pool, []*Server) {}, ""},
		{"just not idle for too long", func(w *world, _ *Pool, _ []*Server) { w.pass(time.Minute - 1) }, ""},
		{"idle for too long", func(w *world, p *Pool, s []*Server) {
			w.pass(time.Minute - 1)
			w.acquire(p, new(Client), s[2])
			w.release(p, s[2], Next{})
			w.pass(1)
		}, "0 idle timeout, 1 idle timeout"},
		{"one in use", func(w *world, p *Pool, s []*Server) {
			w.acquire(p, new(Client), s[2])
			w.pass(time.Hour)
		}, "0 idle timeout, 1 idle timeout"},
		{"idle for too long, but the least", func(w *world, p *Pool, _ []*Server) {
			p.SetLeast(2)
			w.pass(time.Hour / 12)
		}, "0 idle timeout"},
		{"rules off", func(w *world, _ *Pool, _ []*Server) {
			w.tenant.SetSettings(Settings{})
			w.pass(1000 * time.Hour)
		}, ""},
		{"old", func(w *world, _ *Pool, _ []*Server) {
			w.tenant.SetSettings(Settings{ServerLifetime: 10 * time.Minute})
			w.pass(9 * time.Minute) // the first has full jitter: four fifths of a life
		}, "0 lifetime"},
		{"all old", func(w *world, _ *Pool, _ []*Server) {
			w.tenant.SetSettings(Settings{ServerLifetime: 10 * time.Minute})
			w.pass(10 * time.Minute)
		}, "0 lifetime, 1 lifetime, 2 lifetime"},
		{"idle for too long, but this pool's may", func(w *world, p *Pool, _ []*Server) {
			p.SetAges(new(2*time.Minute), nil)
			w.pass(2*time.Minute - 1)
		}, ""},
		{"idle for too long for this pool", func(w *world, p *Pool, _ []*Server) {
			p.SetAges(new(time.Second), nil)
			w.pass(time.Second)
		}, "0 idle timeout, 1 idle timeout, 2 idle timeout"},
		{"this pool's may be idle for good", func(w *world, p *Pool, _ []*Server) {
			p.SetAges(new(time.Duration), new(time.Duration))
			w.pass(1000 * time.Hour)
		}, ""},
		{"old for this pool", func(w *world, p *Pool, _ []*Server) {
			p.SetAges(nil, new(10*time.Second))
			w.pass(10 * time.Second)
		}, "0 lifetime, 1 lifetime, 2 lifetime"},
		{"not of this pool any more", func(w *world, p *Pool, _ []*Server) {
			p.SetAges(new(time.Second), new(time.Second))
			p.SetAges(nil, nil)
			w.pass(time.Second)
		}, ""},
		{"smaller pool", func(_ *world, p *Pool, _ []*Server) { p.SetSize(2) }, "0 surplus"},
		{"no pool at all", func(_ *world, p *Pool, _ []*Server) { p.SetSize(-1) }, "0 surplus, 1 surplus, 2 surplus"},
		{"smaller tenant", func(w *world, _ *Pool, _ []*Server) { w.tenant.SetSettings(Settings{MaxServers: 1}) },
			"0 surplus, 1 surplus"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, settings)
			p := w.tenant.NewPool(3, nil, nil)
			spread = 0.999
			s := w.connect(p, 1)
			spread = 0
			s = append(s, w.connect(p, 2)...)
			s[1].Owner, s[2].Owner = 1, 2
			test.do(w, p, s)
			if got := w.swept(); got != test.want {
				t.Errorf("swept %q, want %q", got, test.want)
			}
			if got := w.swept(); got != "" {
				t.Errorf("swept again: %q", got)
			}
		})
	}
}

func TestReleaseClosesWhatMustNotBeUsedAgain(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(w *world, p *Pool)
		want Reason
	}{
		{"nothing", func(*world, *Pool) {}, Keep},
		{"retired", func(_ *world, p *Pool) { p.Retire(func(*Server) {}) }, Retired},
		{"tenant retired", func(w *world, _ *Pool) { w.tenant.Retire(func(*Server) {}) }, Retired},
		{"old", func(w *world, _ *Pool) { w.pass(time.Hour) }, Lifetime},
		{"not yet old", func(w *world, _ *Pool) { w.pass(time.Hour - 1) }, Keep},
		{"smaller pool", func(_ *world, p *Pool) { p.SetSize(1) }, Surplus},
		{"smaller tenant", func(w *world, _ *Pool) { w.tenant.SetSettings(Settings{MaxServers: 1}) }, Surplus},
	} {
		for _, waiter := range []bool{false, true} {
			for _, cleaning := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/waiter=%v/cleaning=%v", test.name, waiter, cleaning), func(t *testing.T) {
					w := newWorld(t, Settings{ServerLifetime: time.Hour})
					p := w.tenant.NewPool(2, nil, nil)
					s := w.connect(p, 2)
					var c, other, waiting Client
					w.acquire(p, &c, s[1])
					w.acquire(p, &other, s[0])
					want := Next{Close: test.want}
					if waiter {
						w.acquire(p, &waiting, nil)
						if test.want == Keep {
							want.Client = &waiting
						}
					}
					if cleaning {
						p.BeginCleaning(s[1])
					}
					test.do(w, p)
					if cleaning {
						w.expectNext(p.EndCleaning(s[1], w.now), want)
					} else {
						w.release(p, s[1], want)
					}
					if c.Server() != nil || waiting.Waiting() != (waiter && test.want != Keep) {
						t.Error("clients are in the wrong place")
					}
				})
			}
		}
	}
}

func TestRetire(t *testing.T) {
	w := newWorld(t, Settings{})
	p := w.tenant.NewPool(9, nil, nil)
	s := w.connect(p, 3)
	var c Client
	w.acquire(p, &c, s[2])
	dialing, failed := &Server{Owner: "dialing"}, &Server{}
	p.StartDial(dialing, w.now)
	p.StartDial(failed, w.now)
	p.DialFailed(failed, errRefused, Final, w.now)
	var got []string
	w.tenant.Retire(func(s *Server) {
		got = append(got, fmt.Sprint(s.Owner))
		s.Pool().RemoveServer(s) // a closing path that removes once more does no harm
		w.check()
	})
	if strings.Join(got, " ") != "1 0 dialing" {
		t.Errorf("retired at once: %v", got)
	}
	if !s[2].Retired() || !p.DialAfter().IsZero() {
		t.Error("the active server is not marked, or the old upstream's failures are still held against the new one")
	}
	w.expectNext(p.DialDone(dialing, w.now), Next{Close: Removed})
	fresh := w.connect(p, 1)[0]
	w.release(p, s[2], Next{Close: Retired})
	w.acquire(p, &c, fresh)
	w.release(p, fresh, Next{})
}

func TestVacate(t *testing.T) {
	w := newWorld(t, Settings{})
	p, other := w.tenant.NewPool(9, nil, nil), w.tenant.NewPool(9, nil, nil)
	s := w.connect(p, 4)
	w.connect(other, 1)
	var served, next Client
	w.acquire(p, &served, s[3])
	w.acquire(p, &next, s[2])
	p.BeginCleaning(s[2])
	dialing := &Server{Owner: "dialing"}
	p.StartDial(dialing, w.now)
	var got []string
	p.Vacate(func(s *Server) {
		got = append(got, fmt.Sprint(s.Owner))
		w.check()
	})
	if strings.Join(got, " ") != "1 0" {
		t.Errorf("closed at once: %v", got)
	}
	w.release(p, s[3], Next{Close: Retired})
	w.expectNext(p.EndCleaning(s[2], w.now), Next{Close: Retired})
	w.expectNext(p.DialDone(dialing, w.now), Next{}) // who comes now may come
	if n := w.tenant.Counts(); n != (Counts{Idle: 2}) {
		t.Errorf("left: %+v", n)
	}
}
