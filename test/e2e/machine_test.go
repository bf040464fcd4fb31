// Machines that sleep: clients wake them, are held meanwhile, and never notice.

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// onMachine is acme on a machine of this computer, called name.
func onMachine(t *testing.T, name string, machine harness.Map) harness.Map {
	t.Helper()
	m := harness.Map{"provider": "local", "name": name, "suspend_after": "1s"}
	for key, value := range machine {
		m[key] = value
	}
	return harness.Map{"id": "acme", "database": "app", "machine": m,
		"users": []harness.Map{{"name": harness.App, "verifier": harness.Verifier(t, harness.Postgres(t), harness.App)}}}
}

// startMachineGate runs a gate whose tenant acme is on a machine that sleeps, and was never started.
func startMachineGate(t *testing.T, machine harness.Map, change func(tenant, file harness.Map)) *gate {
	t.Helper()
	g := &gate{t: t, database: "app", tenant: onMachine(t, "acme", machine)}
	file := harness.Map{"machines": harness.Map{"local": harness.Map{"dir": harness.Dir(t)}}}
	if change != nil {
		change(g.tenant, file)
	}
	g.run(t, file)
	return g
}

func (g *gate) run(t *testing.T, file harness.Map) {
	t.Helper()
	g.Gate = harness.Postern(t, harness.GateConfig{Config: file, Tenants: []harness.Map{g.tenant}})
	t.Cleanup(func() {
		if log := g.Log().String(); t.Failed() {
			t.Logf("the gate's log ends with:\n%s", log[max(0, len(log)-8000):])
		}
	})
	g.awaitMachine(t, "asleep")
}

// awaitMachine waits until acme's machine is in a state.
func (g *gate) awaitMachine(t *testing.T, state string) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "the machine is "+state, func() bool {
		return g.metric("postern_machine_state", "tenant", "acme", "state", state) == 1
	})
}

// machine is what the admin API says of it.
func (g *gate) machine(t *testing.T) (answer struct {
	State        string
	AwakeBecause []string `json:"awake_because"`
	Paused       bool
	Generation   struct{ Epoch uint64 }
	LastWake     struct{ Result, Reason string } `json:"last_wake"`
}) {
	t.Helper()
	status, body := g.Admin(t, http.MethodGet, "/v1/tenants/acme/machine", nil)
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, body)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func (g *gate) post(t *testing.T, path string, want int) []byte {
	t.Helper()
	status, body := g.Admin(t, http.MethodPost, path, nil)
	if status != want {
		t.Fatalf("%s: %d: %s", path, status, body)
	}
	return body
}

func (g *gate) wakes() float64    { return g.metric("postern_wakes_total", "tenant", "acme") }
func (g *gate) suspends() float64 { return g.metric("postern_suspends_total", "tenant", "acme") }

