// Machines that nobody owns any more: their tenant was removed or moved, or the gate was killed. None stays up.

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// clusterProcesses are those that work in the data directory of a machine, whoever has started them.
func (g *gate) clusterProcesses(t *testing.T, name string) (pids []string) {
	t.Helper()
	return processesIn(t, filepath.Join(g.machinesDir(t), name, "data"))
}

func processesIn(t *testing.T, data string) (pids []string) {
	t.Helper()
	here, err := os.Stat(data)
	if err != nil {
		return nil // it was never awake
	}
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range all {
		if there, err := os.Stat(cwd); err == nil && os.SameFile(here, there) {
			pids = append(pids, filepath.Base(filepath.Dir(cwd)))
		}
	}
	return pids
}

// noneLeft waits until no process of a machine is left.
func (g *gate) noneLeft(t *testing.T, name string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "no process of "+name+" is left", func() bool { return len(g.clusterProcesses(t, name)) == 0 })
}

// another is a tenant that has nothing to do with it.
func another(t *testing.T) harness.Map {
	t.Helper()
	m := harness.Acme(t, harness.Postgres(t), "postgres")
	m["id"] = "globex"
	return m
}

// toldSleeps waits until the log, which comes after the deed, says so many times that a machine of nobody's was put to sleep.
func (g *gate) toldSleeps(n int) {
	g.t.Helper()
	harness.Eventually(g.t, harness.Patience, "it is told", func() bool { return g.logged("machine put to sleep", "reason", "removed", "result", "ok") == n })
}

// TestRemovedTenantsMachineSleeps, whatever ran there, and comes back with its tenant.
func TestRemovedTenantsMachineSleeps(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "0s"}, nil)
	session, inside := g.connect(t, "session"), g.script(t, "transaction")
	do(t, session, "create table kept (x int); insert into kept values (42)")
	inside.want("C:BEGIN Z:T", 1, query("begin"))
	g.reload(another(t))
	if _, err := session.Exec(t.Context(), "select 1"); sqlstate(err) != "57P01" {
		t.Errorf("its session: %v", err)
	}
	g.noneLeft(t, "acme")
	g.toldSleeps(1)

	g.reload(another(t), g.tenant)
	client := g.connect(t, "transaction")
	if got := value(t, client, "select x from kept"); got != "42" {
		t.Errorf("read %q", got)
	}
	// Back before it sleeps: whoever comes is served.
	for range 2 {
		g.reload(another(t))
		g.reload(another(t), g.tenant)
		client := g.connect(t, "transaction")
		if got := value(t, client, "select x from kept"); got != "42" {
			t.Errorf("read %q", got)
		}
		closeConn(client)
	}
	if n := g.logged("machine put to sleep", "reason", "removed", "result", "transient"); n != 0 {
		t.Errorf("%d attempts failed", n)
	}
}

// TestMovedTenantsMachineSleeps, once the sessions that are there have ended.
func TestMovedTenantsMachineSleeps(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "0s"}, nil)
	session := g.script(t, "session")
	where := func() string { return session.ask(t, "show cluster_name") }
	if got := where(); got != shows("acme") {
		t.Fatal(got)
	}
	g.reload(onMachine(t, "second", harness.Map{"suspend_after": "0s"}))
	client := g.script(t, "transaction")
	client.want(shows("second"), 1, query("show cluster_name"))
	if got := where(); got != shows("acme") {
		t.Errorf("a session that was there: %s", got)
	}
	session.conn.Close()
	g.noneLeft(t, "acme")
	g.reload(harness.Acme(t, harness.Postgres(t), "postgres")) // to an upstream
	g.noneLeft(t, "second")
	g.toldSleeps(2)
}

// TestARenamedTenantKeepsItsMachine: one that another tenant names from now on is that one's affair.
func TestARenamedTenantKeepsItsMachine(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "0s"}, nil)
	session := g.script(t, "session")
	session.want(shows("acme"), 1, query("show cluster_name"))
	pid := g.postmaster(t)
	renamed := onMachine(t, "acme", harness.Map{"suspend_after": "0s"})
	renamed["id"] = "renamed"
	g.reload(renamed)
	harness.Eventually(t, harness.Patience, "its session has ended", func() bool { return g.logged("session ended", "reason", "tenant_removed") == 1 })
	g.reload(g.tenant)
	g.script(t, "transaction").want(shows("acme"), 1, query("show cluster_name"))
	if g.postmaster(t) != pid {
		t.Error("its server was stopped meanwhile")
	}
	if n := g.logged("machine put to sleep"); n != 0 {
		t.Errorf("put to sleep %d times", n)
	}
}

