// Tenants on machines of Fly, whose API is a fake: the world of these tests, and the story without faults.

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

const flyApp = "acme-db"

// onLoan is a machine's inside whose Postgres is the cluster that all tests share: it is off while the machine's private
// address refuses, which is all that the gate can see of it, and costs nothing to start.
type onLoan struct {
	addr string
	mu   sync.Mutex
	held chan struct{} // a start waits until it is closed; nil: no start does
}

func lend(t *testing.T) *onLoan { return &onLoan{addr: harness.Postgres(t).Addr()} }

func (v *onLoan) Addr() string                  { return v.addr }
func (v *onLoan) Stop(context.Context) error    { return nil }
func (v *onLoan) Suspend(context.Context) error { return nil }
func (v *onLoan) Start(ctx context.Context) error {
	return v.Resume(ctx)
}
func (v *onLoan) Resume(ctx context.Context) error {
	v.mu.Lock()
	held := v.held
	v.mu.Unlock()
	if held == nil {
		return nil
	}
	select {
	case <-held:
	case <-ctx.Done():
	}
	return nil
}

// hold keeps starts from ending until the function returned is called.
func (v *onLoan) hold() (release func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = make(chan struct{})
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		close(v.held)
		v.held = nil
	})
}

// flyGate is a gate with tenants on machines of one fake.
type flyGate struct {
	*gate
	api     *fakefly.Server
	tenants []*flyTenant
}

// flyTenant is a tenant and its machine.
type flyTenant struct {
	*fakefly.Machine
	g      *flyGate
	id     string // of tenant and machine
	vm     *onLoan
	tenant harness.Map
}

// newFly makes a fake API and tenants for it. Nothing runs yet.
func newFly(t *testing.T, o fakefly.Options, ids ...string) *flyGate {
	t.Helper()
	g := &flyGate{gate: &gate{t: t, cluster: harness.Postgres(t)}, api: fakefly.New(t, o)}
	g.database = harness.Database(t, g.cluster)
	verifier := harness.Verifier(t, g.cluster, harness.App)
	for _, id := range ids {
		vm := lend(t)
		f := &flyTenant{Machine: g.api.AddMachine(flyApp, id, vm), g: g, id: id, vm: vm}
		f.tenant = f.on(id, f.Port(), g.database, verifier)
		g.tenants = append(g.tenants, f)
	}
	return g
}

// on is the tenant on a machine, which sleeps when it is told to and wakes at a query.
func (f *flyTenant) on(machine string, port uint16, database, verifier string) harness.Map {
	return harness.Map{"id": f.id, "database": database,
		"machine": harness.Map{"provider": "fly", "app": flyApp, "id": machine, "port": port, "tls": "disable", "suspend_after": "0s", "wake": "query"},
		"users":   []harness.Map{{"name": harness.App, "verifier": verifier}}}
}

// config is the gate's configuration with this API.
func (g *flyGate) config(keys harness.Map) harness.Map {
	file := harness.Map{"machines": harness.Map{"fly": harness.Map{"api": g.api.URL, "token_file": g.api.TokenFile()}, "state_file": "known.json"}}
	maps.Copy(file, keys)
	return file
}

// serve starts the gate, and returns when it has asked how each machine stands.
func (g *flyGate) serve(t *testing.T, keys harness.Map, others ...harness.Map) {
	t.Helper()
	for _, f := range g.tenants {
		others = append(others, f.tenant)
	}
	g.Gate = harness.Postern(t, harness.GateConfig{Config: g.config(keys), Tenants: others})
	t.Cleanup(func() {
		if log := g.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-10000):])
		}
		if strings.Contains(g.Log().String(), fakefly.DefaultToken) {
			t.Error("the token is in the log")
		}
	})
	for _, f := range g.tenants {
		f.awaits(t, "asleep")
	}
}

// awaits returns when the gate knows that the machine is in a state.
func (f *flyTenant) awaits(t *testing.T, state string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, f.id+" is "+state, func() bool {
		return f.g.metric("postern_machine_state", "tenant", f.id, "state", state) == 1
	})
}

// starts is how often its start was asked for.
func (f *flyTenant) starts() int { return f.g.api.Count(fakefly.Start, f.id) }

// wakes counts the gate's wakes of it with a result.
func (f *flyTenant) wakes(result string) float64 {
	f.g.t.Helper()
	return f.g.metric("postern_wakes_total", "tenant", f.id, "result", result)
}

// sleep has the gate put the machine to sleep now.
func (f *flyTenant) sleep(t *testing.T) {
	t.Helper()
	harness.Eventually(t, harness.Patience, f.id+" may sleep", func() bool {
		status, _ := f.g.Admin(t, http.MethodPost, "/v1/tenants/"+f.id+"/machine/suspend", nil)
		return status == http.StatusAccepted
	})
	f.awaits(t, "asleep")
	f.WaitFor("suspended")
}

