// The fake itself: strictness, states, long polls, limits, faults, and a real PostgreSQL behind it.

package fakefly

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) {
	code := harness.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// ask makes one call with the right token. A status of 0 means that no answer came.
func ask(t testing.TB, s *Server, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+DefaultToken)
	resp, err := s.Transport().RoundTrip(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, string(b)
	}
	if resp.Header.Get("fly-request-id") == "" {
		t.Error("an answer without a request id")
	}
	return resp.StatusCode, string(b)
}

func get(t testing.TB, s *Server) (v shown) {
	t.Helper()
	if status, body := ask(t, s, "GET", "/v1/apps/a/machines/m", ""); status != 200 || json.Unmarshal([]byte(body), &v) != nil {
		t.Fatalf("get: %d %s", status, body)
	}
	return v
}

func TestWhatNoClientMayAsk(t *testing.T) {
	const m = "/v1/apps/a/machines/m"
	for _, tt := range []struct {
		method, path, body string
		status             int
		violation          bool
	}{
		{"GET", m, "", 200, false},
		{"GET", "/v1/apps/a/machines", "", 200, false},
		{"GET", "/v1/apps/a/machines?state=stopped&metadata.x=y", "", 200, false},
		{"GET", "/v1/apps/a/machines/other", "", 404, false},
		{"GET", "/v1/apps/b/machines/m", "", 404, false},
		{"POST", m + "/stop", `{"signal":"SIGINT","timeout":"5s"}`, 409, false},
		{"POST", m + "/suspend", "", 412, false},
		{"GET", m + "/wait?state=stopped&timeout=1&instance_id=01INSTANCE0001", "", 200, false},
		{"GET", m + "/start", "", 405, true},
		{"POST", m, "", 405, true},
		{"GET", m + "/get", "", 404, true},
		{"GET", "/v1/apps/a/machines/", "", 404, true},
		{"GET", "/v2/apps/a/machines/m", "", 404, true},
		{"POST", m + "/explode", "", 404, true},
		{"GET", m + "?x=1", "", 400, true},
		{"POST", m + "/start", "{}", 400, true},
		{"POST", m + "/stop", `{"sig":1}`, 400, true},
		{"POST", m + "/stop", `{"timeout":"soon"}`, 400, true},
		{"GET", m + "/wait?timeout=61", "", 400, true},
		{"GET", m + "/wait?state=asleep", "", 400, true},
		{"GET", m + "/wait?state=stopped&timeout=1", "", 400, true},
	} {
		t.Run(tt.method+" "+tt.path+tt.body, func(t *testing.T) {
			s := New(t, Options{NoSocket: true})
			s.AllowViolations()
			s.AddMachine("a", "m", NewMemory())
			status, body := ask(t, s, tt.method, tt.path, tt.body)
			if status != tt.status || (len(s.Violations()) > 0) != tt.violation {
				t.Errorf("%d %s; violations %q", status, body, s.Violations())
			}
		})
	}
}

