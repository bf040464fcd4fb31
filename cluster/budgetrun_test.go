package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// shelf is a ledger in memory that goroutines may use.
type shelf struct {
	mu    sync.Mutex
	rows  map[string]map[rowKey]tenants.Portion // by tenant
	hears map[string]func(string)               // by boot
	away  bool
	looks int
}

func newShelf() *shelf {
	return &shelf{rows: make(map[string]map[rowKey]tenants.Portion), hears: make(map[string]func(string))}
}

// shelfOf is it, for a process.
type shelfOf struct {
	*shelf
	boot string
}

func (l shelfOf) Portions(_ context.Context, tenant string, f func(tenants.Portions) tenants.PortionsChange) error {
	l.mu.Lock()
	if l.away {
		l.mu.Unlock()
		return tenants.ErrAway
	}
	l.looks++
	s := tenants.Portions{Now: time.Now()}
	for _, row := range l.rows[tenant] {
		s.All = append(s.All, row)
	}
	c := f(s)
	rows := l.rows[tenant]
	if rows == nil {
		rows = make(map[rowKey]tenants.Portion)
		l.rows[tenant] = rows
	}
	for key := range rows {
		if key.boot == l.boot {
			delete(rows, key)
		}
	}
	for _, row := range c.Mine {
		rows[rowKey{row.Scope, row.Boot}] = row
	}
	if len(rows) == 0 {
		delete(l.rows, tenant)
	}
	var tell []func(string)
	for boot, f := range l.hears {
		if c.Tell && boot != l.boot {
			tell = append(tell, f)
		}
	}
	l.mu.Unlock()
	for _, f := range tell {
		f(tenant)
	}
	return nil
}

func (l shelfOf) Unheard(context.Context) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return 0, tenants.ErrAway
	}
	return 0, nil
}

func (l shelfOf) Survey(context.Context) (map[string][]tenants.Portion, []string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := make(map[string][]tenants.Portion)
	for tenant, rows := range l.rows {
		for key, row := range rows {
			if key.boot == l.boot {
				mine[tenant] = append(mine[tenant], row)
			}
		}
	}
	return mine, nil, nil
}

func (l shelfOf) Hear(ctx context.Context, ready func(), heard func(string)) error {
	l.mu.Lock()
	l.hears[l.boot] = heard
	l.mu.Unlock()
	ready()
	<-ctx.Done()
	return ctx.Err()
}

func (l shelfOf) Return(_ context.Context, but []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tenant, rows := range l.rows {
		for key := range rows {
			if key.boot == l.boot && !slices.Contains(but, tenant) {
				delete(rows, key)
			}
		}
		if len(rows) == 0 {
			delete(l.rows, tenant)
		}
	}
	return nil
}

// taker is a gate that opens at once whatever it wants and may have, of any tenant.
type taker struct {
	b      *Budget
	mu     sync.Mutex
	wanted map[string]int
	number map[string]int64
	open   map[string]int
}

func newTaker(s *shelf, boot string) *taker {
	g := &taker{wanted: make(map[string]int), number: make(map[string]int64), open: make(map[string]int)}
	g.b = NewBudget(BudgetOptions{Ledger: shelfOf{s, boot}, Node: boot, Boot: boot, Granted: g.granted, Log: slog.New(slog.DiscardHandler)})
	return g
}

func (g *taker) granted(tenant string, number int64, all []tenants.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number[tenant] = number
	may := 0
	for _, x := range all {
		may = x.Servers
	}
	g.open[tenant] = min(max(g.open[tenant], g.wanted[tenant]), may)
	g.claim(tenant)
}

func (g *taker) claim(tenant string) {
	var all []tenants.Demand
	if g.wanted[tenant]+g.open[tenant] > 0 {
		all = []tenants.Demand{{Limit: 6, Held: g.open[tenant], Wanted: g.wanted[tenant]}}
	}
	g.b.Claim(tenant, g.number[tenant], all)
}

// want says how many servers are in use from now on, of those that stay open.
func (g *taker) want(tenant string, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted[tenant] = n
	g.claim(tenant)
}

