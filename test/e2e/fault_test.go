// Servers that die, restart and come back, and what clients see of it: as little as can be.

package e2e

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// TestServerEndsWhileIdle is invisible.
func TestServerEndsWhileIdle(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	c, watch := g.connect(t, "transaction"), g.direct(t)
	for range 5 {
		first := value(t, c, "select pg_backend_pid()")
		do(t, watch, "select pg_terminate_backend("+first+", 5000)")
		if got := value(t, c, "select pg_backend_pid()"); got == first {
			t.Error("the same backend")
		}
	}
	// A session's own server is another matter: it is told, and once.
	s := g.script(t, "session")
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	do(t, watch, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'app' and datname = current_database()")
	if got := s.hear(1); got != "E:57P01! EOF" {
		t.Error(got)
	}
}

// TestServerEndsInTheMiddle tells the client once, in the server's last words or in ours.
func TestServerEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	watch := g.direct(t)
	for _, mode := range modes {
		s := g.script(t, mode)
		s.say(query("select pg_sleep(100)"))
		g.awaitRunning(t, "select pg_sleep(100)")
		do(t, watch, "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(100)' and datname = current_database()")
		if got := s.hear(1); got != "T E:57P01! EOF" {
			t.Errorf("%s: %s", mode, got)
		}
	}
	s := g.script(t, "transaction")
	s.want("C:BEGIN Z:T", 1, query("begin"))
	do(t, watch, "select pg_terminate_backend(pid, 5000) from pg_stat_activity where query = 'begin' and datname = current_database()")
	if got := s.hear(1); got != "E:57P01! EOF" {
		t.Errorf("in a transaction: %s", got)
	}
	g.script(t, "transaction").want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}

// TestKillMinusNine of a backend brings the whole cluster into recovery. Clients in the middle are told; the others go on
// after it as if nothing had been.
func TestKillMinusNine(t *testing.T) {
	t.Parallel()
	own := harness.Postgres(t, local.Options{})
	g := startGate(t, gateConf{Cluster: own, PoolSize: 2, Timeouts: harness.Map{"server_connect": "20s"}})
	idle := g.connect(t, "transaction")
	value(t, idle, "select 1")
	watch := g.direct(t)
	s := g.script(t, "transaction")
	s.say(query("select pg_backend_pid()"), query("select pg_sleep(101)"))
	head := s.hear(1)
	pid, err := strconv.Atoi(head[len("T D:") : len(head)-len(" C:SELECT_1 Z:I")])
	if err != nil {
		t.Fatal(err)
	}
	g.awaitRunning(t, "select pg_sleep(101)")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := s.hear(1); got != "E:08006! EOF" {
		t.Errorf("in the middle: %s", got)
	}
	// The postmaster may let somebody in before it hears of the death, and then ends
	// that backend, too: who has it is in the middle of something.
	harness.Eventually(t, harness.Patience, "the cluster ends all its backends", func() bool {
		_, err := tryValue(t.Context(), watch, "select 1")
		return err != nil
	})
	if got := value(t, idle, "select 'never knew'"); got != "never knew" {
		t.Error(got)
	}
}

// TestServerStopsAndStarts: clients in transaction mode stay, those who ask meanwhile wait, and all are served after it.
func TestServerStopsAndStarts(t *testing.T) {
	t.Parallel()
	own := harness.Postgres(t, local.Options{Port: harness.FreePort()}) // the same after it has started again
	g := startGate(t, gateConf{Cluster: own, Timeouts: harness.Map{"server_connect": "30s"}})
	var idle []*pgx.Conn
	for range 20 {
		c := g.connect(t, "transaction")
		value(t, c, "select 1")
		idle = append(idle, c)
	}
	lost := g.script(t, "transaction")
	lost.want("C:BEGIN Z:T", 1, query("begin"))
	if err := own.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	if got := lost.hear(1); got != "E:57P01! EOF" {
		t.Errorf("in a transaction: %s", got)
	}
	var all errgroup.Group
	for _, c := range idle[:10] {
		all.Go(func() error {
			_, err := tryValue(context.Background(), c, "select 1")
			return err
		})
	}
	harness.Eventually(t, harness.Patience, "ten wait", g.waiting(10))
	if err := own.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := all.Wait(); err != nil {
		t.Errorf("waiting: %v", err)
	}
	for _, c := range idle {
		if got := value(t, c, "select 1"); got != "1" {
			t.Error(got)
		}
	}
}

// TestServerStaysAway fails those who wait once it is pointless, in words that tell nothing about the machine.
func TestServerStaysAway(t *testing.T) {
	t.Parallel()
	own := harness.Postgres(t, local.Options{})
	g := startGate(t, gateConf{Cluster: own, Timeouts: harness.Map{"server_connect": "1s"}})
	_ = g.script(t, "transaction") // stays, so that the pool and what is known of it do, too
	s := g.script(t, "transaction")
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	harness.Crash(t, own)
	began := time.Now()
	s.say(query("select 1"))
	if got := s.hear(1); got != "E:57P03! EOF" {
		t.Error(got)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("told after %v", took)
	}
	// Who comes now is told when it logs in, as directly: nobody says any more that what is known of the server still holds.
	for _, mode := range modes {
		_, err := pgx.Connect(t.Context(), g.dsn(mode))
		wantState(t, err, "57P03")
	}
}
