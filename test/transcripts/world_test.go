// What all transcripts share: one cluster with a Unix socket for the oracle, one database, one gate, and lanes.

package transcripts

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// The modes: those of pools, and worlds in which the transaction mode is played.
const (
	session     = harness.Session
	transaction = harness.Transaction
	statement   = harness.Statement
	// shuffle has a pool of three servers (more for several sessions), none of which a client gets twice in a row.
	shuffle = "shuffle"
	// pinned is shuffle with clients who keep the server on which they have drawn from a sequence.
	pinned = "pinned"
	// moved is shuffle with another client of the server, which changes something before each step. So does one of the
	// oracle's.
	moved = "moved"
)

// modes are those in which every script is played, in this order.
func modes() []string {
	all := []string{session, transaction, moved, statement}
	if harness.Long() {
		all = append(all, shuffle)
	}
	return all
}

// farModes are those in which every script is played with a server that is far away.
func farModes() []string {
	if harness.Long() {
		return []string{session, transaction, statement}
	}
	return []string{transaction}
}

// moves reports whether a mode has clients change servers.
func moves(mode string) bool { return mode == shuffle || mode == pinned || mode == moved }

// listener is where a mode's clients connect.
func listener(mode string) string {
	switch mode {
	case session, statement:
		return mode
	}
	return transaction
}

const (
	// servers is the size of each pool but those in which clients are moved: one for each session of a script.
	servers = 4
	// distance is how long it takes to a server that is far away, and back.
	distance = 50 * time.Millisecond
	// farLanes is how many scripts are played at a time with one, which do little but wait.
	farLanes = 16
)

// maxSessions is how many take part in a script. Where they are moved each number has a pool of its own: one server for each
// and two for those who move them.
const maxSessions = 4

// setup makes what scripts may use, and may not change.
//
//go:embed testdata/setup.sql
var setup string

// world is what the scripts of a run share.
type world struct {
	gate  *harness.Gate
	ids   atomic.Int32
	lanes chan *lane
	far   chan *lane // their servers are far away

	truths sync.Map // of scripts by name, for the far lanes
	moves  harness.Moves
	mu     sync.Mutex // for moves
}

