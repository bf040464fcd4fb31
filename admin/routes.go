// Which path and method leads where, and what is answered to all others.

package admin

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed openapi.yaml
var openAPI string

// route is one operation of the API. GET includes HEAD.
type route struct {
	method, path string
	public       bool // needs no token
	handler      http.HandlerFunc
}

// routes is the one list of what is served; openapi.yaml describes the same.
func (s *Server) routes() []route {
	return []route{
		{"GET", "/healthz", true, s.health},
		{"GET", "/readyz", true, s.ready},
		{"GET", "/metrics", s.opts.MetricsPublic, s.metrics()},
		{"GET", "/metrics/tenants/{id}", s.opts.MetricsPublic, s.tenantMetrics},
		{"GET", "/openapi.yaml", true, s.document},
		{"GET", "/v1/tenants/{id}/machine", false, s.machine},
		{"POST", "/v1/tenants/{id}/machine/wake", false, s.change("wake", Gate.WakeMachine, s.started)},
		{"POST", "/v1/tenants/{id}/machine/suspend", false, s.change("suspend", Gate.SuspendMachine, s.started)},
		{"POST", "/v1/tenants/{id}/pause", false, s.change("pause", Gate.Pause, paused)},
		{"POST", "/v1/tenants/{id}/resume", false, s.change("resume", Gate.Resume, resumed)},
	}
}

// mux routes requests, and answers the rest as JSON: 404, or 405 where only the method is wrong.
func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string][]string)
	for _, r := range s.routes() {
		h := http.Handler(r.handler)
		if !r.public {
			h = s.authorized(h)
		}
		mux.Handle(r.method+" "+r.path, h)
		methods[r.path] = append(methods[r.path], r.method)
		if r.method == http.MethodGet {
			methods[r.path] = append(methods[r.path], http.MethodHead)
		}
	}
	for pattern, allowed := range methods {
		allow := strings.Join(allowed, ", ")
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, http.StatusMethodNotAllowed, "this path answers "+allow+" only")
		})
	}
	nothing := func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "there is nothing at this path; see /openapi.yaml")
	}
	mux.HandleFunc("/", nothing)
	return s.guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != r.URL.Path { // "..", "//": ServeMux would redirect, and a tenant named ".." is none
			nothing(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

// guarded is around every request: a bound on its body, headers for every answer, and a 500 for a panic.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p) // net/http's own way to end a connection
				}
				s.opts.Log.Error("admin: BUG: panic", "panic", p, "route", r.Pattern, "stack", string(debug.Stack()))
				fail(w, http.StatusInternalServerError, "internal error")
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// health says that the process answers.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) { text(w, "ok\n") }

// ready says whether new clients are welcome.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Ready(); err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if err := s.opts.Degraded(); err != nil {
		text(w, "degraded: "+err.Error()+"\n")
		return
	}
	text(w, "ok\n")
}

// metrics shows what the Gatherer collects. Scrapes that come together share one collection, and a collector that fails costs
// its own metrics only.
func (s *Server) metrics() http.HandlerFunc { return s.gathered(s.opts.Gatherer) }

// tenantMetrics shows what concerns one tenant alone.
func (s *Server) tenantMetrics(w http.ResponseWriter, r *http.Request) {
	tenant, err := s.subject(r)
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	from, err := s.opts.Gate.Metrics(tenant)
	if err != nil {
		s.refuse(w, r, tenant, err)
		return
	}
	s.gathered(from)(w, r)
}

func (s *Server) gathered(from prometheus.Gatherer) http.HandlerFunc {
	return promhttp.HandlerFor(from, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{s.opts.Log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrape,
		CoalesceGather:      true,
		Timeout:             scrapeTimeout,
		EnableOpenMetrics:   true,
	}).ServeHTTP
}

func (s *Server) document(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write([]byte(openAPI))
}

func text(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(body))
}

// problem is the answer to whoever does not get what they asked for.
type problem struct {
	Error   string   `json:"error"`
	Reasons []string `json:"reasons,omitempty"`
}

// fail answers {"error": message}.
func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, problem{Error: message})
}

// reply answers v as JSON.
func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("BUG: an answer does not encode: %w", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// scrapeLog gives promhttp's complaints to slog.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.log.Warn("admin: metrics are incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}
