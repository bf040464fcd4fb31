// Random schedules of processes that share machines: the real guard, holder, ledger and store, line by line, with clocks that jump. The machines
// stand in fences_machine_test.go.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

// fenceModel is one schedule: a machine and the processes that share it. Its main goroutine lets one of them go on at a time, from line to
// line, and the others stand still.
type fenceModel struct {
	*rapid.T
	store *pgx.Conn
	key   string
	nodes []*modelNode

	backup func() // puts the store back to what it was; nil: there is no backup

	mu      sync.Mutex // guards what follows
	machine modelMachine
	now     time.Duration // by the machine's clock
	epoch   int64         // the last that was given out
	broken  []string
}

// modelNode is a process. It does one thing at a time: it begins to use the machine, or stops and puts it to sleep.
type modelNode struct {
	ledger // the store's; what is in the way of it is in fences_store_test.go
	m      *fenceModel
	i      int
	name   string
	guard  *leases
	driver machines.Driver

	cancel context.CancelFunc
	goOn   chan struct{} // unbuffered: one line more
	at     chan string   // it stands before a line; "": it has done what it was doing
	acting bool

	behind, wallBehind time.Duration // what its clocks will have noticed when it goes on

	mu           sync.Mutex // guards what follows
	away, lose   bool       // the store is; the next answer is lost
	wall, steady time.Duration
}

// stops is a process's guard, which waits for others by standing still.
type stops struct {
	*leases
	n *modelNode
}

// Await implements machines.Guard.
func (s stops) Await(context.Context, string, time.Duration) {
	s.n.step("it has waited for another process")
}

func (n *modelNode) step(at string) {
	n.at <- at
	<-n.goOn
}

// TestSharedMachineModel: whatever stands still, jumps, is lost or restored, nobody puts to sleep what another process uses, of those whose right
// lasts one starts it, and epochs grow. In the end everybody can use the machine, and the last one puts it to sleep.
func TestSharedMachineModel(t *testing.T) {
	checks, steps := "8", 40
	if harness.Long() {
		checks, steps = "300", 120
	}
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(checks)
		defer func() { _ = f.Value.Set(f.DefValue) }()
	}
	w := newLeaseWorld(t)
	var all []*leases
	names := []string{"a", "b", "c"}
	for _, name := range names {
		all = append(all, w.node(name, noMachines{}))
	}
	for _, l := range all {
		harness.Eventually(t, harness.Patience, "the store knows the node", func() bool { return !errors.Is(l.ledger.Use(t.Context(), "none"), tenants.ErrUnannounced) })
	}
	store, err := pgx.ConnectConfig(t.Context(), w.conn.Copy())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close(context.Background()) }()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &fenceModel{T: t, store: store, key: fmt.Sprint("m", n), epoch: -1}
		m.machine.leases = rapid.Bool().Draw(t, "the machine gives out leases")
		m.machine.using = make(map[*modelNode]bool)
		m.exec(`DELETE FROM postern.leases WHERE key = ''`) // it was always this store
		for i, l := range all {
			m.add(i, names[i], l)
		}
		defer m.end()
		for range rapid.IntRange(1, steps).Draw(t, "steps") {
			m.happen()
			m.check()
		}
		m.calm()
	})
}

func (m *fenceModel) add(i int, name string, l *leases) {
	n := &modelNode{ledger: l.ledger, m: m, i: i, name: name, goOn: make(chan struct{}), at: make(chan string)}
	holder := cluster.NewHolder(cluster.HolderOptions{Leases: n, Log: slog.New(slog.DiscardHandler), Clocks: n.clocks})
	n.guard = &leases{ledger: n, holder: holder, several: true, log: slog.New(slog.DiscardHandler), step: n.step}
	n.driver = machines.Guarded(&modelDriver{n}, stops{n.guard, n}, m.key)
	m.nodes = append(m.nodes, n)
}

