// Tests of the directory: what a change touches, who is told, and what it costs.

package tenants

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func directory(t testing.TB, all ...*Tenant) *Directory {
	t.Helper()
	d, err := NewDirectory(all...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// story writes down what a directory tells.
type story struct{ told []string }

func (s *story) tell(all []Change) {
	var parts []string
	for _, c := range all {
		sign := "~"
		switch {
		case c.Old == nil:
			sign = "+"
		case c.New == nil:
			sign = "-"
		}
		parts = append(parts, sign+c.ID())
	}
	s.told = append(s.told, strings.Join(parts, " "))
}

func (s *story) since() []string {
	told := s.told
	s.told = nil
	return told
}

func TestDirectoryTells(t *testing.T) {
	d := directory(t)
	var s, late story
	d.Subscribe(s.tell)
	put := func(x *Tenant) {
		t.Helper()
		if err := d.Put(x); err != nil {
			t.Error(err)
		}
	}
	sized := func(id string, size int) *Tenant {
		x := good(id)
		x.Pool.Size = size
		return x
	}
	expect := func(want ...string) {
		t.Helper()
		if d := cmp.Diff(want, s.since()); d != "" {
			t.Error(d)
		}
	}
	put(good("a"))
	put(good("b"))
	expect("+a", "+b")
	first, _ := d.Tenant("a")
	put(good("a"))
	if now, _ := d.Tenant("a"); now != first {
		t.Error("one that is the same has replaced what was there")
	}
	expect()
	put(sized("a", 7))
	expect("~a")
	d.Remove("nobody")
	d.Remove("a")
	expect("-a")
	put(good("a"))
	expect("+a")

	kept, _ := d.Tenant("a")
	if err := d.Replace([]*Tenant{good("c"), good("a"), sized("b", 7)}); err != nil {
		t.Error(err)
	}
	expect("+c ~b")
	if now, _ := d.Tenant("a"); now != kept {
		t.Error("one that is the same has replaced what was there")
	}
	if err := d.Replace([]*Tenant{good("c")}); err != nil {
		t.Error(err)
	}
	if told := s.since(); len(told) != 1 || told[0] != "-a -b" && told[0] != "-b -a" {
		t.Errorf("told %q", told)
	}
	d.Subscribe(late.tell)
	put(good("d"))
	if d := cmp.Diff([]string{"+c", "+d"}, late.since()); d != "" {
		t.Errorf("one who comes later: %s", d)
	}
}

// TestDirectoryConflicts: what only one tenant may have is looked after with every change, and goes from one to another.
func TestDirectoryConflicts(t *testing.T) {
	d := directory(t, local("a"), good("b"))
	var s story
	d.Subscribe(s.tell)
	s.since()
	same := local("c")
	same.Machine.Name = "a"
	var conflict *ConflictError
	if err := d.Put(same); !errors.As(err, &conflict) || *conflict != (ConflictError{ID: "c", Other: "a", Machine: "local/a"}) {
		t.Errorf("a machine that another one has: %v", err)
	}
	if err := d.Replace([]*Tenant{local("a"), same}); !errors.As(err, &conflict) || conflict.ID != "c" {
		t.Errorf("all of them: %v", err)
	}
	if err := d.Replace([]*Tenant{good("b"), good("b")}); !errors.As(err, &conflict) || *conflict != (ConflictError{ID: "b", Other: "b"}) {
		t.Errorf("one twice: %v", err)
	}
	if len(s.told) > 0 || d.Len() != 2 {
		t.Errorf("what was refused was told: %q", s.told)
	}
	if err := d.Put(good("a")); err != nil { // which has let go of it
		t.Error(err)
	}
	if err := d.Put(same); err != nil {
		t.Error(err)
	}
	back := local("a")
	if err := d.Replace([]*Tenant{back, good("b"), good("c")}); err != nil { // from c to a, at once
		t.Error(err)
	}
	if is, ok := d.Machine("local/a"); !ok || is != back {
		t.Errorf("the machine is %+v's", is)
	}
}

// TestDirectoryModel: whatever happens in whatever order, the directory has what a plain map would have, and who only listens
// has the same.
func TestDirectoryModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := directory(t)
		model, heard := map[string]*Tenant{}, map[string]*Tenant{}
		listen := func(all []Change) {
			for _, c := range all {
				if heard[c.ID()] != c.Old || c.Old == nil && c.New == nil || c.Old != nil && c.New != nil && c.Old.Equal(c.New) {
					r.Fatalf("told of %+v, had %+v", c, heard[c.ID()])
				}
				if c.New == nil {
					delete(heard, c.ID())
				} else {
					heard[c.ID()] = c.New
				}
			}
		}
		subscribed := false
		tenant := func() *Tenant {
			id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(r, "id")
			x := good(id)
			if rapid.Bool().Draw(r, "machine") {
				x = local(id)
				x.Machine.Name = rapid.SampledFrom([]string{"m", "n"}).Draw(r, "name")
			}
			x.Pool.Size = rapid.IntRange(1, 2).Draw(r, "size")
			x.Flycast = rapid.SampledFrom([]netip.Addr{{}, {}, netip.MustParseAddr("fdaa::3"), netip.MustParseAddr("fdaa::4")}).Draw(r, "flycast")
			return x
		}
		clash := func(all map[string]*Tenant) bool {
			return len(Conflicts(slices.Collect(maps.Values(all)))) > 0
		}
		r.Repeat(map[string]func(*rapid.T){
			"put": func(*rapid.T) {
				x := tenant()
				next := maps.Clone(model)
				next[x.ID] = x
				if err := d.Put(x); (err != nil) != clash(next) {
					r.Fatal(err)
				} else if err == nil {
					model = next
				}
			},
			"remove": func(*rapid.T) {
				id := tenant().ID
				d.Remove(id)
				delete(model, id)
			},
			"replace": func(*rapid.T) {
				next := map[string]*Tenant{}
				for range rapid.IntRange(0, 4).Draw(r, "n") {
					x := tenant()
					next[x.ID] = x
				}
				if err := d.Replace(slices.Collect(maps.Values(next))); (err != nil) != clash(next) {
					r.Fatal(err)
				} else if err == nil {
					model = next
				}
			},
			"subscribe": func(*rapid.T) {
				if !subscribed {
					subscribed = true
					d.Subscribe(listen)
				}
			},
			"": func(*rapid.T) {
				machines, addresses := 0, 0
				for id, want := range model {
					got, ok := d.Tenant(id)
					if !ok || !got.Equal(want) || subscribed && heard[id] != got {
						r.Fatalf("%s is %+v, want %+v", id, got, want)
					}
					if want.Machine != nil {
						machines++
						if is, _ := d.Machine(want.Machine.Key()); is != got {
							r.Fatalf("the machine of %s is %+v's", id, is)
						}
					}
					if want.Flycast.IsValid() {
						addresses++
						if is, _ := d.Flycast(want.Flycast); is != got {
							r.Fatalf("the address of %s is %+v's", id, is)
						}
					}
				}
				if d.Len() != len(model) || len(d.All()) != len(model) || len(d.byMachine) != machines || len(d.byFlycast) != addresses || subscribed && len(heard) != len(model) {
					r.Fatalf("%d tenants, %d machines, %d heard of, want %d and %d", d.Len(), len(d.byMachine), len(heard), len(model), machines)
				}
			},
		})
	})
}

