// The limits of users, databases and pools, and how users share what there is.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

// limited is acme with the keys of its pool, and of its user app.
func limited(pool, app harness.Map) func(harness.Map) {
	return func(tenant harness.Map) {
		tenant["pool"] = pool
		for key, value := range app {
			tenant["users"].([]harness.Map)[0][key] = value
		}
	}
}

// otherDSN is how the user other reaches the gate.
func (g *gate) otherDSN(listener string, options ...string) string {
	return strings.ReplaceAll(g.dsn(listener, options...), "app", "other")
}

// refusal is what a client is told that may not come in; "" if it may.
func refusal(dsn string) string {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn)
	if err == nil {
		_ = conn.Close(ctx)
		return ""
	}
	var e *pgconn.PgError
	if !asPG(err, &e) {
		return err.Error()
	}
	return e.Code + " " + e.Severity + " " + e.Message
}

// TestClientsPerUserAndDatabase fills both limits, and changes them while the gate runs.
func TestClientsPerUserAndDatabase(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: limited(harness.Map{"max_database_clients": 3}, harness.Map{"max_clients": 2})})
	one := g.script(t, "transaction")
	g.script(t, "session")
	ofUser := `53300 FATAL too many clients for user "app" already`
	ofDatabase := fmt.Sprintf(`53300 FATAL too many clients for database "%s" already`, g.database)
	expect := func(what, dsn, want string) {
		t.Helper()
		if got := refusal(dsn); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	expect("a third of the user", g.dsn("session"), ofUser)
	expect("in another database", g.dsn("transaction", "dbname=postgres"), ofUser)
	expect("with a wrong password", g.dsn("transaction", "password=wrong"), `28P01 FATAL password authentication failed for user "app"`)
	expect("unknown", g.dsn("transaction", "user=nobody.acme"), `28P01 FATAL password authentication failed for user "nobody"`)

	scriptAs(t, g.otherDSN("transaction"))
	expect("a fourth in the database", g.otherDSN("transaction"), ofDatabase)
	expect("in another database", g.otherDSN("transaction", "dbname=postgres"), "")
	if n := g.metric("postern_refusals_total", "reason", "limit"); n != 3 {
		t.Errorf("%v refusals counted, want 3", n)
	}

	// Who leaves makes room, and new limits hold from the next login on. Who is in stays.
	one.conn.Close()
	harness.Eventually(t, harness.Patience, "there is room again", func() bool { return refusal(g.dsn("transaction")) == "" })
	limited(harness.Map{"max_database_clients": 2}, harness.Map{"max_clients": 0})(g.tenant)
	g.reload(g.tenant)
	harness.Eventually(t, harness.Patience, "the database's new limit holds", func() bool { return refusal(g.dsn("transaction")) == ofDatabase })
	limited(harness.Map{}, harness.Map{"max_clients": 1})(g.tenant)
	g.reload(g.tenant)
	harness.Eventually(t, harness.Patience, "the user's new limit holds", func() bool { return refusal(g.dsn("transaction")) == ofUser })
	expect("another user", g.otherDSN("transaction"), "")
}

// TestReplicationCountsAsClients of its user, and of its database if it has one.
func TestReplicationCountsAsClients(t *testing.T) {
	t.Parallel()
	conf := gateConf{Tenant: limited(harness.Map{"max_database_clients": 1}, harness.Map{"max_clients": 2})}
	g := startReplicating(t, conf, nil)
	logical := g.replica(t, "transaction")
	if got := refusal(g.dsn("transaction")); !strings.HasPrefix(got, "53300 FATAL too many clients for database") {
		t.Error(got)
	}
	physical := g.script(t, "transaction", forWAL)
	if got := refusal(g.dsn("transaction", forWAL)); got != `53300 FATAL too many clients for user "app" already` {
		t.Error(got)
	}
	logical.conn.Close()
	physical.conn.Close()
	harness.Eventually(t, harness.Patience, "there is room again", func() bool { return refusal(g.dsn("transaction")) == "" })
	if got := refusal(g.dsn("transaction", forWAL)); got != "" {
		t.Error(got)
	}
}

