// Machines that processes on one store share: woken once, and put to sleep once, by the last one that uses them.

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// sharedMachine is a tenant's machine, and gates that share it.
type sharedMachine struct {
	w        *storeWorld
	gates    []*gate
	ways     []*harness.Relay // of each gate to the store
	starts   func() int
	suspends func() int
}

// serveShared puts acme on a machine into a store, and starts gates of these names on it.
func serveShared(t *testing.T, machine, machines harness.Map, names ...string) (s sharedMachine) {
	t.Helper()
	s.w = newStoreWorld(t)
	w := s.w
	delete(w.acme, "upstream")
	machine["suspend_after"] = "1s"
	w.acme["machine"] = machine
	w.acme["pool"] = harness.Map{"size": 5} // of each: the cluster is that of all tests
	w.yaml("postern.yaml", harness.Map{"listeners": []harness.Map{{"name": "l", "address": "127.0.0.1:1"}}, "tenants": w.tenants, "machines": machines})
	w.command("init")
	w.load(w.acme)
	for _, name := range names {
		p := maps.Clone(w.tenants["postgres"].(harness.Map))
		delete(p, "cache_file")
		p["node"] = name
		way := harness.NewRelay(t, w.cluster.Addr(), harness.Faults{})
		s.ways = append(s.ways, way)
		host, port, _ := strings.Cut(way.Addr(), ":")
		p["dsn_file"] = filepath.Join(w.dir, "dsn."+name)
		write(t, filepath.Join(w.dir, "dsn."+name), fmt.Appendf(nil, "host=%s port=%s user=%s password=%s dbname=%s sslmode=disable\n", host, port, harness.App, harness.AppPassword, w.database))
		g := &gate{t: t, Gate: harness.Postern(t, harness.GateConfig{Config: harness.Map{"tenants": harness.Map{"postgres": p}, "machines": machines}})}
		t.Cleanup(func() {
			if log := g.Log().String(); t.Failed() {
				t.Logf("the log of %s ends with:\n%s", name, log[max(0, len(log)-6000):])
			}
		})
		s.gates = append(s.gates, g)
	}
	for _, g := range s.gates {
		g.awaitMachine(t, "asleep")
	}
	return s
}

// rush has that many clients come to each gate at once, all of which are served.
func (s sharedMachine) rush(t *testing.T, each int) {
	t.Helper()
	var clients sync.WaitGroup
	for _, g := range s.gates {
		for range each {
			clients.Go(func() {
				conn, err := pgx.ConnectConfig(t.Context(), configOf(t, g.dsn("transaction")))
				if err != nil {
					t.Error(err)
					return
				}
				defer closeConn(conn)
				if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
					t.Error(err)
				}
			})
		}
	}
	clients.Wait()
	if n := s.starts(); n != 1 {
		t.Fatalf("%d clients of each of %d gates: started %d times", each, len(s.gates), n)
	}
}

// live is the machine's life with two gates.
func (s sharedMachine) live(t *testing.T) {
	s.rush(t, 20)

	// One gate is idle, and lets go of it; the other has a client that needs it.
	conn := s.gates[1].connect(t, "session")
	s.gates[0].awaitMachine(t, "unknown")
	if _, err := conn.Exec(t.Context(), "select 1"); err != nil || s.suspends() != 0 {
		t.Errorf("the client of the other gate: %v; put to sleep %d times", err, s.suspends())
	}
	// Who comes back to it needs no start.
	if _, err := s.gates[0].connect(t, "transaction").Exec(t.Context(), "select 1"); err != nil || s.starts() != 1 {
		t.Errorf("%v, started %d times", err, s.starts())
	}
	closeConn(conn)
	for _, g := range s.gates {
		g.awaitMachine(t, "asleep")
	}
	if s.starts() != 1 || s.suspends() != 1 {
		t.Errorf("started %d times and put to sleep %d times", s.starts(), s.suspends())
	}
	if _, err := s.gates[0].connect(t, "transaction").Exec(t.Context(), "select 1"); err != nil || s.starts() != 2 {
		t.Errorf("after its sleep: %v, started %d times", err, s.starts())
	}
}

