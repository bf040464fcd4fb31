// Which path and method leads where, and what is answered to all others.

package admin

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

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
		{"GET", "/openapi.yaml", true, s.document},
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
	for path, allowed := range methods {
		allow := strings.Join(allowed, ", ")
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, http.StatusMethodNotAllowed, "this path answers "+allow+" only")
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "there is nothing at this path; see /openapi.yaml")
	})
	return s.guarded(mux)
}

// guarded is around every request: a bound on its body, headers for every answer, and a 500 for a panic.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
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
	text(w, "ok\n")
}

// metrics shows what the Gatherer collects. Scrapes that come together share one collection, and a collector that fails costs
// its own metrics only.
func (s *Server) metrics() http.HandlerFunc {
	return promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{
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

// fail answers {"error": message}.
func fail(w http.ResponseWriter, status int, message string) {
	body, _ := json.Marshal(map[string]string{"error": message}) // a map of strings always encodes
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