// TestNothingOutlivesAKill: what a gate that was killed has left, frozen or not, the next one stops at its start, whether
// it belongs to a tenant or not; and at its end nothing runs below the folder.
func TestNothingOutlivesAKill(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	g := startMachineGate(t, harness.Map{"sleep": "suspend"}, func(_, file harness.Map) {
		file["machines"] = harness.Map{"local": harness.Map{"dir": dir}}
	})
	client := g.connect(t, "transaction")
	do(t, client, "create table kept (x int); insert into kept values (42)")
	g.awaitMachine(t, "asleep")
	frozen := g.postmaster(t)
	if state := processState(t, frozen); state != "T" {
		t.Fatalf("it is %s", state)
	}
	g.Signal(t, syscall.SIGKILL)
	g.Wait(t)
	if len(g.clusterProcesses(t, "acme")) == 0 {
		t.Fatal("nothing is left: there is nothing to test")
	}
	next := &gate{t: t, database: "app", tenant: another(t)} // acme was removed meanwhile
	next.Gate = harness.Postern(t, harness.GateConfig{Config: harness.Map{"machines": harness.Map{"local": harness.Map{"dir": dir}}}, Tenants: []harness.Map{next.tenant}})
	next.noneLeft(t, "acme")
	said, err := os.ReadFile(filepath.Join(dir, "acme", "postgres.log"))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(said)), "database system is shut down") {
		t.Errorf("it was not stopped in order: %v\n%s", err, said)
	}
	harness.Eventually(t, harness.Patience, "it is told", func() bool { return next.logged("a server that an earlier Postern has left was stopped") == 1 })

	// And its own, frozen, do not outlive an orderly stop.
	next.reload(next.tenant, g.tenant)
	last := next.connect(t, "transaction")
	if got := value(t, last, "select x from kept"); got != "42" {
		t.Errorf("read %q", got)
	}
	next.awaitMachine(t, "asleep")
	next.reload(next.tenant)
	if code := next.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := processesIn(t, filepath.Join(dir, "acme", "data")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestOthersProcessesAreLeftAlone: a process id in a file proves nothing, and neither does a name.
func TestOthersProcessesAreLeftAlone(t *testing.T) {
	t.Parallel()
	dir := harness.Dir(t)
	server := harness.Postgres(t) // somebody's, elsewhere
	data := filepath.Join(dir, "ghost", "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	pidfile := fmt.Sprintf("%d\n%s\n%d\n%d\n\n127.0.0.1\n\nready\n", server.PID(), data, 1, server.Port())
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(pidfile), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startMachineGate(t, nil, func(_, file harness.Map) {
		file["machines"] = harness.Map{"local": harness.Map{"dir": dir}}
	})
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if err := server.Exec(t.Context(), "postgres", "select 1"); err != nil {
		t.Errorf("somebody else's server: %v", err)
	}
}

// TestFlyRemoved: a machine whose tenant was removed is put to sleep through the API; where that fails it is told at ERROR, and
// tried again.
func TestFlyRemoved(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme", "globex", "initech")
	acme, globex, initech := g.tenants[0], g.tenants[1], g.tenants[2]
	globex.tenant["machine"].(harness.Map)["sleep"] = "stop"
	g.serve(t, nil)
	for _, f := range g.tenants {
		f.enter(t, "session").must(t, "select 1", "1")
	}
	remove := g.api.Inject(fakefly.Broken(fakefly.Suspend).For("acme").Always())
	g.gate.reload(initech.tenant)
	globex.WaitFor("stopped")
	harness.Eventually(t, harness.Patience, "it is told", func() bool {
		return g.logged("a machine that no tenant has any more could not be put to sleep", "level", "ERROR", "machine", "fly/"+flyApp+"/acme") > 0
	})
	if state := acme.State(); state != "started" {
		t.Fatalf("it is %s", state)
	}
	remove()
	acme.WaitFor("suspended")
	if state := initech.State(); state != "started" {
		t.Errorf("a machine that is nobody's affair is %s", state)
	}
	// Back, it is woken for whoever comes.
	g.gate.reload(initech.tenant, acme.tenant)
	acme.enter(t, "transaction").must(t, "select 1", "1")
	if acme.starts() != 2 {
		t.Errorf("%d starts", acme.starts())
	}
}