func TestATokenMustBeValid(t *testing.T) {
	s := New(t, Options{NoSocket: true, Unlimited: true})
	s.AllowViolations()
	s.AddMachine("a", "m", NewMemory())
	for _, header := range []string{"", "Bearer x", "FlyV1 " + DefaultToken, DefaultToken} {
		req, _ := http.NewRequest("GET", s.URL+"/v1/apps/a/machines/m", nil)
		req.Header.Set("Authorization", header)
		before := len(s.Violations())
		resp, err := s.Transport().RoundTrip(req)
		if err != nil || resp.StatusCode != 401 || len(s.Violations()) == before {
			t.Errorf("%q: %v %v", header, resp, err)
		}
	}
	before := len(s.Violations())
	s.SetToken("another", false)
	if status, _ := ask(t, s, "GET", "/v1/apps/a/machines/m", ""); status != 401 || len(s.Violations()) != before {
		t.Errorf("the token before: %d, %q", status, s.Violations())
	}
	s.SetToken(DefaultToken, false)
	s.SetAppToken("a", "of-a")
	if status, _ := ask(t, s, "GET", "/v1/apps/a/machines/m", ""); status != 401 || len(s.Violations()) != before {
		t.Errorf("the token of all, at an app with its own: %d, %q", status, s.Violations())
	}
	s.SetAppToken("b", DefaultToken)
	s.SetAppToken("a", DefaultToken)
	if status, _ := ask(t, s, "GET", "/v1/apps/a/machines/m", ""); status != 200 {
		t.Errorf("the app's token: %d", status)
	}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, Options{NoSocket: true, Unlimited: true, Boot: 3 * time.Second, Resume: time.Second, Suspend: 10 * time.Second, Stop: 2 * time.Second})
		vm := NewMemory()
		m := s.AddMachine("a", "m", vm)
		const path = "/v1/apps/a/machines/m"
		do := func(action string, want int) {
			t.Helper()
			if status, body := ask(t, s, "POST", path+"/"+action, ""); status != want {
				t.Fatalf("%s: %d %s", action, status, body)
			}
		}
		wait := func(query string, want int, took time.Duration) {
			t.Helper()
			began := time.Now()
			status, body := ask(t, s, "GET", path+"/wait?"+query, "")
			if got := time.Since(began); status != want || got != took {
				t.Fatalf("wait %s: %d %s after %v", query, status, body, got)
			}
		}
		do("start", 200)
		do("start", 412)
		wait("timeout=2", 408, 2*time.Second)
		wait("", 200, time.Second)
		do("start", 412)
		do("suspend", 200)
		do("suspend", 412)
		wait("state=suspended", 200, 10*time.Second)
		do("start", 200)
		wait("state=started", 200, time.Second)
		do("suspend", 200)
		time.Sleep(5 * time.Second)
		do("start", 200) // the snapshot is given up
		wait("", 200, time.Second)
		m.Cold()
		do("suspend", 200)
		wait("state=suspended", 200, 10*time.Second)
		do("start", 200)
		wait("", 200, 3*time.Second)
		do("suspend", 200)
		wait("state=suspended", 200, 10*time.Second)
		do("stop", 200) // loses the snapshot
		wait("state=stopped&instance_id="+get(t, s).InstanceID, 200, 2*time.Second)
		do("start", 200)
		wait("", 200, 3*time.Second)
		m.FailToStart()
		m.Exit()
		do("start", 200)
		m.WaitFor("failed")
		do("start", 200)
		m.WaitFor("started")
		m.Destroy()
		do("start", 412)
		for what, want := range map[string]int{"start": 4, "resume": 2, "suspend": 4, "stop": 4} {
			if got := vm.Count(what); got != want {
				t.Errorf("%s: %d times, not %d", what, got, want)
			}
		}
		if m.Starts() != 7 {
			t.Errorf("%d starts", m.Starts())
		}
		events := get(t, s).Events
		if !slices.IsSortedFunc(events, func(a, b event) int { return int(b.Timestamp - a.Timestamp) }) || events[0].Status != "destroyed" {
			t.Errorf("events %v", events)
		}
	})
}

