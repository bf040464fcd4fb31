// Tables for what is told of limits that others share.

package pool

import (
	"slices"
	"testing"
	"time"
)

// claim is what is held and wanted of a limit.
type claim struct{ held, wanted int }

func claimOf(q *Quota) claim { return claim{q.Held(), q.Wanted()} }

// TestReckon: idle servers are held and not wanted, and wider limits expect no more than narrower ones let through.
func TestReckon(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 20, Reserve: 2, ReserveAfter: 5 * time.Second})
	u := w.tenant.NewGroup(ByUser, 6)
	a, b := w.tenant.NewPool(4, u, nil), w.tenant.NewPool(4, u, nil)
	expect := func(when string, tenant, user, sizeA, reserveA claim) {
		t.Helper()
		w.tenant.Reckon(w.now)
		got := []claim{claimOf(w.tenant.Quota()), claimOf(&u.Quota), claimOf(a.Quota()), claimOf(a.Reserve())}
		if want := []claim{tenant, user, sizeA, reserveA}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	expect("nothing", claim{}, claim{}, claim{}, claim{})
	held := w.connect(a, 2)
	expect("idle", claim{2, 0}, claim{2, 0}, claim{2, 0}, claim{})
	w.acquire(a, new(Client), held[1])
	w.acquire(a, new(Client), held[0])
	expect("in use", claim{2, 2}, claim{2, 2}, claim{2, 2}, claim{})
	for range 5 {
		w.acquire(a, new(Client), nil)
		w.acquire(b, new(Client), nil)
	}
	expect("more wait", claim{2, 6}, claim{2, 6}, claim{2, 4}, claim{})
	w.pass(5 * time.Second)
	expect("for long", claim{2, 6}, claim{2, 6}, claim{2, 4}, claim{0, 2})
	a.Quota().SetPortion(2, true)
	a.Reserve().SetPortion(0, true)
	b.Reserve().SetPortion(0, true)
	expect("the pool gets no more", claim{2, 6}, claim{2, 6}, claim{2, 4}, claim{0, 2})
	b.Quota().SetPortion(1, true)
	expect("the other one neither", claim{2, 3}, claim{2, 3}, claim{2, 4}, claim{0, 2})
	u.SetPortion(2, true)
	expect("nor the user", claim{2, 2}, claim{2, 3}, claim{2, 4}, claim{0, 2})
	a.RemoveServer(held[0])
	a.Linger(held[0])
	expect("one lingers", claim{2, 2}, claim{2, 3}, claim{2, 4}, claim{0, 2})
	a.Gone(held[0])
	expect("and is gone", claim{1, 2}, claim{1, 3}, claim{1, 4}, claim{0, 2})
}

// TestReserveHeld: a server that counts against the reserve does so while there is no other place, whatever becomes of the portions.
func TestReserveHeld(t *testing.T) {
	w := newWorld(t, Settings{Reserve: 2, ReserveAfter: time.Second})
	p := w.tenant.NewPool(4, nil, nil)
	held := w.hold(p, 4)
	w.acquire(p, new(Client), nil)
	w.acquire(p, new(Client), nil)
	w.pass(time.Second)
	_, more, _ := w.dials()
	for _, s := range more {
		p.DialDone(s, w.now)
	}
	for _, step := range []struct {
		size, reserve, servers int // portions, and how many there are
		ofSize, ofReserve      int
	}{
		{4, 2, 6, 4, 2},
		{4, 0, 6, 4, 2}, // it goes back when they are closed
		{2, 0, 6, 4, 2},
		{2, 0, 5, 3, 2},
		{3, 1, 4, 3, 1},
		{2, 0, 3, 2, 1},
		{3, 0, 3, 3, 0},
		{2, 2, 3, 2, 1},
	} {
		for p.Servers() > step.servers {
			p.RemoveServer(held[0])
			held = held[1:]
		}
		p.Quota().SetPortion(step.size, false)
		p.Reserve().SetPortion(step.reserve, false)
		w.tenant.Reckon(w.now)
		if got := [2]int{p.Quota().Held(), p.Reserve().Held()}; got != [2]int{step.ofSize, step.ofReserve} {
			t.Errorf("%+v: %v", step, got)
		}
	}
}
