// Rows C29 to C34 of the catalogue of faults: networks that are slow, lose packets, or are gone.

package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// load runs clients for a while and looks into the books.
func (w *world) load(l *ledger, direct *pgx.Conn, clients int) {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), lasting())
	defer stop()
	l.work(ctx, clients)()
	l.check(w.t, direct)
	w.nobodyLeft()
}

// TestSlowNetwork (C29): 200 ms to the server and back, on a pool that is shared by three times as many: nobody gets an error.
func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{})
	direct := w.direct()
	slow := harness.Fault{Delay: 100 * time.Millisecond}
	w.server.SetFaults(harness.Faults{ToTarget: slow, ToClient: slow})
	w.load(newLedger(t, direct, w.connect), direct, 3*poolSize)
}

// TestLossyNetwork (C30): one packet in twenty is lost on both sides of the gate: nobody gets an error, or another's answer.
func TestLossyNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{})
	direct := w.direct()
	w.server.Lose(t, 5)
	w.clients.Lose(t, 5)
	w.load(newLedger(t, direct, w.connect), direct, 2*poolSize)
}

// TestServersNetworkGoes (C31) without a word: who is in a query or a COPY is told within the limits that TCP has, what an idle
// connection has on its way is lost, too, nobody else gets those connections, and when the network is back all are served.
func TestServersNetworkGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Config: harness.Map{"tcp": quick(), "timeouts": harness.Map{"server_connect": "5s", "drain": "5s"}}})
	direct := w.direct()
	run(t, direct, "create table copied (line text); grant all on copied to app")
	querying, copying := w.client("querying"), w.client("copying")

	type end struct {
		who string
		err error
	}
	ends := make(chan end, 2)
	const query, upload = "select pg_sleep(600)", "copy copied from stdin"
	go func() {
		_, err := querying.PgConn().Exec(t.Context(), query).ReadAll()
		ends <- end{"querying", err}
	}()
	go func() {
		_, err := copying.PgConn().CopyFrom(t.Context(), lines{}, upload)
		ends <- end{"copying", err}
	}()
	w.awaitRunning(direct, query)
	w.awaitRunning(direct, upload)
	pids := text(t, direct, "select string_agg(pid::text, ',') from pg_stat_activity where usename = 'app' and datname = current_database()")

	harness.Eventually(t, harness.Patience, "the gate has heard all that servers have said", w.server.Delivered) // or they seem to say it again
	w.server.Lose(t, 100)
	for range 2 {
		if e := <-ends; !oneOf("08006", "network")(e.err) {
			t.Errorf("%s: %v, want to be told that the server is lost", e.who, e.err)
		} else {
			t.Logf("%s: %v", e.who, e.err)
		}
	}
	w.server.Lose(t, 0)
	harness.Eventually(t, harness.Patience, "service again", func() bool {
		conn, err := w.connect(t.Context(), "later")
		if err != nil {
			return false
		}
		defer goodbye(conn)
		ok, err := tryText(t.Context(), conn, "select pg_backend_pid() not in ("+pids+")")
		if err == nil && ok != "t" {
			t.Error("somebody got a connection of before")
		}
		return err == nil
	})
	w.nobodyLeft()
	if n := text(t, direct, "select count(*) from copied"); n != "0" {
		t.Errorf("%s lines of a COPY that has failed", n)
	}
}

// lines is a source of lines without an end.
type lines struct{}

func (lines) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	p[len(p)-1] = '\n'
	return len(p), nil
}

