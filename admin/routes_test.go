// Tests of what each path answers, and that the document says the same.

package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"
)

// gatherer returns a registry that calls f for each collection.
func gatherer(f func()) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_test", Help: "Nothing."}, func() float64 { f(); return 0 }))
	return reg
}

// faulty is a collector that fails.
type faulty struct{ desc *prometheus.Desc }

func newFaulty() faulty {
	return faulty{prometheus.NewDesc("postern_faulty", "Nothing.", nil, nil)}
}

func (f faulty) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }
func (f faulty) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.NewInvalidMetric(f.desc, errors.New("this one failed"))
}

// request asks the handler. authorization is a whole header; "": none.
func request(s *Server, method, path, authorization string) *httptest.ResponseRecorder {
	r := newRequest(method, path, nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// newRequest is one to us: httptest's own is one to example.com.
func newRequest(method, path string, body io.Reader) *http.Request {
	r := httptest.NewRequest(method, path, body)
	r.Host = "127.0.0.1:9187"
	return r
}

func get(s *Server, path, authorization string) *httptest.ResponseRecorder {
	return request(s, "GET", path, authorization)
}

// registry has one metric.
func registry(t *testing.T) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_test_total", Help: "Nothing."}))
	return reg
}

func TestRoutes(t *testing.T) {
	s, err := New(Options{Gatherer: registry(t), MetricsPublic: true})
	if err != nil {
		t.Fatal(err)
	}
	draining, err := New(Options{Gatherer: registry(t), Ready: func() error { return errors.New("draining") }})
	if err != nil {
		t.Fatal(err)
	}
	degraded, err := New(Options{Gatherer: registry(t), Degraded: func() error { return errors.New("something is away") }})
	if err != nil {
		t.Fatal(err)
	}
	broken, err := New(Options{Gatherer: registry(t), Ready: func() error { panic("s3cret") }})
	if err != nil {
		t.Fatal(err)
	}
	nothing := prometheus.NewRegistry()
	nothing.MustRegister(newFaulty())
	failing, err := New(Options{MetricsPublic: true, Gatherer: nothing})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		s            *Server
		method, path string
		code         int
		body         string // a part of it
	}{
		{s, "GET", "/healthz", 200, "ok\n"},
		{s, "HEAD", "/healthz", 200, ""},
		{s, "GET", "/healthz?verbose=1", 200, "ok\n"},
		{s, "GET", "/readyz", 200, "ok\n"},
		{draining, "GET", "/healthz", 200, "ok\n"},
		{draining, "GET", "/readyz", 503, `"error":"draining"}`},
		{degraded, "GET", "/healthz", 200, "ok\n"},
		{degraded, "GET", "/readyz", 200, "degraded: something is away\n"},
		{broken, "GET", "/readyz", 500, `"error":"internal error"}`},
		{s, "GET", "/metrics", 200, "postern_test_total 0"},
		{failing, "GET", "/metrics", 500, "this one failed"},
		{s, "GET", "/openapi.yaml", 200, "openapi: 3.1.0"},
		{s, "POST", "/healthz", 405, `"error":`},
		{s, "DELETE", "/metrics", 405, `"error":`},
		{s, "OPTIONS", "/metrics", 405, `"error":`},
		{s, "GET", "/", 404, `"error":`},
		{s, "GET", "/metrics/", 404, `"error":`},
		{s, "GET", "/v1/nothing", 404, `"error":`},
		{s, "PUT", "/nothing", 404, `"error":`},
		{s, "GET", "/debug/pprof/", 404, `"error":`},
	} {
		t.Run(fmt.Sprintf("%s %s %d", tc.method, tc.path, tc.code), func(t *testing.T) {
			w := request(tc.s, tc.method, tc.path, "")
			if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.body) {
				t.Errorf("got %d %q, want %d with %q", w.Code, w.Body, tc.code, tc.body)
			}
			if strings.Contains(tc.body, `"error"`) {
				var p problem
				err := json.Unmarshal(w.Body.Bytes(), &p)
				want := problem{Type: "about:blank", Title: http.StatusText(tc.code), Status: tc.code, Detail: p.Error, Instance: w.Header().Get("X-Request-Id"), Error: p.Error}
				if diff := cmp.Diff(want, p); err != nil || p.Error == "" || diff != "" {
					t.Errorf("got %q (%v), want a problem: %s", w.Body, err, diff)
				}
				if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
					t.Errorf("Content-Type %q", got)
				}
			}
			if got := w.Header().Get("Allow"); (got != "") != (tc.code == 405) || tc.code == 405 && got != "GET, HEAD" {
				t.Errorf("Allow: %q", got)
			}
			if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", w.Header())
			}
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") || name == "Set-Cookie" {
					t.Errorf("sends %s", name)
				}
			}
		})
	}
}

