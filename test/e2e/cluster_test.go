// Two processes as one cluster: they find each other by the store, see each other's state, and tell it.

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/test/harness"
)

// clusterKey writes a key file.
func (w *storeWorld) clusterKey(name string) string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	path := filepath.Join(w.dir, name)
	write(w.t, path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
	return path
}

// fellow is a gate in a cluster with a console.
func (w *storeWorld) member(name, region, keys string) *gate {
	w.t.Helper()
	p := w.tenants["postgres"].(harness.Map)
	delete(p, "cache_file") // which is of one process
	return &gate{t: w.t, Gate: harness.Postern(w.t, harness.GateConfig{Env: []string{"FLY_REGION=" + region},
		Config: harness.Map{"tenants": w.tenants, "cluster": harness.Map{"name": name, "bind": "127.0.0.1:0", "key_file": keys}}})}
}

// seen is a node in GET /v1/cluster.
type seen struct {
	Name, Boot, Address, Fingerprint, Region string
	Protocol                                 int
	Silent, Leaving                          bool
	Member                                   *struct{ State string }
}

// fellows is what a gate says about all nodes.
func (g *gate) fellows(t *testing.T) (nodes map[string]seen, strangers int) {
	t.Helper()
	status, body := g.Admin(t, "GET", "/v1/cluster", nil)
	var answer struct {
		Nodes     []seen
		Strangers []json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); status != 200 || err != nil {
		t.Fatalf("%d %s %v", status, body, err)
	}
	nodes = make(map[string]seen)
	for _, n := range answer.Nodes {
		nodes[n.Name] = n
	}
	return nodes, len(answer.Strangers)
}

// TestClusterOfTwo: two gates that are told nothing but a key find each other. One that drains is seen to leave while it still serves; one
// that is killed is suspected, and is itself again at another address.
func TestClusterOfTwo(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.load(w.acme)
	keys := w.clusterKey("cluster.key")
	a, b := w.member("a", "ams", keys), w.member("b", "fra", keys)
	state := func(from *gate, node string) string {
		all, _ := from.fellows(t)
		if m := all[node].Member; m != nil {
			return m.State
		}
		return ""
	}
	harness.Eventually(t, harness.Patience, "each sees the other", func() bool { return state(a, "b") == "alive" && state(b, "a") == "alive" })
	all, strangers := a.fellows(t)
	is := all["b"]
	if is.Region != "fra" || all["a"].Region != "ams" || is.Protocol != 1 || len(is.Fingerprint) != 64 || is.Address == "" || is.Leaving || strangers != 0 {
		t.Errorf("%+v", all)
	}
	harness.Eventually(t, harness.Patience, "they have greeted each other", func() bool {
		return a.Metric(t, "postern_cluster_calls_total", map[string]string{"what": "hello", "direction": "in", "result": "ok"}) > 0
	})
	if n := a.Metric(t, "postern_cluster_members", map[string]string{"state": "alive"}); n != 2 {
		t.Errorf("%v members", n)
	}

	b.Signal(t, syscall.SIGKILL)
	b.Wait(t)
	again := w.member("b", "fra", keys)
	harness.Eventually(t, harness.Patience, "it is back", func() bool {
		all, _ := a.fellows(t)
		now := all["b"]
		return now.Boot != is.Boot && now.Fingerprint != is.Fingerprint && now.Member != nil && now.Member.State == "alive" && state(again, "a") == "alive"
	})

	conn := again.mustLogin(t, "acme")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, harness.Patience, "it is seen to drain", func() bool {
		all, _ := a.fellows(t)
		return all["b"].Leaving && state(a, "b") == "alive"
	})
	if err := tx.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if code := again.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	harness.Eventually(t, harness.Patience, "it is gone", func() bool {
		all, _ := a.fellows(t)
		return len(all) == 1
	})
}

// TestClusterNeedsTheStore, and says so; so does a cluster whose key file is not there.
func TestClusterNeedsTheStore(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	for name, config := range map[string]harness.Map{
		"needs tenants.postgres":  {"tenants": harness.Map{"file": "tenants.yaml"}, "cluster": harness.Map{"bind": "127.0.0.1:0", "key_file": w.clusterKey("k")}},
		"key file of the cluster": {"tenants": w.tenants, "cluster": harness.Map{"bind": "127.0.0.1:0", "key_file": "nothing"}},
	} {
		config["listeners"] = []harness.Map{{"name": "l", "address": "127.0.0.1:0"}}
		out, err := exec.CommandContext(t.Context(), harness.Binary(t), "serve", "--config", w.yaml("bad.yaml", config)).CombinedOutput()
		if err == nil || !strings.Contains(string(out), name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
