// The handlers of health, readiness, metrics and the document.

package admin

import (
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed openapi.yaml
var openAPI string

// health says that the process answers.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) { text(w, "ok\n") }

// ready says whether new clients are welcome.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if err := s.opts.Ready(); err != nil {
		fail(w, r, http.StatusServiceUnavailable, err.Error())
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

// scrapeLog gives promhttp's complaints to slog.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	l.log.Warn("admin: metrics are incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}