// cutOff: who is cut off from the store goes on with what it uses, silent or not nobody puts that to sleep, and it begins to use nothing.
func (s sharedMachine) cutOff(t *testing.T) {
	conn := s.gates[1].connect(t, "session")
	s.gates[0].awaitMachine(t, "unknown")
	s.ways[1].SetTarget("127.0.0.1:1")
	s.ways[1].Cut()
	suspends := s.suspends()
	if harness.Long() {
		s.triesInVain(t)
	}
	if _, err := conn.Exec(t.Context(), "select 1"); err != nil || s.suspends() != suspends {
		t.Errorf("a client of a gate without the store: %v; put to sleep %d times more", err, s.suspends()-suspends)
	}
	s.ways[0].SetTarget("127.0.0.1:1")
	s.ways[0].Cut()
	var refused *pgconn.PgError
	_, err := pgx.ConnectConfig(t.Context(), configOf(t, s.gates[0].dsn("session")))
	if !errors.As(err, &refused) || refused.Code != "57P03" || !strings.Contains(refused.Hint, "another one") {
		t.Errorf("a gate without the store that does not use it: %v", err)
	}
	for _, way := range s.ways {
		way.SetTarget(s.w.cluster.Addr())
	}
	harness.Eventually(t, harness.Patience, "a is itself again", func() bool {
		conn, err := pgx.ConnectConfig(t.Context(), configOf(t, s.gates[0].dsn("session")))
		if err == nil {
			closeConn(conn)
		}
		return err == nil
	})
}

// triesInVain waits until b is silent, and a has tried to put the machine to sleep since.
func (s sharedMachine) triesInVain(t *testing.T) {
	store := s.w.connect()
	harness.Eventually(t, harness.Patience, "the store has not heard of b for long", func() (silent bool) {
		err := store.QueryRow(t.Context(), `SELECT clock_timestamp() - seen > interval '6 s' FROM postern.nodes WHERE name = 'b'`).Scan(&silent)
		return err == nil && silent
	})
	tries := func() int { return s.gates[0].logged("the machine stays awake for others") }
	before := tries()
	harness.Eventually(t, harness.Patience, "a has tried to put it to sleep", func() bool { return tries() > before })
}

// serveSharedFly has it at Fly.
func serveSharedFly(t *testing.T, o fakefly.Options, names ...string) (sharedMachine, *fakefly.Server, *fakefly.Machine) {
	t.Helper()
	api := fakefly.New(t, o)
	m := api.AddMachine(flyApp, "1", lend(t))
	s := serveShared(t, harness.Map{"provider": "fly", "app": flyApp, "id": "1", "port": m.Port(), "tls": "disable"},
		harness.Map{"fly": harness.Map{"api": api.URL, "token_file": api.TokenFile()}}, names...)
	s.starts = func() int { return api.Count(fakefly.Start, "1") }
	s.suspends = func() int { return api.Count(fakefly.Suspend, "1") }
	return s, api, m
}

func TestSharedFlyMachine(t *testing.T) {
	t.Parallel()
	s, _, m := serveSharedFly(t, fakefly.Options{}, "a", "b")
	s.live(t)
	s.cutOff(t)
	if n, description := m.Leases(); n < 3 || description != "" {
		t.Errorf("Fly's lease was taken %d times for two starts and a suspend, and says %q", n, description)
	}
}

func TestSharedLocalMachine(t *testing.T) {
	t.Parallel()
	s := serveShared(t, harness.Map{"provider": "local", "name": "acme"}, harness.Map{"local": harness.Map{"dir": harness.Dir(t)}}, "a", "b")
	said := func(texts ...string) func() int {
		return func() (n int) {
			for _, g := range s.gates {
				for _, text := range texts {
					n += strings.Count(g.Log().String(), `"`+text+`"`)
				}
			}
			return n
		}
	}
	s.starts, s.suspends = said("PostgreSQL started"), said("PostgreSQL stopped", "PostgreSQL of another process stopped")
	s.live(t)
}

// TestADrainingGateLetsGo of a machine that it does not need any more, long before it ends: another one finds it asleep, and wakes it.
func TestADrainingGateLetsGo(t *testing.T) {
	t.Parallel()
	s, api, _ := serveSharedFly(t, fakefly.Options{}, "a", "b")
	s.w.load(s.w.acme, s.w.globex)
	a, b := s.gates[0], s.gates[1]
	a.everywhere(t, "globex")
	conn := a.connect(t, "session")
	value(t, conn, "select 1")
	tx, err := a.mustLogin(t, "globex").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.Signal(t, syscall.SIGTERM)
	ends(t, conn, "57P01")
	harness.Eventually(t, harness.Patience, "it sleeps", func() bool { return api.Count(fakefly.Suspend, "1") == 1 })
	if v := value(t, b.connect(t, "session"), "select 2"); v != "2" || api.Count(fakefly.Start, "1") != 2 {
		t.Errorf("b serves %q, after %d starts", v, api.Count(fakefly.Start, "1"))
	}
	if code, _ := a.readyz(t); code != 503 {
		t.Errorf("a does not drain any more: %d", code)
	}
	if _, err := tx.Exec(t.Context(), "select 3"); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if code := a.Wait(t); code != 0 {
		t.Errorf("a has ended with %d", code)
	}
}
