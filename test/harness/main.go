// What the tests of one package share, and its end.

package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/machines/local"
)

// A world is what the tests of a process share. Its parts are made when the first test asks for them.
type world struct {
	dir    string // others than root may pass through, unlike t.TempDir
	names  atomic.Int64
	binary func() (string, error) // with the race detector if the tests have it
	plain  func() (string, error) // never with it
	pg     func() (*postgresWorld, error)

	mu     sync.Mutex
	atExit []func() error
}

// current is set by Main before any test runs: a test has no other way to what its TestMain made.
var current *world

// Main runs the tests and then ends what they shared. It returns the exit code for os.Exit.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "postern-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		return 1
	}
	w := &world{dir: dir}
	w.binary = sync.OnceValues(func() (string, error) { return w.build("postern", raceEnabled) })
	w.plain, w.pg = w.binary, sync.OnceValues(w.makePostgres)
	if raceEnabled {
		w.plain = sync.OnceValues(func() (string, error) { return w.build("postern-plain", false) })
	}
	current = w
	code := m.Run()
	for _, end := range w.atExit {
		if err := end(); err != nil {
			fmt.Fprintln(os.Stderr, "harness:", err)
			code = 1
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "harness:", err)
		code = 1
	}
	return code
}

func shared(t testing.TB) *world {
	t.Helper()
	if current == nil {
		t.Fatal("the package's TestMain must call harness.Main")
	}
	return current
}

// Dir makes a directory for one test that PostgreSQL's account can reach, and removes it afterwards.
func Dir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(shared(t).dir, Unique("d"))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // Main removes what is left, and judges
	return dir
}

// Unique returns prefix and a number that no other call in this process gets: for names of databases and roles.
func Unique(prefix string) string { return prefix + strconv.FormatInt(current.names.Add(1), 10) }

// Binary returns the path of postern, built once per process, with the race detector if the test was.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := shared(t).binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// PlainBinary is Binary without the race detector, whatever the tests have: for what is measured in bytes, in time, or in
// more than the 8128 goroutines that the detector can follow.
func PlainBinary(t testing.TB) string {
	t.Helper()
	path, err := shared(t).plain()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *world) build(name string, race bool) (string, error) {
	path := filepath.Join(w.dir, name)
	args := []string{"build", "-buildvcs=false", "-o", path}
	if race {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "github.com/postern/postern/cmd/postern")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build of postern: %w\n%s", err, out)
	}
	return path, nil
}

// Patience is how long a test waits for what must come. A shared computer may stand still for many seconds, and a test is
// not about that: only what never comes is late. What is to be fast is compared with something else in the same run.
const Patience = time.Minute

// Eventually polls until cond holds, for what has no event to wait for, and fails the test after limit, which is [Patience]
// unless there is a reason for another. It always looks once more after the limit: the time may have passed in between.
func Eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); ; <-tick.C {
		late := time.Now().After(end)
		if cond() {
			return
		}
		if late {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// FreePort finds a TCP port of 127.0.0.1 that nobody listens on, for a program that cannot choose its own. It is below
// those that the system gives to connections, of which a test beside this one may make thousands.
func FreePort() int {
	for {
		port := 20000 + rand.N(12000)
		if ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			ln.Close()
			return port
		}
	}
}

// stopLater has the shared cluster stopped at the end of Main.
func (w *world) stopLater(c *local.Cluster) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.atExit = append(w.atExit, func() error { return c.Stop(context.Background(), local.Immediate) })
}
