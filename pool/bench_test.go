// The hot path allocates nothing, and what it costs.

package pool

import (
	"testing"
	"time"
)

func hotSettings() Settings {
	return Settings{MaxServers: 200, ServerIdle: time.Hour, ServerLifetime: time.Hour}
}

// lendAndReturn returns one transaction of a pool with an idle server.
func lendAndReturn(w *world) func() {
	p := w.tenant.NewPool(20, nil, nil)
	w.connect(p, 20)
	c := &Client{}
	return func() {
		s := p.Acquire(c, nil, w.now)
		if p.Release(s, w.now) != (Next{}) {
			panic("not kept")
		}
	}
}

// handOver returns one transaction of a pool that has more clients than its one server, in a tenant at its limit in
// which the clients of as many other pools as told wait as well, with as many servers each.
func handOver(w *world, others int) func() {
	p := w.tenant.NewPool(2, nil, nil)
	s := w.connect(p, 1)[0]
	clients := make([]Client, 100)
	for i := range clients {
		p.Acquire(&clients[i], nil, w.now)
	}
	for range others {
		q := w.tenant.NewPool(2, nil, nil)
		w.connect(q, 1)
		q.Acquire(&Client{}, nil, w.now)
		q.Acquire(&Client{}, nil, w.now)
	}
	settings := w.tenant.Settings()
	settings.MaxServers = 1 + others
	w.tenant.SetSettings(settings)
	return func() {
		c := s.Client()
		if p.Release(s, w.now).Client == nil {
			panic("not handed over")
		}
		p.Acquire(c, nil, w.now)
		if q := w.tenant.NextDial(w.now, nil); q != nil {
			panic("dial above the limit")
		}
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	for name, do := range map[string]func(){
		"lend and return":                lendAndReturn(newWorld(t, hotSettings())),
		"hand over":                      handOver(newWorld(t, hotSettings()), 0),
		"hand over while others wait":    handOver(newWorld(t, hotSettings()), 30),
		"queue, leave, clean and settle": cleanAndLeave(newWorld(t, hotSettings())),
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func cleanAndLeave(w *world) func() {
	p := w.tenant.NewPool(1, nil, nil)
	s := w.connect(p, 1)[0]
	var a, b Client
	return func() {
		p.Acquire(&a, s, w.now)
		p.Acquire(&b, s, w.now)
		p.BeginCleaning(s)
		p.Leave(&b)
		p.EndCleaning(s, w.now)
	}
}

func BenchmarkLendAndReturn(b *testing.B) {
	do := lendAndReturn(newWorld(b, hotSettings()))
	b.ReportAllocs()
	for b.Loop() {
		do()
	}
}

func BenchmarkHandOver(b *testing.B) {
	for name, others := range map[string]int{"alone": 0, "100 pools wait": 100} {
		b.Run(name, func(b *testing.B) {
			do := handOver(newWorld(b, hotSettings()), others)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}
