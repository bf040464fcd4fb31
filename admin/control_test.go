// Tests of the tenants' routes: what reaches the gate, what is answered and logged for each outcome, and what is refused.

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

const operator = "s3cret-token"

// fakeGate writes down what it is asked, and fails as it is told to.
type fakeGate struct {
	view Machine
	fail map[string]error // by call
	hang bool             // until the context ends

	sessions     []Session
	bans         []Ban
	locked, open int      // what LockedOut says
	silent       []string // nodes

	done func() // what happens once a call is done; nil: nothing

	mu    sync.Mutex
	calls []string
}

func (g *fakeGate) called(ctx context.Context, call, tenant string) error {
	g.mu.Lock()
	g.calls = append(g.calls, call+" "+tenant)
	g.mu.Unlock()
	if g.hang {
		<-ctx.Done()
		return fmt.Errorf("hung: %w", ctx.Err())
	}
	if err := g.fail[call]; err != nil {
		return err
	}
	if g.done != nil {
		defer g.done()
	}
	return ctx.Err()
}

func (g *fakeGate) Machine(ctx context.Context, tenant string) (Machine, error) {
	return g.view, g.called(ctx, "machine", tenant)
}
func (g *fakeGate) WakeMachine(ctx context.Context, tenant string) error {
	return g.called(ctx, "wake", tenant)
}
func (g *fakeGate) SuspendMachine(ctx context.Context, tenant string) error {
	return g.called(ctx, "suspend", tenant)
}
func (g *fakeGate) Pause(ctx context.Context, tenant string) error {
	return g.called(ctx, "pause", tenant)
}
func (g *fakeGate) Metrics(tenant string) (prometheus.Gatherer, error) {
	if err := g.called(context.Background(), "metrics", tenant); err != nil {
		return nil, err
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_" + tenant + "_total", Help: "Nothing."}))
	return reg, nil
}
func (g *fakeGate) CheckAddress(tenant string, who netrestrict.Who) (Check, error) {
	list, err := netrestrict.CompileRules([]netrestrict.Rule{{Network: netip.MustParsePrefix("203.0.113.0/24"), Comment: "office", Expires: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Network: netip.MustParsePrefix("198.51.100.0/24"), Expires: time.Unix(1, 0)}, {Endpoint: netrestrict.Endpoint{Provider: netrestrict.GCP, ID: "7"}}, {Flycast: netip.MustParseAddr("fdaa::3")}})
	if err != nil {
		return Check{}, err
	}
	c := Check{Verdict: list.Decide(time.Now(), who), Mode: tenants.RestrictionsEnforce}
	if c.Rule >= 0 {
		c.Decides = &list.Rules()[c.Rule]
	}
	return c, g.called(context.Background(), "check", tenant)
}
func (g *fakeGate) Refusals(ctx context.Context, tenant string) ([]Refusal, []string, error) {
	at := time.Unix(1e9, 0)
	return []Refusal{{netip.MustParseAddr("203.0.113.7"), "address", true, "app", 3, at, at.Add(time.Minute)}, {Address: netip.MustParseAddr("::1"), Reason: "tls", Count: 1, First: at, Last: at}},
		g.silent, g.called(ctx, "refusals", tenant)
}
func (g *fakeGate) Resume(ctx context.Context, tenant string) error {
	return g.called(ctx, "resume", tenant)
}

// tenantRoute is one route under test, and how its success looks.
type tenantRoute struct {
	method, pattern, call string
	code                  int
	calls                 []string
}

var tenantRoutes = []tenantRoute{
	{"GET", "/v1/tenants/{id}/machine", "machine", 200, []string{"machine acme"}},
	{"POST", "/v1/tenants/{id}/machine/wake", "wake", 202, []string{"wake acme", "machine acme"}},
	{"POST", "/v1/tenants/{id}/machine/suspend", "suspend", 202, []string{"suspend acme", "machine acme"}},
	{"POST", "/v1/tenants/{id}/pause", "pause", 200, []string{"pause acme"}},
	{"POST", "/v1/tenants/{id}/resume", "resume", 200, []string{"resume acme"}},
}

// path is the route for an id, which is put in as it is.
func (r tenantRoute) path(id string) string { return strings.Replace(r.pattern, "{id}", id, 1) }

// ask sends a request as an operator, checks the answer against the document, and returns it with what was logged.
func (r tenantRoute) ask(t *testing.T, gate Gate, path string, change func(*http.Request)) (*httptest.ResponseRecorder, string) {
	t.Helper()
	log, out := logger()
	s, err := New(Options{Gatherer: registry(t), TokenFile: tokenFile(t, operator), Gate: gate, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	req := newRequest(r.method, path, nil)
	req.Header.Set("Authorization", "Bearer "+operator)
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	want := "application/json"
	if w.Code >= 400 {
		want = "application/problem+json"
	}
	if got := w.Header().Get("Content-Type"); got != want {
		t.Errorf("Content-Type %q", got)
	}
	loadSchemas(t).checkAnswer(t, r.method, r.pattern, w.Code, w.Body.Bytes())
	if strings.Contains(out.String()+w.Body.String(), operator) {
		t.Errorf("the token is in the log or the answer:\n%s%s", out, w.Body)
	}
	return w, out.String()
}

// reason is the answer's error.
func reason(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Errorf("%v: %s", err, w.Body)
	}
	return p.Error
}

func TestTenantRoutes(t *testing.T) {
	for _, r := range tenantRoutes {
		for _, body := range []string{"", "{}", " {\n}\n"} {
			t.Run(fmt.Sprintf("%s %s %q", r.method, r.pattern, body), func(t *testing.T) {
				gate := &fakeGate{view: awake()}
				w, log := r.ask(t, gate, r.path("acme"), withBody(body, "application/json; charset=utf-8"))
				if w.Code != r.code {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if diff := cmp.Diff(r.calls, gate.calls); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
				want := awakeJSON
				if r.call == "pause" || r.call == "resume" {
					want = fmt.Sprintf(`{"tenant":"acme","paused":%t}`, r.call == "pause")
				}
				if got := strings.TrimSpace(w.Body.String()); got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				line := fmt.Sprintf(`msg="admin: %s" tenant=acme outcome=ok peer=192.0.2.1:1234 by=file request=`, r.call)
				if (strings.Count(log, "\n") != 0) != (r.method == "POST") || r.method == "POST" && !strings.Contains(log, line) {
					t.Errorf("log: %s\nwant %s", log, line)
				}
			})
		}
	}
}

func TestGateErrors(t *testing.T) {
	busy := &BusyError{Reasons: []string{"2 clients in session mode", "1 server connection in use"}}
	for _, tc := range []struct {
		err   error
		calls string // that may return it
		code  int
		body  string
	}{
		{ErrNoTenant, "machine wake suspend pause resume", 404, `"error":"there is no such tenant"}`},
		{ErrNoMachine, "machine wake suspend", 409, `"error":"the tenant has no machine: it has an upstream"}`},
		{ErrPaused, "wake", 409, `"error":"the tenant is paused: resume it first"}`},
		{busy, "suspend", 409, `"error":"the machine is in use: 2 clients in session mode; 1 server connection in use",` +
			`"reasons":["2 clients in session mode","1 server connection in use"]}`},
		{&BusyError{}, "suspend", 409, `"error":"the machine is in use"}`},
		{context.DeadlineExceeded, "machine wake suspend pause resume", 503, `"error":"the gate does not answer now"}`},
		{context.Canceled, "machine wake suspend pause resume", 503, `"error":"the gate does not answer now"}`},
		{errors.New("dial 10.1.2.3"), "machine wake suspend pause resume", 500, `"error":"internal error; the log says why"}`},
	} {
		for _, r := range tenantRoutes {
			if !strings.Contains(tc.calls, r.call) {
				continue
			}
			t.Run(fmt.Sprintf("%s %v", r.call, tc.err), func(t *testing.T) {
				gate := &fakeGate{fail: map[string]error{r.call: fmt.Errorf("cause 10.9.9.9: %w", tc.err)}}
				w, log := r.ask(t, gate, r.path("acme"), nil)
				if got := strings.TrimSpace(w.Body.String()); w.Code != tc.code || !strings.HasSuffix(got, ","+tc.body) {
					t.Errorf("got %d %s\nwant %d %s", w.Code, got, tc.code, tc.body)
				}
				if len(gate.calls) != 1 {
					t.Errorf("calls after a failure: %v", gate.calls)
				}
				if got := strings.Contains(log, fmt.Sprintf("outcome=%q", reason(t, w))); got != (r.method == "POST") {
					t.Errorf("log: %s", log)
				}
				fault := tc.code >= 500 && tc.err != context.Canceled // who left is no fault
				if got := strings.Contains(log, "cause 10.9.9.9"); got != fault {
					t.Errorf("the cause is logged: %t, want %t: %s", got, fault, log)
				}
			})
		}
	}
}

// TestMachineGoneAfterTheChange: what began is logged as that, and the answer says what is true now.
func TestMachineGoneAfterTheChange(t *testing.T) {
	for _, r := range tenantRoutes[1:3] {
		gate := &fakeGate{fail: map[string]error{"machine": ErrNoTenant}}
		w, log := r.ask(t, gate, r.path("acme"), nil)
		if w.Code != 404 || !strings.Contains(log, "outcome=ok") {
			t.Errorf("%s: got %d %s, log: %s", r.call, w.Code, w.Body, log)
		}
	}
}

// TestIDs: what is no tenant's id never reaches the gate, the log or the answer.
func TestIDs(t *testing.T) {
	for _, id := range []string{"ACME", "-acme", "a.b", "..", ".", "", "%2e%2e", "a%2Fb", "%0Aevil", "%00", "%3Cb%3E", "%FF", "evil%20evil",
		"acme%0A", "{id}", "*", strings.Repeat("a", 64)} {
		for _, r := range tenantRoutes {
			gate := &fakeGate{view: awake()}
			w, log := r.ask(t, gate, r.path(id), nil)
			if w.Code != 404 || len(gate.calls) != 0 {
				t.Errorf("%s %q: got %d, calls %v", r.call, id, w.Code, gate.calls)
			}
			for _, part := range []string{"evil", "ACME", "<b>", "a/b", "aaa"} {
				if strings.Contains(log+w.Body.String(), part) {
					t.Errorf("%s %q: echoed\n%s%s", r.call, id, log, w.Body)
				}
			}
		}
	}
	for _, id := range []string{"a", "0", "a-b_c", "%61cme", strings.Repeat("a", 63)} {
		r, gate := tenantRoutes[3], &fakeGate{}
		if w, _ := r.ask(t, gate, r.path(id), nil); w.Code != 200 || len(gate.calls) != 1 {
			t.Errorf("%q: got %d, calls %v", id, w.Code, gate.calls)
		}
	}
}

func withBody(body, contentType string) func(*http.Request) {
	return func(req *http.Request) {
		with := httptest.NewRequest("POST", "/", strings.NewReader(body))
		req.Body, req.ContentLength = with.Body, with.ContentLength
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
	}
}

// broken is a body that ends in the middle.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("s3cret cause") }
func (broken) Close() error             { return nil }

// TestStrictness: a change that says more than its path is not made.
func TestStrictness(t *testing.T) {
	const js = "application/json"
	for name, tc := range map[string]struct {
		change func(*http.Request)
		code   int
		says   string // a part of the error
	}{
		"unknown key":     {withBody(`{"dry_run":true}`, js), 400, "key"},
		"empty key":       {withBody(`{"":null}`, js), 400, "key"},
		"null":            {withBody(`null`, js), 400, "JSON object"},
		"list":            {withBody(`[]`, js), 400, "JSON object"},
		"string":          {withBody(`"{}"`, js), 400, "JSON object"},
		"two":             {withBody(`{}{}`, js), 400, "JSON object"},
		"cut":             {withBody(`{`, js), 400, "JSON object"},
		"white space":     {withBody(" ", js), 400, "JSON object"},
		"comment":         {withBody("{}//", js), 400, "JSON object"},
		"byte order mark": {withBody("\ufeff{}", js), 400, "JSON object"},
		"form":            {withBody("a=b", "application/x-www-form-urlencoded"), 415, "application/json"},
		"text":            {withBody("{}", "text/plain"), 415, "application/json"},
		"no type":         {withBody("{}", ""), 415, "application/json"},
		"broken type":     {withBody("{}", "application/json; charset"), 415, "application/json"},
		"too large":       {withBody(strings.Repeat(" ", maxBody+1), js), 413, "65536 bytes"},
		"broken":          {func(r *http.Request) { r.Body = broken{} }, 400, "could not be read"},
		"query":           {func(r *http.Request) { r.URL.RawQuery = "dry_run=1" }, 400, "query"},
	} {
		for _, r := range tenantRoutes[1:] {
			t.Run(name+" "+r.call, func(t *testing.T) {
				gate := &fakeGate{view: awake()}
				w, log := r.ask(t, gate, r.path("acme"), tc.change)
				if w.Code != tc.code || !strings.Contains(reason(t, w), tc.says) {
					t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, tc.code, tc.says)
				}
				if len(gate.calls) != 0 {
					t.Errorf("the gate was asked: %v", gate.calls)
				}
				if !strings.Contains(log, "tenant=acme outcome=") || strings.Contains(log, "outcome=ok") {
					t.Errorf("log: %s", log)
				}
				if strings.Contains(log+w.Body.String(), "s3cret") || strings.Contains(log, "dry_run") {
					t.Errorf("echoed: %s%s", log, w.Body)
				}
			})
		}
	}
}

// TestTenantRoutesWantAToken, and a stranger's request touches nothing and learns nothing.
func TestTenantRoutesWantAToken(t *testing.T) {
	for _, r := range tenantRoutes {
		for _, authorization := range []string{"", "Bearer wrong", "Basic " + operator} {
			for _, id := range []string{"acme", "nobody", "NOBODY"} {
				gate := &fakeGate{view: awake()}
				w, log := r.ask(t, gate, r.path(id), func(req *http.Request) {
					req.Header.Del("Authorization")
					if authorization != "" {
						req.Header.Set("Authorization", authorization)
					}
				})
				if w.Code != 401 || len(gate.calls) != 0 || strings.Contains(log, "outcome") {
					t.Errorf("%s %s %q: got %d, calls %v, log: %s", r.call, id, authorization, w.Code, gate.calls, log)
				}
			}
		}
	}
}

func TestTenantRoutesWithoutAGate(t *testing.T) {
	for _, r := range tenantRoutes {
		w, log := r.ask(t, nil, r.path("acme"), nil)
		if w.Code != 503 || reason(t, w) != "this process has no gate" || strings.Contains(log, "level=ERROR") {
			t.Errorf("%s: got %d %s, log: %s", r.call, w.Code, w.Body, log)
		}
	}
}

func TestTenantRoutesMethods(t *testing.T) {
	gate := &fakeGate{view: awake()}
	s, err := New(Options{Gatherer: registry(t), TokenFile: tokenFile(t, operator), Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range tenantRoutes {
		allow, accepted := "POST", []string{"POST"}
		if r.method == "GET" {
			allow, accepted = "GET, HEAD", []string{"GET", "HEAD"}
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
			w := request(s, method, r.path("acme"), "Bearer "+operator)
			ok := strings.Contains(strings.Join(accepted, " "), method)
			if got := w.Code != 405; got != ok || !ok && w.Header().Get("Allow") != allow {
				t.Errorf("%s %s: got %d, Allow: %q", method, r.pattern, w.Code, w.Header().Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/v1/tenants/acme/", "/v1/tenants/acme/machine/", "/v1/tenants/acme/machine/reboot",
		"/v1/tenants/acme/pause/", "/v1/tenants/acme//pause", "/v1/tenants/a/../acme/pause", "/v1/tenants/%2e%2e/acme/pause", "//v1/tenants/acme/pause"} {
		if w := request(s, "POST", path, "Bearer "+operator); w.Code != 404 {
			t.Errorf("%s: got %d", path, w.Code)
		}
	}
}

// TestGateThatHangs: the answer does not wait for it longer than the bound.
func TestGateThatHangs(t *testing.T) {
	for _, r := range tenantRoutes {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			w, log := r.ask(t, &fakeGate{hang: true}, r.path("acme"), nil)
			if took := time.Since(begin); w.Code != 503 || took != gateTimeout || !strings.Contains(log, "hung") {
				t.Errorf("%s: got %d after %v, log: %s", r.call, w.Code, took, log)
			}
		})
	}
}

// slow is an empty body that takes its time.
type slow struct{}

func (slow) Read([]byte) (int, error) { time.Sleep(gateTimeout + time.Second); return 0, io.EOF }
func (slow) Close() error             { return nil }

// TestSlowBody: it does not use up the gate's time.
func TestSlowBody(t *testing.T) {
	for _, r := range tenantRoutes[1:] {
		synctest.Test(t, func(t *testing.T) {
			w, _ := r.ask(t, &fakeGate{view: awake()}, r.path("acme"), func(req *http.Request) { req.Body = slow{} })
			if w.Code != r.code {
				t.Errorf("%s: got %d %s", r.call, w.Code, w.Body)
			}
		})
	}
}