// postmaster is the process id of the machine's server, 0 if it has none.
func (g *gate) postmaster(t *testing.T) int {
	t.Helper()
	var pid int
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(g.PID()) && strings.Contains(string(stat), "(postgres)") {
			pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return pid
}

// TestWakeAndSleep is the whole story with one client of each kind.
func TestWakeAndSleep(t *testing.T) {
	t.Parallel()
	for _, sleep := range []string{"stop", "suspend"} {
		t.Run(sleep, func(t *testing.T) {
			t.Parallel()
			g := startMachineGate(t, harness.Map{"sleep": sleep}, nil)
			if pid := g.postmaster(t); pid != 0 {
				t.Fatalf("process %d runs before anybody came", pid)
			}
			client := g.connect(t, "transaction")
			// While a transaction is open it does not go to sleep again, however long it takes to look.
			do(t, client, "begin")
			do(t, client, "create table kept (x int); insert into kept values (42)")
			if got := g.machine(t); got.State != "ready" || got.LastWake.Result != "ok" || got.LastWake.Reason != "client" {
				t.Errorf("the API says %+v", got)
			}
			do(t, client, "commit")

			// Connected and idle it keeps nothing awake.
			g.awaitMachine(t, "asleep")
			pid := g.postmaster(t)
			switch stopped := pid == 0 || processState(t, pid) == "T"; {
			case !stopped:
				t.Errorf("process %d is %s", pid, processState(t, pid))
			case sleep == "stop" && pid != 0:
				t.Errorf("process %d is left", pid)
			}
			// It never learns of it.
			do(t, client, "begin")
			if got := value(t, client, "select x from kept"); got != "42" {
				t.Errorf("read %q", got)
			}
			if w, s := g.wakes(), g.suspends(); w != 2 || s != 1 {
				t.Errorf("%v wakes and %v suspends", w, s)
			}
			do(t, client, "commit")

			// A session keeps the machine awake, and the API says so.
			g.awaitMachine(t, "asleep")
			session := g.connect(t, "session")
			harness.Eventually(t, harness.Patience, "a session is why it is awake", func() bool {
				return slices.Contains(g.machine(t).AwakeBecause, "1 client in session mode")
			})
			closeConn(session)
			g.awaitMachine(t, "asleep")
		})
	}
}

// processState is the letter that the kernel shows, "" for no process.
func processState(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	return strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[0]
}

// TestStrangersWakeNobody: what is refused reaches no machine.
func TestStrangersWakeNobody(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, nil, func(tenant, _ harness.Map) { tenant["allow_list"] = []string{"127.0.0.0/8"} })
	for name, dsn := range map[string]string{
		"28P01": strings.Replace(g.dsn("transaction"), "pw-app", "wrong", 1),
		"28000": g.dsn("transaction"),
		"3D000": "",
	} {
		switch name {
		case "28000":
			_, err := g.from(t, "transaction", "198.51.100.9")
			wantState(t, err, name)
		case "28P01":
			_, err := pgconn.Connect(t.Context(), dsn)
			wantState(t, err, name)
		}
	}
	for range 20 { // a port scan
		conn, err := net.Dial("tcp", g.Addr(t, "session"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		conn.Close()
	}
	_ = g.sendCancel("transaction", 1, []byte{1, 2, 3, 4})
	_, _ = g.Admin(t, http.MethodGet, "/metrics", nil)
	if g.wakes() != 0 || g.postmaster(t) != 0 {
		t.Errorf("%v wakes, process %d", g.wakes(), g.postmaster(t))
	}
	if got := g.machine(t); got.State != "asleep" {
		t.Errorf("it is %s", got.State)
	}
}

// TestHerd has 200 clients come at once to a machine that sleeps: one start, and everybody is answered.
func TestHerd(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "1m"}, nil) // longer than they may take to come
	var clients sync.WaitGroup
	var served atomic.Int32
	for range 200 {
		clients.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
			defer cancel()
			conn, err := pgx.ConnectConfig(ctx, configOf(t, g.dsn("transaction", "connect_timeout=60")))
			if err != nil {
				t.Error(err)
				return
			}
			defer closeConn(conn)
			if _, err := tryValue(ctx, conn, "select 1"); err != nil {
				t.Error(err)
				return
			}
			served.Add(1)
		})
	}
	clients.Wait()
	if served.Load() != 200 || g.wakes() != 1 {
		t.Errorf("%d clients served, %v wakes", served.Load(), g.wakes())
	}
	harness.Eventually(t, harness.Patience, "one start", func() bool { return g.logged("PostgreSQL started") == 1 })
}

// TestManyThroughSleep keeps clients connected while their machine sleeps and wakes, some of them under load.
func TestManyThroughSleep(t *testing.T) {
	t.Parallel()
	const clients, cycles = 1000, 3
	// Their logins must not wake it, or it wakes more often than is counted below.
	g := startMachineGate(t, harness.Map{"wake": "query", "suspend_after": "4s"}, func(tenant, _ harness.Map) { tenant["pool"] = harness.Map{"max_clients": clients + 1, "size": 10} })
	first := g.connect(t, "transaction")
	do(t, first, "select 1")
	all := make([]*script, clients)
	for i := range all {
		s, err := hijack(t.Context(), g.dsn("transaction"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.conn.Close() })
		all[i] = s
	}
	for cycle := range cycles {
		g.awaitMachine(t, "asleep")
		var turn sync.WaitGroup
		for i, s := range all {
			turn.Go(func() {
				want := fmt.Sprintf("T D:%d-%d C:SELECT_1 Z:I", cycle, i)
				if got, err := s.try(1, query(fmt.Sprintf("select '%d-%d'", cycle, i))); got != want || err != nil {
					t.Errorf("client %d: %s, %v", i, got, err)
				}
			})
		}
		turn.Wait()
	}
	if w := g.wakes(); w != cycles+1 {
		t.Errorf("%v wakes", w)
	}
	if ended := g.logged("session ended"); ended != 0 {
		t.Errorf("%d sessions ended", ended)
	}
	// With so many connected it is still put to sleep in time.
	last := time.Now()
	g.awaitMachine(t, "asleep")
	if took := time.Since(last); took > 30*time.Second {
		t.Errorf("asleep %v after the last query", took)
	}
	if pid := g.postmaster(t); pid != 0 {
		t.Errorf("process %d is left", pid)
	}
}

