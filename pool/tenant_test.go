// Tables for a tenant's limit: who gets a slot, and who makes room.

package pool

import (
	"testing"
	"time"
)

func TestTheSlotGoesToTheLongestWaiting(t *testing.T) {
	w := newWorld(t, Settings{MaxServers: 3})
	a, b, full := w.tenant.NewPool(5, nil, nil), w.tenant.NewPool(5, nil, nil), w.tenant.NewPool(0, nil, nil)
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
	a, b, hungry := w.tenant.NewPool(5, nil, nil), w.tenant.NewPool(5, nil, nil), w.tenant.NewPool(2, nil, nil)
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
	if p := w.tenant.NextDial(w.now, func(*Server) { t.Error("evicted in vain") }); p != nil {
		t.Error("dial above the limit")
	}
}
