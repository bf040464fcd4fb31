// The soak (row C48): churn, cancels, kills, reloads and faults for as long as POSTERN_SOAK says, and then everything is back
// where it was: the gauges at zero, memory, descriptors and goroutines no more than before. `make soak` runs it for ten minutes.

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// soakVariable says how long the soak lasts, such as 10m.
const soakVariable = "POSTERN_SOAK"

func soakFor(t *testing.T) time.Duration {
	value := os.Getenv(soakVariable)
	if value == "" {
		return 2 * lasting()
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		t.Fatalf("%s: %v", soakVariable, err)
	}
	return d
}

// figures are what the gate's process takes.
type figures struct {
	rss                     int64 // bytes
	descriptors, goroutines int
}

func (w *world) figures() figures {
	w.t.Helper()
	return figures{w.RSS(w.t), w.FDs(w.t), w.Goroutines(w.t)}
}

func (f figures) String() string {
	return fmt.Sprintf("%.1f MiB, %d descriptors, %d goroutines", float64(f.rss)/(1<<20), f.descriptors, f.goroutines)
}

func TestSoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Cluster: harness.Postgres(t, local.Options{}), Config: harness.Map{"log": harness.Map{"level": "info"}}})
	direct := w.direct()
	l := newLedger(t, direct, w.connect)
	l.expects = anywhere("network", "08006", "57P01", "57P03", "53300")

	// A first round, so that what is made once is there before the process is measured.
	w.soak(l, lasting())
	before := w.figures()
	t.Logf("before: %v", before)
	long := soakFor(t)
	readings := w.soak(l, long)
	after := w.figures()
	t.Logf("after %v: %v", long, after)

	l.check(t, direct)
	if n := w.Metric(t, "postern_waiting_clients", nil); n != 0 {
		t.Errorf("%v clients wait", n)
	}
	if n := w.Metric(t, "postern_panics_total", nil); n != 0 {
		t.Errorf("%v panics", n)
	}
	if after.descriptors > before.descriptors+poolSize || after.goroutines > before.goroutines+poolSize {
		t.Errorf("left behind: %v, before %v", after, before)
	}
	if long < time.Minute || len(readings) < 8 {
		return // too short for a slope
	}
	// The second quarter against the last one: what the first has warmed up does not count.
	quarter := len(readings) / 4
	early, late := middle(readings[quarter:2*quarter]), middle(readings[3*quarter:])
	t.Logf("memory under load: %.1f MiB in the second quarter, %.1f MiB in the last (medians of %d)", float64(early)/(1<<20), float64(late)/(1<<20), quarter)
	if late > early+early/5 {
		t.Errorf("memory grows: %d bytes, then %d", early, late)
	}
}

func middle(of []int64) int64 {
	of = slices.Clone(of)
	slices.Sort(of)
	return of[len(of)/2]
}

// soak is a round of everything, after which nobody is left. It returns readings of the memory.
func (w *world) soak(l *ledger, long time.Duration) (rss []int64) {
	w.t.Helper()
	ctx, stop := context.WithTimeout(w.t.Context(), long)
	defer stop()
	staying, churning := l.work(ctx, 2*poolSize), l.churn(ctx, poolSize)
	direct := w.direct()
	var all sync.WaitGroup
	all.Go(func() { w.cancels(ctx) })
	all.Go(func() { w.trouble(ctx, direct) })
	for ctx.Err() == nil {
		rss = append(rss, w.RSS(w.t))
		pause(ctx, max(long/200, 500*time.Millisecond))
	}
	staying()
	churning()
	all.Wait()
	w.nobodyLeft()
	return rss
}

// cancels has queries of a client of its own cancelled at odd moments: a cancel hits the query that it was for, or nothing.
func (w *world) cancels(ctx context.Context) {
	r := rand.New(rand.NewPCG(7, 7))
	patient := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		conn, err := w.connect(patient, "cancels")
		if err != nil {
			pause(ctx, 50*time.Millisecond)
			continue
		}
		for range 20 {
			hurry, stop := context.WithCancel(patient)
			timer := time.AfterFunc(time.Duration(r.IntN(20))*time.Millisecond, func() { _ = conn.PgConn().CancelRequest(patient) })
			_, err := conn.PgConn().Exec(hurry, "select pg_sleep(0.01)").ReadAll()
			timer.Stop()
			stop()
			if err != nil && !oneOf("57014", "08006", "57P01", "57P03", "53300", "network")(err) {
				w.t.Errorf("cancelled: %v", err)
			}
			if conn.IsClosed() {
				break
			}
		}
		goodbye(conn)
	}
}

// trouble is what operators and networks do, a little of each in turn.
func (w *world) trouble(ctx context.Context, direct *pgx.Conn) {
	r := rand.New(rand.NewPCG(8, 8))
	for n := 0; ctx.Err() == nil; n++ {
		switch n % 5 {
		case 0: // a server dies under whoever has it
			if _, err := tryText(context.WithoutCancel(ctx), direct, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app' and datname = current_database() order by random() limit 1"); err != nil {
				w.t.Error(err)
				return
			}
		case 1: // a changed tenant
			tenant := w.tenant()
			tenant["pool"] = harness.Map{"size": poolSize - r.IntN(2)}
			w.WriteTenants(w.t, tenant)
		case 2: // the network resets everything, or closes it
			w.clients.Reset()
		case 3:
			w.server.Cut()
		case 4: // packets are lost for a while
			w.server.Lose(w.t, 10)
			pause(ctx, 300*time.Millisecond)
			w.server.Lose(w.t, 0)
		}
		pause(ctx, time.Duration(300+r.IntN(700))*time.Millisecond)
	}
}
