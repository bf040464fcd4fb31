// Where faults happen: clients, a relay, a gate, a relay, a server.

package chaos

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

const poolSize = 4

// quick are TCP settings that find a dead network within some seconds.
func quick() harness.Map {
	return harness.Map{"keepalive_idle": "1s", "keepalive_interval": "1s", "keepalive_count": 3, "user_timeout": "4s"}
}

type world struct {
	*harness.Gate
	t               *testing.T
	cluster         *local.Cluster
	database        string
	clients, server *harness.Relay // before the gate, and behind it
}

type worldConf struct {
	Cluster *local.Cluster // nil: the one that all tests share
	Program string         // "": as all tests
	Env     []string
	Config  harness.Map
	Tenant  func(harness.Map)
}

// newWorld starts a gate between two relays.
func newWorld(t *testing.T, conf worldConf) *world {
	t.Helper()
	if conf.Cluster == nil {
		conf.Cluster = harness.Postgres(t)
	}
	w := &world{t: t, cluster: conf.Cluster, database: harness.Database(t, conf.Cluster)}
	w.server = harness.NewRelay(t, fmt.Sprintf("127.0.0.1:%d", conf.Cluster.Port()), harness.Faults{})
	tenant := w.tenant()
	if conf.Tenant != nil {
		conf.Tenant(tenant)
	}
	w.Gate = harness.Postern(t, harness.GateConfig{Config: conf.Config, Program: conf.Program, Env: conf.Env, Tenants: []harness.Map{tenant}})
	w.clients = harness.NewRelay(t, w.Addr(t, harness.Transaction), harness.Faults{})
	t.Cleanup(func() {
		if log := w.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return w
}

// tenant is acme behind the relay.
func (w *world) tenant() harness.Map {
	m := harness.Acme(w.t, w.cluster, w.database)
	at := netip.MustParseAddrPort(w.server.Addr())
	m["upstream"] = harness.Map{"host": at.Addr().String(), "port": at.Port(), "tls": "disable"}
	m["pool"] = harness.Map{"size": poolSize}
	return m
}

// direct connects past the gate, as the owner of everything.
func (w *world) direct() *pgx.Conn {
	w.t.Helper()
	conn, err := w.cluster.Connect(w.t.Context(), w.database)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { goodbye(conn) })
	return conn
}

// dsn leads through the relay before the gate.
func (w *world) dsn(tag string) string {
	host, port, _ := net.SplitHostPort(w.clients.Addr())
	return fmt.Sprintf("host=%s port=%s user=app.acme password=%s dbname=%s sslmode=disable connect_timeout=60 application_name=%s",
		host, port, harness.AppPassword, w.database, tag)
}

func (w *world) connect(ctx context.Context, tag string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, w.dsn(tag))
}

// client connects once, until the end of the test.
func (w *world) client(tag string) *pgx.Conn {
	w.t.Helper()
	conn, err := w.connect(w.t.Context(), tag)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { goodbye(conn) })
	return conn
}

// awaitRunning waits until the server runs a query.
func (w *world) awaitRunning(direct *pgx.Conn, sql string) {
	w.t.Helper()
	harness.Eventually(w.t, harness.Patience, sql+" runs", func() bool {
		return text(w.t, direct, "select count(*) from pg_stat_activity where state = 'active' and query = '"+sql+"' and datname = current_database()") == "1"
	})
}

// nobodyLeft waits until no client is counted any more and no server is in use.
func (w *world) nobodyLeft() {
	w.t.Helper()
	harness.Eventually(w.t, harness.Patience, "nobody is left", func() bool {
		clients := w.Metric(w.t, "postern_client_connections", map[string]string{"tenant": "acme"})
		servers := w.Metric(w.t, "postern_server_connections", map[string]string{"tenant": "acme"})
		idle := w.Metric(w.t, "postern_server_connections", map[string]string{"tenant": "acme", "state": "idle"})
		return clients == 0 && servers == idle && idle <= poolSize
	})
}

// lasting is how long the load of a test is on.
func lasting() time.Duration {
	if harness.Long() {
		return 20 * time.Second
	}
	return 4 * time.Second
}