// TestServersPerUserAndDatabase never has more than the smallest limit allows, and follows changed ones.
func TestServersPerUserAndDatabase(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Tenant: limited(harness.Map{"size": 5, "max_database_servers": 3}, harness.Map{"max_servers": 2})})
	watch := g.direct(t)
	elsewhere := g.script(t, "transaction", "dbname=postgres") // of the same user; the server that greets it makes room
	held := g.holders(t, 2)
	waiter := g.script(t, "transaction")
	waiter.say(query("select 'served'"))
	harness.Eventually(t, harness.Patience, "the user's third waits", g.waiting(1))
	elsewhere.say(query("select 'elsewhere'"))
	harness.Eventually(t, harness.Patience, "so it does in another database", g.waiting(2))

	other := scriptAs(t, g.otherDSN("transaction"))
	other.want("C:BEGIN Z:T", 1, query("begin"))
	second := scriptAs(t, g.otherDSN("transaction"))
	second.say(query("select 'second'"))
	harness.Eventually(t, harness.Patience, "the database's fourth waits", g.waiting(3))
	if n := backends(t, watch); n != "3" {
		t.Errorf("%s servers, max_database_servers is 3", n)
	}

	// Larger limits hold at once.
	limited(harness.Map{"size": 5, "max_database_servers": 4}, harness.Map{"max_servers": 2})(g.tenant)
	g.reload(g.tenant)
	if got := second.hear(1); got != "T D:second C:SELECT_1 Z:I" {
		t.Error(got)
	}
	second.want("C:BEGIN Z:T", 1, query("begin"))
	limited(harness.Map{"size": 5}, harness.Map{"max_servers": 4})(g.tenant)
	g.reload(g.tenant)
	if got := waiter.hear(1) + ", " + elsewhere.hear(1); got != "T D:served C:SELECT_1 Z:I, T D:elsewhere C:SELECT_1 Z:I" {
		t.Error(got)
	}

	// Smaller ones as servers are released.
	limited(harness.Map{"size": 5, "max_database_servers": 2}, harness.Map{"max_servers": 1})(g.tenant)
	g.reload(g.tenant)
	harness.Eventually(t, harness.Patience, "what is idle goes", func() bool { return backends(t, watch) == "4" })
	for i, s := range append(held, other) {
		s.want("C:COMMIT Z:I", 1, query("commit"))
		harness.Eventually(t, harness.Patience, "what is released goes", func() bool { return backends(t, watch) == fmt.Sprint(max(2, 3-i)) })
	}
}

// TestReserve opens for who waits too long, and is closed when nobody needs it.
func TestReserve(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"server_idle": "0s"},
		Tenant: limited(harness.Map{"size": 1, "reserve": 1, "reserve_after": "1s"}, nil)})
	watch := g.direct(t)
	held := g.holders(t, 1)[0]
	began := time.Now()
	late := g.script(t, "transaction")
	late.want("C:BEGIN Z:T", 1, query("begin"))
	if waited := time.Since(began); waited < 990*time.Millisecond {
		t.Errorf("the reserve was opened after %v", waited)
	}
	later := g.script(t, "transaction")
	later.say(query("select 'later'"))
	harness.Eventually(t, harness.Patience, "it has waited for the reserve", func() bool {
		return g.waiting(1)() && time.Since(began) > 3*time.Second
	})
	if n := backends(t, watch); n != "2" {
		t.Errorf("%s servers, size and reserve are 1", n)
	}
	held.want("C:COMMIT Z:I", 1, query("commit"))
	if got := later.hear(1); got != "T D:later C:SELECT_1 Z:I" {
		t.Error(got)
	}
	late.want("C:COMMIT Z:I", 1, query("commit"))
	harness.Eventually(t, harness.Patience, "the pool has its size again", func() bool { return backends(t, watch) == "1" })
}