// A lane is what one script at a time uses: tenants of its own, so that nobody else takes their servers, and a database of its
// own, since what is changed in one is felt by all its clients. The far ones share one, in which nobody meddles.
type lane struct {
	world     *world
	number    int
	direct    Target // PostgreSQL itself
	oracle    *Oracle
	elsewhere *Conn                     // who does what a script has others do
	movers    map[string]*harness.Mover // by tenant
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := harness.Dir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // PostgreSQL's account makes its socket here
		t.Fatal(err)
	}
	c := harness.Postgres(t, local.Options{Settings: map[string]string{"unix_socket_directories": dir}})
	base := harness.Database(t, c)
	if err := c.Exec(t.Context(), "postgres", "create role clerk; grant clerk to app"); err != nil {
		t.Fatal(err)
	}
	at := Target{"unix", filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", c.Port())), harness.App, harness.AppPassword, base}
	first, err := Login(t.Context(), at, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.ask(setup); err != nil {
		t.Fatal(err)
	}
	first.Close() // whoever copies the database waits for that

	w := &world{}
	verifier := harness.Verifier(t, c, harness.App)
	relay := harness.NewRelay(t, c.Addr(), harness.Faults{ToTarget: harness.Fault{Delay: distance / 2}, ToClient: harness.Fault{Delay: distance / 2}})
	var tenants []harness.Map
	add := func(id, database, address string, size int, more harness.Map) {
		upstream := netip.MustParseAddrPort(address)
		conf := harness.Map{
			"id": id, "database": database, "upstream": harness.Map{"host": upstream.Addr().String(), "port": int(upstream.Port()), "tls": "disable"},
			"users": []harness.Map{{"name": harness.App, "verifier": verifier}}, "pool": harness.Map{"size": size},
		}
		maps.Copy(conf, more)
		tenants = append(tenants, conf)
	}
	open := func(number int, database string) *lane {
		l := &lane{world: w, number: number, direct: at, movers: make(map[string]*harness.Mover)}
		l.direct.Database = database
		observer, err := c.Connect(t.Context(), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		l.oracle = &Oracle{observer}
		if l.elsewhere, err = Login(t.Context(), l.direct, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			l.elsewhere.Close()
			observer.Close(context.Background())
		})
		return l
	}
	lanes := lanesWanted()
	w.lanes, w.far = make(chan *lane, lanes), make(chan *lane, farLanes)
	var all []*lane
	for i := range lanes {
		database := fmt.Sprintf("%s_lane%d", base, i)
		if err := c.Exec(t.Context(), "postgres", fmt.Sprintf("create database %s template %s owner %s", database, base, harness.App)); err != nil {
			t.Fatal(err)
		}
		for _, mode := range []string{session, transaction, statement} {
			add(tenant(mode, i, 0), database, c.Addr(), servers, nil)
		}
		for sessions := range maxSessions {
			for _, mode := range []string{shuffle, moved} {
				add(tenant(mode, i, sessions+1), database, c.Addr(), sessions+3, nil)
			}
			add(tenant(pinned, i, sessions+1), database, c.Addr(), sessions+3, harness.Map{"state": harness.Map{"sequence": "pin"}})
		}
		all = append(all, open(i, database))
	}
	for i := range farLanes {
		for _, mode := range farModes() {
			add(tenant(mode, lanes+i, 0), base, relay.Addr(), servers, nil)
		}
		w.far <- open(lanes+i, base)
	}
	w.gate = harness.Postern(t, harness.GateConfig{Tenants: tenants, Config: harness.Map{"log": harness.Map{"level": "info"}}})
	for _, l := range all {
		for _, mode := range []string{shuffle, pinned, moved} {
			for sessions := range maxSessions {
				id := tenant(mode, l.number, sessions+1)
				m := harness.NewMover(t, c, w.gate.Addr(t, listener(mode)), harness.App+"."+id, l.direct.Database)
				if mode == moved {
					m.Meddling = meddling
				}
				l.movers[id] = m
			}
		}
		w.lanes <- l
	}
	return w
}

// meddling has servers plan everything again that is about these, and shows nowhere. It waits for nobody's locks.
const meddling = harness.Meddling + "; grant select on fruit to clerk; alter function triple(int) cost 100"

// tenant is the one of a mode and a lane, and, where sessions are moved, of their number.
func tenant(mode string, lane, sessions int) string {
	return fmt.Sprintf("%s%d-%d", mode, lane, sessions)
}

// id is a run's own text, as long as the parser's documentation says.
func (w *world) id() string { return fmt.Sprintf("_%05d", w.ids.Add(1)) }

// on takes a lane for the time of f.
func (w *world) on(f func(*lane)) {
	l := <-w.lanes
	defer func() { w.lanes <- l }()
	f(l)
}

// truth plays a script on PostgreSQL itself: what is right in a mode.
func (l *lane) truth(t *testing.T, mode string, s Script) Transcript {
	t.Helper()
	side := l.oracle.Side(l.direct, l.world.id())
	side.meanwhile = l.elsewhere.ask
	if mode == moved {
		side.before = func(ctx context.Context, session byte, _ bool) error {
			return l.movers[tenant(moved, l.number, 1)].Before(ctx, session, false)
		}
	}
	truth, err := side.Play(t.Context(), s)
	if err != nil {
		t.Fatalf("directly: %v\n%s", err, inFull(truth))
	}
	if mode != moved {
		l.world.truths.Store(s.Name, truth)
	}
	return truth
}

// gated plays a script through the gate.
func (l *lane) gated(t *testing.T, mode string, s Script, truth Transcript) Transcript {
	t.Helper()
	id := tenant(mode, l.number, 0)
	if moves(mode) {
		id = tenant(mode, l.number, countSessions(t, s))
	}
	to := l.direct
	to.Network, to.Address = "tcp", l.world.gate.Addr(t, listener(mode))
	to.User += "." + id
	side := Against(truth, to, l.world.id())
	side.meanwhile = l.elsewhere.ask
	side.done = func(got Transcript) bool { return mode == statement && inBlock(truth[:min(len(got), len(truth))]) }
	if m := l.movers[id]; m != nil {
		defer l.world.forget(t, m)
		side.before = func(ctx context.Context, session byte, between bool) error { return m.Before(ctx, session, between) }
		side.after = func(ctx context.Context, session byte) error { return m.After(ctx, session) }
	}
	got, err := side.Play(t.Context(), s)
	if err != nil {
		t.Fatalf("%s: %v\n%s", mode, err, inFull(got))
	}
	return got
}

// countSessions is how many take part in a script.
func countSessions(t *testing.T, s Script) int {
	t.Helper()
	steps, err := s.Steps(unique)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[byte]bool)
	for _, step := range steps {
		seen[step.Session] = true
	}
	return max(1, len(seen))
}

// forget ends a play's moves.
func (w *world) forget(t *testing.T, m *harness.Mover) {
	t.Helper()
	moves, err := m.Forget(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.moves.All += moves.All
	w.moves.Held += moves.Held
	w.moves.Moved += moves.Moved
}

// scripts reads testdata/scripts.
func scripts(t *testing.T) []Script {
	t.Helper()
	root := filepath.Join("testdata", "scripts")
	paths, err := filepath.Glob(filepath.Join(root, "*", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var all []Script
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Script{name[:len(name)-len(".txt")], string(content)})
	}
	return all
}
