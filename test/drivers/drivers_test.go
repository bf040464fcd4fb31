// The matrix: every program with the server directly, then through every listener, in plaintext and over TLS.

package drivers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// direct is the mode of the oracle. The others are called as their listeners.
const direct = "direct"

// Worlds in which there is more to go wrong than between one near server and its client; they are tenants of their own.
const (
	// near is the tenant of the usual one.
	near = "acme"
	// moved has clients get another server for each transaction, while somebody else changes something on which all plans depend.
	moved = "moved"
	// far has the server 50 ms away, there and back.
	far = "far"
)

const (
	poolSize = 8 // servers for a program
	distance = 50 * time.Millisecond
)

// runLimit bounds one run of a program, which takes a second or two, on a busy machine with the race detector.
const runLimit = 3 * time.Minute

// target is what a program connects to.
type target struct {
	Name     string `json:"name"` // for people
	Mode     string `json:"mode"` // direct, session or transaction
	Host     string `json:"host"`
	Port     int    `json:"port"`
	User     string `json:"user"`
	Password string `json:"password"`
	Database string `json:"database"` // the program's own
	TLS      bool   `json:"tls"`      // verified, and bound to the channel where the driver can
	CA       string `json:"ca"`       // PEM file that verifies the server
	Stranger string `json:"stranger"` // PEM file of another authority
}

// finding is one line of a program.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// world is the server, the gate before it, and what programs are made of.
type world struct {
	cluster  *local.Cluster
	gate     *harness.Gate
	ca       *harness.Authority
	stranger *harness.Authority
	build    string // directory of compiled programs
}

