package postgres

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// sharer is the ledger of a process that has a row of its own among the nodes.
func (w *world) sharer(node string) *Ledger {
	w.t.Helper()
	l, err := newLedger(&Options{Conn: w.conf(), Keys: w.keys, Node: node, Log: slog.New(slog.NewTextHandler(w.log, nil))}, "boot-of-"+node, new(atomic.Bool))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(l.Close)
	w.exec(`INSERT INTO postern.nodes (name, boot, started, seen, epoch, applied, refused, keys, cache) VALUES ($1, $2, now(), now(), '', 0, '{}', '{}', '')`, node, l.boot)
	return l
}

// write has a process write its portions, and returns what it found.
func write(t *testing.T, l *Ledger, c tenants.PortionsChange) (found tenants.Portions) {
	t.Helper()
	if err := l.Portions(t.Context(), "acme", func(s tenants.Portions) tenants.PortionsChange { found = s; return c }); err != nil {
		t.Fatal(err)
	}
	return found
}

func portion(l *Ledger, scope string, servers, wanted int) tenants.Portion {
	return tenants.Portion{Scope: scope, Node: l.node, Boot: l.boot, Servers: servers, Wanted: wanted}
}

func mine(all ...tenants.Portion) tenants.PortionsChange { return tenants.PortionsChange{Mine: all} }

func TestPortionsAreWrittenAndRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	odd := tenants.PoolScope("o/dd\xff", "d")
	if found := write(t, a, mine(portion(a, "", 3, 4), portion(a, odd, 2, 2))); len(found.All) != 0 || found.Now.IsZero() {
		t.Fatalf("at first: %+v", found)
	}
	before := []tenants.Portion{portion(a, "", 3, 4), portion(a, odd, 2, 2)}
	if found := write(t, b, mine(portion(b, "", 1, 9))); !slices.Equal(found.All, before) {
		t.Fatalf("b finds %+v", found.All)
	}
	if found := write(t, a, mine(portion(a, "", 1, 1))); !slices.Equal(found.All, []tenants.Portion{before[0], portion(b, "", 1, 9), before[1]}) {
		t.Fatalf("a finds %+v", found.All)
	}
	all, look, err := b.Survey(t.Context())
	if err != nil || !slices.Equal(all["acme"], []tenants.Portion{portion(b, "", 1, 9)}) || len(all) != 1 || len(look) != 0 {
		t.Fatalf("b has %+v, and looks at %v, %v", all, look, err)
	}
	if _, look, err = a.Survey(t.Context()); err != nil || !slices.Equal(look, []string{"acme"}) { // which b wants more of
		t.Fatalf("a looks at %v, %v", look, err)
	}
	for _, but := range [][]string{{"acme"}, nil} { // it keeps what may be in use still
		if err := b.Return(t.Context(), but); err != nil {
			t.Fatal(err)
		}
		if all, _, err := b.Survey(t.Context()); err != nil || len(all["acme"]) != len(but) {
			t.Fatalf("b has %+v, %v, after it has returned all but %v", all, err, but)
		}
	}
	if found := write(t, a, mine()); !slices.Equal(found.All, []tenants.Portion{portion(a, "", 1, 1)}) {
		t.Fatalf("a finds %+v", found.All)
	}
	if found := write(t, b, mine()); len(found.All) != 0 {
		t.Fatalf("in the end %+v", found.All)
	}
}

