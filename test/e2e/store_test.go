// Tenants in a database: what is committed there is in force within a second, and what is known goes on without it.

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

// storeWorld is a store in a cluster of its own, and the configuration that names it.
type storeWorld struct {
	t        *testing.T
	dir      string
	cluster  *local.Cluster // of the store
	database string
	tenants  harness.Map // the value of the configuration's key
	acme     harness.Map
	globex   harness.Map
	said     bytes.Buffer // by all commands
}

func newStoreWorld(t *testing.T) *storeWorld { return newStoreWorldOn(t, local.Options{}) }

func newStoreWorldOn(t *testing.T, o local.Options) *storeWorld {
	t.Helper()
	w := &storeWorld{t: t, dir: harness.Dir(t), cluster: harness.Postgres(t, o)}
	w.database = harness.Database(t, w.cluster)
	upstream := harness.Postgres(t)
	w.acme = harness.Acme(t, upstream, harness.Database(t, upstream))
	w.globex = harness.Acme(t, upstream, harness.Database(t, upstream))
	w.globex["id"] = "globex"
	write(t, filepath.Join(w.dir, "dsn"), fmt.Appendf(nil, "host=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=disable\n",
		w.cluster.Port(), harness.App, harness.AppPassword, w.database))
	w.tenants = harness.Map{"postgres": harness.Map{"dsn_file": filepath.Join(w.dir, "dsn"), "key_file": filepath.Join(w.dir, "store.key"),
		"cache_file": filepath.Join(w.dir, "tenants.cache")}}
	w.yaml("postern.yaml", harness.Map{"listeners": []harness.Map{{"name": "l", "address": "127.0.0.1:1"}}, "tenants": w.tenants})
	return w
}

func (w *storeWorld) yaml(name string, content harness.Map) string {
	w.t.Helper()
	out, err := yaml.Marshal(content)
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.dir, name)
	write(w.t, path, out)
	return path
}

