// Servers of other generations: what Postern asks of them and relies on, in each.

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

func TestServerVersions(t *testing.T) {
	t.Parallel()
	for _, major := range []int{16, 17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			cluster := harness.PostgresOf(t, major)
			g := startGate(t, gateConf{Cluster: cluster, PoolSize: 2, Tenant: func(m harness.Map) {
				m["users"] = []harness.Map{{"name": harness.App, "verifier": harness.Verifier(t, cluster, harness.App)}}
			}})
			for _, mode := range []string{"transaction", "session"} {
				g.visitVersion(t, mode, major)
			}
			g.visitTransactionParameters(t)
			g.visitState(t)
			g.visitExtensions(t)
		})
	}
}

// visitVersion is a driver's day: greeting, named statements, COPY, an error, a cancel.
func (g *gate) visitVersion(t *testing.T, mode string, major int) {
	t.Helper()
	ctx, done := context.WithTimeout(t.Context(), harness.Patience)
	defer done()
	conn, err := pgx.Connect(ctx, g.dsn(mode)) // with its default, statements by name
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(conn)
	direct := g.direct(t)
	if v := conn.PgConn().ParameterStatus("server_version"); !strings.HasPrefix(v, fmt.Sprint(major)) {
		t.Errorf("server_version %q", v)
	}
	for _, name := range []string{"server_encoding", "DateStyle", "IntervalStyle", "standard_conforming_strings", "search_path", "scram_iterations"} {
		if ours, theirs := conn.PgConn().ParameterStatus(name), direct.PgConn().ParameterStatus(name); ours != theirs {
			t.Errorf("%s: %s is %q, directly %q", mode, name, ours, theirs)
		}
	}
	other := g.script(t, "transaction")
	for i := range 5 {
		other.want("C:BEGIN Z:T", 1, query("begin")) // which takes the server used last
		var sum int
		if err := conn.QueryRow(ctx, "select $1::int + $2::int", i, 40).Scan(&sum); err != nil || sum != i+40 {
			t.Errorf("%s: %d, %v", mode, sum, err)
		}
		other.want("C:COMMIT Z:I", 1, query("commit"))
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	table := harness.Unique("copied")
	if _, err := tx.Exec(ctx, "create table "+table+" (x int)"); err != nil {
		t.Fatal(err)
	}
	if n, err := tx.CopyFrom(ctx, pgx.Identifier{table}, []string{"x"}, pgx.CopyFromSlice(1000, func(i int) ([]any, error) { return []any{i}, nil })); n != 1000 || err != nil {
		t.Errorf("%s: %d rows copied, %v", mode, n, err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Error(err)
	}
	_, err = conn.Exec(ctx, "select 1 / (select count(*)::int from "+table+" where x < 0)")
	wantState(t, err, "22012")
	slept := make(chan error, 1)
	go func() {
		_, err := conn.Exec(ctx, "select pg_sleep(60)")
		slept <- err
	}()
	harness.Eventually(t, harness.Patience, "it sleeps", func() bool {
		return value(t, direct, "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'") == "1"
	})
	if err := conn.PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	wantState(t, <-slept, "57014")
	if got := value(t, conn, "select 'here'"); got != "here" {
		t.Error(got)
	}
}

// visitTransactionParameters sets what ends with a transaction and cannot be reset; nobody is to pay for it.
func (g *gate) visitTransactionParameters(t *testing.T) {
	t.Helper()
	early := g.script(t, "transaction", "options='-c transaction_read_only=on -c transaction_isolation=serializable -c transaction_deferrable=on'")
	p := newPair(t, g)
	early.want(shows("off"), 1, query("show transaction_read_only"))
	for _, sql := range []string{"set transaction_isolation = 'serializable'", "set transaction_read_only = on", "set transaction_deferrable = on"} {
		p.a.want("C:SET Z:I", 1, query(sql))
		p.a.want("C:BEGIN C:SET C:COMMIT Z:I", 1, query("begin; "+sql+"; commit"))
		for _, s := range []*script{p.b, p.a, early} {
			s.want(shows("read committed"), 1, query("show transaction_isolation"))
			s.want(shows("off"), 1, query("show transaction_read_only"))
		}
	}
	early.conn.Close()
	for _, s := range []*script{p.a, p.b, p.c} {
		s.conn.Close()
	}
}

// visitState looks at what the inspection of a session finds.
func (g *gate) visitState(t *testing.T) {
	t.Helper()
	p := newPair(t, g)
	p.a.want("C:SET C:SET Z:I", 1, query("set work_mem = '7MB'; set app.uid = 'alice'"))
	p.shuffle(func() {
		p.a.want(shows("7MB"), 1, query("show work_mem"))
		p.b.want(shows("4MB"), 1, query("show work_mem"))
		p.a.want(shows("alice"), 1, query("show app.uid"))
	})
	busy := func(n float64) func() bool {
		return func() bool { return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == n }
	}
	for _, kind := range []struct{ leave, end string }{
		{"create temp table mine (x int)", "drop table mine"},
		{"select pg_advisory_lock(4711)", "select pg_advisory_unlock(4711)"},
		{"listen news", "unlisten *"},
		{"declare c cursor with hold for select 1", "close c"},
		{"prepare p as select 42", "deallocate p"},
	} {
		for i, sql := range []string{kind.leave, kind.end} {
			if got, err := p.a.try(1, query(sql)); err != nil || strings.Contains(got, "E:") {
				t.Fatalf("%s: %s, %v", sql, got, err)
			}
			harness.Eventually(t, harness.Patience, "its server is kept, or free", busy(float64(1-i)))
		}
	}
}