// TestUsersShare has a user with two hundred busy clients and one with two share the servers of a tenant, and of a
// database. A server goes to who has fewer as soon as the others release one: a transaction of the two is done long before
// the two hundred have had one more each, and before they have had several when the two were away for so long that others
// got their servers. If nobody gave a server up but for those who have waited a second longer, that would be a dozen.
func TestUsersShare(t *testing.T) {
	t.Parallel()
	const work = "select 1 from pg_sleep(0.001)"
	for _, key := range []string{"max_servers", "max_database_servers"} {
		t.Run(key, func(t *testing.T) {
			g := startGate(t, gateConf{Tenant: limited(harness.Map{"size": 20, key: 6}, nil)})
			ctx, stop := context.WithCancel(t.Context())
			crowd := g.crowd(t, 200)
			var done atomic.Int64
			var busy, few errgroup.Group
			for _, s := range crowd {
				busy.Go(func() error {
					for ctx.Err() == nil {
						if got, err := s.try(1, query(work)); err != nil || !strings.HasSuffix(got, "D:1 C:SELECT_1 Z:I") {
							return fmt.Errorf("%s: %w", got, err)
						}
						done.Add(1)
					}
					return nil
				})
			}
			harness.Eventually(t, harness.Patience, "all places are taken", func() bool { return done.Load() > 2*int64(len(crowd)) })
			var others [2][]int64 // how many of the crowd's were done meanwhile, by round
			for i := range others {
				s := scriptAs(t, g.otherDSN("transaction"))
				few.Go(func() error {
					for round := range 30 {
						if round%10 == 9 {
							time.Sleep(1700 * time.Millisecond) // it is away
						}
						before := done.Load()
						if got, err := s.try(1, query(work)); err != nil || got != "T D:1 C:SELECT_1 Z:I" {
							return fmt.Errorf("%s: %w", got, err)
						}
						others[i] = append(others[i], done.Load()-before)
					}
					return nil
				})
			}
			if err := few.Wait(); err != nil {
				t.Error(err)
			}
			all := slices.Sorted(slices.Values(slices.Concat(others[0], others[1])))
			usual, most := all[len(all)/2], all[len(all)-1]
			t.Logf("a transaction was done after %d of the others', at most after %d", usual, most)
			// A server that was given up has to be logged in to, which on a busy computer takes a while.
			if each := int64(len(crowd)); usual > each/2 || most > 5*each {
				t.Errorf("a transaction was done after %d of the others', at most after %d", usual, most)
			}
			stop()
			if err := busy.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// crowd logs n clients in, a few at a time.
func (g *gate) crowd(t *testing.T, n int) []*script {
	t.Helper()
	all := make([]*script, n)
	var logins errgroup.Group
	logins.SetLimit(8)
	for i := range all {
		logins.Go(func() (err error) {
			all[i], err = hijack(t.Context(), g.dsn("transaction"))
			return err
		})
	}
	err := logins.Wait()
	t.Cleanup(func() {
		for _, s := range all {
			if s != nil {
				s.conn.Close()
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestStatementLimits has few statements for each client and fewer on each server.
func TestStatementLimits(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1, Limits: harness.Map{"statements": 3, "statement_memory_mib": 1, "server_statements": 2}})
	s := g.script(t, "transaction")
	for i := range 3 {
		name := fmt.Sprint("s", i)
		s.want(fmt.Sprintf("1 2 D:%d C:SELECT_1 Z:I", i), 1, parse(name, fmt.Sprint("select ", i)), bind(name), execute(), syncUp())
	}
	s.want("E:54000 Z:I", 1, parse("more", "select 4"), syncUp())
	s.want("T D:2 C:SELECT_1 Z:I", 1, query("select count(*) from pg_prepared_statements"))
	s.want("2 D:0 C:SELECT_1 Z:I", 1, bind("s0"), execute(), syncUp()) // prepared again
	s.want("3 Z:I", 1, closeStatement("s1"), syncUp())
	s.want("E:54000 Z:I", 1, parse("long", "select '"+strings.Repeat("x", 1<<20)+"'"), syncUp())
	s.want("1 Z:I", 1, parse("more", "select 4"), syncUp())
}

// TestConsoleShowsLimits as they are, in the terms of PgBouncer.
func TestConsoleShowsLimits(t *testing.T) {
	t.Parallel()
	g := startConsoleGate(t, func(file, tenant harness.Map) {
		limited(harness.Map{"size": 4, "min": 1, "reserve": 3, "max_servers": 30, "max_database_clients": 11, "max_database_servers": 12},
			harness.Map{"pool_size": 6, "max_clients": 7, "max_servers": 8})(tenant)
		file["limits"] = harness.Map{"server_statements": 77, "statements": 88, "statement_memory_mib": 9}
	})
	c := g.console(t)
	wantRow(t, row(t, show(t, c, "DATABASES"), "name", "acme/"+g.database), map[string]string{"pool_size": "4", "min_pool_size": "1",
		"reserve_pool_size": "3", "reserve_pool": "3", "max_connections": "12", "max_client_connections": "11"})
	wantRow(t, row(t, show(t, c, "USERS"), "name", "app.acme"), map[string]string{"pool_size": "        6", "reserve_pool_size": "        3",
		"max_user_connections": "8", "max_user_client_connections": "7"})
	wantRow(t, row(t, show(t, c, "USERS"), "name", "other.acme"), map[string]string{"pool_size": "", "reserve_pool_size": "        3",
		"max_user_connections": "0", "max_user_client_connections": "0"})
	config := show(t, c, "CONFIG")
	for key, want := range map[string][2]string{"max_prepared_statements": {"77", "200"}, "limits.statements": {"88", "5000"},
		"limits.statement_memory_mib": {"9", "64"}, "reserve_pool_timeout": {"5", "5"}, "reserve_pool_size": {"0", "0"}} {
		wantRow(t, row(t, config, "key", key), map[string]string{"value": want[0], "default": want[1]})
	}
	limited(harness.Map{"size": 4, "max_servers": 10, "max_clients": 20, "max_database_clients": 21, "max_database_servers": 22}, nil)(g.tenant)
	g.reload(g.tenant)
	wantRow(t, row(t, show(t, c, "DATABASES"), "name", "acme/"+g.database), map[string]string{"max_connections": "10", "max_client_connections": "20"})
}

// TestPendingMemory: unfinished statements of many clients are bounded together, and who sends little notices nothing.
func TestPendingMemory(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Limits: harness.Map{"pending_memory_mib": 64}})
	begin := append([]byte{'P', 0, 0xf4, 0x24, 0, 0}, make([]byte, 15<<20)...) // 16,000,000 bytes in all, and they do not come
	var refused, kept int
	var all []*script
	for range 6 {
		s := g.script(t, "transaction")
		all = append(all, s)
		_, _ = s.conn.Write(begin) // which the gate may end
	}
	harness.Eventually(t, 20*time.Second, "the others are refused", func() bool {
		return g.logged("session ended", "reason", "pending_memory") >= 4
	})
	for _, s := range all {
		_ = s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		switch m, err := s.Receive(); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			kept++
		case err == nil && word(m) == "E:53200!":
			refused++
		default:
			t.Errorf("heard %T (%v)", m, err)
		}
	}
	if kept != 2 || refused != 4 {
		t.Errorf("%d were kept and %d refused, want 2 of 16 MiB each", kept, refused)
	}
	small := g.script(t, "transaction")
	small.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	for _, s := range all {
		s.conn.Close()
	}
	harness.Eventually(t, 10*time.Second, "they have left", func() bool { return g.metric("postern_client_connections", "tenant", "acme") == 1 })
	long := strings.Repeat(" ", 15<<20)
	small.want("1 2 D:1 C:SELECT_1 Z:I", 1, &pgproto3.Parse{Query: "select 1" + long}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
}
