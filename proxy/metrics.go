// What Prometheus is told about the gate.

package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/proxy/proxyproto"
)

// Metrics holds the gate's collectors. Label values come from closed sets or
// from registered tenants. Safe for concurrent use.
type Metrics struct {
	wait         prometheus.Histogram
	wake         prometheus.Histogram
	phase        *prometheus.HistogramVec
	headers      *prometheus.CounterVec
	refused      [numReasons]prometheus.Counter // by reason; none for uncounted
	observed     prometheus.Counter
	cancels      *prometheus.CounterVec
	passed       *prometheus.CounterVec
	panics       prometheus.Counter
	serverPhase  prometheus.Observer
	wakePhase    prometheus.Observer
	headerByName map[proxyproto.Reason]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		wait: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postern_wait_seconds",
			Help: "How long clients waited for a server connection, of those that had to.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}),
		wake: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "postern_wake_seconds",
			Help: "How long machines took from the start to Postgres's first answer.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 12)}),
		phase: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "postern_login_phase_seconds",
			Help: "How long the phases of a login took.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"phase"}),
		headers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_proxy_headers_total",
			Help: "PROXY headers by outcome."}, []string{"result"}),
		cancels: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_cancels_total",
			Help: "Cancel requests by outcome."}, []string{"result"}),
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_passed_clients_total",
			Help: "Clients of tenants that are not served here, by what came of passing them on to another node."}, []string{"result"}),
		observed: prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_observed_refusals_total",
			Help: "Connections and cancel requests let in that would be refused if the tenant enforced its restrictions."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "postern_panics_total",
			Help: "Recovered panics."}),
		headerByName: make(map[proxyproto.Reason]prometheus.Counter),
	}
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "postern_refusals_total",
		Help: "Connections refused, by reason. Failed logins are counted elsewhere."}, []string{"reason"})
	for r := uncounted + 1; r < numReasons; r++ {
		m.refused[r] = refusals.WithLabelValues(r.String())
	}
	for _, r := range proxyproto.Reasons() {
		m.headerByName[r] = m.headers.WithLabelValues(string(r))
	}
	for _, p := range []string{"proxy_header", "tls", "auth", "server_login"} {
		m.phase.WithLabelValues(p)
	}
	for _, r := range []string{"sent", "unknown", "refused", "idle", "waiting", "failed", "limit", "repeated", "forwarded", "lost", "late"} {
		m.cancels.WithLabelValues(r)
	}
	for _, r := range []string{passedOK, passedLimit, passedFailed} {
		m.passed.WithLabelValues(r)
	}
	m.serverPhase = m.phase.WithLabelValues("server_login")
	m.wakePhase = m.phase.WithLabelValues("wake")
	reg.MustRegister(m.wait, m.wake, m.phase, m.headers, refusals, m.observed, m.cancels, m.passed, m.panics)
	return m
}

// counters are one tenant's, written by its loop, by handshakes and replication
// sessions, and read by scrapes.
type counters struct {
	clientsActive, clientsIdle, clientsWaiting atomic.Int64
	dialing, idle, active, cleaning            atomic.Int64
	portion                                    atomic.Int64 // of the tenant, in a cluster
	replicas, replicaServers                   atomic.Int64 // replication sessions, and those that have a server
	transactions, queries                      atomic.Uint64
	bytesIn, bytesOut                          atomic.Uint64 // from and to clients
	loginsOK, loginsFailed, loginsAborted      atomic.Uint64
	serverLoginsOK, serverLoginsFailed         atomic.Uint64
	roleListsOK, roleListsFailed               atomic.Uint64
	machine                                    atomic.Int32 // machines.State
	wakes, suspends, pins                      tally
}

// tally counts by labels of which there are few. Safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[[2]string]uint64
}

func (t *tally) add(labels ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = make(map[[2]string]uint64)
	}
	var key [2]string
	copy(key[:], labels)
	t.n[key]++
}

