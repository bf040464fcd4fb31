// Cancel requests that take their time on the way to the server: what they hit, and who waits for them.

package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// faraway is a gate with a relay on the way to its server.
type faraway struct {
	*gate
	relay *harness.Relay
	holds *pgx.Conn // the locks that queries wait for; its way is short
}

func startFaraway(t *testing.T, conf gateConf, faults harness.Faults) *faraway {
	t.Helper()
	if conf.Cluster == nil {
		conf.Cluster = harness.Postgres(t)
	}
	f := &faraway{relay: harness.NewRelay(t, conf.Cluster.Addr(), faults)}
	change := conf.Tenant
	conf.Tenant = func(m harness.Map) {
		_, port, _ := strings.Cut(f.relay.Addr(), ":")
		n, _ := strconv.Atoi(port)
		m["upstream"] = harness.Map{"host": "127.0.0.1", "port": n, "tls": "disable"}
		if change != nil {
			change(m)
		}
	}
	f.gate = startGate(t, conf)
	f.holds = f.direct(t)
	return f
}

// waiting has a client run a query that ends when the lock is given back.
func (f *faraway) waiting(t *testing.T, s *script, key string) (release func()) {
	t.Helper()
	do(t, f.holds, "select pg_advisory_lock("+key+")")
	text := "select pg_advisory_xact_lock_shared(" + key + ")"
	s.say(query(text))
	f.awaitRunning(t, text)
	return func() { do(t, f.holds, "select pg_advisory_unlock("+key+")") }
}

// cancel sends a request and returns when it is on its way to the server. The channel hears when the gate has closed.
func (f *faraway) cancel(t *testing.T, s *script) <-chan error {
	t.Helper()
	before, closed := f.relay.Came(), make(chan error, 1)
	go func() { closed <- f.sendCancel(harness.Session, s.pid, s.secret) }()
	harness.Eventually(t, harness.Patience, "it is on its way", func() bool { return f.relay.Came() > before })
	return closed
}