// command runs postern store.
func (w *storeWorld) command(args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), harness.Binary(w.t), append(append([]string{"store"}, args...), "--config", filepath.Join(w.dir, "postern.yaml"))...)
	out, err := cmd.CombinedOutput()
	w.said.Write(out)
	if err != nil {
		w.t.Fatalf("store %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// load imports tenants, those who are not among them removed.
func (w *storeWorld) load(all ...harness.Map) string {
	w.t.Helper()
	return w.command("import", "--prune", w.yaml("tenants.yaml", harness.Map{"tenants": all}))
}

// exec runs SQL in the store.
func (w *storeWorld) exec(sql string) {
	w.t.Helper()
	if err := w.cluster.Exec(w.t.Context(), w.database, sql); err != nil {
		w.t.Fatal(err)
	}
}

// connect is a connection to the store as its owner.
func (w *storeWorld) connect() *pgx.Conn {
	w.t.Helper()
	dsn, err := os.ReadFile(filepath.Join(w.dir, "dsn"))
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(w.t.Context(), configOf(w.t, string(dsn)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { closeConn(conn) })
	return conn
}

func (w *storeWorld) gate() *gate {
	w.t.Helper()
	return &gate{t: w.t, Gate: harness.Postern(w.t, harness.GateConfig{Config: harness.Map{"tenants": w.tenants}})}
}

// login is one of a tenant, which is nil if it fails.
func (g *gate) login(t *testing.T, tenant string) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.ConnectConfig(t.Context(), configOf(t, strings.Replace(g.dsn("session"), "user=app.acme", "user=app."+tenant, 1)))
	if err == nil {
		t.Cleanup(func() { closeConn(conn) })
	}
	return conn, err
}

func (g *gate) mustLogin(t *testing.T, tenant string) *pgx.Conn {
	t.Helper()
	conn, err := g.login(t, tenant)
	if err != nil {
		t.Fatalf("%s: %v", tenant, err)
	}
	return conn
}

// readyz is its status and its text.
func (g *gate) readyz(t *testing.T) (int, string) {
	t.Helper()
	status, body := g.Admin(t, http.MethodGet, "/readyz", nil)
	return status, string(body)
}

// ends waits for the end of a session, and returns how long that took.
func ends(t *testing.T, conn *pgx.Conn, code string) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	_, err := conn.WaitForNotification(ctx) // which only the end of the session interrupts
	wantState(t, err, code)
	return time.Since(start)
}

func TestStore(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	if out := w.command("init"); !strings.Contains(out, "made ") || !strings.Contains(out, "version") {
		t.Errorf("init says %q", out)
	}
	if out := w.command("init"); strings.Contains(out, "made ") {
		t.Errorf("init again says %q", out)
	}
	if out := w.load(w.acme, w.globex); !strings.Contains(out, "+ acme\n+ globex\n2 of 2") {
		t.Errorf("import says %q", out)
	}
	if out := w.load(w.acme, w.globex); !strings.HasPrefix(out, "0 of 2") {
		t.Errorf("import again says %q", out)
	}
	g := w.gate()
	acme, globex := g.mustLogin(t, "acme"), g.mustLogin(t, "globex")

	// A rule that is committed by SQL ends who may not be there, and nobody else.
	w.exec(`UPDATE postern.tenants SET document = document || '{"allow_list": ["192.0.2.0/24"]}' WHERE id = 'acme'`)
	took := ends(t, acme, "57P01")
	t.Logf("from commit to 57P01: %v", took)
	if _, err := g.login(t, "acme"); sqlstate(err) != "28000" {
		t.Errorf("a client that may not come: %v", err)
	}
	if v := value(t, globex, "select 1"); v != "1" {
		t.Error(v)
	}
	// An import takes it back, and a new pool size ends nobody.
	w.load(w.acme, w.globex)
	harness.Eventually(t, harness.Patience, "acme may come again", func() bool { conn, _ := g.login(t, "acme"); return conn != nil })
	acme = g.mustLogin(t, "acme")
	w.acme["pool"] = harness.Map{"size": 3}
	if out := w.load(w.acme); !strings.Contains(out, "- globex") || !strings.Contains(out, "~ acme: pool.size: 20 -> 3") {
		t.Errorf("import says %q", out)
	}
	ends(t, globex, "57P01")
	if _, err := g.login(t, "globex"); sqlstate(err) != "28P01" {
		t.Errorf("a tenant that is gone: %v", err)
	}
	if v := value(t, acme, "select 1"); v != "1" {
		t.Error(v)
	}
	if status, text := g.readyz(t); status != 200 || text != "ok\n" {
		t.Errorf("%d %q", status, text)
	}
	exported := w.command("export")
	if !strings.Contains(exported, "id: acme") {
		t.Errorf("exported:\n%s", exported)
	}

	// The store goes away: sessions and logins go on, and it is told.
	if err := w.cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "the outage is noticed", func() bool { return g.metric("postern_directory_last_reload_success") == 0 })
	age := g.metric("postern_directory_age_seconds")
	harness.Eventually(t, harness.Patience, "the age grows", func() bool { return g.metric("postern_directory_age_seconds") > age })
	if status, text := g.readyz(t); status != 200 || !strings.HasPrefix(text, "degraded: ") {
		t.Errorf("%d %q", status, text)
	}
	for _, conn := range []*pgx.Conn{acme, g.mustLogin(t, "acme")} {
		if v := value(t, conn, "select 1"); v != "1" {
			t.Error(v)
		}
	}
	metrics := fmt.Sprint(g.Metrics(t))
	if code := g.Stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}

	// A start without the store, from the cache file.
	second := w.gate()
	if v := value(t, second.mustLogin(t, "acme"), "select 1"); v != "1" {
		t.Error(v)
	}
	if _, err := second.login(t, "globex"); sqlstate(err) != "28P01" {
		t.Errorf("a tenant that was gone: %v", err)
	}
	if status, text := second.readyz(t); status != 200 || !strings.HasPrefix(text, "degraded: ") {
		t.Errorf("%d %q", status, text)
	}
	if err := w.cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.load(w.acme, w.globex)
	harness.Eventually(t, harness.Patience, "what was changed meanwhile is in force", func() bool { conn, _ := second.login(t, "globex"); return conn != nil })

	// No secret is anywhere.
	cached, err := os.ReadFile(filepath.Join(w.dir, "tenants.cache"))
	if err != nil {
		t.Fatal(err)
	}
	verifier := w.acme["users"].([]harness.Map)[0]["verifier"].(string)
	_, keys, _ := strings.Cut(verifier, "$4096:")
	for what, text := range map[string]string{"the logs": g.Log().String() + second.Log().String(), "what the commands say": w.said.String(), "the cache file": string(cached),
		"the metrics": metrics} {
		if strings.Contains(text, keys) || strings.Contains(text, harness.AppPassword) {
			t.Errorf("%s have a secret", what)
		}
	}
	if strings.Contains(string(cached), "acme") {
		t.Error("the cache file is not sealed")
	}
}

