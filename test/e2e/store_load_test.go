// pgbench that runs while something is done to the store, and must not meet an error.

package e2e

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// load is a pgbench that runs until it is stopped.
type load struct {
	t     *testing.T
	cmd   *exec.Cmd
	said  *harness.Log
	ended chan struct{}
}

// fillFor makes pgbench's tables where a tenant's upstream is.
func fillFor(t *testing.T, tenant harness.Map) {
	t.Helper()
	upstream := tenant["upstream"].(harness.Map)
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=%s", upstream["port"], harness.App, harness.AppPassword, tenant["database"])
	if out, err := exec.CommandContext(t.Context(), harness.Program(t, "pgbench"), "-i", "-q", "-s", "1", dsn).CombinedOutput(); err != nil {
		t.Fatalf("pgbench -i: %v: %s", err, out)
	}
}

// startLoad runs pgbench -S on four connections, not as fast as it can: others work here as well.
func startLoad(t *testing.T, dsn string) *load {
	t.Helper()
	l := &load{t: t, said: new(harness.Log), ended: make(chan struct{})}
	l.cmd = exec.Command(harness.Program(t, "pgbench"), "-n", "-S", "-M", "prepared", "-c", "4", "-j", "1", "-R", "200", "-T", "36000", "-P", "1", dsn)
	l.cmd.Stdout, l.cmd.Stderr = l.said, l.said
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = l.cmd.Wait()
		close(l.ended)
	}()
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		<-l.ended
		l.check()
	})
	return l
}

var (
	progress = regexp.MustCompile(`progress: [0-9.]+ s, ([0-9.]+) tps, .*, 0 failed`)
	idle     = regexp.MustCompile(`progress: [0-9.]+ s, 0\.0 tps`)
)

// goesOn waits until it has done more.
func (l *load) goesOn() {
	l.t.Helper()
	done := func() int {
		return len(progress.FindAllString(l.said.String(), -1)) - len(idle.FindAllString(l.said.String(), -1))
	}
	before := done()
	harness.Eventually(l.t, harness.Patience, "pgbench goes on", func() bool {
		select {
		case <-l.ended:
			l.t.Fatalf("pgbench has ended:\n%s", l.said)
		default:
		}
		return done() > before+1
	})
}

// check says what it has met.
func (l *load) check() {
	l.t.Helper()
	for line := range strings.Lines(l.said.String()) {
		if !strings.HasPrefix(line, "progress: ") && !strings.HasPrefix(line, "pgbench (") || strings.HasPrefix(line, "progress: ") && !strings.Contains(line, ", 0 failed") {
			l.t.Errorf("pgbench says %s", line)
		}
	}
}