func (t *tally) each(f func(labels [2]string, n uint64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for labels, n := range t.n {
		f(labels, n)
	}
}

var (
	descClients      = prometheus.NewDesc("postern_client_connections", "Clients by state.", []string{"tenant", "state"}, nil)
	descServers      = prometheus.NewDesc("postern_server_connections", "Server connections by state.", []string{"tenant", "state"}, nil)
	descPortion      = prometheus.NewDesc("postern_server_portion", "How many server connections this node may have of those that the tenant may have over all nodes.", []string{"tenant"}, nil)
	descPlaces       = prometheus.NewDesc("postern_client_portion", "How many clients this node may have of those that the tenant may have over all nodes, beside the few that each node may have anyway.", []string{"tenant"}, nil)
	descWaiting      = prometheus.NewDesc("postern_waiting_clients", "Clients that wait for a server connection.", []string{"tenant"}, nil)
	descTransactions = prometheus.NewDesc("postern_transactions_total", "Transactions completed.", []string{"tenant"}, nil)
	descQueries      = prometheus.NewDesc("postern_queries_total", "Queries and executions passed on to servers.", []string{"tenant"}, nil)
	descBytes        = prometheus.NewDesc("postern_bytes_total", "Bytes received from and sent to clients after login.", []string{"tenant", "direction"}, nil)
	descLogins       = prometheus.NewDesc("postern_logins_total", "Client logins by result.", []string{"tenant", "result"}, nil)
	descServerLogins = prometheus.NewDesc("postern_server_logins_total", "Logins on the tenant's servers by result.", []string{"tenant", "result"}, nil)
	descRoleLists    = prometheus.NewDesc("postern_role_lists_total", "Times that the tenant's server was asked for its roles (auth_query), by result.", []string{"tenant", "result"}, nil)
	descPins         = prometheus.NewDesc("postern_pins_total", "Clients that kept their server for the sake of session state, by its kind.", []string{"tenant", "reason"}, nil)
	descWakes        = prometheus.NewDesc("postern_wakes_total", "Wakes of the tenant's machine by result.", []string{"tenant", "result"}, nil)
	descSuspends     = prometheus.NewDesc("postern_suspends_total", "Suspends of the tenant's machine by reason and result.", []string{"tenant", "reason", "result"}, nil)
	descMachine      = prometheus.NewDesc("postern_machine_state", "1 for the state that the tenant's machine is in.", []string{"tenant", "state"}, nil)
	descTenantDenied = prometheus.NewDesc("postern_tenant_refusals_total", "Connections to this tenant refused, by reason.", []string{"reason"}, nil)
	descObserved     = prometheus.NewDesc("postern_tenant_observed_refusals_total", "Connections and cancel requests of this tenant let in that would be refused if it enforced its restrictions.", nil, nil)
	descLag          = prometheus.NewDesc("postern_loop_lag_seconds", "How long the latest posted function waited for the loop.", []string{"loop"}, nil)
)

// tenantDescs are those with a tenant. It is never changed.
var tenantDescs = []*prometheus.Desc{descClients, descServers, descPortion, descPlaces, descWaiting, descTransactions, descQueries, descBytes, descLogins, descServerLogins, descRoleLists, descPins, descWakes, descSuspends, descMachine}

// Describe implements prometheus.Collector.
func (g *Gate) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range tenantDescs {
		ch <- d
	}
	ch <- descLag
}

// Collect implements prometheus.Collector: it reads what the loops publish and
// disturbs none of them.
func (g *Gate) Collect(ch chan<- prometheus.Metric) {
	for i, l := range g.loops {
		ch <- prometheus.MustNewConstMetric(descLag, prometheus.GaugeValue, l.Lag().Seconds(), loopName(i))
	}
	for _, t := range g.runtimeTenants() {
		t.collect(ch)
	}
}

