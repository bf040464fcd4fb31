// The serve command: builds the graph, runs it, and answers signals.

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/postern/postern/admin"
	"github.com/postern/postern/configs"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/tenants"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{Use: "serve", Short: "Run the gate", Args: cobra.NoArgs}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := needConfig(*path); err != nil {
			return err
		}
		conf, err := configs.Load(*path)
		if err != nil {
			return err
		}
		defer survivePipes()()
		out := newAsyncWriter(cmd.ErrOrStderr())
		defer out.flush()
		log := newLogger(conf.Log, out)
		p, err := build(conf, log, out.lost.Load)
		if err != nil {
			return err
		}
		p.path = *path
		return p.run(cmd.Context(), log, func() {})
	}
	return cmd
}

func newLogger(conf configs.Log, out io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(conf.Level)) // validated
	options := &slog.HandlerOptions{Level: level}
	if conf.Format == configs.LogText {
		return slog.New(slog.NewTextHandler(out, options))
	}
	return slog.New(slog.NewJSONHandler(out, options))
}

// process is everything that serve runs.
type process struct {
	conf      *configs.Config
	path      string // conf was read from; "": not to be read again
	directory *tenants.Directory
	store     tenantStore // which fills it
	cluster   *fellowship // nil: it is the only node
	certs     *certificates
	drivers   *drivers
	leases    *leases
	endRoles  func() // see roleStore
	gate      *proxy.Gate
	peers     *peers    // nil: there are none
	portions  *portions // likewise
	admin     *admin.Server
	adminLn   net.Listener
	left      func() // closes what the admin HTTP and the console have asked with

	shutdown chan struct{}   // the console's; what is sent to it drains
	hups     chan os.Signal  // SIGHUPs, also those that come before run
	reloads  chan chan error // who sends there is sent how a reload went
	ending   chan struct{}   // closed when nothing is reloaded any more

	tlsOK, tlsFailed atomic.Uint64 // reloads of certificates
}

// build makes the graph and binds the addresses; nothing runs yet. dropped counts the log lines that nobody will read.
func build(conf *configs.Config, log *slog.Logger, dropped func() uint64) (*process, error) {
	p := &process{conf: conf, shutdown: make(chan struct{}, 1), hups: make(chan os.Signal, 1), reloads: make(chan chan error), ending: make(chan struct{}),
		left: func() {}}
	signal.Notify(p.hups, syscall.SIGHUP) // before what may take long
	var err error
	if p.directory, err = tenants.NewDirectory(); err != nil {
		return nil, err
	}
	registry := newRegistry(p, dropped)
	if p.cluster, err = openCluster(conf, registry, log); err != nil {
		return nil, err
	}
	if p.store, err = openStore(conf, p.directory, p.storeHooks(), log); err != nil {
		return nil, err
	}
	if err = p.cluster.follow(p.store); err != nil {
		return nil, err
	}
	if p.certs, err = loadCertificates(conf); err != nil {
		return nil, err
	}
	secret, err := mockSecret(conf, log)
	if err != nil {
		return nil, err
	}
	if p.drivers, err = newDrivers(conf, log, registry); err != nil {
		return nil, err
	}
	p.directory.Subscribe(p.drivers.learn) // before the gate, which asks machines how they are
	options := gateOptions(conf, p.directory, p.certs, secret, log, registry)
	options.Region = region(conf)
	if p.leases, err = newLeases(p.store, conf.Cluster.Configured(), log); err != nil {
		return nil, err
	}
	p.directory.Subscribe(p.leases.learn)
	options.Driver = p.leases.guarded(p.drivers.of)
	options.Stalled = func(what string) { standsStill(what, log, os.Stderr, os.Exit) }
	if options.Console, err = p.console(); err != nil {
		return nil, err
	}
	options.OpenFiles = openFiles()
	options.Known = proxy.OpenKnown(conf.Machines.KnownFile(), log)
	if options.Roles, p.endRoles, err = roleStore(p.store); err != nil {
		return nil, err
	}
	store, left, err := registryOf(p.store)
	if err != nil {
		return nil, err
	}
	p.left = left
	p.share(&options, store)
	if err = p.divide(&options, conf, log); err != nil {
		return nil, err
	}
	if p.gate, err = proxy.New(options); err != nil {
		return nil, err
	}
	p.directory.Subscribe(p.drivers.changed) // after the gate: to revoke cannot wait for a server
	if conf.Admin.Address != "" {
		warnWithoutToken(conf, log)
		p.admin, err = admin.New(admin.Options{Registry: store,
			TokenFile: conf.Admin.TokenFile, MetricsPublic: conf.Admin.MetricsPublic, MaxConns: p.gate.AdminRoom(),
			Gatherer: registry, Ready: p.ready, Degraded: p.store.Degraded, Gate: control{p.gate, p.peers}, Hosts: conf.Admin.Hosts,
			Ways: p.ways, Members: p.cluster.members(), Nodes: p.cluster.rows(), Region: region(conf), TenantDomain: conf.TLS.TenantDomain, Log: log})
		if err != nil {
			return nil, err
		}
		var ln net.ListenConfig
		ln.SetMultipathTCP(false) // on which keepalives have no effect
		if p.adminLn, err = ln.Listen(context.Background(), conf.Admin.Network(), conf.Admin.Address); err != nil {
			return nil, fmt.Errorf("admin: %w", err)
		}
	}
	return p, nil
}

