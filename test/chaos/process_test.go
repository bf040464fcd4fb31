// Rows C22, C26, C38 and C39 of the catalogue of faults: a gate without room for its log, one that is starved, one that is
// killed, and three that are rolled one after the other.

package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// TestNoRoomForTheLog (C22): each line fails with ENOSPC. The gate starts, serves, counts what was lost, and ends as ever.
func TestNoRoomForTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{}) // whose files the other one has, too
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	listener, admin := harness.FreePort(), harness.FreePort() // which its log cannot tell
	config := fmt.Sprintf(`{listeners: [{name: transaction, address: "127.0.0.1:%d", pool_mode: transaction}], tenants: {file: tenants.yaml},
auth: {mock_secret_file: mock.key}, admin: {address: "127.0.0.1:%d", metrics_public: true, token_file: admin.token}}`, listener, admin)
	w.Write(t, "full.yaml", []byte(config))
	gate := exec.Command(harness.Binary(t), "serve", "--config", filepath.Join(w.Dir, "full.yaml"))
	gate.Stdout, gate.Stderr = full, full
	if err := gate.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gate.Process.Kill() }()
	w.clients.SetTarget(fmt.Sprintf("127.0.0.1:%d", listener))
	harness.Eventually(t, harness.Patience, "it serves, and counts the lines that are lost", func() bool {
		conn, err := w.connect(t.Context(), "client")
		if err != nil {
			return false
		}
		defer goodbye(conn)
		if got := text(t, conn, "select 'served'"); got != "served" {
			t.Error(got)
		}
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", admin))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		page, err := io.ReadAll(resp.Body)
		return err == nil && regexp.MustCompile(`(?m)^postern_log_dropped_total [1-9]`).Match(page)
	})
	if err := gate.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := gate.Wait(); err != nil {
		t.Errorf("its end: %v", err)
	}
}

// TestStarvedGate (C26): two processes burn what there is, and the gate has one loop: it stays ready, and nobody gets an error.
func TestStarvedGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{Config: harness.Map{"loops": 1}})
	direct := w.direct()
	for range 2 {
		burner := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := burner.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = burner.Process.Kill()
			_ = burner.Wait()
		}()
	}
	l := newLedger(t, direct, w.connect)
	ctx, stop := context.WithTimeout(t.Context(), lasting())
	defer stop()
	wait := l.work(ctx, 2*poolSize)
	for ctx.Err() == nil {
		resp, err := http.Get(w.AdminURL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("/readyz: %s", resp.Status)
		}
		pause(ctx, 100*time.Millisecond)
	}
	wait()
	l.check(t, direct)
	w.nobodyLeft()
}

// TestKilledGate (C38): kill -9 under load. What was acknowledged is there, what was open is rolled back and holds nothing, and
// another gate on the same servers goes on.
func TestKilledGate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{})
	next := w.another()
	direct := w.direct()
	l := newLedger(t, direct, w.connect)
	l.expects = anywhere("network", "08006", "57P01", "57P03")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	wait := l.work(ctx, 3*poolSize)
	harness.Eventually(t, harness.Patience, "transactions", l.since(time.Now()))
	before := text(t, direct, "select string_agg(pid::text, ',') from pg_stat_activity where usename = 'app' and datname = current_database()")
	w.clients.SetTarget(next.Addr(t, harness.Transaction))
	w.Signal(t, syscall.SIGKILL)
	if code := w.Wait(t); code != -1 {
		t.Errorf("exit code %d", code)
	}
	harness.Eventually(t, harness.Patience, "no connection of the dead one is left", func() bool {
		return text(t, direct, "select count(*) from pg_stat_activity where pid in ("+before+")") == "0"
	})
	harness.Eventually(t, harness.Patience, "the other one serves", l.since(time.Now()))
	stop()
	wait()
	l.check(t, direct)
	next.nobodyLeft()
}

// another is a second gate for the same tenant, before the same relay.
func (w *world) another() *world {
	w.t.Helper()
	other := *w
	other.Gate = harness.Postern(w.t, harness.GateConfig{Tenants: []harness.Map{w.tenant()}})
	return &other
}

// TestRollingRestart (C39): three gates behind a balancer are replaced one after the other. Clients that stay and clients that
// connect for each transaction hear 57P01 between two of them, and connect again: no transaction fails, none is of unknown end.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldConf{})
	direct := w.direct()
	gates := []*world{w, w.another(), w.another()}
	balance := func() {
		var at []string
		for _, g := range gates {
			at = append(at, g.Addr(t, harness.Transaction))
		}
		w.clients.SetTarget(at...)
	}
	balance()
	l := newLedger(t, direct, w.connect)
	l.expects = func(_, what string, err error) bool {
		return (what == "connecting" || what == "begin") && (state(err) == "57P01" || state(err) == "network")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	staying, churning := l.work(ctx, 2*poolSize), l.churn(ctx, poolSize)
	for i, g := range gates {
		harness.Eventually(t, harness.Patience, "transactions", l.since(time.Now()))
		gates[i] = w.another()
		balance()
		if code := g.Stop(t); code != 0 {
			t.Errorf("gate %d: exit code %d", i, code)
		}
	}
	harness.Eventually(t, harness.Patience, "transactions after the last", l.since(time.Now()))
	stop()
	staying()
	churning()
	l.check(t, direct)
	for _, g := range gates {
		g.nobodyLeft()
	}
}
