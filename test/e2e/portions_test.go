// Limits over several nodes, with Postgres as the oracle: the roles have just as many connections as the limits allow.

package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// sharing is nodes of one cluster whose tenant's role has only so many connections.
type sharing struct {
	*storeWorld
	upstream *local.Cluster
	role     string
	nodes    []*gate
}

// newSharing starts nodes that may have limit servers together.
func newSharing(t *testing.T, limit int, names ...string) *sharing {
	t.Helper()
	return newSharingOf(t, sharingConf{limit: limit}, names...)
}

type sharingConf struct {
	limit    int         // of servers
	maxNodes int         // 0: the default
	pool     harness.Map // more of it
}

func newSharingOf(t *testing.T, o sharingConf, names ...string) *sharing {
	t.Helper()
	limit := o.limit
	w := &sharing{storeWorld: newStoreWorld(t), upstream: harness.Postgres(t), role: "limited_" + strings.ToLower(rand.Text())}
	w.postgres(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'of the server' CONNECTION LIMIT %d`, w.role, limit))
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if text, err := os.ReadFile(w.upstream.LogPath()); err != nil || strings.Contains(string(text), fmt.Sprintf(`too many connections for role "%s"`, w.role)) {
			t.Errorf("the role was above its limit, or that cannot be read: %v", err)
		}
	})
	write(t, filepath.Join(w.dir, "server.pw"), []byte("of the server\n"))
	w.acme["users"].([]harness.Map)[0]["upstream"] = harness.Map{"user": w.role, "password_file": filepath.Join(w.dir, "server.pw")}
	pool := harness.Map{"size": limit, "max_servers": limit}
	maps.Copy(pool, o.pool)
	w.acme["pool"] = pool
	service := "service_" + strings.ToLower(rand.Text())
	w.postgres(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'of Postern' IN ROLE pg_monitor`, service))
	write(t, filepath.Join(w.dir, "service.pw"), []byte("of Postern\n"))
	w.acme["service"] = harness.Map{"user": service, "password_file": filepath.Join(w.dir, "service.pw")}
	w.command("init")
	w.load(w.acme)
	var key [32]byte
	_, _ = rand.Read(key[:])
	write(t, filepath.Join(w.dir, "cluster.key"), []byte(base64.StdEncoding.EncodeToString(key[:])+"\n"))
	place := w.tenants["postgres"].(harness.Map)
	delete(place, "cache_file") // which is of one process
	for _, name := range names {
		cluster := harness.Map{"name": name, "bind": "127.0.0.1:0", "key_file": filepath.Join(w.dir, "cluster.key")}
		if o.maxNodes > 0 {
			cluster["max_nodes"] = o.maxNodes
		}
		file := harness.Map{"tenants": w.tenants, "cluster": cluster}
		g := &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: file}), cluster: w.upstream, database: w.acme["database"].(string)}
		g.logsFailure(name)
		w.nodes = append(w.nodes, g)
	}
	return w
}

func (w *sharing) postgres(sql string) {
	w.t.Helper()
	if err := w.upstream.Exec(w.t.Context(), "postgres", sql); err != nil {
		w.t.Fatal(err)
	}
}

// refused counts the logins that Postgres has refused to the nodes.
func (w *sharing) refused() {
	w.t.Helper()
	for _, g := range w.nodes {
		if n := g.logged("server login failed"); n > 0 {
			w.t.Errorf("%d server logins failed: %v", n, g.Log().Find("server login failed", nil)[0])
		}
	}
}