// TestStoreOfTwo: two processes follow one store; a rule that is committed on it bites at both, also where the connection that
// listens was killed just before.
func TestStoreOfTwo(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	delete(w.tenants["postgres"].(harness.Map), "cache_file") // which is of one process
	w.command("init")
	w.load(w.acme, w.globex)
	var acme, globex []*pgx.Conn
	for _, g := range []*gate{w.gate(), w.gate()} {
		acme, globex = append(acme, g.mustLogin(t, "acme")), append(globex, g.mustLogin(t, "globex"))
	}
	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postern'`)
	w.exec(`UPDATE postern.tenants SET document = document || '{"allow_list": []}' WHERE id = 'acme'`)
	for _, conn := range acme {
		t.Logf("from commit to 57P01: %v", ends(t, conn, "57P01"))
	}
	for _, conn := range globex {
		if v := value(t, conn, "select 1"); v != "1" {
			t.Error(v)
		}
	}
}

// TestStoreOfMany: a rule is committed through one node's API while the other, which has thousands of tenants (100,000 with
// POSTERN_TEST_LONG), has just lost the connection that listens; there its session is ended and its client refused, and nobody else's.
func TestStoreOfMany(t *testing.T) {
	t.Parallel()
	many := 2_000
	if harness.Long() {
		many = 100_000
	}
	w := newStoreWorld(t)
	w.command("init")
	all := []harness.Map{w.acme, w.globex}
	for i := range many - len(all) {
		all = append(all, harness.Map{"id": fmt.Sprintf("t%06d", i), "upstream": w.acme["upstream"], "users": w.acme["users"].([]harness.Map)[:1]})
	}
	w.load(all...)
	a := w.node("a")
	var others string // pids of the store's connections that are not b's
	if err := w.connect().QueryRow(t.Context(), `SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE datname = current_database()`).Scan(&others); err != nil {
		t.Fatal(err)
	}
	b := w.node("b")
	for _, g := range []*gate{a, b} {
		if len(g.Log().Find("tenants loaded", harness.Map{"tenants": float64(many)})) == 0 {
			t.Fatalf("not all tenants are loaded:\n%s", g.Log())
		}
	}
	acme, globex := b.mustLogin(t, "acme"), b.mustLogin(t, "globex")

	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid NOT IN (` + others + `)`)
	asked := time.Now()
	a.api(t, a.Token, "PATCH", "/v1/tenants/acme?confirm=true&wait=0", harness.Map{"allow_list": []string{}}).want(t, 200)
	committed := time.Now() // or a little earlier
	ends(t, acme, "57P01")
	told := time.Now()
	_, err := b.login(t, "acme")
	wantState(t, err, "28000")
	t.Logf("with %d tenants, the API's answer after %v, 57P01 %v after that, and a refusal %v after that", many, committed.Sub(asked), told.Sub(committed), time.Since(told))
	if v := value(t, globex, "select 1"); v != "1" {
		t.Error(v)
	}
	if !b.Log().Contains("the store of tenants is away") {
		t.Error("it was not noticed that the connection was lost: nothing was tested")
	}
}

// TestStoreIsNeeded: without the store and without a cache file nothing starts, and the connection string is not told; on tables of an
// older program it is told what to do.
func TestStoreIsNeeded(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t)
	w.command("init")
	w.exec(`DELETE FROM postern.schema_version WHERE version_id = (SELECT max(version_id) FROM postern.schema_version)`)
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "serve", "--config", filepath.Join(w.dir, "postern.yaml"))
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "run postern store init") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := w.cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), harness.Binary(t), "serve", "--config", filepath.Join(w.dir, "postern.yaml"))
	out, err = cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "connecting to the store") || strings.Contains(string(out), harness.AppPassword) {
		t.Errorf("%v\n%s", err, out)
	}
}
