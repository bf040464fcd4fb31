package postgres

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

const (
	leaseKey  = "machine/fly/acme-db/1"
	longLease = time.Hour
)

// ledger is one of a process that the store knows as a node of this name.
func (w *world) ledger(node string) *Ledger {
	w.t.Helper()
	l, err := newLedger(&Options{Conn: w.conf(), Keys: w.keys, Node: node, Log: slog.New(slog.NewTextHandler(w.log, nil))}, "boot-"+node, new(atomic.Bool))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(l.Close)
	w.announce(node)
	return l
}

// taken has a ledger take a lease and give it back: from then on this store has given it out.
func (w *world) taken(l *Ledger, key string) {
	w.t.Helper()
	lease, err := l.TakeLease(w.t.Context(), key, longLease)
	if err == nil {
		err = l.DropLease(w.t.Context(), lease, false)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) announce(node string) {
	w.t.Helper()
	w.exec(`INSERT INTO postern.nodes (name, boot, started, seen, epoch, applied, refused, keys, cache) VALUES ($1, $2, now(), now(), '', 0, '{}', '{}', '')
		ON CONFLICT (name) DO UPDATE SET boot = excluded.boot`, node, "boot-"+node)
}

// watch has a ledger watch, in which everything is idle or not, and returns what it was told.
func (w *world) watchLedger(l *Ledger, idle *atomic.Bool) (news func() []tenants.LeaseNews) {
	var mu sync.Mutex
	var all []tenants.LeaseNews
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		l.Watch(ctx, Watcher{Idle: func(string) bool { return idle.Load() }, Told: func(n tenants.LeaseNews) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, n)
		}})
	})
	w.t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return func() []tenants.LeaseNews {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// uses are the boots that are written down as using the key.
func (w *world) uses() (boots string) {
	w.t.Helper()
	return w.text(`SELECT coalesce(string_agg(boot, ' ' ORDER BY boot), '') FROM postern.uses WHERE key = $1`, leaseKey)
}

func (w *world) text(sql string, args ...any) (text string) {
	w.t.Helper()
	conn := w.connect()
	defer closeConn(conn)
	if err := conn.QueryRow(w.t.Context(), sql, args...).Scan(&text); err != nil {
		w.t.Fatal(err)
	}
	return text
}

// TestLeaseIsOnes: of many who try at once one has it, epochs only grow, and it ends by the store's clock, when it is given back, or when
// the store becomes another one.
func TestLeaseIsOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.ledger("a"), w.ledger("b")
	ctx := t.Context()

	var group sync.WaitGroup
	var last atomic.Int64
	for round := range 20 {
		w.exec(`UPDATE postern.leases SET owner = '', until = now()`)
		var winners atomic.Int32
		for _, l := range []*Ledger{a, b} {
			group.Go(func() {
				lease, err := l.TakeLease(ctx, leaseKey, longLease)
				var held *tenants.HeldError
				switch {
				case err == nil:
					winners.Add(1)
					if before := last.Swap(lease.Epoch); before >= lease.Epoch {
						t.Errorf("epoch %d after %d", lease.Epoch, before)
					}
				case !errors.As(err, &held), held.For <= 0, held.For > longLease, held.Owner == "":
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		if group.Wait(); winners.Load() != 1 {
			t.Fatalf("round %d: %d have it", round, winners.Load())
		}
	}

	w.exec(`UPDATE postern.leases SET owner = '', until = now()`)
	lease, err := a.TakeLease(ctx, leaseKey, longLease)
	if err != nil || lease.Takeover {
		t.Fatalf("%+v %v", lease, err)
	}
	if err := a.RenewLease(ctx, lease, longLease); err != nil {
		t.Error(err)
	}
	if again, err := a.TakeLease(ctx, leaseKey, longLease); err != nil || !again.Takeover || again.Epoch <= lease.Epoch {
		t.Errorf("one's own, which was not given back: %+v %v", again, err)
	} else {
		lease = again
	}
	w.exec(`UPDATE postern.leases SET until = now() - interval '1 ms' WHERE key = $1`, leaseKey) // its time is over, by this clock
	if err := a.RenewLease(ctx, lease, longLease); !errors.Is(err, tenants.ErrLeaseLost) {
		t.Errorf("renewed after its end: %v", err)
	}
	next, err := b.TakeLease(ctx, leaseKey, longLease)
	if err != nil || !next.Takeover || next.Epoch <= lease.Epoch {
		t.Fatalf("after one that has ended with its time: %+v %v", next, err)
	}
	if err := a.DropLease(ctx, lease, true); !errors.Is(err, tenants.ErrLeaseLost) {
		t.Errorf("another's was given back: %v", err)
	}
	if err := b.DropLease(ctx, next, false); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.leases SET until = now() + interval '1 min' WHERE key = $1`, leaseKey) // the clock was set back since
	if lease, err = a.TakeLease(ctx, leaseKey, longLease); err != nil || lease.Takeover || lease.Epoch <= next.Epoch {
		t.Fatalf("after one that was given back: %+v %v", lease, err)
	}
	if err := a.LeaveLease(ctx, lease, true); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Ledger{a, b} { // also by whoever has left it
		if next, err = l.TakeLease(ctx, leaseKey, longLease); err != nil || !next.Takeover || next.Epoch <= lease.Epoch {
			t.Fatalf("after one that was left: %+v %v", next, err)
		}
		lease = next
		if err := l.LeaveLease(ctx, lease, true); err != nil {
			t.Fatal(err)
		}
	}
	if lease, err = a.TakeLease(ctx, leaseKey, longLease); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.leases SET until = now() + interval '1 day' WHERE key = $1`, leaseKey) // the clock was set back by a day since
	if next, err = b.TakeLease(ctx, leaseKey, longLease); err != nil || !next.Takeover {
		t.Errorf("nobody can wait for that: %+v %v", next, err)
	}
	lease = next

	// An older backup knows neither the lease nor its epoch.
	w.exec(`UPDATE postern.leases SET store = 'another', epoch = 1 WHERE key = $1`, leaseKey)
	if err := a.RenewLease(ctx, lease, longLease); !errors.Is(err, tenants.ErrLeaseLost) {
		t.Errorf("renewed in another store: %v", err)
	}
	if next, err = b.TakeLease(ctx, leaseKey, longLease); err != nil || next.Epoch <= lease.Epoch {
		t.Errorf("in another store: %+v %v, after epoch %d", next, err, lease.Epoch)
	}
	w.exec(`UPDATE postern.leases SET store = 'another', owner = '' WHERE key = $1`, leaseKey)
	if err := b.Use(ctx, leaseKey); !errors.Is(err, tenants.ErrAbandoned) {
		t.Errorf("used although the store that was lost may have given the lease out: %v", err)
	}
	if next, err = b.TakeLease(ctx, leaseKey, longLease); err != nil || !next.Takeover {
		t.Errorf("in another store: %+v %v", next, err)
	}
}

// TestStoodStill: by either clock.
func TestStoodStill(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		last time.Time
		want bool
	}{{now, false}, {now.Add(-pingLedger), false}, {now.Add(-time.Hour), true}, {now.Add(-time.Hour).Round(0), true}, {now.Add(time.Hour), false}} {
		if got := stoodStill(c.last, now); got != c.want {
			t.Errorf("since %v before: %v", now.Sub(c.last), got)
		}
	}
}

// TestNobodyIsOverlooked: what a node uses, a silent one too, nobody may take as unused; what a lease is out for nobody begins to use.
func TestNobodyIsOverlooked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b := w.ledger("a"), w.ledger("b")
	ctx := t.Context()
	refused := func(l *Ledger, by string) {
		t.Helper()
		var used *tenants.UsedError
		if _, err := l.TakeUnused(ctx, leaseKey, longLease); !errors.As(err, &used) || strings.Join(used.Nodes, " ") != by {
			t.Errorf("taken as unused: %v, want it used by %s", err, by)
		}
	}
	if err := a.Use(ctx, leaseKey); !errors.Is(err, tenants.ErrAbandoned) {
		t.Errorf("used although this store has never given the lease out: %v", err)
	}
	w.taken(a, leaseKey)
	if err := a.Use(ctx, leaseKey); err != nil {
		t.Fatal(err)
	}
	lease, err := b.TakeToUse(ctx, leaseKey, longLease)
	if err != nil || w.uses() != "boot-a boot-b" {
		t.Fatalf("%v, used by %s", err, w.uses())
	}
	if err := b.DropLease(ctx, lease, true); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.nodes SET seen = '2000-01-01' WHERE name = 'b'`)
	refused(a, "b")
	if w.uses() != "boot-b" {
		t.Errorf("used by %s after a does not use it any more", w.uses())
	}
	w.exec(`DELETE FROM postern.nodes WHERE name = 'b'`) // it may announce itself again within a moment
	refused(a, "b")
	if err := a.Use(ctx, leaseKey); err != nil {
		t.Fatal(err)
	}
	w.taken(a, "other")
	if err := b.Use(ctx, "other"); !errors.Is(err, tenants.ErrUnannounced) {
		t.Errorf("a node that the store does not know uses something: %v", err)
	}
	w.announce("b")
	refused(b, "a")
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := a.TakeUnused(ended, leaseKey, longLease); err == nil || !a.Uses(leaseKey) {
		t.Errorf("who could not ask the store uses it still, and knows it: %v", err)
	}
	lease, err = a.TakeUnused(ctx, leaseKey, longLease)
	if err != nil || w.uses() != "" {
		t.Fatalf("the last one: %v, used by %s", err, w.uses())
	}
	var held *tenants.HeldError
	if err := b.Use(ctx, leaseKey); !errors.As(err, &held) || held.Owner != "a" {
		t.Errorf("used while it is put to sleep: %v", err)
	}
	if _, err := b.TakeToUse(ctx, leaseKey, longLease); !errors.As(err, &held) {
		t.Errorf("woken while it is put to sleep: %v", err)
	}
	w.exec(`UPDATE postern.leases SET until = now() WHERE key = $1`, leaseKey)
	if err := b.Use(ctx, leaseKey); !errors.Is(err, tenants.ErrAbandoned) {
		t.Errorf("used although who put it to sleep may be at it still: %v", err)
	}
	if lease, err = b.TakeToUse(ctx, leaseKey, longLease); err != nil || !lease.Takeover {
		t.Errorf("%+v %v", lease, err)
	}

	// Both at once, many times: never is it used by one and taken as unused by the other.
	for round := range 30 {
		w.exec(`UPDATE postern.leases SET owner = '', until = now()`)
		w.exec(`DELETE FROM postern.uses`)
		clear(a.uses)
		var group sync.WaitGroup
		var useErr, takeErr error
		group.Go(func() { useErr = a.Use(ctx, leaseKey) })
		group.Go(func() { _, takeErr = b.TakeUnused(ctx, leaseKey, longLease) })
		if group.Wait(); (useErr == nil) == (takeErr == nil) {
			t.Fatalf("round %d: used: %v; taken as unused: %v", round, useErr, takeErr)
		}
	}
}

// TestRestoredStoreWaits: in a store that has become another one nothing is unused before nodes could say again what they use.
func TestRestoredStoreWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a := w.ledger("a")
	lease, err := a.TakeUnused(t.Context(), leaseKey, longLease)
	if err != nil {
		t.Fatalf("in a store that was always this one: %v", err)
	}
	if err := a.DropLease(t.Context(), lease, false); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.leases SET store = 'another'`)
	if _, err := a.TakeUnused(t.Context(), leaseKey, longLease); !errors.Is(err, tenants.ErrUnsettled) {
		t.Errorf("at once: %v", err)
	}
	w.exec(`UPDATE postern.leases SET until = now() WHERE key = ''`)
	if _, err := a.TakeUnused(t.Context(), leaseKey, longLease); err != nil {
		t.Errorf("after a while: %v", err)
	}
}

