// The gate under test: one tenant, acme, with a database of its own and every kind of listener.

package e2e

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// modes are the pool modes and the names of their listeners.
var modes = []string{harness.Session, harness.Transaction, harness.Statement}

// proxied makes the name of the listener that demands a PROXY header.
const proxied = harness.Proxied

// gateConf is what a test may want to be different.
type gateConf struct {
	Cluster  *local.Cluster
	PoolSize int
	Files    int // that may be open
	TLS      bool
	Timeouts harness.Map
	Limits   harness.Map
	TCP      harness.Map
	File     harness.Map       // other keys of the process
	Tenant   func(harness.Map) // changes acme
}

// gate is a running postern serve.
type gate struct {
	*harness.Gate
	t        *testing.T
	database string
	cluster  *local.Cluster
	tenant   harness.Map        // acme as it was at the start
	ca       *harness.Authority // of the certificate, with TLS
	pair     harness.Pair
}

func startGate(t *testing.T, conf gateConf) *gate {
	t.Helper()
	if conf.Cluster == nil {
		conf.Cluster = harness.Postgres(t)
	}
	g := &gate{t: t, cluster: conf.Cluster, database: harness.Database(t, conf.Cluster)}
	g.tenant = harness.Acme(t, conf.Cluster, g.database)
	if conf.PoolSize > 0 {
		g.tenant["pool"] = harness.Map{"size": conf.PoolSize}
	}
	if conf.Tenant != nil {
		conf.Tenant(g.tenant)
	}
	file := harness.Map{}
	if conf.TLS {
		g.ca = harness.Certificates(t)
		g.pair = g.ca.Issue(t, "localhost")
		file["tls"] = harness.Map{"certificates": []harness.Map{{"cert": g.pair.CertFile, "key": g.pair.KeyFile}}}
	}
	timeouts := harness.Map{"drain": "5s", "login": "60s"}
	maps.Copy(timeouts, conf.Timeouts)
	file["timeouts"] = timeouts
	if conf.Limits != nil {
		file["limits"] = conf.Limits
	}
	if conf.TCP != nil {
		file["tcp"] = conf.TCP
	}
	maps.Copy(file, conf.File)
	g.Gate = harness.Postern(t, harness.GateConfig{Config: file, Tenants: []harness.Map{g.tenant}, Files: conf.Files})
	t.Cleanup(func() {
		if log := g.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return g
}

// changed is acme with a key replaced.
func (g *gate) changed(key string, value any) harness.Map {
	m := maps.Clone(g.tenant)
	m[key] = value
	return m
}

func upstreamOf(c *local.Cluster) harness.Map {
	return harness.Map{"host": "127.0.0.1", "port": c.Port(), "tls": "disable"}
}

// reload writes the tenants and returns when the gate has noticed by itself.
func (g *gate) reload(all ...harness.Map) {
	g.t.Helper()
	before := time.Now()
	g.WriteTenants(g.t, all...)
	written := time.Now()
	if at := g.LoadedAfter(g.t, before); at.Before(written) { // it may have read what was there before
		g.Reload(g.t)
	}
}

// reloads counts the loads of tenants or tls that were ok or failed.
func (g *gate) reloads(what, result string) float64 {
	g.t.Helper()
	return g.metric("postern_reloads_total", "what", what, "result", result)
}

// metric sums the samples of a metric that have these labels, given as name and value in turn.
func (g *gate) metric(name string, labels ...string) float64 {
	g.t.Helper()
	set := make(map[string]string)
	for i := 0; i < len(labels); i += 2 {
		set[labels[i]] = labels[i+1]
	}
	return g.Metric(g.t, name, set)
}

// logged counts the log lines with a message and attributes, given as name and value in turn.
func (g *gate) logged(msg string, attrs ...any) int {
	set := harness.Map{}
	for i := 0; i < len(attrs); i += 2 {
		set[attrs[i].(string)] = attrs[i+1]
	}
	return len(g.Log().Find(msg, set))
}

// lost counts the server connections that were given up, but for a few that were not clean within a second, as happens on
// a busy computer.
func (g *gate) lost() int {
	const few = 3
	all, late := g.logged("server connection lost"), g.logged("server connection lost", "why", "not clean in time")
	if late <= few {
		return all - late
	}
	return all
}

func (g *gate) port(listener string) string {
	g.t.Helper()
	_, port, err := net.SplitHostPort(g.Addr(g.t, listener))
	if err != nil {
		g.t.Fatal(err)
	}
	return port
}

// direct connects to the server itself, as its superuser.
func (g *gate) direct(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := g.cluster.Connect(t.Context(), g.database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// replace puts the content of one file in the place of another.
func replace(t *testing.T, path, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, content)
}

// write replaces a file in one step.
func write(t *testing.T, path string, content []byte) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(path), ".new")
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}
