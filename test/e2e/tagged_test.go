// Tagged clients under random schedules and faults: never two on one server, never another's state, never too many servers.

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// tagged is what all tagged clients know together.
type tagged struct {
	g      *gate
	mu     sync.Mutex
	inside map[string]string // whose transaction a server process is in, by its pid
	killed atomic.Int64
	done   atomic.Int64
}

func TestTaggedClients(t *testing.T) {
	t.Parallel()
	const clients, size, lasting = 24, 6, 8 * time.Second
	g := startGate(t, gateConf{PoolSize: size})
	watch := g.direct(t)
	w := &tagged{g: g, inside: make(map[string]string)}
	ctx, stop := context.WithTimeout(t.Context(), lasting)
	defer stop()
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			for life := 0; ctx.Err() == nil; life++ {
				w.live(ctx, t, fmt.Sprintf("c%d-%d", i, life), rand.New(rand.NewPCG(uint64(i), uint64(life))))
			}
		})
	}
	most := 0
	for ctx.Err() == nil {
		n, err := strconv.Atoi(value(t, watch, "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database()"))
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, n)
		if rand.IntN(40) == 0 { // a server dies under whoever has it
			w.killed.Add(1) // first: its client may hear of it before we do
			do(t, watch, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and datname = current_database() order by random() limit 1")
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
	all.Wait()
	// A process that was told to end may still be seen beside the one that took its place.
	if limit := size + int(w.killed.Load()); most > limit {
		t.Errorf("%d servers, the pool has %d", most, size)
	}
	harness.Eventually(t, harness.Patience, "everybody has left", func() bool {
		return g.metric("postern_client_connections", "tenant", "acme") == 0 && g.metric("postern_server_connections", "tenant", "acme", "state", "active") == 0
	})
	if n := g.metric("postern_server_connections", "tenant", "acme"); n > size {
		t.Errorf("%v servers in the end", n)
	}
	if w.done.Load() < 100 {
		t.Errorf("only %d transactions", w.done.Load())
	}
	t.Logf("%d transactions, %d servers killed, %d servers at most", w.done.Load(), w.killed.Load(), most)
}

// live is one client's session: it sets things, looks whether it finds them, and leaves, politely or not.
func (w *tagged) live(ctx context.Context, t *testing.T, tag string, r *rand.Rand) {
	// Sessions outlive the test's time by what they are doing, so that none is cut off by the test itself.
	ctx = context.WithoutCancel(ctx)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.g.dsn("transaction", "application_name="+tag))
	if err != nil {
		t.Error(err)
		return
	}
	defer closeConn(conn)
	set, temp := false, false
	for range 1 + r.IntN(12) {
		err := w.turn(ctx, t, conn, tag, r, &set, &temp)
		if err != nil {
			if lost := sqlstate(err); w.killed.Load() == 0 || lost != "08006" && lost != "57P01" && !conn.IsClosed() {
				t.Errorf("%s: %v", tag, err)
			}
			return
		}
		w.done.Add(1)
	}
	if r.IntN(3) == 0 { // leaves in the middle of a transaction, without a word
		_, _ = conn.Exec(ctx, "begin")
		_ = conn.PgConn().Conn().Close()
	}
}

// turn is a transaction, or something that leaves state.
func (w *tagged) turn(ctx context.Context, t *testing.T, conn *pgx.Conn, tag string, r *rand.Rand, set, temp *bool) error {
	expect := func(what, sql, want string) error {
		got, err := tryValue(ctx, conn, sql)
		if err == nil && got != want {
			t.Errorf("%s: %s is %q, want %q", tag, what, got, want)
		}
		return err
	}
	switch r.IntN(6) {
	case 0:
		*set = true
		_, err := conn.Exec(ctx, "select set_config('app.tag', $1, false)", tag)
		return err
	case 1:
		if *temp {
			*temp = false
			_, err := conn.Exec(ctx, "drop table mine")
			return err
		}
		*temp = true
		_, err := conn.Exec(ctx, "create temp table mine as select '"+tag+"'::text as tag", pgx.QueryExecModeSimpleProtocol)
		return err
	case 2: // a statement whose name other clients have for other texts
		var got string
		err := conn.QueryRow(ctx, "select '"+tag+"' || $1::text", "!").Scan(&got)
		if err == nil && got != tag+"!" {
			t.Errorf("%s: heard %q", tag, got)
		}
		return err
	case 3:
		want := ""
		if *temp {
			want = "mine"
		}
		if err := expect("the temporary table", "select coalesce(to_regclass('pg_temp.mine')::text, '')", want); err != nil || !*temp {
			return err
		}
		return expect("its content", "select tag from mine", tag)
	case 4:
		want := ""
		if *set {
			want = tag
		}
		if err := expect("app.tag", "select coalesce(current_setting('app.tag', true), '')", want); err != nil {
			return err
		}
		return expect("application_name", "show application_name", tag)
	}
	return w.transaction(ctx, t, conn, tag, r)
}

// transaction holds a server and makes sure that nobody else is on it.
func (w *tagged) transaction(ctx context.Context, t *testing.T, conn *pgx.Conn, tag string, r *rand.Rand) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	pid, err := tryValue(ctx, conn, "select pg_backend_pid()")
	if err != nil {
		return err
	}
	w.mu.Lock()
	if other, taken := w.inside[pid]; taken {
		t.Errorf("%s is in a transaction on server %s, as is %s", tag, pid, other)
	}
	w.inside[pid] = tag
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.inside, pid)
		w.mu.Unlock()
	}()
	for range r.IntN(4) {
		got, err := tryValue(ctx, conn, "select '"+tag+":' || pg_backend_pid()")
		if err != nil {
			return err
		}
		if want := tag + ":" + pid; got != want {
			t.Errorf("%s: heard %q, want %q", tag, got, want)
		}
	}
	w.mu.Lock() // it ends after it was taken off the list, never before
	delete(w.inside, pid)
	w.mu.Unlock()
	if r.IntN(2) == 0 {
		return tx.Rollback(ctx)
	}
	err = tx.Commit(ctx)
	if err != nil && strings.Contains(err.Error(), "rollback") {
		t.Errorf("%s: %v", tag, err)
	}
	return err
}