// TestLoadWhileTheServersNetworkGoes (C31, C34): the books are right after outages of a network that come back to the same
// server.
func TestLoadWhileTheServersNetworkGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Config: harness.Map{"tcp": quick(), "timeouts": harness.Map{"server_connect": "5s", "drain": "5s"}}})
	direct := w.direct()
	l := newLedger(t, direct, w.connect)
	l.expects = anywhere("08006", "57P03", "53300", "network")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.work(ctx, 3*poolSize)
	for range 2 {
		harness.Eventually(t, harness.Patience, "transactions", l.since(time.Now()))
		w.server.Lose(t, 100)
		// Until it has been noticed: a server connection was lost, or a login failed.
		lost := w.Metric(t, "postern_server_logins_total", map[string]string{"tenant": "acme", "result": "failed"})
		harness.Eventually(t, harness.Patience, "the outage shows", func() bool {
			return w.Metric(t, "postern_server_logins_total", map[string]string{"tenant": "acme", "result": "failed"}) > lost
		})
		w.server.Lose(t, 0)
	}
	harness.Eventually(t, harness.Patience, "transactions after the last outage", l.since(time.Now()))
	stop()
	wait()
	// A transaction whose connection was lost without a word may still be open on the server: until it knows.
	run(t, direct, "select pg_terminate_backend(pid, 60000) from pg_stat_activity where usename = 'app' and datname = current_database() and state like 'idle in%'")
	l.check(t, direct)
	w.nobodyLeft()
}

// TestClientsNetworkGoes (C32) without a word, in a transaction and in the middle of a result: what they hold is free again
// within the limits that TCP has, and what was not committed is rolled back.
func TestClientsNetworkGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Config: harness.Map{"tcp": quick()}})
	direct := w.direct()
	run(t, direct, "create table held (i int); grant all on held to app")
	open, reading := w.client("open"), w.client("reading")
	run(t, open, "begin; insert into held values (1)")
	rows := reading.PgConn().Exec(t.Context(), "select repeat('x', 1000) from generate_series(1, 1000000)")
	if !rows.NextResult() || !rows.ResultReader().NextRow() {
		t.Fatal("no rows")
	}
	w.clients.Lose(t, 100)
	harness.Eventually(t, harness.Patience, "no server is held", func() bool {
		return text(t, direct, "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database() and state <> 'idle'") == "0"
	})
	w.nobodyLeft()
	if n := text(t, direct, "select count(*) from held"); n != "0" {
		t.Errorf("%s rows of a transaction that was not committed", n)
	}
	w.clients.Lose(t, 0)
	if got := text(t, w.client("later"), "select 'served'"); got != "served" {
		t.Error(got)
	}
}

// TestServersHostComesBackAsAnother (C34): the network goes without a word, and behind its address stands a new PostgreSQL.
// The first query may fail or be served; nobody hangs, and nobody is served by what was there before.
func TestServersHostComesBackAsAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Config: harness.Map{"tcp": quick(), "timeouts": harness.Map{"drain": "5s"}}})
	other := harness.Postgres(t, local.Options{})
	copyDatabase(t, other, w.database)
	// Where Postgres has the same verifier: what logs in to one logs in to the other.
	verifier := harness.Verifier(t, w.cluster, harness.App)
	if err := other.Exec(t.Context(), "postgres", "alter role app password '"+verifier+"'"); err != nil {
		t.Fatal(err)
	}
	idle := w.client("idle")
	before := text(t, idle, "show port")
	w.server.Lose(t, 100)
	w.server.SetTarget(fmt.Sprintf("127.0.0.1:%d", other.Port()))
	w.server.Reset() // the new host knows nothing of the old one's connections
	w.server.Lose(t, 0)
	after, err := tryText(t.Context(), idle, "show port")
	if err != nil && !oneOf("08006", "57P03", "network")(err) {
		t.Errorf("the first query: %v", err)
	}
	if err != nil {
		harness.Eventually(t, harness.Patience, "service by the new host", func() bool {
			conn, err := w.connect(t.Context(), "later")
			if err != nil {
				return false
			}
			defer goodbye(conn)
			after, err = tryText(t.Context(), conn, "show port")
			return err == nil
		})
	}
	if after == before {
		t.Error("the old server answers")
	}
}

func copyDatabase(t *testing.T, c *local.Cluster, name string) {
	t.Helper()
	if err := c.Exec(t.Context(), "postgres", "create database "+name); err != nil {
		t.Fatal(err)
	}
}