func TestDrivers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// What waits for the parallel subtests is done before the gate and the server are taken away.
	t.Run("matrix", func(t *testing.T) {
		for _, p := range programs {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				p.visit(t, w)
			})
		}
	})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: harness.Certificates(t), stranger: harness.Certificates(t), build: t.TempDir()}
	w.compile(t)
	pair := w.ca.Issue(t, "localhost")
	w.cluster = harness.Postgres(t, local.Options{CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	tenant := func(id string, size int, address string) harness.Map {
		m := harness.Acme(t, w.cluster, "postgres")
		at := netip.MustParseAddrPort(address)
		m["id"], m["upstream"] = id, harness.Map{"host": at.Addr().String(), "port": int(at.Port()), "tls": "disable"}
		m["pool"] = harness.Map{"size": size, "max_servers": 150} // per database, that is per program; and together
		return m
	}
	late := harness.Fault{Delay: distance / 2}
	relay := harness.NewRelay(t, w.cluster.Addr(), harness.Faults{ToTarget: late, ToClient: late})
	w.gate = harness.Postern(t, harness.GateConfig{
		Config:  harness.Map{"tls": harness.Map{"certificates": []harness.Map{{"cert": pair.CertFile, "key": pair.KeyFile}}}},
		Tenants: []harness.Map{tenant(near, poolSize, w.cluster.Addr()), tenant(moved, poolSize+harness.Movers, w.cluster.Addr()), tenant(far, poolSize, relay.Addr())},
	})
	t.Cleanup(func() {
		if log := w.gate.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return w
}

// compile builds the programs that are not scripts.
func (w *world) compile(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"go", "build", "-buildvcs=false", "-o", w.build, "./golang/drivepgx", "./golang/drivepq"},
		{"javac", "-cp", present(t, jdbc), "-d", w.build, "java/Checks.java", "java/DriveJDBC.java"},
	} {
		cmd := exec.CommandContext(t.Context(), installed(t, args[0]), args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A visit is one run of a program.
type visit struct {
	mode    string
	overTLS bool
	world   string // near, moved or far
}

// visits are what a program is run against. Those of a series share a database, in this order: sessions get servers that
// transactions used. The second series mostly waits.
func (p program) visits() (series [2][]visit) {
	for _, overTLS := range []bool{false, true} {
		for _, mode := range []string{direct, harness.Transaction, harness.Session} {
			series[0] = append(series[0], visit{mode, overTLS, near})
		}
	}
	if p.worlds || harness.Long() {
		series[0] = append(series[0], visit{harness.Transaction, false, moved})
		series[1] = append(series[1], visit{harness.Transaction, false, far})
	}
	if harness.Long() {
		series[1] = append(series[1], visit{harness.Transaction, true, far}, visit{harness.Session, false, far})
	}
	return series
}

// String names the visit.
func (v visit) String() string {
	name := v.mode
	if v.world != near {
		name += "-" + v.world
	}
	if v.overTLS {
		name += "-tls"
	}
	return name
}

// target describes where a program with this database goes.
func (w *world) target(t *testing.T, v visit, database string) target {
	t.Helper()
	to := target{Name: v.String(), Mode: v.mode, Host: "127.0.0.1", User: harness.App, Password: harness.AppPassword, Database: database,
		TLS: v.overTLS, CA: w.ca.CAFile, Stranger: w.stranger.CAFile, Port: w.cluster.Port()}
	if v.overTLS {
		to.Host = "localhost"
	}
	if v.mode == direct {
		return to
	}
	to.User += "." + v.world
	address := w.gate.Addr(t, v.mode)
	if v.world == moved {
		m := harness.NewMover(t, w.cluster, address, to.User, database)
		m.Meddling = harness.Meddling
		t.Cleanup(func() { checkMoves(t, m) })
		address = harness.TurnRelay(t, address, harness.Turns{Before: m.Before, After: m.After})
	}
	to.Port = int(netip.MustParseAddrPort(address).Port())
	return to
}

// checkMoves proves that a program was moved. Not held is a server that its client keeps; and where clients of a program work at
// the same time, it is not always known which one's is which.
func checkMoves(t *testing.T, m *harness.Mover) {
	t.Helper()
	moves, err := m.Forget(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Error(err)
	}
	t.Logf("of %d transactions %d could be moved; %d were", moves.All, moves.Held, moves.Moved)
	if moves.Held < moves.All/2 || moves.Moved < moves.Held*9/10 || moves.All == 0 {
		t.Error("too few")
	}
}

// visit runs the program against every target, each series in databases that it has for itself: so are its pools of servers.
func (p program) visit(t *testing.T, w *world) {
	var work sync.WaitGroup
	for _, series := range p.visits() {
		database := harness.Database(t, w.cluster)
		work.Go(func() {
			for _, v := range series {
				hung := false
				t.Run(v.String(), func(t *testing.T) {
					var found map[string]finding
					to := w.target(t, v, database)
					found, hung = p.run(t, w, to)
					p.judge(t, to, found)
				})
				if hung {
					t.Error("what else it would have been run against is left out, or the package would run out of time")
					return
				}
			}
		})
	}
	work.Wait()
}

// run starts the program and returns what it found, and whether it had to be killed.
func (p program) run(t *testing.T, w *world, to target) (found map[string]finding, hung bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	stdin, err := json.Marshal(to)
	if err != nil {
		t.Fatal(err)
	}
	args := p.command(t, w)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// libpq's own variables are not meant for us.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.Env = append(cmd.Env, "LC_ALL=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1")
	if p.env != nil {
		cmd.Env = append(cmd.Env, p.env(t)...)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	found = make(map[string]finding)
	for line := range strings.Lines(stdout.String()) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Errorf("not a finding: %s", line)
			continue
		}
		if _, twice := found[f.Check]; twice || f.Check == "" {
			t.Errorf("check %q was made twice", f.Check)
		}
		found[f.Check] = f
	}
	return found, ctx.Err() != nil
}

// judge holds the findings against what the program must check, and what may fail.
func (p program) judge(t *testing.T, to target, found map[string]finding) {
	t.Helper()
	for _, check := range p.checks(to.TLS) {
		f, made := found[check]
		why := p.pending(check, to.Mode)
		switch {
		case !made:
			t.Errorf("%s: no word of it", check)
		case f.OK && why != "":
			t.Errorf("%s: stands in notYet (%s), and succeeds", check, why)
		case !f.OK && why == "":
			t.Errorf("%s: %s", check, strings.Join(strings.Fields(f.Detail), " "))
		}
		delete(found, check)
	}
	for check := range found {
		t.Errorf("%s: not among the program's checks in the table", check)
	}
}

// installed finds a program, whose absence is an error.
func installed(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run scripts/install-driver-deps.sh", err)
	}
	return path
}

// present is a file that must be there.
func present(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v: run scripts/install-driver-deps.sh", err)
	} else if err != nil {
		t.Fatal(err)
	}
	return path
}