// Everybody takes one more if there is room: none is taken twice.
func TestPortionsAreOneProcesssAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	const limit = 7
	nodes := []*Ledger{w.sharer("a"), w.sharer("b"), w.sharer("c")}
	var taking sync.WaitGroup
	for _, l := range nodes {
		for range 4 {
			taking.Go(func() {
				for range 3 {
					if err := l.Portions(t.Context(), "acme", func(s tenants.Portions) tenants.PortionsChange {
						own, sum := 0, 0
						for _, p := range s.All {
							if sum += p.Servers; p.Boot == l.boot {
								own = p.Servers
							}
						}
						return mine(portion(l, "", own+min(1, limit-sum), 9))
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	taking.Wait()
	sum := 0
	for _, p := range write(t, nodes[0], mine()).All {
		sum += p.Servers
	}
	if sum != limit {
		t.Errorf("%d of %d", sum, limit)
	}
}

func TestOthersAreToldOfPortions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	heard, ready := make(chan string, 10), make(chan struct{}, 2)
	ctx, cancel := context.WithCancel(t.Context())
	var hearing sync.WaitGroup
	for _, l := range []*Ledger{a, b} {
		hearing.Go(func() {
			_ = l.Hear(ctx, func() { ready <- struct{}{} }, func(tenant string) { heard <- l.node + " " + tenant }) // until ctx ends
		})
	}
	<-ready
	<-ready
	write(t, a, tenants.PortionsChange{Tell: true})
	write(t, b, tenants.PortionsChange{})
	write(t, b, tenants.PortionsChange{Tell: true})
	if first, second := <-heard, <-heard; first != "b acme" || second != "a acme" {
		t.Errorf("%q, %q", first, second)
	}
	cancel()
	hearing.Wait()
	if len(heard) > 0 {
		t.Errorf("and %q", <-heard)
	}
}

func TestPortionsOfTheSilentLapse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	write(t, a, mine(portion(a, "", 3, 3)))
	state := func() (silent, lapsed bool) {
		t.Helper()
		found := write(t, b, mine())
		if len(found.All) != 1 {
			t.Fatalf("%+v", found.All)
		}
		p := found.All[0]
		// Its statement is a moment after Now was read.
		if left := p.Lapses.Sub(found.Now); !p.Silent != p.Lapses.IsZero() || p.Silent && (left < -time.Minute || left > lapseAfter+time.Minute || p.Lapsed && left > time.Minute) {
			t.Errorf("silent %v, lapsed %v: it lapses in %v", p.Silent, p.Lapsed, left)
		}
		return p.Silent, p.Lapsed
	}
	look := func(want ...string) {
		t.Helper()
		if _, look, err := b.Survey(t.Context()); err != nil || !slices.Equal(look, want) {
			t.Fatalf("b looks at %v, %v", look, err)
		}
	}
	for _, tc := range []struct {
		sql            string
		silent, lapsed bool
	}{
		{`UPDATE postern.nodes SET seen = clock_timestamp()`, false, false},
		{`UPDATE postern.nodes SET seen = clock_timestamp() - interval '6 s'`, true, false},
		{`UPDATE postern.nodes SET seen = clock_timestamp() - interval '124 s'`, true, false},
		{`UPDATE postern.nodes SET seen = clock_timestamp() - interval '126 s'`, true, true},
		{`UPDATE postern.nodes SET boot = 'another' WHERE name = 'a'`, true, false}, // from now on it is alone
		{`UPDATE postern.portions SET alone = alone - interval '124 s'`, true, false},
		{`UPDATE postern.portions SET alone = alone - interval '2 s'`, true, true},
		{`UPDATE postern.portions SET alone = clock_timestamp() + interval '1 h'`, true, false}, // the clock was set back
		{`UPDATE postern.portions SET alone = alone - interval '126 s'`, true, true},
	} {
		w.exec(tc.sql)
		if silent, lapsed := state(); silent != tc.silent || lapsed != tc.lapsed {
			t.Fatalf("%s: silent %v, lapsed %v", tc.sql, silent, lapsed)
		}
		if tc.silent {
			look("acme")
		} else {
			look()
		}
	}
	write(t, b, tenants.PortionsChange{Gone: []tenants.Portion{portion(a, "", 2, 0)}})
	if found := write(t, b, tenants.PortionsChange{Gone: []tenants.Portion{portion(a, "", 0, 0)}}); len(found.All) != 1 || found.All[0].Servers != 2 {
		t.Fatalf("some are left: %+v", found.All)
	}
	if found := write(t, b, mine()); len(found.All) != 0 {
		t.Fatalf("all are handed on: %+v", found.All)
	}
}

// TestNoTenantHidesOthers: those of which nothing can be done for long are named in turns.
func TestNoTenantHidesOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	b := w.sharer("b")
	b.maxLook = 3
	w.exec(`INSERT INTO postern.portions (tenant, scope, boot, node, servers, wanted) SELECT 'silent-' || n, '', 'gone-' || n % 2, 'gone', 1, 0 FROM generate_series(1, 7) n`)
	w.exec(`INSERT INTO postern.portions (tenant, scope, boot, node, servers, wanted) SELECT 'short-' || n, '', boot, name, 1, 1 FROM generate_series(1, 7) n, postern.nodes`)
	w.sharer("a")
	w.exec(`INSERT INTO postern.portions (tenant, scope, boot, node, servers, wanted) SELECT 'short-' || n, '', boot, name, 0, 1 FROM generate_series(1, 7) n, postern.nodes WHERE name = 'a'`)
	for range 2 {
		named := make(map[string]int)
		for range 3 {
			_, look, err := b.Survey(t.Context())
			if err != nil || len(look) > 2*b.maxLook {
				t.Fatalf("%v, %v", look, err)
			}
			for _, tenant := range look {
				named[tenant]++
			}
		}
		if len(named) != 14 {
			t.Errorf("in three surveys: %v", named)
		}
		for tenant, n := range named {
			if n != 1 {
				t.Errorf("%s was named %d times", tenant, n)
			}
		}
	}
}

func TestForgottenNodesHaveNoPortions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	write(t, a, mine(portion(a, "", 3, 3)))
	write(t, b, mine(portion(b, "", 1, 1)))
	r, err := NewRegistry(Options{Conn: w.conf(), Keys: w.keys, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	forget := func() error { return r.ForgetNode(t.Context(), tenants.Actor{Name: "ops"}, "a") }
	if err := forget(); !errors.Is(err, tenants.ErrServes) {
		t.Fatalf("it is alive: %v", err)
	}
	// The name was another's, which lives under a new one and has its portions still.
	w.exec(`INSERT INTO postern.portions (tenant, scope, boot, node, servers, wanted) VALUES ('acme', '', 'before', 'a', 2, 2)`)
	w.exec(`UPDATE postern.nodes SET seen = clock_timestamp() - interval '6 s' WHERE name = 'a'`)
	if err := forget(); err != nil {
		t.Fatal(err)
	}
	found := write(t, b, mine(portion(b, "", 1, 1)))
	has := map[string]int{}
	for _, p := range found.All {
		has[p.Boot] = p.Servers
	}
	if !maps.Equal(has, map[string]int{"before": 2, portion(b, "", 1, 1).Boot: 1}) {
		t.Fatalf("%+v", found.All)
	}
}

// TestATenantOfTheStore is there also if this node cannot read it.
func TestATenantOfTheStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a := w.sharer("a")
	w.exec(`INSERT INTO postern.tenants (id, document) VALUES ('unreadable', '{"what": "is this"}')`)
	for id, want := range map[string]bool{"unreadable": true, "nobody": false} {
		if has, err := a.HasTenant(t.Context(), id); err != nil || has != want {
			t.Errorf("%s: %v, %v", id, has, err)
		}
	}
}

func TestHowLongAProcessWasNotHeardOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a := w.sharer("a")
	w.exec(`UPDATE postern.nodes SET seen = clock_timestamp() - interval '40 s'`)
	if d, err := a.Unheard(t.Context()); err != nil || d < 40*time.Second || d > 40*time.Second+harness.Patience {
		t.Errorf("%v, %v", d, err)
	}
	w.exec(`DELETE FROM postern.nodes`)
	if _, err := a.Unheard(t.Context()); !errors.Is(err, tenants.ErrUnannounced) {
		t.Errorf("%v", err)
	}
}

// TestPortionsOfARestoredStore: in one that has become another rows may be missing, for a while.
func TestPortionsOfARestoredStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	settling := func() bool {
		t.Helper()
		s := write(t, a, mine())
		if s.Settling != write(t, b, mine()).Settling {
			t.Error("two nodes do not agree")
		}
		return s.Settling
	}
	if settling() {
		t.Error("a new store is settled")
	}
	w.exec(`UPDATE postern.leases SET store = 'another'`)
	if !settling() || !settling() {
		t.Error("one that was another is not")
	}
	w.exec(`UPDATE postern.leases SET until = now() WHERE key = ''`)
	if settling() {
		t.Error("after a while it is")
	}
}

// TestAProcessThatStandsStillIsWaitedForBriefly: the lock of a tenant's portions is not its for long.
func TestAProcessThatStandsStillIsWaitedForBriefly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.sharer("a"), w.sharer("b")
	stands, goesOn := make(chan struct{}), make(chan error)
	other := make(chan struct{})
	go func() {
		goesOn <- a.Portions(t.Context(), "acme", func(tenants.Portions) tenants.PortionsChange {
			close(stands)
			<-other
			return mine(portion(a, "", 1, 1))
		})
	}()
	<-stands
	write(t, b, mine(portion(b, "", 2, 2)))
	close(other)
	if err := <-goesOn; err == nil {
		t.Error("it has written what it had made of rows of before")
	}
	if found := write(t, b, mine()); !slices.Equal(found.All, []tenants.Portion{portion(b, "", 2, 2)}) {
		t.Errorf("b finds %+v", found.All)
	}
}