// TestKilledServer costs those whose transactions it ran, and nobody else.
func TestKilledServer(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "30s"}, nil)
	idle := g.script(t, "transaction")
	idle.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	inside := g.holders(t, 3)
	running := g.script(t, "transaction")
	running.say(query("select pg_sleep(600)"))
	harness.Eventually(t, harness.Patience, "it runs", func() bool {
		return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == 4
	})
	if err := syscall.Kill(g.postmaster(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Those that wait for a server now are held until there is one again.
	idle.want("T D:2 C:SELECT_1 Z:I", 1, query("select 2"))
	fresh := g.script(t, "transaction")
	fresh.want("T D:3 C:SELECT_1 Z:I", 1, query("select 3"))
	for _, s := range append(inside, running) {
		if got, _ := s.tryHear(1); !strings.Contains(got, "08006") && !strings.Contains(got, "57P0") {
			t.Errorf("in flight: %s", got)
		}
	}
	harness.Eventually(t, harness.Patience, "four sessions are lost", func() bool { return g.logged("session ended", "reason", "server_lost") == 4 })
	if got := g.machine(t); got.State != "ready" || g.wakes() != 2 {
		t.Errorf("%s after %v wakes", got.State, g.wakes())
	}
}

// TestGreetedWhileAsleep: what is known of a server outlives the process, and with it a client is greeted while its
// machine sleeps; with wake: query not even that wakes it.
func TestGreetedWhileAsleep(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"wake": "query"}, nil)
	first := g.script(t, "transaction", "application_name=first")
	first.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	g.awaitMachine(t, "asleep")
	dir := g.Dir

	greeted := func(g *gate) {
		t.Helper()
		before := g.wakes()
		conn := g.connect(t, "transaction", "application_name=second")
		if v := conn.PgConn().ParameterStatus("server_version"); !strings.HasPrefix(v, "15") {
			t.Errorf("server_version %q", v)
		}
		if v := conn.PgConn().ParameterStatus("application_name"); v != "second" {
			t.Errorf("application_name %q", v)
		}
		if g.machine(t).State != "asleep" || g.wakes() != before {
			t.Errorf("the greeting woke it: %v wakes", g.wakes())
		}
		if got := value(t, conn, "show application_name"); got != "second" || g.wakes() != before+1 {
			t.Errorf("answered %q after %v wakes", got, g.wakes())
		}
	}
	greeted(g)
	g.awaitMachine(t, "asleep")

	// The next process, on the same folders.
	conf, err := os.ReadFile(filepath.Join(dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if code := g.Stop(t); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	next := &gate{t: t, database: "app", tenant: g.tenant}
	next.run(t, machinesOf(t, conf))
	greeted(next)
}

// TestWakeOnConnect: by default the login wakes the machine, although the client could be greeted without.
func TestWakeOnConnect(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, nil, nil)
	first := g.script(t, "transaction")
	first.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	g.awaitMachine(t, "asleep")
	_ = g.script(t, "transaction")
	harness.Eventually(t, harness.Patience, "the login wakes it", func() bool { return g.wakes() == 2 })
	g.awaitMachine(t, "asleep")

	// In session mode the client waits for it before it is greeted.
	_ = g.script(t, "session")
	if got := g.machine(t); got.State != "ready" {
		t.Errorf("greeted while the machine was %s", got.State)
	}
}

// TestPauseAndResume holds clients without an error, in transactions' order.
func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "30s"}, func(_, file harness.Map) { file["timeouts"] = harness.Map{"wake": "15s", "drain": "5s"} })
	harness.Eventually(t, harness.Patience, "the machine was made, which may take longer", func() bool {
		conn, err := pgx.Connect(t.Context(), g.dsn("transaction"))
		if err == nil {
			closeConn(conn)
		}
		return err == nil
	})
	inside := g.holders(t, 1)[0]
	waiting := g.script(t, "transaction")
	g.post(t, "/v1/tenants/acme/pause", http.StatusOK)
	waiting.say(query("select 'held'"))
	harness.Eventually(t, harness.Patience, "it is held", g.waiting(1))
	inside.want("T D:1 C:SELECT_1 Z:T C:COMMIT Z:I", 2, query("select 1"), query("commit")) // what runs may finish
	if !g.machine(t).Paused {
		t.Error("the API does not say paused")
	}
	harness.Eventually(t, harness.Patience, "no server connection is left", func() bool {
		return g.metric("postern_server_connections", "tenant", "acme") == 0
	})
	g.post(t, "/v1/tenants/acme/machine/wake", http.StatusConflict)
	g.post(t, "/v1/tenants/acme/resume", http.StatusOK)
	if got := waiting.hear(1); got != "T D:held C:SELECT_1 Z:I" {
		t.Error(got)
	}

	// Held for too long it is told so, and may try again.
	g.post(t, "/v1/tenants/acme/pause", http.StatusOK)
	late := g.script(t, "transaction")
	if got, _ := late.try(1, query("select 1")); !strings.Contains(got, "57P03") {
		t.Errorf("told %s", got)
	}
	g.post(t, "/v1/tenants/acme/resume", http.StatusOK)
	fresh := g.script(t, "transaction")
	fresh.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}

// TestOperatorsSuspend puts an unused machine to sleep at once, and one in use not.
func TestOperatorsSuspend(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "0s"}, nil)
	g.post(t, "/v1/tenants/acme/machine/wake", http.StatusAccepted)
	g.awaitMachine(t, "ready")
	inside := g.holders(t, 1)[0]
	if body := g.post(t, "/v1/tenants/acme/machine/suspend", http.StatusConflict); !strings.Contains(string(body), "1 server connection in use") {
		t.Errorf("refused with %s", body)
	}
	inside.want("C:COMMIT Z:I", 1, query("commit"))
	g.post(t, "/v1/tenants/acme/machine/suspend", http.StatusAccepted)
	g.awaitMachine(t, "asleep")
	inside.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}