// TestCancelNeverHitsTheNextQuery: the query ends by itself while the request is on its way, which is long. Whether the client
// waits for the end of its request, as libpq does, or not, its next query is not hit.
func TestCancelNeverHitsTheNextQuery(t *testing.T) {
	t.Parallel()
	const way = 100 * time.Millisecond
	f := startFaraway(t, gateConf{PoolSize: 2}, harness.Faults{ToTarget: harness.Fault{Delay: way}})
	for i, tc := range []struct {
		mode, first, status string
		waits               bool
	}{
		{mode: harness.Session, status: "I", waits: true},
		{mode: harness.Session, status: "I"},
		{mode: harness.Session, first: "begin", status: "T"},
		{mode: harness.Transaction, status: "I"},
		{mode: harness.Transaction, first: "begin", status: "T", waits: true},
		{mode: harness.Transaction, first: "begin", status: "T"},
		{mode: harness.Transaction, first: "create temp table mine ()", status: "I"}, // keeps its server
		{mode: harness.Statement, status: "I"},
	} {
		s := f.script(t, tc.mode)
		if tc.first != "" {
			s.say(query(tc.first))
			s.hear(1)
		}
		release := f.waiting(t, s, strconv.Itoa(i))
		closed := f.cancel(t, s)
		release()
		if got := s.hear(1); got != "T D: C:SELECT_1 Z:"+tc.status {
			t.Errorf("%v: the query that has ended by itself: %s", tc, got)
		}
		if tc.waits {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		if got, err := s.try(1, query("select pg_sleep(0.4)")); err != nil || got != "T D: C:SELECT_1 Z:"+tc.status {
			t.Errorf("%v: the next query: %s (%v)", tc, got, err)
		}
		if !tc.waits {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		s.conn.Close()
	}
}

// TestReplicationCancelNeverHitsTheNextQuery, nor is one that is meant for the next query lost.
func TestReplicationCancelNeverHitsTheNextQuery(t *testing.T) {
	t.Parallel()
	conf := gateConf{Cluster: harness.Postgres(t, local.Options{Settings: map[string]string{"wal_level": "logical"}})}
	if err := conf.Cluster.Exec(t.Context(), "postgres", "alter role app replication"); err != nil {
		t.Fatal(err)
	}
	f := startFaraway(t, conf, harness.Faults{ToTarget: harness.Fault{Delay: 100 * time.Millisecond}})
	s := f.replica(t, harness.Transaction)
	release := f.waiting(t, s, "1")
	closed := f.cancel(t, s)
	release()
	if got := s.hear(1); got != "T D: C:SELECT_1 Z:I" {
		t.Errorf("the query that has ended by itself: %s", got)
	}
	if got, err := s.try(1, query("select pg_sleep(0.4)")); err != nil || got != "T D: C:SELECT_1 Z:I" {
		t.Errorf("the next query: %s (%v)", got, err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	release = f.waiting(t, s, "2")
	closed = f.cancel(t, s)
	release()
	if got := s.hear(1); got != "T D: C:SELECT_1 Z:I" {
		t.Errorf("another one: %s", got)
	}
	came := f.metric("postern_bytes_total", "direction", "in")
	s.say(query("select pg_sleep(5)"))
	harness.Eventually(t, harness.Patience, "it has come", func() bool { return f.metric("postern_bytes_total", "direction", "in") > came })
	if err := f.sendCancel(harness.Session, s.pid, s.secret); err != nil {
		t.Error(err)
	}
	if got := s.hear(1); got != "T E:57014 Z:I" {
		t.Errorf("the next query, which was cancelled: %s", got)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestCancelEndsWhenTheServerHasIt: a client that waits for the end of its request knows then that what runs was told.
func TestCancelEndsWhenTheServerHasIt(t *testing.T) {
	t.Parallel()
	const back = 300 * time.Millisecond // twice: of the connection, and of its end
	f := startFaraway(t, gateConf{}, harness.Faults{})
	s := f.script(t, harness.Transaction)
	s.say(query("select pg_sleep(60)"))
	f.awaitRunning(t, "select pg_sleep(60)")
	f.relay.SetFaults(harness.Faults{ToClient: harness.Fault{Delay: back}}) // of what comes from now on
	start := time.Now()
	closed := f.cancel(t, s)
	if got := s.hear(1); got != "T E:57014 Z:I" {
		t.Error(got)
	}
	if err := <-closed; err != nil || time.Since(start) < 2*back {
		t.Errorf("closed after %v (%v), before the server's end can have come", time.Since(start), err)
	}
}

// TestCancelOfANewerQuery is not lost while the last one is on its way.
func TestCancelOfANewerQuery(t *testing.T) {
	t.Parallel()
	f := startFaraway(t, gateConf{}, harness.Faults{})
	slow := func(there, back time.Duration) {
		f.relay.SetFaults(harness.Faults{ToTarget: harness.Fault{Delay: there}, ToClient: harness.Fault{Delay: back}})
	}
	t.Run("sent ahead", func(t *testing.T) {
		for _, mode := range modes[:2] {
			slow(0, 0)
			s := f.script(t, mode)
			s.say(query("select pg_sleep(61)"), query("select pg_sleep(5)"))
			f.awaitRunning(t, "select pg_sleep(61)")
			slow(0, 500*time.Millisecond) // hits at once, and its end is late
			first := f.cancel(t, s)
			if got := s.hear(1); got != "T E:57014 Z:I" {
				t.Errorf("%s: the first: %s", mode, got)
			}
			harness.Eventually(t, harness.Patience, "the second has begun", func() bool { // and perhaps the other signal has hit it
				return value(t, f.holds, "select count(*) from pg_stat_activity where query = 'select pg_sleep(5)'") != "0"
			})
			if err := f.sendCancel(mode, s.pid, s.secret); err != nil {
				t.Error(err)
			}
			<-first
			if got := s.hear(1); got != "T E:57014 Z:I" {
				t.Errorf("%s: the second: %s", mode, got)
			}
			s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
			s.conn.Close()
		}
	})
	t.Run("held back", func(t *testing.T) {
		for i, tc := range []struct{ mode, first, status, failed string }{
			{harness.Session, "select 1", "I", "E:57014 Z:I"}, // never sent
			{harness.Session, "begin", "T", "T E:57014 Z:E"},
			{harness.Transaction, "begin", "T", "T E:57014 Z:E"},
		} {
			slow(0, 0)
			s := f.script(t, tc.mode)
			s.say(query(tc.first))
			s.hear(1)
			release := f.waiting(t, s, strconv.Itoa(100+i))
			slow(300*time.Millisecond, 0)
			first := f.cancel(t, s)
			release()
			if got := s.hear(1); got != "T D: C:SELECT_1 Z:"+tc.status {
				t.Errorf("%v: the first: %s", tc, got)
			}
			came := f.metric("postern_bytes_total", "direction", "in")
			s.say(query("select pg_sleep(5)"))
			harness.Eventually(t, harness.Patience, "it has come", func() bool { return f.metric("postern_bytes_total", "direction", "in") > came })
			if err := f.sendCancel(tc.mode, s.pid, s.secret); err != nil {
				t.Error(err)
			}
			if got := s.hear(1); got != tc.failed {
				t.Errorf("%v: the second: %s", tc, got)
			}
			<-first
			s.conn.Close()
		}
	})
}

// TestCancelThatNeverArrives: the server is not used again for anybody else. Its own client goes on after a while.
func TestCancelThatNeverArrives(t *testing.T) {
	t.Parallel()
	f := startFaraway(t, gateConf{PoolSize: 1, Timeouts: harness.Map{"server_connect": "1s"}}, harness.Faults{})
	s := f.script(t, harness.Transaction)
	s.want("C:BEGIN Z:T", 1, query("begin"))
	s.say(query("select pg_backend_pid()"))
	pid := s.hear(1)
	release := f.waiting(t, s, "1")
	f.relay.SetFaults(harness.Faults{ToTarget: harness.Fault{StallAfter: 1}})
	closed := f.cancel(t, s)
	release()
	if got := s.hear(1); got != "T D: C:SELECT_1 Z:T" {
		t.Error(got)
	}
	s.want("T D:next C:SELECT_1 Z:T", 1, query("select 'next'"))
	if err := <-closed; err != nil {
		t.Error(err)
	}
	f.relay.SetFaults(harness.Faults{})
	s.want("C:COMMIT Z:I", 1, query("commit"))
	if again := func() string { s.say(query("select pg_backend_pid()")); return s.hear(1) }(); strings.TrimSuffix(again, "I") == strings.TrimSuffix(pid, "T") {
		t.Errorf("the server is used again: %s", again)
	}
	if n := f.metric("postern_cancels_total", "result", "failed"); n != 1 {
		t.Errorf("%v cancels failed", n)
	}
}