// byAnotherHand asks the API for something that the gate did not ask for.
func (f *flyTenant) byAnotherHand(t *testing.T, action string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.g.api.URL+"/v1/apps/"+flyApp+"/machines/"+f.id+"/"+action, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+fakefly.DefaultToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", action, resp.Status)
	}
}

// flyClient is a client of the tenant and what it was told by the way.
type flyClient struct {
	*pgconn.PgConn
	mu      sync.Mutex
	notices []string
}

// login connects, and waits for as long as the gate lets it.
func (f *flyTenant) login(ctx context.Context, listener string, options ...string) (*flyClient, error) {
	c := &flyClient{}
	conf, err := pgconn.ParseConfig(f.g.dsn(listener, append([]string{"user=app." + f.id, "connect_timeout=90"}, options...)...))
	if err != nil {
		return nil, err
	}
	conf.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.notices = append(c.notices, n.Message)
	}
	c.PgConn, err = pgconn.ConnectConfig(ctx, conf)
	return c, err
}

// enter is login for a client that is served at once, and gone at the end of the test at the latest.
func (f *flyTenant) enter(t *testing.T, listener string, options ...string) *flyClient {
	t.Helper()
	c, err := f.login(t.Context(), listener, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.leave)
	return c
}

func (c *flyClient) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// ask runs a query of one value.
func (c *flyClient) ask(ctx context.Context, sql string) (string, error) {
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if last := results[len(results)-1]; len(last.Rows) > 0 {
		return string(last.Rows[0][0]), nil
	}
	return "", nil
}

// must runs a query and compares its value.
func (c *flyClient) must(t *testing.T, sql, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := c.ask(ctx, sql); err != nil || got != want {
		t.Fatalf("%s: %q, %v", sql, got, err)
	}
}

// visit is a client that comes, asks and goes.
func (f *flyTenant) visit(ctx context.Context, listener string) error {
	c, err := f.login(ctx, listener)
	if err != nil {
		return err
	}
	defer c.leave()
	_, err = c.ask(ctx, "select 1")
	return err
}

// TestFlyStory is the life of one machine with a real Postgres of its own, spoken to with its certificate verified: a crowd
// wakes it once, it sleeps by itself, resumes and boots, moves to another address, and one client stays through it all.
func TestFlyStory(t *testing.T) {
	t.Parallel()
	authority := harness.Certificates(t)
	pair := authority.Issue(t, "acme.internal")
	pg := harness.Postgres(t, local.Options{CertFile: pair.CertFile, KeyFile: pair.KeyFile})
	verifier := harness.Verifier(t, pg, harness.App)
	if err := pg.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	g := newFly(t, fakefly.Options{Boot: 300 * time.Millisecond, Resume: 100 * time.Millisecond, Suspend: 200 * time.Millisecond})
	f := &flyTenant{Machine: g.api.AddMachine(flyApp, "acme", fakefly.Postgres(pg)), g: g, id: "acme"}
	f.tenant = f.on("acme", f.Port(), "postgres", verifier)
	maps.Copy(f.tenant["machine"].(harness.Map), harness.Map{"tls": "verify-full", "ca": authority.CAFile, "server_name": "acme.internal", "suspend_after": "3s"})
	g.tenants = append(g.tenants, f)
	g.serve(t, nil)
	if n := g.api.Count("", ""); n != 1 {
		t.Errorf("%d calls before anybody came", n)
	}

	var crowd sync.WaitGroup
	var served atomic.Int32
	for range 50 {
		crowd.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := f.visit(ctx, "transaction"); err != nil {
				t.Error(err)
				return
			}
			served.Add(1)
		})
	}
	crowd.Wait()
	if served.Load() != 50 || f.starts() != 1 {
		t.Errorf("%d clients served, %d starts", served.Load(), f.starts())
	}
	stays := f.enter(t, "transaction")
	stays.must(t, "select current_setting('ssl')", "on")
	postmaster := pg.PID()

	woken := func(starts int, same bool) {
		t.Helper()
		stays.must(t, "select 2", "2")
		if f.starts() != starts || f.wakes("ok") != float64(starts) || (pg.PID() == postmaster) != same {
			t.Errorf("%d starts, %v wakes, process %d after %d", f.starts(), f.wakes("ok"), pg.PID(), postmaster)
		}
		postmaster = pg.PID()
	}
	// Nobody asks anything for a while, and it sleeps although a client is connected.
	f.awaits(t, "asleep")
	if state := f.State(); state != "suspended" || g.metric("postern_suspends_total", "tenant", "acme", "reason", "idle", "result", "ok") != 1 {
		t.Errorf("said to be asleep while it is %s", state)
	}
	woken(2, true) // from the snapshot
	f.sleep(t)
	f.Cold()
	woken(3, false) // the snapshot was lost
	f.sleep(t)
	f.Move()
	woken(4, true) // at another address
	harness.Eventually(t, harness.Patience, "one move", func() bool { return g.logged("Fly has moved the machine to another host") == 1 })
	f.sleep(t)
	f.byAnotherHand(t, "stop") // it is asleep all the same
	f.WaitFor("stopped")
	woken(5, false)
	harness.Eventually(t, harness.Patience, "all of 50 sessions ended by themselves", func() bool {
		n := g.logged("session ended", "reason", "client_closed") + g.logged("session ended", "reason", "terminated")
		return n == 50 && g.logged("session ended") == 50
	})
	if epoch := g.machine(t).Generation.Epoch; epoch != 5 {
		t.Errorf("epoch %d", epoch)
	}
}

