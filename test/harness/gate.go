// Running the real binary: its files, its process, its end.

package harness

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/machines/local"
)

// Names of the default listeners, one per pool mode. With suffix Proxied they demand a PROXY header from loopback.
const (
	Session     = "session"
	Transaction = "transaction"
	Statement   = "statement"
	Proxied     = "-proxied"
)

const (
	gateStart = Patience // until /readyz says 200
	gateStop  = Patience // from SIGTERM at the end of a test
)

// Map is a YAML mapping.
type Map = map[string]any

// GateConfig is what a test may want to be different. The zero value is a gate with the default listeners and Acme.
type GateConfig struct {
	Config  Map      // top-level keys of the configuration file, each replacing the default one
	Tenants []Map    // of the tenants file; nil: Acme on the shared cluster
	Env     []string // added to the environment
	Plain   bool     // run [PlainBinary] rather than [Binary]
	Program string   // run this one; "": one of those
	Files   int      // how many files it may have open, soft and hard; 0: as many as the test
}

// A Gate is a running postern serve.
type Gate struct {
	Dir   string // its configuration, tenants file and secrets
	Token string // of the admin HTTP

	log       *Log
	reader    *os.File // the end of the pipe that the log is read from
	cmd       *exec.Cmd
	loads     int // that the log tells of until it is ready
	listeners map[string]string
	admin     string
	ended     chan struct{} // closed when the process was reaped
}

// Acme is the tenant acme on a cluster, with a database and the roles App and Other.
func Acme(t testing.TB, c *local.Cluster, database string) Map {
	t.Helper()
	return Map{
		"id": "acme", "database": database,
		"upstream": Map{"host": "127.0.0.1", "port": c.Port(), "tls": "disable"},
		"users":    []Map{{"name": App, "verifier": Verifier(t, c, App)}, {"name": Other, "verifier": Verifier(t, c, Other)}},
	}
}

// Postern runs a gate until the test ends, and returns when it is ready. The test fails if the gate dies before, does not
// end with status 0 on SIGTERM, or logs a panic, a race or a BUG.
func Postern(t testing.TB, conf GateConfig) *Gate {
	t.Helper()
	g := &Gate{Dir: Dir(t), Token: rand.Text(), log: newLog(), listeners: make(map[string]string), ended: make(chan struct{})}
	if conf.Tenants == nil {
		c := Postgres(t)
		conf.Tenants = []Map{Acme(t, c, Database(t, c))}
	}
	g.WriteTenants(t, conf.Tenants...)
	g.Write(t, "admin.token", []byte(g.Token+"\n"))
	g.Write(t, "mock.key", []byte(rand.Text()+rand.Text()+"\n"))
	file := defaultConfig()
	maps.Copy(file, conf.Config)
	g.loads = 2
	if place, _ := file["tenants"].(Map); place["file"] == nil { // a store says it once
		g.loads = 1
	}
	g.writeYAML(t, "postern.yaml", file)

	binary := Binary
	if conf.Plain {
		binary = PlainBinary
	}
	if conf.Program != "" {
		binary = func(testing.TB) string { return conf.Program }
	}
	args := []string{binary(t), "serve", "--config", filepath.Join(g.Dir, "postern.yaml")}
	if conf.Files > 0 {
		args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, conf.Files)}, args...)
	}
	g.cmd = exec.Command(args[0], args[1:]...)
	g.cmd.Env = append(os.Environ(), conf.Env...)
	g.start(t)
	t.Cleanup(func() { g.finish(t) })
	listeners, _ := file["listeners"].([]Map)
	g.awaitReady(t, len(listeners))
	return g
}

// start runs the process. Its log comes through a pipe that is ours, so that a test can be a bad reader of it.
func (g *Gate) start(t testing.TB) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g.reader, g.cmd.Stdout, g.cmd.Stderr = reader, writer, writer
	err = g.cmd.Start()
	writer.Close() // the process has its own
	if err != nil {
		reader.Close()
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(g.log, reader) // until the process ends, or the test wants no more
	}()
	go func() {
		_ = g.cmd.Wait() // its outcome is in ProcessState
		<-read
		reader.Close()
		close(g.ended)
	}()
}

// CloseLog ends the reader of the gate's log: who writes there next gets EPIPE.
func (g *Gate) CloseLog() { g.reader.Close() }

// IgnoreLog has nobody read the gate's log any more, though it stays open: it fills up.
func (g *Gate) IgnoreLog() { _ = g.reader.SetReadDeadline(time.Now()) }

func defaultConfig() Map {
	var listeners []Map
	for _, mode := range []string{Session, Transaction, Statement} {
		listeners = append(listeners,
			Map{"name": mode, "address": "127.0.0.1:0", "pool_mode": mode, "proxy_protocol": "off"},
			Map{"name": mode + Proxied, "address": "127.0.0.1:0", "pool_mode": mode, "proxy_protocol": "require", "trusted_proxies": []string{"127.0.0.0/8"}})
	}
	return Map{
		"listeners": listeners,
		"auth":      Map{"mock_secret_file": "mock.key"},
		"admin":     Map{"address": "127.0.0.1:0", "token_file": "admin.token"},
		"tenants":   Map{"file": "tenants.yaml"},
		"timeouts":  Map{"drain": "5s", "login": "60s"}, // many logins at once take long on a busy machine
		"log":       Map{"level": "debug"},
	}
}