// happen is one thing that happens.
func (m *fenceModel) happen() {
	n := m.nodes[rapid.IntRange(0, len(m.nodes)-1).Draw(m.T, "process")]
	what := rapid.SampledFrom([]string{"acts", "acts", "acts", "acts", "overtaken", "overtaken", "time", "store", "cut", "restore"}).Draw(m.T, "what")
	switch {
	case what == "acts" || what == "cut" && !n.acting:
		n.goes(rapid.IntRange(1, 12).Draw(m.T, "lines"))
	case what == "overtaken": // it stands still until its leases are over, and another one does what it has to do, and it goes on
		m.pass(modelLease, n, rapid.SampledFrom([]int{2, 2, 2, 1, 0}).Draw(m.T, "notices"))
		m.nodes[(n.i+rapid.IntRange(1, 2).Draw(m.T, "by"))%len(m.nodes)].goes(rapid.SampledFrom([]int{40, 40, 10, 5}).Draw(m.T, "lines"))
		n.goes(rapid.IntRange(1, 12).Draw(m.T, "lines"))
	case what == "cut":
		n.cancel()
	case what == "time":
		m.pass(time.Duration(rapid.SampledFrom([]int{1, 4, 8, 12, 16, 21}).Draw(m.T, "seconds"))*time.Second, n, rapid.IntRange(0, 2).Draw(m.T, "notices"))
	case what == "store":
		switch rapid.IntRange(0, 2).Draw(m.T, "with the store") {
		case 0:
			n.setStore(rapid.Bool().Draw(m.T, "away"), false)
		case 1:
			n.setStore(false, true)
		default: // its clock is set
			m.exec(`UPDATE postern.leases SET until = until + $2 WHERE key IN ($1, '')`, leasePrefix+m.key, time.Duration(rapid.IntRange(-20, 20).Draw(m.T, "by seconds"))*time.Second)
		}
	case m.backup == nil:
		m.save()
	default:
		m.backup()
	}
}

// pass lets time pass everywhere, but for what a process's computer notices of it when it goes on: all (0), only by the clock on the wall
// (1), or nothing (2).
func (m *fenceModel) pass(d time.Duration, still *modelNode, notices int) {
	m.exec(`UPDATE postern.leases SET until = until - $2::interval WHERE key IN ($1, '')`, leasePrefix+m.key, d)
	m.mu.Lock()
	m.now += d
	m.mu.Unlock()
	for _, n := range m.nodes {
		if n != still || notices < 2 {
			n.wallBehind += d
		}
		if n != still || notices == 0 {
			n.behind += d
		}
	}
}

// clocks are of a process: of one that stands still they do, too.
func (n *modelNode) clocks() (wall time.Time, steady time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Unix(0, 0).Add(n.wall), n.steady
}

// begin begins to use the machine, or to put it to sleep, and goes as far as the first line.
func (n *modelNode) begin(uses bool) {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.acting = cancel, true
	go func() {
		<-n.goOn
		if uses {
			n.m.leave(n)
			_ = n.driver.Suspend(ctx)
		} else {
			_ = n.use(ctx)
		}
		cancel()
		n.at <- ""
	}()
	n.line(1)
}

// goes begins something if it does nothing, and goes on with it.
func (n *modelNode) goes(lines int) {
	if !n.acting {
		n.begin(n.m.uses(n))
	}
	n.line(lines)
}

// line lets it go on.
func (n *modelNode) line(lines int) {
	n.mu.Lock()
	n.wall, n.wallBehind = n.wall+n.wallBehind, 0
	n.steady, n.behind = n.steady+n.behind, 0
	n.mu.Unlock()
	for ; lines > 0 && n.acting; lines-- {
		n.goOn <- struct{}{}
		if at := <-n.at; at == "" {
			n.acting = false
			n.guard.holder.Close() // what it gives back is given back
		} else {
			n.m.Logf("%d stands before: %s", n.i, at)
		}
	}
}