// TestFlyStop: a machine that Fly cannot suspend is stopped.
func TestFlyStop(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme", "globex")
	acme, globex := g.tenants[0], g.tenants[1]
	acme.tenant["machine"].(harness.Map)["suspend_after"] = "1s"
	acme.CannotSuspend("machine has swap and cannot be suspended")
	globex.tenant["machine"].(harness.Map)["sleep"] = "stop"
	g.serve(t, nil)
	for _, f := range g.tenants {
		f.enter(t, "transaction").must(t, "select 1", "1")
	}
	g.post(t, "/v1/tenants/globex/machine/suspend", http.StatusAccepted)
	for _, f := range g.tenants {
		f.awaits(t, "asleep")
		if state := f.State(); state != "stopped" {
			t.Errorf("%s is %s", f.id, state)
		}
		f.enter(t, "session").must(t, "select 1", "1")
		if f.starts() != 2 {
			t.Errorf("%d starts of %s", f.starts(), f.id)
		}
	}
	if n := g.api.Count(fakefly.Suspend, "globex"); n != 0 {
		t.Errorf("%d suspends of a machine that is to be stopped", n)
	}
}

// TestFlyOtherRun: connections to an earlier run of the machine are lies. The gate drops them when it learns of the next,
// rather than leave their clients waiting for ever.
func TestFlyOtherRun(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	inside := f.enter(t, "transaction")
	inside.must(t, "begin; select 1", "1")
	before := g.machine(t).Generation.Epoch
	// Somebody else suspends and starts it, and it comes up elsewhere: the connection inside is frozen, and says nothing.
	f.byAnotherHand(t, "suspend")
	f.WaitFor("suspended")
	f.Move()
	f.byAnotherHand(t, "start")
	f.WaitFor("started")
	starts := f.starts()

	f.enter(t, "transaction").must(t, "select 2", "2")
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if _, err := inside.ask(ctx, "select 3"); sqlstate(err) != "08006" {
		t.Errorf("inside: %v", err)
	}
	if now := g.machine(t).Generation.Epoch; now != before+1 || f.starts() != starts {
		t.Errorf("epoch %d after %d, %d starts of ours", now, before, f.starts()-starts)
	}
	harness.Eventually(t, harness.Patience, "one server connection is left", func() bool {
		return g.metric("postern_server_connections", "tenant", "acme") == 1
	})
}

// TestFlyRestart: a machine that runs when the process starts is put to sleep although nobody comes.
func TestFlyRestart(t *testing.T) {
	t.Parallel()
	g := newFly(t, fakefly.Options{}, "acme")
	f := g.tenants[0]
	g.serve(t, nil)
	f.enter(t, "session").must(t, "select 1", "1")
	if code := g.Stop(t); code != 0 || f.State() != "started" {
		t.Fatalf("exit code %d, and the machine is %s", code, f.State())
	}
	g.api.Forget()
	f.tenant["machine"].(harness.Map)["suspend_after"] = "1s"
	began := time.Now()
	g.serve(t, nil)
	if f.State() != "suspended" || f.starts() != 0 || g.api.Count(fakefly.Suspend, "acme") != 1 {
		t.Errorf("the machine is %s after %d starts", f.State(), f.starts())
	}
	if took := time.Since(began); took < time.Second || took > harness.Patience {
		t.Errorf("asleep after %v", took)
	}
	if n := g.metric("postern_suspends_total", "tenant", "acme", "reason", "idle", "result", "ok"); n != 1 || g.metric("postern_wakes_total") != 0 {
		t.Errorf("%v suspends, %v wakes", n, g.metric("postern_wakes_total"))
	}
	f.enter(t, "transaction").must(t, "select 1", "1")
}

// errText is everything that an error tells a client.
func errText(err error) string {
	var e *pgconn.PgError
	if asPG(err, &e) {
		return fmt.Sprint(e.Severity, e.Code, e.Message, e.Detail, e.Hint)
	}
	return fmt.Sprint(err)
}