// awaitReady learns the addresses of so many listeners from the log and asks /readyz. The tenants of a file are read again once
// they are watched: whoever counts reloads counts from there on.
func (g *Gate) awaitReady(t testing.TB, listeners int) {
	t.Helper()
	var died bool
	Eventually(t, gateStart, "the gate is ready", func() bool {
		select {
		case <-g.ended:
			died = true
			return true
		default:
		}
		for _, e := range g.log.Entries() {
			address, _ := e["address"].(string)
			switch e["msg"] {
			case "listening":
				if name, ok := e["listener"].(string); ok {
					g.listeners[name] = address
				}
			case "admin HTTP":
				g.admin = address
			}
		}
		if g.admin == "" || len(g.listeners) < listeners || len(g.log.Find("tenants loaded", nil)) < g.loads {
			return false
		}
		resp, err := http.Get(g.AdminURL() + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if died {
		t.Fatalf("the gate ended while starting: %v\n%s", g.cmd.ProcessState, g.log)
	}
}

// Addr is where a listener listens.
func (g *Gate) Addr(t testing.TB, listener string) string {
	t.Helper()
	addr, ok := g.listeners[listener]
	if !ok {
		t.Fatalf("no listener %s in %v", listener, g.listeners)
	}
	return addr
}

// AdminURL is the root of the admin HTTP, without a slash at its end.
func (g *Gate) AdminURL() string { return "http://" + g.admin }

// Log is what the gate has said.
func (g *Gate) Log() *Log { return g.log }

// PID is the gate's process id.
func (g *Gate) PID() int { return g.cmd.Process.Pid }

// Write puts a file into the gate's directory in one step, so that the gate never reads half of it.
func (g *Gate) Write(t testing.TB, name string, content []byte) {
	t.Helper()
	path := filepath.Join(g.Dir, name)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// WriteTenants replaces the tenants file, which a running gate notices by itself.
func (g *Gate) WriteTenants(t testing.TB, tenants ...Map) {
	t.Helper()
	g.writeYAML(t, "tenants.yaml", Map{"tenants": tenants})
}

func (g *Gate) writeYAML(t testing.TB, name string, content Map) {
	t.Helper()
	out, err := yaml.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	g.Write(t, name, out)
}

// Reload has the gate read its files again (SIGHUP) and waits until the tenants that it reads then are in force.
func (g *Gate) Reload(t testing.TB) {
	t.Helper()
	asked := time.Now()
	g.Signal(t, syscall.SIGHUP)
	g.LoadedAfter(t, asked)
}

// LoadedAfter waits until tenants are in force that the gate began to read after a moment, and returns when that was at the earliest.
// To count loads is not enough: one that had begun before, as after an earlier change, counts too.
func (g *Gate) LoadedAfter(t testing.TB, when time.Time) (at time.Time) {
	t.Helper()
	Eventually(t, gateStart, "the tenants are loaded again", func() bool {
		asked := time.Now()
		age := time.Duration(g.Metric(t, "postern_directory_age_seconds", nil) * float64(time.Second))
		at = asked.Add(-age)
		return at.After(when)
	})
	return at
}

// Signal sends the gate a signal.
func (g *Gate) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Freeze stops the gate as it is, until SIGCONT, and returns when none of its threads runs any more: the signal's sender does not wait for that.
func (g *Gate) Freeze(t testing.TB) {
	t.Helper()
	g.Signal(t, syscall.SIGSTOP)
	Eventually(t, Patience, "every thread of the gate stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", g.PID()))
		if err != nil || len(threads) == 0 {
			return false
		}
		for _, name := range threads {
			stat, err := os.ReadFile(name)
			if err != nil {
				return false // it has just ended
			}
			if after := stat[bytes.LastIndexByte(stat, ')')+1:]; !bytes.HasPrefix(after, []byte(" T ")) {
				return false
			}
		}
		return true
	})
}

// Stop sends SIGTERM and returns the exit code, -1 if a signal ended the gate.
func (g *Gate) Stop(t testing.TB) int {
	t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	return g.Wait(t)
}

// Wait returns the exit code when the gate has ended, which somebody else has caused.
func (g *Gate) Wait(t testing.TB) int {
	t.Helper()
	timer := time.NewTimer(gateStop)
	defer timer.Stop()
	select {
	case <-g.ended:
	case <-timer.C:
		_ = g.cmd.Process.Kill()
		<-g.ended
		t.Errorf("the gate did not end by itself\n%s", g.log)
	}
	return g.cmd.ProcessState.ExitCode()
}

// finish ends a gate that the test has not ended, and judges its log.
func (g *Gate) finish(t testing.TB) {
	select {
	case <-g.ended: // the test's own doing, or the start failed and has been told
	default:
		if code := g.Stop(t); code != 0 {
			t.Errorf("the gate ended with status %d\n%s", code, g.log)
		}
	}
	for _, bad := range []string{"WARNING: DATA RACE", "panic", "BUG:"} {
		if g.log.Contains(bad) {
			t.Errorf("the gate's log has %q\n%s", bad, g.log)
		}
	}
}

// Admin sends a request with the admin token and returns status and body.
func (g *Gate) Admin(t testing.TB, method, path string, body any) (status int, answer []byte) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if body == nil {
		encoded = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), gateStart)
	defer cancel()
	return g.request(t, ctx, method, path, encoded)
}
