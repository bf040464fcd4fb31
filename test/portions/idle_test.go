package portions

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
	"github.com/postern/postern/test/harness"
)

// asked counts what is asked of the store, by statement.
type asked struct {
	mu  sync.Mutex
	all map[string]int
}

var (
	_ pgx.QueryTracer = (*asked)(nil)
	_ pgx.BatchTracer = (*asked)(nil)
)

func (a *asked) add(sql string) {
	words := strings.Fields(sql)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all[strings.Join(words[:min(len(words), 12)], " ")]++
}

func (a *asked) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	a.add(d.SQL)
	return ctx
}
func (a *asked) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
func (a *asked) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (a *asked) TraceBatchQuery(_ context.Context, _ *pgx.Conn, d pgx.TraceBatchQueryData) {
	a.add(d.SQL)
}
func (a *asked) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// since is what was asked after before was taken, and how often the nodes have said meanwhile that they live.
func (a *asked) since(before map[string]int) (all, beats int, told string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var lines strings.Builder
	for _, sql := range slices.Sorted(maps.Keys(a.all)) {
		n := a.all[sql] - before[sql]
		if all += n; n > 0 {
			fmt.Fprintf(&lines, "\n%6d %s", n, sql)
		}
		if strings.HasPrefix(sql, "UPDATE postern.nodes SET seen") {
			beats += n
		}
	}
	return all, beats, lines.String()
}

func (a *asked) now() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.all)
}

// keeper is a gate that keeps one idle server of every tenant.
type keeper struct {
	budget *cluster.Budget

	mu  sync.Mutex
	has map[string]bool
}

func (k *keeper) granted(tenant string, number int64, g []tenants.Grant) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.has[tenant] = len(g) > 0
	k.budget.Claim(tenant, number, []tenants.Demand{{Scope: tenants.ScopeTenant, Limit: limit, Held: len(g), Wanted: 1 - len(g)}})
}

func (k *keeper) holds() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, has := range k.has {
		if has {
			n++
		}
	}
	return n
}

// use writes down that a machine is used. In a store that is new to it somebody has to take the right to it over first.
func use(ctx context.Context, l *postgres.Ledger, key string) error {
	err := l.Use(ctx, key)
	if !errors.Is(err, tenants.ErrAbandoned) {
		return err
	}
	lease, err := l.TakeToUse(ctx, key, 15*time.Second)
	if err != nil {
		return err
	}
	return l.DropLease(ctx, lease, false)
}

// TestIdleTenantsAskNothing: however many tenants have idle servers and machines that are in use, what nodes ask of the store is as much as
// there are nodes and seconds. With POSTERN_TEST_LONG it is watched for so long that everything that is done now and then is among it.
func TestIdleTenantsAskNothing(t *testing.T) {
	const perBeat = 8 // statements, of which a node has about four
	many, beats := 200, 12
	if harness.Long() {
		many, beats = 1000, 3*70
	}
	c := harness.Postgres(t)
	dsn := storeOf(t, c, harness.Database(t, c))
	count := &asked{all: make(map[string]int)}
	keys := newKeys(t)
	var keepers []*keeper
	for _, name := range []string{"a", "b", "c"} {
		conf := dsn(c.Port())
		conf.Tracer = count
		k := &keeper{has: make(map[string]bool)}
		boot, log := rand.Text(), slog.New(slog.DiscardHandler)
		d, err := tenants.NewDirectory()
		if err != nil {
			t.Fatal(err)
		}
		store, err := postgres.Open(t.Context(), postgres.Options{Conn: conf, Keys: keys, Node: name, Boot: boot, Directory: d, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		ledger, err := store.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		k.budget = cluster.NewBudget(cluster.BudgetOptions{Ledger: ledger, Node: name, Boot: boot, Granted: k.granted, Log: log})
		ctx, end := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { store.Watch(ctx) })
		running.Go(func() { k.budget.Run(ctx) })
		running.Go(func() {
			ledger.Watch(ctx, postgres.Watcher{Told: func(tenants.LeaseNews) {}, Idle: func(string) bool { return false }})
		})
		t.Cleanup(func() {
			end()
			running.Wait()
			ledger.Close()
		})
		harness.Eventually(t, harness.Patience, "node "+name+" is announced", func() bool { return use(t.Context(), ledger, "machine/first") == nil })
		var work errgroup.Group
		work.SetLimit(4)
		for i := range many {
			id := fmt.Sprintf("t%04d", i)
			k.budget.Claim(id, 0, []tenants.Demand{{Scope: tenants.ScopeTenant, Limit: limit, Wanted: 1}})
			work.Go(func() error { return use(t.Context(), ledger, "machine/"+id) })
		}
		if err := work.Wait(); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, harness.Patience, "node "+name+" has a server of each tenant", func() bool { return k.holds() == many })
		keepers = append(keepers, k)
	}
	before := count.now()
	harness.Eventually(t, 5*harness.Patience, "some time has passed", func() bool { _, n, _ := count.since(before); return n >= beats })
	all, beat, told := count.since(before)
	t.Logf("%.1f statements for each time that a node says that it lives, which is every second:%s", float64(all)/float64(beat), told)
	if all > perBeat*beat {
		t.Errorf("%d tenants: %d statements in %d beats", many, all, beat)
	}
	for _, k := range keepers {
		if k.holds() != many {
			t.Errorf("%d tenants have a server", k.holds())
		}
	}
}
