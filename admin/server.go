// The HTTP server: its bounds, its start and its end.

package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/postern/postern/files"
	"github.com/postern/postern/tenants"
)

const (
	defaultMaxConns = 256

	maxHeader = 16 << 10    // bytes of a request's header, to which net/http adds 4 KiB of slack
	maxBody   = 64 << 10    // bytes of a request's body
	maxScrape = 8           // scrapes at the same time; they share one collection
	refusals  = time.Minute // at most one log line of a kind in this time

	headerTimeout = 5 * time.Second  // to read a request's header
	readTimeout   = 10 * time.Second // to read a request
	gateTimeout   = 5 * time.Second  // for the gate to answer
	storeTimeout  = 5 * time.Second  // for the store to answer
	noteTimeout   = 2 * time.Second  // for the audit log to take what is over
	scrapeTimeout = 20 * time.Second // to collect and encode metrics
	writeTimeout  = 30 * time.Second // from the end of the header to the end of the answer
	idleTimeout   = time.Minute      // between two requests
	stopTimeout   = 5 * time.Second  // for requests that run when the server is told to stop
)

// Options say what a Server shows, and to whom.
type Options struct {
	// TokenFile holds the bearer tokens, one per line; empty lines and lines that start with # do not count. Empty: there is no
	// token, and what wants one answers 401.
	TokenFile string
	// MaxConns bounds the open connections; more are closed at once. 0: 256.
	MaxConns int
	// MetricsPublic serves /metrics, and what is below it, without a token.
	MetricsPublic bool
	// Gatherer collects what /metrics shows. Required.
	Gatherer prometheus.Gatherer
	// Ready returns why the process should get no new clients, or nil. Everybody can read its text at /readyz, so it names no
	// tenant and no inner address. It must be quick and safe for concurrent use. nil: always ready.
	Ready func() error
	// Degraded returns what is not as it should be while new clients are welcome all the same, or nil; /readyz says it with 200.
	// What holds for Ready's text and its speed holds for this one. nil: nothing ever is.
	Degraded func() error
	// Members tells which other nodes the gossip sees. nil: this node is in no cluster.
	Members func() []Member
	// Nodes are the rows of the nodes in the store as this one has read them last, with its own, for when the store is away. The result is
	// not changed. nil: this node is in no cluster.
	Nodes func() []tenants.Node
	// Region is where this node is; "": it does not say.
	Region string
	// Gate answers for tenants and their machines. nil: requests about them are answered 503.
	Gate Gate
	// Registry reads and changes the store of tenants, and knows tokens beside those of TokenFile. nil: requests about what it has
	// are answered 503.
	Registry tenants.Registry
	// Hosts are the names by which we may be called, beside addresses, names without a dot and those in .internal.
	Hosts []string
	// Ways tells of the listeners for clients. nil: one for transactions at Postgres's usual port.
	Ways func() []WayIn
	// TenantDomain is where tenants have names of their own. Empty: nowhere.
	TenantDomain string
	// Log is told of every change that somebody asks for, of other refusals (rarely) and of faults. nil: nobody is.
	Log *slog.Logger
}

// WayIn is a listener for clients.
type WayIn struct {
	Mode string // of pools
	Port int
}

// Server answers admin requests. It is safe for concurrent use.
type Server struct {
	opts    Options
	handler http.Handler
	lane    *files.Lane // where the token file is read

	tokens    meters[digest, *meter]          // of those that were good lately
	strangers meters[netip.Prefix, *stranger] // by the address that wrong tokens come from

	// How often the log hears of a refusal and of a token file that cannot be read.
	refused, unreadable rate.Sometimes
}

// New makes a Server. It fails without a Gatherer, and if there is a token file in which no token can be read: better at
// start-up than with the first request. It starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Gatherer == nil {
		return nil, errors.New("admin: no Gatherer")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.MaxConns == 0 {
		opts.MaxConns = defaultMaxConns
	}
	if opts.Ready == nil {
		opts.Ready = func() error { return nil }
	}
	if opts.Degraded == nil {
		opts.Degraded = func() error { return nil }
	}
	if opts.Ways == nil {
		opts.Ways = func() []WayIn { return []WayIn{usualWay()} }
	}
	lane := files.NewLane()
	if opts.TokenFile != "" {
		if _, err := readTokens(lane, opts.TokenFile); err != nil {
			return nil, fmt.Errorf("admin: token file: %w", err)
		}
	}
	s := &Server{opts: opts, lane: lane, refused: rate.Sometimes{Interval: refusals}, unreadable: rate.Sometimes{Interval: refusals}}
	s.handler = s.mux()
	return s, nil
}

// Handler returns what Serve serves, without the server's bounds on time and connections.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers requests on ln until ctx is done, then lets those that run finish for a few seconds, closes what is left and
// returns nil. Before that it returns only if ln fails. It owns ln and closes it. No goroutine of it outlives it, except for a
// collection of metrics that does not return.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var conns atomic.Int64
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.opts.Log.Handler(), slog.LevelDebug), // broken requests, which strangers can send at will
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				if conns.Add(1) > int64(s.opts.MaxConns) {
					_ = c.Close() // the server notices, and reports StateClosed
				}
			case http.StateClosed:
				conns.Add(-1)
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	select {
	case err := <-served:
		_ = srv.Close()
		return fmt.Errorf("admin: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close()
	}
	<-served
	return nil
}