// shut closes everything.
func (g *taker) shut(tenant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted[tenant], g.open[tenant] = 0, 0
	g.claim(tenant)
}

func (g *taker) has(tenant string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open[tenant]
}

// after waits in the time of the test's bubble.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestBudgetRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		a, b := newTaker(s, "a"), newTaker(s, "b")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, g := range []*taker{a, b} {
			running.Go(func() { g.b.Run(ctx) })
		}
		after(time.Second)
		if !a.b.MayDial() {
			t.Error("it may not dial")
		}
		a.want("acme", 9)
		after(2 * time.Second)
		if a.has("acme") != 6 {
			t.Errorf("a has %d", a.has("acme"))
		}
		b.want("acme", 9)
		after(2 * time.Second)
		if a.has("acme") != 3 || b.has("acme") != 3 {
			t.Errorf("%d and %d", a.has("acme"), b.has("acme"))
		}
		a.want("acme", 0) // idle, and b wants them
		after(2 * time.Second)
		if a.has("acme") != 0 || b.has("acme") != 6 {
			t.Errorf("%d and %d", a.has("acme"), b.has("acme"))
		}
		s.mu.Lock()
		s.away = true
		s.mu.Unlock()
		b.want("acme", 1)
		b.want("acme", 5)
		after(time.Minute)
		if b.has("acme") != 6 || !b.b.MayDial() {
			t.Errorf("the store is away: %d", b.has("acme"))
		}
		s.mu.Lock()
		s.away = false
		s.mu.Unlock()
		a.want("acme", 9)
		after(5 * time.Second)
		if a.has("acme") != 3 || b.has("acme") != 3 {
			t.Errorf("it is back: %d and %d", a.has("acme"), b.has("acme"))
		}
		cancel()
		running.Wait()
		if len(s.rows) > 0 {
			t.Errorf("left over: %v", s.rows)
		}
	})
}

// TestWhatMayBeInUseIsNotGivenBack at the end: others would have it, and the tenant's servers be more than its limit.
func TestWhatMayBeInUseIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		g := newTaker(s, "a")
		g.b.o.Left = func() []string { return []string{"acme"} }
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { g.b.Run(ctx) })
		g.want("acme", 2)
		g.want("globex", 2)
		after(time.Second)
		if g.has("acme") != 2 || g.has("globex") != 2 {
			t.Fatalf("it has %d and %d", g.has("acme"), g.has("globex"))
		}
		cancel()
		running.Wait()
		if len(s.rows["acme"]) == 0 || len(s.rows["globex"]) > 0 {
			t.Errorf("left over: %v", s.rows)
		}
	})
}

// Tenants that are not in use cost no time, and no goroutine or timer each; when nothing is open, nothing at all.
func TestIdleTenantsCostNothing(t *testing.T) {
	many := 10_000
	if harness.Long() {
		many = 100_000
	}
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		g := newTaker(s, "a")
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { g.b.Run(ctx) })
		after(time.Second)
		before := runtime.NumGoroutine()
		id := func(i int) string { return fmt.Sprintf("tenant-%d", i) }
		for i := range many {
			g.want(id(i), 2)
		}
		after(time.Second)
		for i := range many {
			if g.has(id(i)) != 2 {
				t.Fatalf("%s has %d", id(i), g.has(id(i)))
			}
			g.want(id(i), 0) // its two servers stay open
		}
		after(5 * time.Second)
		looks := s.looks
		after(time.Minute)
		if s.looks != looks || len(g.b.due) > 0 || len(g.b.accounts) != many || runtime.NumGoroutine() > before {
			t.Errorf("%d looks, %d due, %d accounts, %d goroutines more", s.looks-looks, len(g.b.due), len(g.b.accounts), runtime.NumGoroutine()-before)
		}
		for i := range many {
			g.shut(id(i))
		}
		after(5 * time.Second)
		if len(g.b.accounts) > 0 || len(g.b.due) > 0 || len(s.rows) > 0 {
			t.Errorf("%d accounts, %d due, rows of %d", len(g.b.accounts), len(g.b.due), len(s.rows))
		}
		cancel()
		running.Wait()
	})
}