func TestLimitsAreEnforced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, Options{NoSocket: true})
		s.AddMachine("a", "m", NewMemory())
		count := func(n int, path string) (ok int) {
			for range n {
				if status, _ := ask(t, s, "GET", path, ""); status == 200 {
					ok++
				}
			}
			return ok
		}
		if n := count(20, "/v1/apps/a/machines/m"); n != 10 {
			t.Errorf("%d gets at once", n)
		}
		if n := count(20, "/v1/apps/a/machines"); n != 3 {
			t.Errorf("%d lists at once", n)
		}
		time.Sleep(time.Second)
		if n := count(20, "/v1/apps/a/machines/m"); n != 5 {
			t.Errorf("%d gets a second later", n)
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, Options{NoSocket: true, Unlimited: true})
		m := s.AddMachine("a", "m", NewMemory())
		start := func() int { status, _ := ask(t, s, "POST", "/v1/apps/a/machines/m/start", ""); return status }
		s.Inject(TooManyRequests(Start))
		s.Inject(LeaseHeld(Start).For("other"))
		s.Inject(Fault{Action: Start, Times: 1, Lost: LostBefore})
		remove := s.Inject(Broken(Start).Always())
		if got := []int{start(), start(), start(), start()}; !slices.Equal(got, []int{429, 0, 500, 500}) || m.Starts() != 0 {
			t.Errorf("%v, %d starts", got, m.Starts())
		}
		remove()
		s.Inject(HostSilent(Start).Done())
		if got := start(); got != 408 || m.Starts() != 1 {
			t.Errorf("%d, %d starts", got, m.Starts())
		}
		m.WaitFor("started")
		s.Inject(Fault{Action: Suspend, Times: 1, Lost: LostAfter, Delay: time.Second})
		began := time.Now()
		if status, _ := ask(t, s, "POST", "/v1/apps/a/machines/m/suspend", ""); status != 0 || time.Since(began) != time.Second {
			t.Errorf("suspend: %d after %v", status, time.Since(began))
		}
		m.WaitFor("suspended")
		s.Inject(Fault{Times: 1, Truncate: true})
		if status, body := ask(t, s, "GET", "/v1/apps/a/machines/m", ""); status != 0 || !strings.HasPrefix(body, `{"id":"m"`) {
			t.Errorf("truncated: %d %s", status, body)
		}
		m.SetHostStatus("unreachable")
		if start() != 408 || get(t, s).Incomplete == nil {
			t.Error("the host is reachable")
		}
		if n := s.Count(Start, "m"); n != 6 {
			t.Errorf("%d starts asked for", n)
		}
		if c := s.Calls()[0]; c.Action != Start || c.Status != 429 || c.App != "a" || c.Machine != "m" || c.Method != "POST" {
			t.Errorf("%+v", c)
		}
	})
}

func TestPostgresIsFrozenThawedMovedAndLost(t *testing.T) {
	cluster := harness.Postgres(t, local.Options{})
	if err := cluster.Stop(t.Context(), local.Fast); err != nil {
		t.Fatal(err)
	}
	s := New(t, Options{Unlimited: true})
	m := s.AddMachine("a", "m", Postgres(cluster))
	post := func(action string) {
		t.Helper()
		if status, body := ask(t, s, "POST", "/v1/apps/a/machines/m/"+action, ""); status != 200 {
			t.Fatalf("%s: %d %s", action, status, body)
		}
	}
	address := func() string { return net.JoinHostPort(get(t, s).PrivateIP, strconv.Itoa(int(m.Port()))) }
	refuses := func(address string) {
		t.Helper()
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			t.Errorf("%s listens", address)
		}
	}
	connect := func() *pgx.Conn {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), "postgres://"+harness.App+":"+harness.AppPassword+"@"+address()+"/postgres?sslmode=disable&connect_timeout=10")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			conn.Close(ctx)
		})
		return conn
	}
	pid := func(c *pgx.Conn, limit time.Duration) (pid int, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return pid, c.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid)
	}
	refuses(address())
	post("start")
	m.WaitFor("started")
	first := connect()
	backend, err := pid(first, harness.Patience)
	if err != nil {
		t.Fatal(err)
	}
	postmaster := cluster.PID()

	post("suspend")
	m.WaitFor("suspended")
	refuses(address())
	for _, pid := range []int{postmaster, backend} {
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err != nil || !strings.Contains(string(stat), ") T ") {
			t.Errorf("process %d is not stopped: %s %v", pid, stat, err)
		}
	}
	post("start")
	m.WaitFor("started")
	if cluster.PID() != postmaster {
		t.Error("a resume was a boot")
	}
	if _, err := pid(first, time.Second); err == nil {
		t.Error("a connection came through a suspend")
	}
	if _, err := pid(connect(), harness.Patience); err != nil {
		t.Error(err)
	}

	old := address()
	m.Cold()
	m.Move()
	post("suspend")
	m.WaitFor("suspended")
	post("start")
	m.WaitFor("started")
	if cluster.PID() == postmaster || address() == old {
		t.Error("neither booted nor moved")
	}
	refuses(old)
	if _, err := pid(connect(), harness.Patience); err != nil {
		t.Error(err)
	}
	m.Exit()
	refuses(address())
	if cluster.Running() {
		t.Error("the process has not ended")
	}
	m.CloseFor(3 * time.Second)
	post("start")
	m.WaitFor("started")
	refuses(address())
	harness.Eventually(t, harness.Patience, "the address opens", func() bool {
		conn, err := net.Dial("tcp", address())
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	post("suspend") // and the test ends with it frozen
	m.WaitFor("suspended")
}