// TestDirectoryTellsInOrder: writers race, and every listener hears each tenant's changes one after the other, as they happened.
func TestDirectoryTellsInOrder(t *testing.T) {
	d := directory(t)
	last := map[string]*Tenant{} // no lock: the race detector would see two at a time
	d.Subscribe(func(all []Change) {
		for _, c := range all {
			if last[c.ID()] != c.Old {
				t.Error("told out of order")
			}
			if now, _ := d.Tenant(c.ID()); now != c.New {
				t.Error("told of what is not in force")
			}
			last[c.ID()] = c.New
		}
	})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 100 {
				x := good(fmt.Sprintf("t%d", n%3))
				x.Pool.Size = 1 + i*100 + n
				if err := d.Put(x); err != nil {
					t.Error(err)
				}
				_, _ = d.Tenant(x.ID)
				if n%10 == 0 {
					d.Remove(x.ID)
				}
				if n%25 == 0 {
					_ = d.Replace(d.All()) // of a moment that is over, perhaps
				}
			}
		})
	}
	wg.Wait()
}

func many(n int) []*Tenant {
	all := make([]*Tenant, n)
	for i := range all {
		all[i] = good(fmt.Sprintf("t%d", i))
	}
	return all
}

// TestOneChangeAmongMany costs what it costs among few.
func TestOneChangeAmongMany(t *testing.T) {
	cost := func(n int) float64 {
		d := directory(t, many(n)...)
		sizes := []*Tenant{good("t0"), good("t0")}
		sizes[1].Pool.Size = 7
		i := 0
		return testing.AllocsPerRun(100, func() {
			i++
			if err := d.Put(sizes[i%2]); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, lots := cost(10), cost(20_000); lots > few+2 {
		t.Errorf("%v allocations among 10 tenants, %v among 20,000", few, lots)
	}
}

// BenchmarkPut is one change in a directory of a hundred thousand tenants, with the directory's own memory for each.
func BenchmarkPut(b *testing.B) {
	all := many(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := directory(b, all...)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Cleanup(func() { runtime.KeepAlive(all) })
	changed := make([]*Tenant, 2000)
	for i := range changed {
		changed[i] = good(fmt.Sprintf("t%d", i%1000))
		changed[i].Pool.Size = 1 + i/1000
	}
	i := 0
	for b.Loop() {
		if err := d.Put(changed[i%len(changed)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(all)), "B/tenant")
}

// BenchmarkReplaceWithTheSame is a reload of a hundred thousand tenants that changes nothing.
func BenchmarkReplaceWithTheSame(b *testing.B) {
	d := directory(b, many(100_000)...)
	again := many(100_000)
	for b.Loop() {
		if err := d.Replace(again); err != nil {
			b.Fatal(err)
		}
	}
}
