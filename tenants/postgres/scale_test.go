package postgres

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// TestManyTenants: the first is served before the last is read, changes come through while more are made, and none is lost. With
// POSTERN_TEST_LONG it is 100,000 tenants, and what each costs in memory is judged.
func TestManyTenants(t *testing.T) {
	many, changes := 3_000, 100
	if harness.Long() {
		many, changes = 100_000, 2_000
	}
	w := newWorld(t, harness.Postgres(t))
	list := make([]*tenants.Tenant, many)
	for i := range list {
		list[i] = sample(fmt.Sprintf("t%06d", i))
		delete(list[i].Users, "web")
	}
	start := time.Now()
	w.load(list...)
	t.Logf("import of %d tenants: %v", many, time.Since(start))
	clear(list)

	before := heap()
	f, err := w.open()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := make(map[string]time.Time) // by what it was changed to
	early, started := -1, time.Now()
	f.d.Subscribe(func(all []tenants.Change) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		if early < 0 {
			early = f.d.Len()
			t.Logf("the first is there after %v, of %d", now.Sub(started), early)
		}
		if !f.d.Filling() {
			seen[all[0].New.Database] = now
		}
	})
	w.watch(f)
	harness.Eventually(t, 5*harness.Patience, "all are read", func() bool { return f.d.Len() == many && !f.d.Filling() })
	t.Logf("all are there after %v", time.Since(started))
	mu.Lock()
	if early < 1 || early > many/2 {
		t.Errorf("when the first is told of, %d of %d are there", early, many)
	}
	mu.Unlock()
	f.told()
	f.cache.busy <- struct{}{} // when the cache file is written
	<-f.cache.busy
	each := (heap() - before) / int64(many)
	t.Logf("memory: %d bytes for each tenant", each)
	if harness.Long() && each > 2<<10 {
		t.Errorf("a tenant takes %d bytes, 2048 at most", each)
	}

	conn := w.connect()
	committed := make(map[string]time.Time)
	tick := time.NewTicker(10 * time.Millisecond) // 100 a second
	defer tick.Stop()
	for i := range changes {
		<-tick.C
		name := fmt.Sprint("d", i)
		if _, err := conn.Exec(t.Context(), `UPDATE postern.tenants SET document = document || jsonb_build_object('database', $1::text) WHERE id = $2`,
			name, fmt.Sprintf("t%06d", i*7919%many)); err != nil {
			t.Fatal(err)
		}
		committed[name] = time.Now()
	}
	last := fmt.Sprint("d", changes-1)
	harness.Eventually(t, harness.Patience, "the last change is in force", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !seen[last].IsZero()
	})
	var took []time.Duration
	mu.Lock()
	defer mu.Unlock()
	for name, at := range committed {
		if seen[name].IsZero() {
			t.Errorf("change %s was never seen", name)
			continue
		}
		took = append(took, seen[name].Sub(at))
	}
	slices.Sort(took)
	t.Logf("from commit to effect: median %v, p99 %v, worst %v", took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

// heap is what is reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