// warnWithoutToken says who can ask the admin API where nobody is an operator by a file. With a tenants file and public metrics that is
// what a gate alone needs.
func warnWithoutToken(conf *configs.Config, log *slog.Logger) {
	const unset = "admin.token_file is not set: "
	switch {
	case conf.Admin.TokenFile != "":
	case conf.Tenants.InPostgres():
		log.Warn(unset + "only who has a token of the store can change tenants by the API, and the first such token cannot be made")
	case !conf.Admin.MetricsPublic:
		log.Warn(unset + "nobody can ask the API or read metrics; health and readiness are all that is told")
	}
}

// ready says why new clients should go elsewhere, or nil.
func (p *process) ready() error { return cmp.Or(p.gate.Ready(), p.store.Ready()) }

// storeHooks are called when there is a gate.
func (p *process) storeHooks() storeHooks {
	return storeHooks{settled: func(ctx context.Context) error { return p.gate.Settled(ctx) }, applyBan: func(b proxy.Ban) { p.gate.ApplyBan(b) },
		here: p.cluster.here(), boot: p.cluster.boot()}
}

// openFiles is how many files the process may have open, 0 if that is not known. The soft limit is the hard one by now: Go
// raises it when a process starts, and gives children the one that it had found.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(limit.Cur, math.MaxInt32))
}

func gateLimits(l configs.Limits) proxy.Limits {
	return proxy.Limits{Clients: l.Clients, Handshakes: l.Handshakes, AddressRate: l.AddressRate, ServerStatements: l.ServerStatements, Pending: l.PendingMemoryMiB << 20,
		Statements: link.Limits{Named: l.Statements, NamedBytes: l.StatementMemoryMiB << 20}}
}

func gateOptions(conf *configs.Config, d *tenants.Directory, certs *certificates, secret []byte, log *slog.Logger, reg prometheus.Registerer) proxy.Options {
	t := conf.Timeouts
	o := proxy.Options{Directory: d, TenantDomain: conf.TLS.TenantDomain, MockSecret: secret,
		Timeouts: proxy.Timeouts{ProxyHeader: t.ProxyHeader, Login: t.Login, ServerConnect: t.ServerConnect, Wake: t.Wake},
		Session: tenants.Timeouts{Query: &t.Query, Transaction: &t.Transaction, IdleTransaction: &t.IdleTransaction, ClientIdle: &t.ClientIdle,
			QueryWait: &t.QueryWait, ServerIdle: &t.ServerIdle, ServerLifetime: &t.ServerLifetime},
		Limits:   gateLimits(conf.Limits),
		Throttle: netrestrict.ThrottleConfig{TenantFailures: conf.Auth.Throttle.TenantFailures, AddressFailures: conf.Auth.Throttle.AddressFailures, Window: conf.Auth.Throttle.Window, Block: conf.Auth.Throttle.Block},
		TCP:      proxy.TCP(conf.TCP),
		Loops:    conf.Loops, NoIOUring: conf.IOUring == configs.IOUringOff, Log: log, Registerer: reg}
	if certs != nil {
		o.Certificate = certs.choose
	}
	for _, l := range conf.Listeners {
		timeouts := tenants.Timeouts{Query: l.Timeouts.Query, Transaction: l.Timeouts.Transaction, IdleTransaction: l.Timeouts.IdleTransaction,
			ClientIdle: l.Timeouts.ClientIdle, QueryWait: l.Timeouts.QueryWait}
		o.Listeners = append(o.Listeners, proxy.Listener{Name: l.Name, Network: l.Network(), Address: l.Address, Mode: l.PoolMode,
			ProxyProtocol: l.ProxyProtocol == configs.ProxyRequire, Trusted: l.TrustedProxies, Timeouts: timeouts, Console: l.Console})
	}
	return o
}