// TestLedgerWatches: others are told what was done, and what a process uses is written down again where it was lost, and struck out where
// it is used no more. What a process that has ended leaves awake is told to one who answers for it.
func TestLedgerWatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	a, b, c := w.ledger("a"), w.ledger("b"), w.ledger("c")
	ctx := t.Context()
	var idleA, idleB atomic.Bool
	w.taken(c, leaseKey)
	if err := a.Use(ctx, leaseKey); err != nil {
		t.Fatal(err)
	}
	a.UseUnwritten("machine/local/x")
	w.exec(`DELETE FROM postern.uses`)
	w.exec(`INSERT INTO postern.leases (key, owner, boot, epoch, store, until) VALUES ('machine/old', '', '', 1, '', now() - interval '31 days'),
		('machine/held', 'x', 'x', 1, '', now() - interval '31 days'), ('machine/new', '', '', 1, '', now() - interval '29 days')`)
	newsA, newsB := w.watchLedger(a, &idleA), w.watchLedger(b, &idleB)
	harness.Eventually(t, harness.Patience, "what was lost is written down again", func() bool { return w.uses() == "boot-a" && a.Uses("machine/local/x") })
	harness.Eventually(t, harness.Patience, "nobody of three nodes is alone", func() bool { return !a.Alone() && !b.Alone() })

	harness.Eventually(t, harness.Patience, "old leases are removed, and neither those that are held nor others", func() bool {
		return w.text(`SELECT string_agg(key, ' ' ORDER BY key) FROM postern.leases WHERE key <> ''`) == leaseKey+" machine/held machine/new"
	})

	lease, err := a.TakeLease(ctx, "machine/1", longLease)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.DropLease(ctx, lease, true); err != nil {
		t.Fatal(err)
	}
	if lease, err = a.TakeLease(ctx, "machine/with a blank", longLease); err != nil {
		t.Fatal(err)
	}
	if err := a.DropLease(ctx, lease, false); err != nil {
		t.Fatal(err)
	}
	want := []tenants.LeaseNews{{Key: "machine/1", Changed: true}, {Key: "machine/with a blank"}}
	harness.Eventually(t, harness.Patience, "b is told", func() bool { return slices.Equal(newsB(), want) })
	if len(newsA()) != 0 {
		t.Errorf("a is told of itself: %v", newsA())
	}

	idleA.Store(true)
	look := func() {
		a.again.Store(true)
		b.again.Store(true)
		w.exec(`NOTIFY postern_machines`)
	}
	look()
	harness.Eventually(t, harness.Patience, "what is idle is struck out", func() bool { return w.uses() == "" && !a.Uses(leaseKey) })
	idleA.Store(false)

	if err := c.Use(ctx, leaseKey); err != nil {
		t.Fatal(err)
	}
	w.exec(`UPDATE postern.uses SET over = true WHERE boot = 'boot-c'`) // as Close does
	orphan := tenants.LeaseNews{Key: leaseKey, Changed: true, Orphaned: true}
	told := func() (n int) {
		for _, news := range [][]tenants.LeaseNews{newsA(), newsB()} {
			if slices.Contains(news, orphan) {
				n++
			}
		}
		return n
	}
	look()
	harness.Eventually(t, harness.Patience, "one answers for what c has left", func() bool { return told() == 1 && w.uses() == "" })
}