// TestALimitOverNodes: all load on one node reaches the limit, then on another; then all have some. Postgres never sees one too many.
func TestALimitOverNodes(t *testing.T) {
	t.Parallel()
	const limit = 6
	w := newSharing(t, limit, "a", "b", "c")
	for _, g := range w.nodes { // each knows how the server greets, as long as somebody is there
		g.connect(t, "transaction")
	}
	var last []*script
	for i, g := range w.nodes {
		var next []*script
		for range limit {
			s := g.script(t, "transaction")
			s.say(query("begin"))
			next = append(next, s)
		}
		start := time.Now()
		for _, s := range last { // whose servers the next node gets
			s.want("C:COMMIT Z:I", 1, query("commit"))
		}
		for _, s := range next {
			if got := s.hear(1); got != "C:BEGIN Z:T" {
				t.Fatalf("node %d: %s", i, got)
			}
		}
		t.Logf("node %d has the full limit after %v", i, time.Since(start))
		last = next
	}
	for _, s := range last {
		s.want("C:COMMIT Z:I", 1, query("commit"))
	}
	// Whoever comes and goes at all nodes at the same time is served at each.
	var served [3]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load errgroup.Group
	for i, g := range w.nodes {
		for range 4 {
			conf := configOf(t, g.dsn("session"))
			load.Go(func() error {
				for ctx.Err() == nil {
					conn, err := pgx.ConnectConfig(context.WithoutCancel(ctx), conf.Copy())
					if err != nil {
						return fmt.Errorf("node %d: %w", i, err)
					}
					_, err = conn.Exec(context.WithoutCancel(ctx), "select 1")
					closeConn(conn)
					if err != nil {
						return fmt.Errorf("node %d: %w", i, err)
					}
					served[i].Add(1)
				}
				return nil
			})
		}
	}
	harness.Eventually(t, harness.Patience, "all nodes serve", func() bool {
		return min(served[0].Load(), served[1].Load(), served[2].Load()) >= 20
	})
	stop()
	if err := load.Wait(); err != nil {
		t.Error(err)
	}
	w.refused()
}

// TestOneServerForThreeNodes: they take turns.
func TestOneServerForThreeNodes(t *testing.T) {
	t.Parallel()
	w := newSharing(t, 1, "a", "b", "c")
	var served [3]atomic.Int64
	var longest [3]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load errgroup.Group
	for i, g := range w.nodes {
		conf := configOf(t, g.dsn("transaction"))
		load.Go(func() error {
			conn, err := pgx.ConnectConfig(context.WithoutCancel(ctx), conf)
			if err != nil {
				return err
			}
			defer closeConn(conn)
			for last := time.Now(); ctx.Err() == nil; last = time.Now() {
				if _, err := conn.Exec(context.WithoutCancel(ctx), "select 1"); err != nil {
					return fmt.Errorf("node %d: %w", i, err)
				}
				served[i].Add(1)
				longest[i].Store(max(longest[i].Load(), int64(time.Since(last))))
			}
			return nil
		})
	}
	waited := func(n int64) func() bool { // each has had its turn so often
		var had [3]int64
		var turns [3]int64
		return func() bool {
			for i := range had {
				if now := served[i].Load(); now > had[i] {
					had[i], turns[i] = now, turns[i]+1
				}
			}
			return min(turns[0], turns[1], turns[2]) >= n
		}
	}
	harness.Eventually(t, harness.Patience, "all three are served, again and again", waited(3))
	stop()
	if err := load.Wait(); err != nil {
		t.Error(err)
	}
	for i := range longest {
		t.Logf("node %d: %d transactions, the longest wait %v", i, served[i].Load(), time.Duration(longest[i].Load()))
	}
	w.refused()
}

// TestADrainingNodeGivesBack what it does not use any more, long before it ends: the others have it within the time of a move, and see no error.
func TestADrainingNodeGivesBack(t *testing.T) {
	t.Parallel()
	const limit = 4
	w := newSharing(t, limit, "a", "b")
	a, b := w.nodes[0], w.nodes[1]
	b.connect(t, "transaction") // who knows how the server greets
	begin := func(g *gate, n int) (all []*script) {
		for range n {
			s := g.script(t, "transaction")
			s.say(query("begin"))
			all = append(all, s)
		}
		return all
	}
	has := func(all []*script) {
		t.Helper()
		for _, s := range all {
			if got := s.hear(1); got != "C:BEGIN Z:T" {
				t.Fatal(got)
			}
		}
	}
	first := begin(a, limit)
	has(first)
	next := begin(b, limit) // wait for what a has
	a.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "a drains", func() bool { code, _ := a.readyz(t); return code == 503 })
	start := time.Now()
	for _, s := range first[1:] {
		s.say(query("commit"))
		if got := s.hear(1); !strings.HasPrefix(got, "C:COMMIT Z:I") {
			t.Fatal(got)
		}
	}
	has(next[:limit-1])
	t.Logf("b has what a has let go of after %v", time.Since(start))
	first[0].want("T D:1 C:SELECT_1 Z:T", 1, query("select 1")) // it drains still
	first[0].say(query("commit"))
	if got := first[0].hear(1); !strings.HasPrefix(got, "C:COMMIT Z:I") {
		t.Fatal(got)
	}
	has(next[limit-1:])
	if code := a.Wait(t); code != 0 {
		t.Errorf("a has ended with %d", code)
	}
	for _, s := range next {
		s.want("C:COMMIT Z:I", 1, query("commit"))
	}
	w.refused()
}
