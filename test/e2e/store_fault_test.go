// Faults of the store under load: no client of two nodes notices one, and afterwards both are again what the store is.

package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// faulty is two nodes under load.
type faulty struct {
	*storeWorld
	gates []*gate
	loads []*load
	round int
}

func newFaulty(t *testing.T, w *storeWorld) *faulty {
	t.Helper()
	f := &faulty{storeWorld: w}
	w.load(w.acme, w.globex)
	fillFor(t, w.acme)
	for _, name := range []string{"a", "b"} {
		g := w.node(name)
		f.gates = append(f.gates, g)
		f.loads = append(f.loads, startLoad(t, g.dsn("transaction")))
	}
	for _, l := range f.loads {
		l.goesOn()
	}
	return f
}

// others are the tenants beside acme as of a round: one that comes and goes, and one whose rule is another each time.
func (f *faulty) others(round int) []harness.Map {
	globex, guest := maps.Clone(f.globex), maps.Clone(f.globex)
	if round%2 == 1 {
		globex["allow_list"] = []string{"192.0.2.0/24"}
	}
	guest["id"] = fmt.Sprint("guest", round)
	return []harness.Map{globex, guest}
}

// change commits something new.
func (f *faulty) change() {
	f.t.Helper()
	f.round++
	f.storeWorld.load(append(f.others(f.round), f.acme)...)
}

// equal waits until both nodes say that they have everything, and finds out whether that is so.
func (f *faulty) equal(what string, round int) {
	f.t.Helper()
	f.told(what, "a", "b")
	for i, g := range f.gates {
		if conn, err := g.login(f.t, fmt.Sprint("guest", round)); err != nil {
			f.t.Errorf("%s: node %d does not have what the store has: %v", what, i, err)
		} else {
			closeConn(conn)
		}
		if _, err := g.login(f.t, "globex"); (err != nil) != (round%2 == 1) || err != nil && sqlstate(err) != "28000" {
			f.t.Errorf("%s: node %d, a tenant whose rule has changed, round %d: %v", what, i, round, err)
		}
		for _, other := range []int{round - 1, round + 1} {
			if _, err := g.login(f.t, fmt.Sprint("guest", other)); sqlstate(err) != "28P01" {
				f.t.Errorf("%s: node %d, a tenant that the store does not have: %v", what, i, err)
			}
		}
	}
	for _, l := range f.loads {
		l.goesOn()
		l.check()
	}
}

// away waits until both nodes have noticed that the store is away. Logins go on.
func (f *faulty) away() {
	f.t.Helper()
	for _, g := range f.gates {
		harness.Eventually(f.t, harness.Patience, "the outage is noticed", func() bool { return g.metric("postern_directory_last_reload_success") == 0 })
		closeConn(g.mustLogin(f.t, "acme"))
	}
}

// run runs a program of PostgreSQL's, or cp and rm.
func (w *storeWorld) run(name string, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+harness.AppPassword)
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (w *storeWorld) start() {
	w.t.Helper()
	if err := w.cluster.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestStoreFaults: the store is killed, stands still, and is restored from older backups, by its disks and by its rows, while clients
// of two nodes work.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	w := newStoreWorldOn(t, local.Options{Port: harness.FreePort()})
	w.command("init")
	f := newFaulty(t, w)
	rounds := 1
	if harness.Long() {
		rounds = 5
	}
	for range rounds {
		f.told("before anything", "a", "b")
		harness.Crash(t, w.cluster)
		f.away()
		w.start()
		f.change()
		f.equal("killed and started", f.round)

		if err := w.cluster.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.away()
		w.cluster.Thaw()
		f.change()
		f.equal("stopped and let go on", f.round)

		// Rows of before, in the same cluster.
		dump := filepath.Join(w.dir, "dump.sql")
		connect := []string{"-h", "127.0.0.1", "-p", fmt.Sprint(w.cluster.Port()), "-U", harness.App}
		w.run(harness.Program(t, "pg_dump"), append(connect, "-n", "postern", "-f", dump, w.database)...)
		kept := f.round
		f.change()
		f.told("before rows are put back", "a", "b")
		w.run(harness.Program(t, "psql"), append(connect, "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-c", "DROP SCHEMA postern CASCADE", "-f", dump, w.database)...)
		f.round = kept
		f.equal("rows put back", f.round)

		// Disks of before: nothing in the store tells that.
		if err := w.cluster.Stop(t.Context(), local.Fast); err != nil {
			t.Fatal(err)
		}
		snapshot := filepath.Join(w.dir, "snapshot")
		w.run("cp", "-a", w.cluster.Dir(), snapshot)
		w.start()
		f.change()
		f.told("before disks are put back", "a", "b")
		harness.Crash(t, w.cluster)
		w.run("rm", "-r", w.cluster.Dir())
		w.run("mv", snapshot, w.cluster.Dir())
		w.start()
		f.round = kept
		f.equal("disks put back", f.round)
	}
	for i, g := range f.gates {
		if n := g.metric("postern_store_refused_tenants"); n != 0 {
			t.Errorf("node %d refuses %v tenants", i, n)
		}
	}
}

// TestStoreFailover: the store's server is lost, and its standby, which lacks the last change, is promoted: the nodes find it by the other
// host of their connection string, and what it lacks is gone.
func TestStoreFailover(t *testing.T) {
	t.Parallel()
	ports := []int{harness.FreePort(), harness.FreePort()}
	hba := []string{"host all all all scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"}
	w := newStoreWorldOn(t, local.Options{Port: ports[0], HBA: hba})
	write(t, filepath.Join(w.dir, "dsn"), fmt.Appendf(nil, "host=127.0.0.1,127.0.0.1 port=%d,%d user=%s password=%s dbname=%s sslmode=disable\n",
		ports[0], ports[1], harness.App, harness.AppPassword, w.database))
	if err := w.cluster.Exec(t.Context(), "postgres", "alter role "+harness.App+" replication"); err != nil {
		t.Fatal(err)
	}
	w.command("init")

	// The standby: a copy of the stopped primary that follows it from there.
	primary := w.cluster
	if err := primary.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "standby")
	w.run("cp", "-a", primary.Dir(), dir)
	if err := os.WriteFile(filepath.Join(dir, "data", "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	standby, err := local.Create(t.Context(), local.Options{Dir: dir, Port: ports[1], HBA: hba, Disposable: true, Settings: map[string]string{"max_connections": "600",
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s", ports[0], harness.App, harness.AppPassword)}})
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	if err := standby.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { harness.Crash(t, standby) }()
	f := newFaulty(t, w)
	f.change()
	f.told("before anything", "a", "b")
	kept := f.round
	here, err := primary.Connect(t.Context(), w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(here)
	harness.Eventually(t, harness.Patience, "the standby has everything", func() bool {
		return value(t, here, "select coalesce(bool_and(replay_lsn >= pg_current_wal_insert_lsn()), false)::text from pg_stat_replication") == "true"
	})
	if err := standby.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	f.change() // which the standby will never see
	f.told("before the failover", "a", "b")
	harness.Crash(t, primary)
	f.away()
	if err := standby.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := standby.Exec(t.Context(), "postgres", "select pg_promote()"); err != nil {
		t.Fatal(err)
	}
	w.cluster, f.round = standby, kept
	f.equal("failed over", f.round)
	f.change()
	f.equal("after the failover", f.round)
	if out := w.command("nodes"); strings.Count(out, "alive") != 2 {
		t.Errorf("store nodes says\n%s", out)
	}
}