// TestASlowStoreIsLate, not away, if it was heard of lately: who waits for a lock of it, or for an answer, may ask again.
func TestASlowStoreIsLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Postgres(t))
	patient := w.ledger("a")
	w.dsn += " lock_timeout=50ms"
	l, unheard := w.ledger("b"), w.ledger("c")
	for _, l := range []*Ledger{patient, l} {
		w.taken(l, leaseKey)
	}
	tx, err := w.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM postern.leases FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	take := func(l *Ledger, patience time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := l.TakeToUse(ctx, leaseKey, longLease)
		return err
	}
	is := func(what string, err error, late bool) {
		t.Helper()
		if !errors.Is(err, tenants.ErrAway) || errors.Is(err, tenants.ErrLate) != late {
			t.Errorf("%s: %v", what, err)
		}
	}
	is("a lock", take(l, harness.Patience), true)
	is("no answer", take(patient, 50*time.Millisecond), true)
	is("a store that never was there", take(unheard, harness.Patience), false)
	long := time.Now().Add(-slowFor)
	l.heard.Store(&long)
	is("a store that has said nothing for long", take(l, harness.Patience), false)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := take(l, harness.Patience); err != nil || time.Since(*l.heard.Load()) >= slowFor {
		t.Errorf("it answers: %v", err)
	}
	l.heard.Store(&long)
	w.watchLedger(l, new(atomic.Bool))
	harness.Eventually(t, harness.Patience, "who watches it hears it", func() bool { return time.Since(*l.heard.Load()) < slowFor })
}
