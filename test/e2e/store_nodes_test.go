// Nodes on one store: what they say is in force is enforced, and who leaves says so.

package e2e

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/tenants/postgres"
	"github.com/postern/postern/test/harness"
)

// told waits until just these nodes have said, from now on, that everything that the store has is in force.
func (w *storeWorld) told(what string, names ...string) {
	w.t.Helper()
	conn, err := postgres.ReadDSN(filepath.Join(w.dir, "dsn"))
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := postgres.ReadKeys(filepath.Join(w.dir, "store.key"))
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := postgres.NewRegistry(postgres.Options{Conn: conn, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close()
	var last []tenants.Node
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the last answer of the store: %+v", last)
		}
	}()
	from := time.Now()
	harness.Eventually(w.t, harness.Patience, fmt.Sprintf("%s: %v say that they have everything", what, names), func() bool {
		newest, err := w.newest(r)
		if err != nil {
			return false
		}
		if last, err = r.Nodes(w.t.Context()); err != nil || len(last) != len(names) {
			return false
		}
		for i, n := range last {
			if n.Name != names[i] || n.Applied != newest || n.Silent || n.Seen.Before(from) {
				return false
			}
		}
		a, err := r.Applied(w.t.Context(), newest)
		return err == nil && a.Everywhere
	})
}

// newest is the version of the last change.
func (w *storeWorld) newest(r tenants.Registry) (version int64, err error) {
	all, err := r.Tenants(w.t.Context(), "", 100)
	for _, t := range all {
		version = max(version, t.Version)
	}
	return version, err
}

// node is a gate with a name.
func (w *storeWorld) node(name string) *gate {
	w.t.Helper()
	p := w.tenants["postgres"].(harness.Map)
	delete(p, "cache_file") // which is of one process
	p["node"] = name
	return w.gate()
}

// TestStoreNodes: as soon as two nodes say that a rule is in force, no session that it forbids gets another answer from either. One
// that ends says goodbye, one that is killed does not, and is itself again when it comes back.
func TestStoreNodes(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme, w.globex)
	gates := []*gate{w.node("a"), w.node("b")}
	w.told("at first", "a", "b")
	for i := range 2 {
		var conns []*pgx.Conn
		for _, g := range gates {
			conns = append(conns, g.mustLogin(t, "acme"))
		}
		w.exec(`UPDATE postern.tenants SET document = document || '{"allow_list": ["192.0.2.0/24"]}' WHERE id = 'acme'`)
		w.told("the rule", "a", "b")
		for n, conn := range conns {
			_, err := conn.Exec(t.Context(), "select 1")
			if sqlstate(err) != "57P01" {
				t.Errorf("round %d, node %d says that the rule is in force: %v", i, n, err)
			}
		}
		w.exec(`UPDATE postern.tenants SET document = document - 'allow_list' WHERE id = 'acme'`)
		w.told("the rule taken back", "a", "b")
	}
	gates[0].Signal(t, syscall.SIGKILL)
	gates[0].Wait(t)
	if code := gates[1].Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if out := w.command("nodes"); strings.Count(out, "\n") != 2 || !strings.Contains(out, "\na  ") {
		t.Errorf("after a kill and an orderly end store nodes says %q", out)
	}
	again := w.node("a")
	w.told("it is there again", "a")
	if n := len(again.Log().Find("another process follows the store under the name of this node, which takes another one: set cluster.name, or tenants.postgres.node where there is no cluster", nil)); n > 0 {
		t.Error("it takes its own row for another's")
	}
}
