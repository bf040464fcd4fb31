// Bad readers of the log: one that ends, and one that is there and does not read. They cost lines, never sessions.

package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/test/harness"
)

func (g *gate) droppedLines() float64 { return g.metric("postern_log_dropped_total") }

// TestLogReaderEnds: without a reader a write of the log is SIGPIPE, or EPIPE where somebody cares.
func TestLogReaderEnds(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	session, transaction := g.connect(t, "session"), g.connect(t, "transaction")
	g.CloseLog()
	harness.Eventually(t, harness.Patience, "lines are dropped and counted", func() bool {
		closeConn(g.connect(t, "transaction")) // its end is a line
		return g.droppedLines() > 0
	})
	for _, got := range []string{value(t, session, "select 1"), value(t, transaction, "select 1")} {
		if got != "1" {
			t.Errorf("got %q", got)
		}
	}
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestLogReaderStandsStill: the pipe fills up, then the queue in front of it.
func TestLogReaderStandsStill(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	session := g.connect(t, "session")
	g.IgnoreLog()
	// What is wrong with this file is a line of half the queue's size.
	long := strings.Repeat("x", 512<<10)
	tenant := g.changed("users", []harness.Map{{"name": "app", "password_file": long}})
	for range 4 {
		failed := g.reloads("tenants", "failed")
		g.WriteTenants(t, tenant)
		g.Signal(t, syscall.SIGHUP)
		harness.Eventually(t, harness.Patience, "the tenants are refused", func() bool { return g.reloads("tenants", "failed") > failed })
	}
	harness.Eventually(t, harness.Patience, "lines are dropped and counted", func() bool { return g.droppedLines() > 0 })
	if got := value(t, session, "select 1"); got != "1" {
		t.Errorf("got %q", got)
	}
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