// TestTenantMetrics: each tenant has a page of its own, for whoever may see the metrics.
func TestTenantMetrics(t *testing.T) {
	gate := &fakeGate{fail: map[string]error{}}
	public, err := New(Options{Gatherer: registry(t), MetricsPublic: true, Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	private, err := New(Options{Gatherer: registry(t), Gate: gate})
	if err != nil {
		t.Fatal(err)
	}
	without, err := New(Options{Gatherer: registry(t), MetricsPublic: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		s    *Server
		path string
		fail error
		code int
		body string
	}{
		{public, "/metrics/tenants/acme", nil, 200, "postern_acme_total 0"},
		{public, "/metrics/tenants/acme", ErrNoTenant, 404, `"error":"there is no such tenant"}`},
		{public, "/metrics/tenants/No-Id", nil, 404, `"error":"there is no such tenant"}`},
		{public, "/metrics/tenants/", nil, 404, `"error":`},
		{public, "/metrics/tenants/acme", errors.New("10.1.2.3"), 500, `"error":"internal error; the log says why"}`},
		{private, "/metrics/tenants/acme", nil, 401, `"error":`},
		{without, "/metrics/tenants/acme", nil, 503, `"error":`},
	} {
		gate.fail["metrics"] = tc.fail
		if w := get(tc.s, tc.path, ""); w.Code != tc.code || !strings.Contains(w.Body.String(), tc.body) || strings.Contains(w.Body.String(), "postern_test") {
			t.Errorf("%s, %v: %d %q, want %d with %q", tc.path, tc.fail, w.Code, w.Body, tc.code, tc.body)
		}
	}
}

// TestPanicIsLogged: it costs the request and leaves a trace.
func TestPanicIsLogged(t *testing.T) {
	log, out := logger()
	s, err := New(Options{Gatherer: registry(t), Ready: func() error { panic("oh") }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	get(s, "/readyz", "")
	if !strings.Contains(out.String(), "BUG") || !strings.Contains(out.String(), "panic=oh") {
		t.Errorf("log: %s", out)
	}
}

// TestIncompleteMetrics: what could be collected is served, and the log says what is missing.
func TestIncompleteMetrics(t *testing.T) {
	log, out := logger()
	reg := registry(t)
	reg.MustRegister(newFaulty())
	s, err := New(Options{MetricsPublic: true, Log: log, Gatherer: reg})
	if err != nil {
		t.Fatal(err)
	}
	if w := get(s, "/metrics", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "postern_test_total") {
		t.Errorf("got %d %q", w.Code, w.Body)
	}
	if !strings.Contains(out.String(), "this one failed") {
		t.Errorf("log: %s", out)
	}
}

// described is what the test looks at in openapi.yaml.
type described struct {
	Paths map[string]map[string]struct {
		Security   []map[string][]string `yaml:"security"`
		Parameters []any                 `yaml:"parameters"`
		Responses  map[string]any        `yaml:"responses"`
	} `yaml:"paths"`
}

func TestDocumentAgreesWithTheRoutes(t *testing.T) {
	s, err := New(Options{Gatherer: registry(t)})
	if err != nil {
		t.Fatal(err)
	}
	var doc described
	if err := yaml.Unmarshal(get(s, "/openapi.yaml", "").Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	var documented, served []string
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			var scopes []string
			for _, alternative := range operation.Security {
				scopes = append(scopes, alternative["token"]...)
			}
			slices.Sort(scopes)
			documented = append(documented, fmt.Sprintf("%s %s %v", strings.ToUpper(method), path, scopes))
			inPath := 0
			for _, p := range operation.Parameters {
				if loadSchemas(t).at(p)["in"] == "path" {
					inPath++
				}
			}
			if want := strings.Count(path, "{"); inPath != want {
				t.Errorf("%s %s documents %d parameters of the path, it has %d", method, path, inPath, want)
			}
			// What is answered to a stranger must be among the documented answers.
			w := request(s, strings.ToUpper(method), path, "")
			if _, ok := operation.Responses[fmt.Sprint(w.Code)]; !ok {
				t.Errorf("%s %s answers %d, which is not documented", method, path, w.Code)
			}
			if (w.Code == http.StatusUnauthorized) != (len(operation.Security) > 0) {
				t.Errorf("%s %s answers a stranger %d, documented: %v", method, path, w.Code, operation.Security)
			}
		}
	}
	for _, r := range s.routes() {
		var scopes []string
		for _, scope := range r.who.scopes() {
			scopes = append(scopes, string(scope))
		}
		slices.Sort(scopes)
		served = append(served, fmt.Sprintf("%s %s %v", r.method, r.path, scopes))
	}
	slices.Sort(documented)
	slices.Sort(served)
	if diff := cmp.Diff(served, documented); diff != "" {
		t.Errorf("(-served +documented)\n%s", diff)
	}
}

// TestDocumentReferencesResolve looks up every $ref.
func TestDocumentReferencesResolve(t *testing.T) {
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(openAPI), &doc); err != nil {
		t.Fatal(err)
	}
	found := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				found++
				var target any = doc
				for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
					m, _ := target.(map[string]any)
					target = m[part]
				}
				if target == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, below := range v {
				walk(below)
			}
		case []any:
			for _, below := range v {
				walk(below)
			}
		}
	}
	walk(doc)
	if found == 0 {
		t.Error("no reference found")
	}
}
