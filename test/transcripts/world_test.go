// What all transcripts share: one cluster with a Unix socket for the oracle, one database, one gate, and lanes.

package transcripts

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// The modes. Shuffle is the transaction mode with another client that has every transaction land on another server than the
// one before it.
const (
	session     = harness.Session
	transaction = harness.Transaction
	shuffle     = "shuffle"
	statement   = harness.Statement
	// pinned is shuffle with clients who keep the server on which they have drawn from a sequence.
	pinned = "pinned"
)

// modes are those in which every script is played.
var modes = []string{session, transaction, shuffle, statement}

// moves reports whether a mode has clients change servers.
func moves(mode string) bool { return mode == shuffle || mode == pinned }

// listener is where a mode's clients connect.
func listener(mode string) string {
	if moves(mode) {
		return transaction
	}
	return mode
}

// servers is the size of each pool: one for each session of a script and one for the client that shuffles.
const servers = 5

// setup makes what scripts may use, and may not change.
//
//go:embed testdata/setup.sql
var setup string

// world is what the scripts of a run share.
type world struct {
	direct Target // PostgreSQL itself
	gate   *harness.Gate
	ids    atomic.Int32
	lanes  chan *lane
}

// A lane is what one script at a time uses: tenants of its own, so that nobody else takes their servers.
type lane struct {
	world  *world
	number int
	oracle *Oracle
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := harness.Dir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // PostgreSQL's account makes its socket here
		t.Fatal(err)
	}
	c := harness.Postgres(t, local.Options{Settings: map[string]string{"unix_socket_directories": dir}})
	database := harness.Database(t, c)
	if err := c.Exec(t.Context(), "postgres", "create role clerk; grant clerk to app"); err != nil {
		t.Fatal(err)
	}
	w := &world{direct: Target{"unix", filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", c.Port())), harness.App, harness.AppPassword, database}}
	first, err := Login(t.Context(), w.direct, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := first.ask(setup); err != nil {
		t.Fatal(err)
	}

	lanes := lanesWanted()
	verifier := harness.Verifier(t, c, harness.App)
	var tenants []harness.Map
	for i := range lanes {
		for _, mode := range append([]string{pinned}, modes...) {
			conf := harness.Map{
				"id": tenant(mode, i), "database": database,
				"upstream": harness.Map{"host": "127.0.0.1", "port": c.Port(), "tls": "disable"},
				"users":    []harness.Map{{"name": harness.App, "verifier": verifier}},
				"pool":     harness.Map{"size": servers},
			}
			if mode == pinned {
				conf["state"] = harness.Map{"sequence": "pin"}
			}
			tenants = append(tenants, conf)
		}
	}
	w.gate = harness.Postern(t, harness.GateConfig{Tenants: tenants, Config: harness.Map{"log": harness.Map{"level": "info"}}})
	w.lanes = make(chan *lane, lanes)
	for i := range lanes {
		observer, err := c.Connect(t.Context(), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { observer.Close(context.Background()) })
		w.lanes <- &lane{w, i, &Oracle{observer}}
	}
	return w
}

func tenant(mode string, lane int) string { return mode + strconv.Itoa(lane) }

// id is a run's own text, as long as the parser's documentation says.
func (w *world) id() string { return fmt.Sprintf("_%05d", w.ids.Add(1)) }

// on takes a lane for the time of f.
func (w *world) on(f func(*lane)) {
	l := <-w.lanes
	defer func() { w.lanes <- l }()
	f(l)
}

// direct plays a script on PostgreSQL itself.
func (l *lane) direct(t *testing.T, s Script) Transcript {
	t.Helper()
	truth, err := l.oracle.Side(l.world.direct, l.world.id()).Play(t.Context(), s)
	if err != nil {
		t.Fatalf("directly: %v\n%s", err, inFull(truth))
	}
	return truth
}

// gated plays a script through the gate.
func (l *lane) gated(t *testing.T, mode string, s Script, truth Transcript) Transcript {
	t.Helper()
	to := l.target(t, mode)
	side := Against(truth, to, l.world.id())
	side.done = func(got Transcript) bool { return mode == statement && inBlock(truth[:min(len(got), len(truth))]) }
	if moves(mode) {
		sh := &shuffler{to: to}
		defer sh.close()
		side.rest = sh.shuffle
	}
	got, err := side.Play(t.Context(), s)
	if err != nil {
		t.Fatalf("%s: %v\n%s", mode, err, inFull(got))
	}
	return got
}

// target is a mode's listener and the lane's tenant there.
func (l *lane) target(t *testing.T, mode string) Target {
	t.Helper()
	to := l.world.direct
	to.Network, to.Address = "tcp", l.world.gate.Addr(t, listener(mode))
	to.User += "." + tenant(mode, l.number)
	return to
}

// A shuffler is another client of the same pool, which lends the server used last first. It begins a transaction there, so
// that the script's next one must use another, and ends it before the one after that, which makes its server the first again.
type shuffler struct {
	to   Target
	conn *Conn
	open bool
}

func (s *shuffler) shuffle(ctx context.Context) (err error) {
	if s.conn == nil {
		if s.conn, err = Login(ctx, s.to, nil); err != nil {
			return err
		}
	}
	s.open = !s.open
	if s.open {
		return s.conn.ask("begin")
	}
	return s.conn.ask("commit")
}

func (s *shuffler) close() {
	if s.conn != nil {
		s.conn.Close()
	}
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
