package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
	"github.com/postern/postern/test/harness"
)

// TestHeldErrors: what a store says of a lease is what a machine's rules are told.
func TestHeldErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		want  error
		kind  machines.Kind
		after time.Duration
	}{
		{&tenants.HeldError{Owner: "b", For: 3 * time.Second}, machines.ErrHeld, machines.Busy, 3 * time.Second},
		{tenants.ErrUnannounced, machines.ErrHeld, machines.Busy, againAfter},
		{cluster.ErrLeaseOver, machines.ErrHeld, machines.Busy, againAfter},
		{cluster.ErrClockJumped, machines.ErrHeld, machines.Busy, againAfter},
		{tenants.ErrAbandoned, machines.ErrAbandoned, machines.Busy, 0},
		{&tenants.UsedError{Nodes: []string{"b"}}, machines.ErrInUse, machines.Busy, 0},
		{tenants.ErrUnsettled, machines.ErrInUse, machines.Busy, 0},
		{tenants.ErrAway, machines.ErrUnguarded, machines.Transient, 0},
		{context.DeadlineExceeded, machines.ErrUnguarded, machines.Transient, 0},
		{fmt.Errorf("%w: %w", tenants.ErrAway, tenants.ErrLate), machines.ErrUnanswered, machines.Transient, againAfter},
	} {
		err := heldError(machines.Start, fmt.Errorf("the store: %w", c.err))
		var e *machines.Error
		if !errors.As(err, &e) || !errors.Is(err, c.want) || !errors.Is(err, c.err) || e.Kind != c.kind || e.After != c.after {
			t.Errorf("%v is %+v", c.err, err)
		}
	}
}

// TestMachinesOnOneStore: two processes that follow one store share a machine through its tables: one start, and one suspend by the last
// one that uses it.
func TestMachinesOnOneStore(t *testing.T) {
	t.Parallel()
	w := newLeaseWorld(t)
	m := &sharedDriver{}
	var parts []*machines.Holder
	for _, name := range []string{"a", "b"} {
		fleet := machines.NewFleet()
		l := w.node(name, fleetMachines{fleet})
		ctx, cancel := context.WithCancel(context.Background())
		var watching sync.WaitGroup
		t.Cleanup(func() {
			fleet.Close()
			cancel()
			watching.Wait()
		})
		views := make(chan machines.View, 100)
		p := fleet.Hold("fly/app/1", machines.Options{Driver: machines.Guarded(m, l, "fly/app/1"), Log: l.log,
			Probe:    func(context.Context, machines.Endpoint) error { return nil },
			Settings: machines.Settings{SuspendAfter: 200 * time.Millisecond, WakeLimit: time.Minute}}, func(v machines.View) { views <- v })
		watching.Go(func() {
			for {
				select {
				case v := <-views:
					if v.State == machines.StateDraining {
						p.Drained()
					}
				case <-ctx.Done():
					return
				}
			}
		})
		parts = append(parts, p)
	}
	is := func(states ...machines.State) {
		t.Helper()
		harness.Eventually(t, harness.Patience, fmt.Sprintf("the machine is %v", states), func() bool {
			return parts[0].View().State == states[0] && parts[1].View().State == states[1]
		})
	}
	for _, p := range parts {
		p.Use(true, true)
		p.Want("client")
	}
	is(machines.StateReady, machines.StateReady)
	parts[0].Use(false, true)
	is(machines.StateUnknown, machines.StateReady)
	if starts, suspends := m.starts.Load(), m.suspends.Load(); starts != 1 || suspends != 0 {
		t.Errorf("started %d times, and put to sleep %d times under use", starts, suspends)
	}
	parts[1].Use(false, true)
	is(machines.StateAsleep, machines.StateAsleep)
	if starts, suspends := m.starts.Load(), m.suspends.Load(); starts != 1 || suspends != 1 {
		t.Errorf("started %d times, and put to sleep %d times", starts, suspends)
	}
}

// quietLedger is a store's that nobody should ask.
type quietLedger struct {
	ledger
	watched, closed, discarded chan struct{}
}

func (l quietLedger) Watch(ctx context.Context, _ postgres.Watcher) { close(l.watched); <-ctx.Done() }
func (l quietLedger) Close()                                        { close(l.closed) }
func (l quietLedger) Discard()                                      { close(l.discarded) }

