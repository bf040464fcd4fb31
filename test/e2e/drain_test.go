// The end of the gate: SIGTERM, once and twice.

package e2e

import (
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// TestDrain sends idle clients away, lets a transaction finish, and ends with status 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"drain": "60s"}})
	idle, session := g.script(t, "transaction"), g.script(t, "session")
	session.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	open, inSession, running := g.script(t, "transaction"), g.script(t, "session"), g.script(t, "transaction")
	open.want("C:BEGIN C:CREATE_TABLE Z:T", 1, query("begin; create table t(a int)"))
	inSession.want("C:BEGIN Z:T", 1, query("begin"))
	running.say(query("select pg_sleep(3), 'done'"))
	g.awaitRunning(t, "select pg_sleep(3), 'done'")

	g.Signal(t, syscall.SIGTERM)
	for name, s := range map[string]*script{"transaction mode": idle, "session mode": session} {
		if got := s.hear(1); got != "E:57P01! EOF" {
			t.Errorf("idle in %s: %s", name, got)
		}
	}
	if status := readyz(t, g); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz is %d", status)
	}
	if conn, err := net.DialTimeout("tcp4", g.Addr(t, "transaction"), time.Second); err == nil {
		conn.Close()
		t.Error("a new connection was accepted")
	}
	if got := running.hear(2); got != "T D:,done C:SELECT_1 Z:I E:57P01! EOF" {
		t.Errorf("a running query: %s", got)
	}
	open.want("C:INSERT_0_1 Z:T", 1, query("insert into t values (1)"))
	open.want("C:COMMIT Z:I E:57P01! EOF", 2, query("commit"))
	inSession.want("T D:1 C:SELECT_1 Z:T", 1, query("select 1"))
	inSession.want("C:ROLLBACK Z:I E:57P01! EOF", 2, query("rollback"))
	if code := g.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := value(t, g.direct(t), "select count(*) from t"); got != "1" {
		t.Errorf("%s rows", got)
	}
}

func readyz(t *testing.T, g *gate) int {
	t.Helper()
	resp, err := http.Get(g.AdminURL() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestDrainIsBounded ends a transaction that does not end.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"drain": "1s"}})
	open := g.script(t, "transaction")
	open.want("C:BEGIN Z:T", 1, query("begin"))
	began := time.Now()
	g.Signal(t, syscall.SIGTERM)
	if got := open.hear(1); got != "E:57P01! EOF" {
		t.Error(got)
	}
	if code := g.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took < time.Second || took > 30*time.Second {
		t.Errorf("ended after %v, drain is 1s", took)
	}
}

// TestSecondSignal does not wait for anybody.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{Timeouts: harness.Map{"drain": "60s"}})
	open := g.script(t, "transaction")
	open.say(query("select pg_sleep(102)"))
	g.awaitRunning(t, "select pg_sleep(102)")
	g.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "it drains", func() bool { return g.logged("draining") == 1 })
	began := time.Now()
	g.Signal(t, syscall.SIGTERM)
	if got := open.hear(1); got != "T E:57P01! EOF" && got != "E:57P01! EOF" {
		t.Error(got)
	}
	if code := g.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("ended after %v", took)
	}
}
