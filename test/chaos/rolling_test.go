// Row C40 of the catalogue of faults, nodes that lose each other, and all nodes of a cluster rolled one after the other.

package chaos

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// TestRollingCluster: three nodes behind HAProxy are replaced one after the other. Clients that stay and clients that connect for each
// transaction hear 57P01 between two of them, connect again, and hear nothing else.
func TestRollingCluster(t *testing.T) {
	t.Parallel()
	f := newFleet(t, newLoopback(t))
	direct := f.direct(f.upstream, f.database)
	l := newLedger(t, direct, func(ctx context.Context, tag string) (*pgx.Conn, error) {
		return f.connect(ctx, f.front.transaction, "acme", tag)
	})
	l.expects = func(_, what string, err error) bool {
		return (what == "connecting" || what == "begin") && state(err) == "57P01"
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	staying, churning := l.work(ctx, 6), l.churn(ctx, 4)
	everybody := func(string) bool { return true }
	for i := range nodes {
		harness.Eventually(t, harness.Patience, "all get on", l.allSince(time.Now(), everybody))
		if code := f.gates[i].Stop(t); code != 0 {
			t.Errorf("node %s: exit code %d", nodeName(i), code)
		}
		f.start(i)
		f.awaitInFront(i)
	}
	harness.Eventually(t, harness.Patience, "all get on after the last", l.allSince(time.Now(), everybody))
	stop()
	staying()
	churning()
	l.check(t, direct)
	f.agree("in the end")
}

// TestNodeLost (C40): a node loses the store and all others. Cancels for its clients are closed without a word, and hit nobody; those of
// its own clients work there; all nodes together stay within the limit; and when it is back its clients' cancels come from anywhere.
func TestNodeLost(t *testing.T) {
	t.Parallel()
	eachPlace(t, func(t *testing.T, p place) {
		f := newFleet(t, p)
		direct := f.direct(f.upstream, f.database)
		const lost, query = 1, "select pg_sleep(600)"
		conn, err := f.connect(t.Context(), f.front.one[lost], "acme", "lost")
		if err != nil {
			t.Fatal(err)
		}
		defer goodbye(conn)
		sleep := func() (ended chan error) {
			ended = make(chan error, 1)
			go func() {
				_, err := conn.PgConn().Exec(context.WithoutCancel(t.Context()), query).ReadAll()
				ended <- err
			}()
			harness.Eventually(t, harness.Patience, "it runs", func() bool {
				return text(t, direct, "select count(*) from pg_stat_activity where state = 'active' and query = '"+query+"' and datname = current_database()") == "1"
			})
			return ended
		}
		cancel := func(from int) {
			if err := harness.SendCancel(fmt.Sprintf("127.0.0.1:%d", f.front.one[from]), conn.PgConn().PID(), conn.PgConn().SecretKey()); err != nil {
				t.Errorf("by node %s: %v", nodeName(from), err)
			}
		}
		cancelled := func(ended chan error) {
			t.Helper()
			select {
			case err := <-ended:
				if state(err) != "57014" {
					t.Errorf("cancelled: %v", err)
				}
			case <-time.After(harness.Patience):
				t.Fatal("not cancelled")
			}
		}
		// Each of the others has servers, and wants all there are: so does the one that is lost.
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		l := newLedger(t, direct, func(ctx context.Context, tag string) (*pgx.Conn, error) {
			return f.connect(ctx, f.front.one[nodeOf(tag)], "acme", tag)
		})
		l.think, l.apart = 5*time.Millisecond, true
		wait := l.work(ctx, nodes*(limit-2))
		everybody := func(string) bool { return true }
		harness.Eventually(t, harness.Patience, "all get on", l.allSince(time.Now(), everybody))

		ended := sleep()
		_, cut := p.cuts()
		t.Logf("node %s is %s", nodeName(lost), cut.name)
		heal := cut.cut(t, lost)
		for i := range nodes {
			if i != lost {
				cancel(i)
			}
		}
		select {
		case err := <-ended:
			t.Fatalf("cancelled by a node that cannot reach its own: %v", err)
		default:
		}
		cancel(lost)
		cancelled(ended)
		harness.Eventually(t, 2*harness.Patience, "all get on while one is lost", l.allSince(time.Now(), everybody))
		heal()
		f.agree("when it is back")
		for i := range nodes {
			ended := sleep()
			cancel(i)
			cancelled(ended)
		}
		stop()
		wait()
		l.check(t, direct)
	})
}
