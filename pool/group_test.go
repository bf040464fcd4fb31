// Tables for the limits of users and databases, and for the reserve.

package pool

import (
	"testing"
	"time"
)

// square is two users with a pool each in two databases: a and b are one user's, a and c of one database.
type square struct {
	*world
	user, database *Group // of a
	a, b, c, d     *Pool
}

func newSquare(t *testing.T, ofUser, ofDatabase int) square {
	w := newWorld(t, Settings{})
	u, v := w.tenant.NewGroup(ByUser, ofUser), w.tenant.NewGroup(ByUser, 0)
	x, y := w.tenant.NewGroup(ByDatabase, ofDatabase), w.tenant.NewGroup(ByDatabase, 0)
	return square{w, u, x, w.tenant.NewPool(9, u, x), w.tenant.NewPool(9, u, y), w.tenant.NewPool(9, v, x), w.tenant.NewPool(9, v, y)}
}

// TestGroupLimits has all pools want more than there is.
func TestGroupLimits(t *testing.T) {
	for _, test := range []struct {
		ofUser, ofDatabase int
		want               [4]int // dials of a, b, c, d
	}{
		{0, 0, [4]int{3, 3, 3, 3}},
		{4, 0, [4]int{2, 2, 3, 3}},
		{0, 5, [4]int{3, 3, 2, 3}},
		{4, 3, [4]int{2, 2, 1, 3}},
		{1, 1, [4]int{1, 0, 0, 3}},
	} {
		s := newSquare(t, test.ofUser, test.ofDatabase)
		for range 3 {
			for _, p := range []*Pool{s.a, s.b, s.c, s.d} {
				s.acquire(p, new(Client), nil)
				s.pass(1)
			}
		}
		s.dials()
		got := [4]int{s.a.Servers(), s.b.Servers(), s.c.Servers(), s.d.Servers()}
		if got != test.want {
			t.Errorf("limits %d and %d: %v, want %v", test.ofUser, test.ofDatabase, got, test.want)
		}
		if n := s.user.Servers(); n != got[0]+got[1] {
			t.Errorf("the user has %d servers", n)
		}
	}
}

// TestRoomIsMadeWhereItIsMissing closes idle servers of the group that is full, one in each, and none elsewhere.
func TestRoomIsMadeWhereItIsMissing(t *testing.T) {
	s := newSquare(t, 1, 1)
	s.connect(s.d, 1) // the longest idle
	s.pass(time.Second)
	ofUser, ofDatabase := s.connect(s.b, 1)[0], s.connect(s.c, 1)[0]
	s.acquire(s.a, new(Client), nil)
	pools, _, victims := s.dials()
	if len(pools) != 1 || pools[0] != s.a || len(victims) != 2 || victims[0] != ofUser || victims[1] != ofDatabase {
		t.Errorf("dials %v, victims %v", pools, victims)
	}
	// With one of the two in use nothing helps, and the other one stays.
	s = newSquare(t, 1, 1)
	s.connect(s.b, 1)
	s.hold(s.c, 1)
	s.acquire(s.a, new(Client), nil)
	if pools, _, victims := s.dials(); pools != nil || victims != nil {
		t.Errorf("dials %v, victims %v", pools, victims)
	}
}

// TestOnlyWhoIsInTheWayYields: others keep their servers.
func TestOnlyWhoIsInTheWayYields(t *testing.T) {
	s := newSquare(t, 3, 0)
	busy, other := s.hold(s.b, 3), s.hold(s.d, 9)
	s.acquire(s.a, new(Client), nil)
	s.acquire(s.b, new(Client), nil)
	s.acquire(s.d, new(Client), nil)
	s.pass(time.Hour)
	s.release(s.d, other[0], Next{Client: s.d.FirstWaiter()})
	s.release(s.b, busy[0], Next{Close: Yielded})
	if p := s.dial().Pool(); p != s.a {
		t.Errorf("%v got it", p)
	}
}

// TestTwoLimitsAtOnce has a pool that is stopped by its user's and by its database's limit: what is given up first is
// kept for it until the other comes, but not for long.
func TestTwoLimitsAtOnce(t *testing.T) {
	s := newSquare(t, 2, 2)
	ofUser, ofDatabase := s.hold(s.b, 2), s.hold(s.c, 2)
	for _, p := range []*Pool{s.a, s.b, s.c} {
		s.acquire(p, new(Client), nil)
	}
	s.release(s.b, ofUser[0], Next{Close: Yielded})
	if _, started, _ := s.dials(); started != nil || s.b.WantSpare(s.now) {
		t.Fatal("the room was not kept")
	}
	s.release(s.b, ofUser[1], Next{Client: s.b.FirstWaiter()}) // one is enough
	s.pass(yieldAfter - 1)
	s.release(s.c, ofDatabase[0], Next{Close: Yielded})
	if p := s.dial().Pool(); p != s.a {
		t.Fatalf("%v got it", p)
	}

	s = newSquare(t, 2, 2)
	ofUser, ofDatabase = s.hold(s.b, 2), s.hold(s.c, 2)
	var late Client
	for _, p := range []*Pool{s.a, s.b, s.c} {
		s.acquire(p, new(Client), nil)
	}
	s.acquire(s.b, &late, nil)
	s.release(s.b, ofUser[0], Next{Close: Yielded})
	s.pass(yieldAfter)
	if p := s.dial().Pool(); p != s.b {
		t.Fatalf("the room stays empty: %v got it", p)
	}
	s.release(s.c, ofDatabase[0], Next{Client: s.c.FirstWaiter()})
	s.release(s.b, ofUser[1], Next{Client: s.b.FirstWaiter()})
	s.pass(keepAgain - yieldAfter)
	s.release(s.b, ofUser[1], Next{Close: Yielded}) // it is tried again
}

