// Several nodes as one gate: started, and known to each other.

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/postern/postern/test/harness"
)

// fellows are nodes of one cluster on the store, with a console each. They know each other when it returns.
func (w *storeWorld) fellows(names ...string) (all []*gate) {
	w.t.Helper()
	var key [32]byte
	_, _ = rand.Read(key[:])
	write(w.t, filepath.Join(w.dir, "cluster.key"), []byte(base64.StdEncoding.EncodeToString(key[:])+"\n"))
	for _, name := range names {
		all = append(all, w.fellow(name))
	}
	w.acquainted(all...)
	return all
}

// fellow is one node more, whose configuration somebody may change.
func (w *storeWorld) fellow(name string, change ...func(file harness.Map)) *gate {
	w.t.Helper()
	place := maps.Clone(w.tenants["postgres"].(harness.Map))
	delete(place, "cache_file") // which is of one process
	file := withConsole(w.t)
	file["tenants"] = harness.Map{"postgres": place}
	file["cluster"] = harness.Map{"name": name, "bind": "127.0.0.1:0", "key_file": filepath.Join(w.dir, "cluster.key")}
	listeners := file["listeners"].([]harness.Map)
	for _, mode := range []string{harness.Session, harness.Transaction} {
		listeners = append(listeners, harness.Map{"name": mode + proxied, "address": "127.0.0.1:0", "pool_mode": mode, "proxy_protocol": "require", "trusted_proxies": []string{"127.0.0.0/8"}})
	}
	file["listeners"] = listeners
	for _, c := range change {
		c(file)
	}
	g := &gate{t: w.t, Gate: harness.Postern(w.t, harness.GateConfig{Config: file}), cluster: harness.Postgres(w.t), database: w.acme["database"].(string)}
	g.logsFailure(name)
	return g
}

// logsFailure shows what a node has said last if the test fails.
func (g *gate) logsFailure(name string) {
	g.t.Cleanup(func() {
		if log := g.Log().String(); g.t.Failed() {
			g.t.Logf("the log of %s ends with:\n%s", name, log[max(0, len(log)-6000):])
		}
	})
}

// acquainted waits until each knows the rows of all.
func (w *storeWorld) acquainted(all ...*gate) {
	w.t.Helper()
	for _, g := range all {
		c := g.console(w.t)
		harness.Eventually(w.t, harness.Patience, "it knows all nodes", func() bool {
			n := 0
			for _, r := range show(w.t, c, "NODES") {
				if r["address"] != "" && r["seen"] != "" {
					n++
				}
			}
			return n == len(all)
		})
		closeConn(c)
	}
}

// turns is a balancer in front of a listener of theirs, which has each connection come from client to the next one.
func turns(t *testing.T, listener, client string, all ...*gate) *harness.Relay {
	t.Helper()
	r := harness.NewRelay(t, "", harness.Faults{First: func(netip.AddrPort) []byte { return header(2, client) }})
	var at []string
	for _, g := range all {
		at = append(at, g.Addr(t, listener+proxied))
	}
	r.SetTarget(at...)
	return r
}