// use does what the machine's owner does: it sees whether Postgres answers, starts the machine if not, and says that it uses it.
func (n *modelNode) use(ctx context.Context) error {
	for {
		n.step("Postgres is asked")
		if !n.m.runs() {
			if _, err := n.driver.Wake(ctx); err != nil {
				return err
			}
			continue
		}
		err := n.guard.Use(ctx, n.m.key)
		if errors.Is(err, machines.ErrAbandoned) {
			_, err = n.driver.Wake(ctx)
		}
		if err != nil {
			return err
		}
		if n.m.claim(n) {
			return nil
		}
	}
}

func (m *fenceModel) exec(sql string, args ...any) {
	if _, err := m.store.Exec(context.Background(), sql, args...); err != nil {
		m.Fatal(err)
	}
}

// save is a backup of the store.
func (m *fenceModel) save() {
	m.exec(`CREATE TEMPORARY TABLE IF NOT EXISTS saved_leases (LIKE postern.leases)`)
	m.exec(`CREATE TEMPORARY TABLE IF NOT EXISTS saved_uses (LIKE postern.uses)`)
	m.exec(`TRUNCATE saved_leases, saved_uses`)
	key := leasePrefix + m.key
	m.exec(`INSERT INTO saved_leases SELECT * FROM postern.leases WHERE key = $1`, key)
	m.exec(`INSERT INTO saved_uses SELECT * FROM postern.uses WHERE key = $1`, key)
	m.backup = func() { // it is another store then, and processes that live connect to it anew and write down what they use
		m.exec(`DELETE FROM postern.leases WHERE key = $1`, key)
		m.exec(`DELETE FROM postern.uses WHERE key = $1`, key)
		m.exec(`INSERT INTO postern.leases SELECT * FROM saved_leases`)
		m.exec(`INSERT INTO postern.uses SELECT * FROM saved_uses`)
		m.exec(`UPDATE postern.leases SET store = 'before' WHERE key IN ($1, '')`, key)
		for _, n := range m.nodes {
			if n.Uses(key) {
				m.exec(`INSERT INTO postern.uses (key, boot, node, since) SELECT $1, boot, name, now() FROM postern.nodes WHERE name = $2 ON CONFLICT DO NOTHING`, key, n.name)
			}
		}
	}
}

// check says what is broken.
func (m *fenceModel) check() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.broken) > 0 {
		m.Fatal(m.broken)
	}
}

// calm lets everybody end what it does. Then all can use the machine, and the last one puts it to sleep.
func (m *fenceModel) calm() {
	m.settle()
	for _, wants := range []bool{true, false} {
		for tries := 0; ; tries++ {
			left := 0
			for _, n := range m.nodes {
				if m.uses(n) != wants {
					n.begin(!wants)
					left++
				}
			}
			m.settle()
			m.check()
			if left == 0 {
				break
			}
			if tries > 20 {
				m.Fatalf("not all processes can use the machine, or stop: %v", wants)
			}
		}
	}
	for tries := 0; m.runs(); tries++ {
		if tries > 20 {
			m.Fatal("nobody can put the machine to sleep")
		}
		for _, n := range m.nodes {
			n.begin(true)
			m.settle()
		}
	}
	m.check()
}

// settle has the store be there, time pass, and all go on until nobody does anything.
func (m *fenceModel) settle() {
	for range 200 {
		acting := false
		m.pass(3*time.Second, nil, 0)
		for _, n := range m.nodes {
			n.setStore(false, false)
			n.line(10)
			acting = acting || n.acting
		}
		if !acting {
			return
		}
	}
	m.Fatal("somebody never ends what it does")
}

// end leaves nobody standing.
func (m *fenceModel) end() {
	for _, n := range m.nodes {
		n.setStore(true, false)
		for n.acting {
			n.cancel()
			n.goOn <- struct{}{}
			n.acting = <-n.at != ""
		}
		n.guard.holder.Close()
	}
}