// TestWithoutMachinesTheStoreIsNotAsked: not a connection, and none of the rights that are needed for machines; from the first machine on it is.
func TestWithoutMachinesTheStoreIsNotAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, machine := range []*tenants.Machine{nil, {Provider: tenants.ProviderLocal, Name: "acme"}} {
			q := quietLedger{watched: make(chan struct{}), closed: make(chan struct{}), discarded: make(chan struct{})}
			l := leasesOf(q, false, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			var watching sync.WaitGroup
			watching.Go(func() { l.watch(ctx, nil) })
			l.learn([]tenants.Change{{New: &tenants.Tenant{ID: "globex"}}, {Old: &tenants.Tenant{ID: "gone"}}})
			for range 2 {
				l.learn([]tenants.Change{{New: &tenants.Tenant{ID: "acme", Machine: machine}}})
			}
			synctest.Wait()
			is := func(c chan struct{}) bool {
				select {
				case <-c:
					return true
				default:
					return false
				}
			}
			if is(q.watched) != (machine != nil) {
				t.Errorf("with %v it is asked: %v", machine, is(q.watched))
			}
			cancel()
			watching.Wait()
			l.close()
			if is(q.closed) != (machine != nil) || is(q.discarded) != (machine == nil) {
				t.Errorf("with %v: closed %v, discarded %v", machine, is(q.closed), is(q.discarded))
			}
		}
	})
}

// leaseWorld is a store that nodes share.
type leaseWorld struct {
	*testing.T
	conn *pgx.ConnConfig
	keys *postgres.Keys
}

func newLeaseWorld(t *testing.T) *leaseWorld {
	t.Helper()
	c := harness.Postgres(t)
	dir := harness.Dir(t)
	dsn, keyFile := filepath.Join(dir, "dsn"), filepath.Join(dir, "key")
	text := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable", c.Port(), harness.App, harness.AppPassword, harness.Database(t, c))
	if err := os.WriteFile(dsn, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &leaseWorld{T: t}
	var err error
	if w.conn, err = postgres.ReadDSN(dsn); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.MakeKeyFile(keyFile); err != nil {
		t.Fatal(err)
	}
	if w.keys, err = postgres.ReadKeys(keyFile); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Init(t.Context(), w.conn); err != nil {
		t.Fatal(err)
	}
	return w
}

// node is a process that follows the store, and has these machines.
func (w *leaseWorld) node(name string, g gateMachines) *leases {
	w.Helper()
	directory, err := tenants.NewDirectory()
	if err != nil {
		w.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.Output(), nil))
	store, err := postgres.Open(w.Context(), postgres.Options{Conn: w.conn, Keys: w.keys, Node: name, Directory: directory, Log: log})
	if err != nil {
		w.Fatal(err)
	}
	l, err := newLeases(store, false, log)
	if err != nil {
		w.Fatal(err)
	}
	l.need()
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { store.Watch(ctx) })
	watching.Go(func() { l.watch(ctx, g) })
	w.Cleanup(func() {
		cancel()
		watching.Wait()
		l.close()
	})
	return l
}

func (w *leaseWorld) exec(sql string, args ...any) {
	w.Helper()
	conn, err := pgx.ConnectConfig(w.Context(), w.conn.Copy())
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(w.Context(), sql, args...); err != nil {
		w.Fatal(err)
	}
}

// fleetMachines is what a gate says of its machines.
type fleetMachines struct{ *machines.Fleet }

func (f fleetMachines) MachineIdle(key string) bool              { return f.Idle(key) }
func (f fleetMachines) MachineChanged(key string, orphaned bool) { f.Tell(key, orphaned) }

// sharedDriver is a machine.
type sharedDriver struct {
	runs             atomic.Bool
	starts, suspends atomic.Int32
}

func (m *sharedDriver) State(context.Context) (machines.Status, error) {
	if m.runs.Load() {
		return machines.Status{Power: machines.Running}, nil
	}
	return machines.Status{Power: machines.Asleep}, nil
}

func (m *sharedDriver) Wake(ctx context.Context) (machines.Status, error) {
	if m.runs.CompareAndSwap(false, true) {
		m.starts.Add(1)
	}
	return m.State(ctx)
}

func (m *sharedDriver) Suspend(context.Context) error {
	if m.runs.CompareAndSwap(true, false) {
		m.suspends.Add(1)
	}
	return nil
}

func (m *sharedDriver) Endpoint(context.Context) (machines.Endpoint, error) {
	return machines.Endpoint{Host: "127.0.0.1", Port: 5432}, nil
}