// TestLoweredGroupLimit comes down with what is idle, and with what is released.
func TestLoweredGroupLimit(t *testing.T) {
	s := newSquare(t, 0, 0)
	held := s.hold(s.a, 2)
	s.connect(s.b, 2)
	s.connect(s.d, 1)
	s.user.SetLimit(1)
	if got := s.swept(); got != "0 surplus, 1 surplus" {
		t.Errorf("swept %q", got)
	}
	s.release(s.a, held[0], Next{Close: Surplus})
	s.release(s.a, held[1], Next{})
	if s.user.Empty() || s.user.Servers() != 1 {
		t.Errorf("%d servers", s.user.Servers())
	}
	s.b.Remove()
	s.a.RemoveServer(held[1])
	s.a.Remove()
	if !s.user.Empty() {
		t.Error("not empty")
	}
	s.check()
}

func TestGroupsOfOthersPanic(t *testing.T) {
	w := newWorld(t, Settings{})
	for _, f := range []func(){
		func() { w.tenant.NewGroup(byTenant, 0) },
		func() { w.tenant.NewPool(1, w.tenant.NewGroup(ByDatabase, 0), nil) },
		func() { w.tenant.NewPool(1, NewTenant(Settings{}).NewGroup(ByUser, 0), nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		}()
	}
}

// TestReserve opens for clients that have waited, one server for each, and within the other limits.
func TestReserve(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 4, Reserve: 2, ReserveAfter: 5 * time.Second, ServerIdle: time.Minute})
	p := w.tenant.NewPool(1, nil, nil)
	held := w.hold(p, 1)[0]
	w.acquire(p, new(Client), nil)
	w.pass(time.Second)
	for range 3 {
		w.acquire(p, new(Client), nil)
	}
	if at := p.RetryAt(); !at.Equal(start.Add(5 * time.Second)) {
		t.Errorf("retry at %v", at.Sub(start))
	}
	w.pass(4*time.Second - 1)
	if _, started, _ := w.dials(); started != nil {
		t.Fatal("the reserve was opened too early")
	}
	w.pass(1)
	s := []*Server{w.dial()} // for the first; the others came later
	if at := p.RetryAt(); !at.Equal(start.Add(6 * time.Second)) {
		t.Errorf("retry at %v", at.Sub(start))
	}
	w.pass(time.Second)
	s = append(s, w.dial()) // size 1, reserve 2
	if !p.RetryAt().IsZero() {
		t.Error("retry although there is no more")
	}
	for _, x := range s {
		first := p.FirstWaiter()
		w.expectNext(p.DialDone(x, w.now), Next{Client: first})
	}
	w.release(p, held, Next{Client: p.FirstWaiter()})
	w.release(p, held, Next{Client: p.FirstWaiter()})
	// Those that nobody uses any more leave as all idle servers do.
	for i, x := range append(s, held) {
		x.Owner = i
		w.release(p, x, Next{})
	}
	if got := w.swept(); got != "" {
		t.Errorf("swept %q", got)
	}
	w.pass(time.Minute)
	if got := w.swept(); got != "0 idle timeout, 1 idle timeout, 2 idle timeout" {
		t.Errorf("swept %q", got)
	}
}

// TestReserveLeaves also where idle servers stay.
func TestReserveLeaves(t *testing.T) {
	w := newWorld(t, Settings{Reserve: 2, ReserveAfter: 5 * time.Second})
	p := w.tenant.NewPool(3, nil, nil)
	s := w.hold(p, 3)
	var c [2]Client
	w.acquire(p, &c[0], nil)
	w.acquire(p, &c[1], nil)
	w.pass(5 * time.Second)
	_, started, _ := w.dials()
	for i, x := range started {
		w.expectNext(p.DialDone(x, w.now), Next{Client: &c[i]})
	}
	for i, x := range append(started, s...) {
		x.Owner = i
		w.release(p, x, Next{})
	}
	w.pass(5*time.Second - 1)
	if got := w.swept(); got != "" {
		t.Errorf("swept %q", got)
	}
	w.pass(1)
	if got := w.swept(); got != "0 idle timeout, 1 idle timeout" {
		t.Errorf("swept %q", got)
	}
	w.pass(1000 * time.Hour)
	if got := w.swept(); got != "" {
		t.Errorf("swept %q", got)
	}
	// A reserve that was taken away leaves at once.
	w.acquire(p, &c[0], s[2])
	w.tenant.SetSettings(Settings{})
	p.SetSize(2)
	w.release(p, s[2], Next{Close: Surplus})
}

func TestReserveKeepsToTheOtherLimits(t *testing.T) {
	for name, setUp := range map[string]func(s square){
		"tenant":   func(s square) { s.tenant.SetSettings(Settings{MaxServers: 1, Reserve: 1, ReserveAfter: time.Second}) },
		"user":     func(s square) { s.user.SetLimit(1) },
		"database": func(s square) { s.database.SetLimit(1) },
	} {
		s := newSquare(t, 0, 0)
		s.tenant.SetSettings(Settings{Reserve: 1, ReserveAfter: time.Second})
		s.a.SetSize(1)
		s.hold(s.a, 1)
		setUp(s)
		s.acquire(s.a, new(Client), nil)
		s.pass(time.Second)
		if _, started, _ := s.dials(); started != nil {
			t.Errorf("above the limit of the %s", name)
		}
	}
}