// collect gives the tenant's own series.
func (t *tenant) collect(ch chan<- prometheus.Metric) {
	c := &t.counters
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), append([]string{t.id}, labels...)...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), append([]string{t.id}, labels...)...)
	}
	gauge(descClients, c.clientsActive.Load(), "active")
	gauge(descClients, c.clientsIdle.Load(), "idle")
	gauge(descClients, c.clientsWaiting.Load(), "waiting")
	gauge(descClients, c.replicas.Load(), "replication")
	gauge(descServers, c.active.Load(), "active")
	gauge(descServers, c.idle.Load(), "idle")
	gauge(descServers, c.dialing.Load(), "login")
	gauge(descServers, c.cleaning.Load(), "cleaning")
	gauge(descServers, c.replicaServers.Load(), "replication")
	if t.shares != nil {
		gauge(descPortion, c.portion.Load())
	}
	if n, ok := t.places.portion(); ok {
		gauge(descPlaces, int64(n))
	}
	gauge(descWaiting, c.clientsWaiting.Load())
	count(descTransactions, c.transactions.Load())
	count(descQueries, c.queries.Load())
	count(descBytes, c.bytesIn.Load(), "in")
	count(descBytes, c.bytesOut.Load(), "out")
	count(descLogins, c.loginsOK.Load(), "ok")
	count(descLogins, c.loginsFailed.Load(), "failed")
	count(descLogins, c.loginsAborted.Load(), "aborted")
	count(descServerLogins, c.serverLoginsOK.Load(), "ok")
	count(descServerLogins, c.serverLoginsFailed.Load(), "failed")
	if ok, failed := c.roleListsOK.Load(), c.roleListsFailed.Load(); ok+failed > 0 { // else nobody has asked
		count(descRoleLists, ok, "ok")
		count(descRoleLists, failed, "failed")
	}
	c.pins.each(func(l [2]string, n uint64) { count(descPins, n, l[0]) })
	if !t.hasMachine.Load() {
		return
	}
	c.wakes.each(func(l [2]string, n uint64) { count(descWakes, n, l[0]) })
	c.suspends.each(func(l [2]string, n uint64) { count(descSuspends, n, l[0], l[1]) })
	now := machines.State(c.machine.Load())
	for _, s := range machines.States() {
		is := int64(0)
		if s == now {
			is = 1
		}
		gauge(descMachine, is, s.String())
	}
}

// TenantMetrics collects what concerns one tenant alone: its series among the
// gate's, and its refusals. It fails with ErrNoTenant.
func (g *Gate) TenantMetrics(id string) (prometheus.Gatherer, error) {
	if _, known := g.opts.Directory.Tenant(id); !known {
		return nil, ErrNoTenant
	}
	r := prometheus.NewRegistry()
	if err := r.Register(tenantCollector{g, id}); err != nil {
		return nil, err
	}
	return r, nil
}

// tenantCollector is one tenant's part of the gate.
type tenantCollector struct {
	gate *Gate
	id   string
}

// Describe implements prometheus.Collector, as Collect does.
func (c tenantCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range tenantDescs {
		ch <- d
	}
	ch <- descTenantDenied
	ch <- descObserved
}

// Collect makes no tenant: one that nobody has used has its refusals alone.
func (c tenantCollector) Collect(ch chan<- prometheus.Metric) {
	denials := c.gate.denials.of(c.id)
	for r := uncounted + 1; r < numReasons; r++ {
		ch <- prometheus.MustNewConstMetric(descTenantDenied, prometheus.CounterValue, float64(denials.refused[r].Load()), r.String())
	}
	ch <- prometheus.MustNewConstMetric(descObserved, prometheus.CounterValue, float64(denials.observed.Load()))
	c.gate.mu.Lock()
	t := c.gate.tenants[c.id]
	c.gate.mu.Unlock()
	if t != nil {
		t.collect(ch)
	}
}
