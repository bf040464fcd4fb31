// Package portions tests limits over nodes with a real store: budgets of three nodes, each with a gate that opens what it may.
package portions

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

const (
	tenant = "acme"
	limit  = 10
)

// server is what all gates open connections to: it says when there are more than the limit.
type server struct {
	mu   sync.Mutex
	open int
	most int
}

func (s *server) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
	s.most = max(s.most, s.open)
}

// gate opens at once whatever it wants and may have. What it closes is open at the server for a moment longer.
type gate struct {
	name   string
	at     *server
	budget *cluster.Budget
	relay  *harness.Relay // between it and the store

	mu      sync.Mutex // guards what follows
	number  int64
	may     int
	wanted  int
	open    int
	closing int
	ending  sync.WaitGroup
}

func (g *gate) granted(_ string, number int64, all []tenants.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number, g.may = number, 0
	for _, x := range all {
		g.may = x.Servers
	}
	g.settle()
}

// want says how many servers are in use from now on. Those that are not in use stay open.
func (g *gate) want(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = n
	g.settle()
}

// quit closes everything.
func (g *gate) quit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = 0
	g.shut(g.open)
	g.settle()
}

func (g *gate) settle() {
	g.shut(g.open - g.may)
	if more := min(g.wanted, g.may) - g.open - g.closing; more > 0 && g.budget.MayDial() {
		g.open += more
		g.at.add(more)
	}
	var all []tenants.Demand
	if g.wanted+g.open+g.closing > 0 {
		all = []tenants.Demand{{Scope: tenants.ScopeTenant, Limit: limit, Held: g.open + g.closing, Wanted: g.wanted}}
	}
	g.budget.Claim(tenant, g.number, all)
}

func (g *gate) shut(n int) {
	if n <= 0 {
		return
	}
	g.open -= n
	g.closing += n
	g.ending.Go(func() {
		<-time.After(mathrand.N(5 * time.Millisecond))
		g.at.add(-n)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.closing -= n
		g.settle()
	})
}

func (g *gate) has() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// storeOf makes a store in a database, and returns how it is reached by way of a port.
func storeOf(t *testing.T, c *harness.Cluster, database string) (dsn func(port int) *pgx.ConnConfig) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dsn")
	dsn = func(port int) *pgx.ConnConfig {
		text := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable", port, harness.App, harness.AppPassword, database)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		conf, err := postgres.ReadDSN(path)
		if err != nil {
			t.Fatal(err)
		}
		return conf
	}
	if _, err := postgres.Init(t.Context(), dsn(c.Port())); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func newKeys(t *testing.T) *postgres.Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if _, err := postgres.MakeKeyFile(path); err != nil {
		t.Fatal(err)
	}
	keys, err := postgres.ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// cluster3 starts three nodes on one store, each behind a relay of its own.
func cluster3(t *testing.T, at *server) (gates []*gate, rows *pgx.Conn) {
	t.Helper()
	c := harness.Postgres(t)
	dsn, keys := storeOf(t, c, harness.Database(t, c)), newKeys(t)
	for _, name := range []string{"a", "b", "c"} {
		g := &gate{name: name, at: at, relay: harness.NewRelay(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port())), harness.Faults{})}
		_, port, err := net.SplitHostPort(g.relay.Addr())
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		d, err := tenants.NewDirectory()
		if err != nil {
			t.Fatal(err)
		}
		boot, log := rand.Text(), slog.New(slog.DiscardHandler)
		store, err := postgres.Open(t.Context(), postgres.Options{Conn: dsn(n), Keys: keys, Node: name, Boot: boot, Directory: d, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		ledger, err := store.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		g.budget = cluster.NewBudget(cluster.BudgetOptions{Ledger: ledger, Node: name, Boot: boot, Granted: g.granted, Log: log})
		following, endFollowing := context.WithCancel(context.Background())
		ctx, end := context.WithCancel(context.Background())
		var follows, running sync.WaitGroup
		follows.Go(func() { store.Watch(following) })
		running.Go(func() { g.budget.Run(ctx) })
		t.Cleanup(func() {
			g.ending.Wait()
			end()
			running.Wait()
			ledger.Close()
			endFollowing()
			follows.Wait()
		})
		gates = append(gates, g)
	}
	rows, err := pgx.ConnectConfig(t.Context(), dsn(c.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close(context.Background()) })
	return gates, rows
}

func TestLimitOverNodesWithARealStore(t *testing.T) {
	t.Parallel()
	at := &server{}
	gates, rows := cluster3(t, at)
	var worst time.Duration
	for _, g := range gates { // all demand on one node, then on another: what the one before has is idle
		began := time.Now()
		g.want(2 * limit)
		harness.Eventually(t, harness.Patience, "node "+g.name+" has all of the limit", func() bool { return g.has() == limit })
		worst = max(worst, time.Since(began))
		g.want(0)
	}
	t.Logf("all %d servers handed over within %v", limit, worst)
	steps := 40
	if harness.Long() {
		steps = 2000
	}
	for range steps {
		g := gates[mathrand.N(len(gates))]
		switch mathrand.N(10) {
		case 0:
			g.relay.Cut() // it connects again
		case 1:
			g.quit()
		default:
			g.want(mathrand.N(2 * limit))
		}
		<-time.After(mathrand.N(100 * time.Millisecond))
		var sum int
		if err := rows.QueryRow(t.Context(), `SELECT coalesce(sum(servers), 0) FROM postern.portions WHERE tenant = $1 AND scope = ''`, tenant).Scan(&sum); err != nil || sum > limit {
			t.Fatalf("%d in rows, %v", sum, err)
		}
	}
	for _, g := range gates {
		g.want(limit)
	}
	harness.Eventually(t, harness.Patience, "every node has an even share", func() bool {
		return gates[0].has() >= limit/3 && gates[1].has() >= limit/3 && gates[2].has() >= limit/3
	})
	for _, g := range gates {
		g.quit()
	}
	harness.Eventually(t, harness.Patience, "everything is given back", func() bool {
		err := rows.QueryRow(t.Context(), `SELECT FROM postern.portions`).Scan()
		return errors.Is(err, pgx.ErrNoRows)
	})
	if at.most > limit {
		t.Errorf("%d were open at once", at.most)
	}
}