// newRegistry holds what is measured about the process as a whole.
func newRegistry(p *process, dropped func() uint64) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_build_info", Help: "1, with the version as a label.",
			ConstLabels: prometheus.Labels{"version": buildVersion(), "go": runtime.Version()}}, func() float64 { return 1 }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postern_log_dropped_total", Help: "Log lines that nobody was there to read, or not fast enough."},
			func() float64 { return float64(dropped()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_directory_age_seconds", Help: "Age of the tenants in force."},
			func() float64 { return time.Since(p.store.Stats().LoadedAt).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_directory_last_reload_success", Help: "1 if the tenants' last reload succeeded."},
			func() float64 {
				if p.store.Stats().LastOK {
					return 1
				}
				return 0
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "postern_store_refused_tenants", Help: "Tenants of the store that cannot be put in force as it has them."},
			func() float64 { return float64(p.store.Stats().Refused) }),
		expiryCollector{p})
	reloads := func(what, result string, count func() uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "postern_reloads_total",
			Help: "Loads by what was loaded and how it went, the first included.", ConstLabels: prometheus.Labels{"what": what, "result": result}},
			func() float64 { return float64(count()) }))
	}
	reloads("tenants", "ok", func() uint64 { return p.store.Stats().OK })
	reloads("tenants", "failed", func() uint64 { return p.store.Stats().Failed })
	reloads("tls", "ok", p.tlsOK.Load)
	reloads("tls", "failed", p.tlsFailed.Load)
	return r
}

var descExpiry = prometheus.NewDesc("postern_tls_certificate_expiry_seconds", "Unix time at which a certificate expires.", []string{"name"}, nil)

// expiryCollector reports when the certificates in use expire.
type expiryCollector struct{ p *process }

func (e expiryCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descExpiry }

func (e expiryCollector) Collect(ch chan<- prometheus.Metric) {
	if e.p.certs == nil {
		return
	}
	for name, at := range e.p.certs.expiry() {
		ch <- prometheus.MustNewConstMetric(descExpiry, prometheus.GaugeValue, float64(at.Unix()), name)
	}
}

// allowThreads is for event loops, which hold a thread each while they are busy; everything else needs some, too.
func (p *process) allowThreads() {
	loops := p.conf.Loops
	if loops == 0 {
		loops = runtime.NumCPU()
	}
	runtime.GOMAXPROCS(runtime.NumCPU() + loops)
}

// run serves until a signal: SIGTERM or SIGINT drains, a second one ends at
// once, SIGHUP reloads. The end of until drains, too. started is called once
// every address answers; it must not wait for what run does next.
//
// Nothing that reads files stands on the way of a signal, and each kind of signal has a channel: one that is full of SIGHUPs
// would lose the SIGTERM.
func (p *process) run(until context.Context, log *slog.Logger, started func()) error {
	p.allowThreads()
	p.drivers.sweep() // while a signal still ends the process at once

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	defer signal.Stop(p.hups)
	defer p.endRoles()
	defer p.leases.close()

	ctx, cancel := context.WithCancel(context.Background())
	var side, reading sync.WaitGroup
	defer p.left()
	defer side.Wait()
	stopReading := sync.OnceFunc(func() {
		cancel()
		awaitBriefly(&reading, log)
	})
	defer stopReading()

	endCluster := p.startCluster()
	defer endCluster()
	reading.Go(func() { p.watch(ctx, log) })
	reading.Go(func() { p.leases.watch(ctx, p.gate) })
	reading.Go(func() { p.reloadWhenAsked(ctx, log) })
	if err := p.gate.Start(); err != nil {
		return err
	}
	if p.admin != nil {
		adminCtx, stop := context.WithCancel(context.Background())
		defer stop()
		side.Go(func() {
			if err := p.admin.Serve(adminCtx, p.adminLn); err != nil {
				log.Error("admin HTTP ended", "error", err)
			}
		})
		log.Info("admin HTTP", "address", p.adminLn.Addr().String())
	}
	for i, a := range p.gate.Addrs() {
		log.Info("listening", "listener", p.conf.Listeners[i].Name, "address", a.String(), "pool_mode", p.conf.Listeners[i].PoolMode)
	}

	started()

	for serving := true; serving; {
		select {
		case <-until.Done():
			serving = false
		case <-p.shutdown:
			serving = false
		case <-signals:
			serving = false
		}
	}
	close(p.ending)
	log.Info("draining", "for", p.conf.Timeouts.Drain.String())
	drainCtx, drained := context.WithTimeout(context.Background(), p.conf.Timeouts.Drain)
	defer drained()
	p.cluster.drain(drainCtx)
	side.Go(func() {
		select {
		case s := <-signals:
			log.Warn("closing now", "signal", s.String())
			drained()
		case <-drainCtx.Done():
		}
	})
	p.gate.Drain(drainCtx)
	drained()
	if err := p.drivers.close(); err != nil {
		log.Error("machines on this computer were not all stopped in order", "error", err)
	}
	endCluster() // which those needed that were left
	stopReading()
	log.Info("stopped")
	return nil
}
