// Nodes on one store: what they say is in force is enforced, and who leaves says so.

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// nodesAt lists the nodes that say that they have everything.
func nodesAt(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT name FROM postern.nodes, postern.feed WHERE applied = version ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return names
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
	store, err := w.cluster.Connect(t.Context(), w.database)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(store)
	both := func() bool { return slices.Equal(nodesAt(t, store), []string{"a", "b"}) }
	harness.Eventually(t, harness.Patience, "both have everything", both)
	for i := range 2 {
		var conns []*pgx.Conn
		for _, g := range gates {
			conns = append(conns, g.mustLogin(t, "acme"))
		}
		w.exec(`UPDATE postern.tenants SET document = document || '{"allow_list": ["192.0.2.0/24"]}' WHERE id = 'acme'`)
		harness.Eventually(t, harness.Patience, "both have the rule", both)
		for n, conn := range conns {
			_, err := conn.Exec(t.Context(), "select 1")
			if sqlstate(err) != "57P01" {
				t.Errorf("round %d, node %d says that the rule is in force: %v", i, n, err)
			}
		}
		w.exec(`UPDATE postern.tenants SET document = document - 'allow_list' WHERE id = 'acme'`)
		harness.Eventually(t, harness.Patience, "both have taken it back", both)
	}
	names := func() string {
		var all string
		if err := store.QueryRow(t.Context(), `SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM postern.nodes`).Scan(&all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	gates[0].Signal(t, syscall.SIGKILL)
	gates[0].Wait(t)
	if code := gates[1].Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if all := names(); all != "a" {
		t.Errorf("after a kill and an orderly end: %q", all)
	}
	if out := w.command("nodes"); !strings.Contains(out, "\na     ") {
		t.Errorf("store nodes says %q", out)
	}
	again := w.node("a")
	harness.Eventually(t, harness.Patience, "it is there again", func() bool { return slices.Equal(nodesAt(t, store), []string{"a"}) })
	if n := len(again.Log().Find("another process follows the store under the name of this node, which takes another one: set tenants.postgres.node", nil)); n > 0 {
		t.Error("it takes its own row for another's")
	}
	if v := fmt.Sprint(names()); v != "a" {
		t.Errorf("nodes %q", v)
	}
}
