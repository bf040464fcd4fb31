// A handshake: from accept to the hand-over, one goroutine, one deadline, read from top to bottom.

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

// readBuffer is how much a handshake reads ahead.
const readBuffer = 4 << 10

// errQuiet ends a handshake without a word to the client and without a line in the log.
var errQuiet = errors.New("closed quietly")

// handshake is the state of a connection before its hand-over.
type handshake struct {
	gate     *Gate
	acceptor *acceptor
	tcp      *net.TCPConn // nil once handed over
	swap     *loop.Swap   // around tcp
	br       *bufio.Reader
	tls      *tls.Conn
	cert     *tls.Certificate // that the client was shown
	peer     proxyproto.Peer
	started  time.Time
	sslDone  bool
	gssDone  bool
	slot     bool // of the client's address is taken
	startup  *pgwire.Startup
	route    tenants.Route
	early    []byte // what the client sent ahead
	owed     []byte // goes out in front of what is written next
}

// handover is what a loop needs of a handshake.
type handover struct {
	tls    *tls.Conn
	swap   *loop.Swap
	early  []byte
	owed   []byte // to be written before the greeting
	key    poolKey
	params []pgwire.Param
}

// close ends what was not handed over.
func (h *handshake) close() {
	if h.slot {
		h.gate.leaveAddress(h.peer.Client.Addr())
	}
	if h.tcp != nil {
		h.tcp.Close()
	}
}

// run does it all.
func (h *handshake) run() {
	g := h.gate
	deadline := h.started.Add(g.opts.Timeouts.Login)
	tcp := h.tcp
	_ = tcp.SetDeadline(deadline)
	defer context.AfterFunc(g.ctx, func() { _ = tcp.SetDeadline(h.started) })() // the gate closes
	h.br = bufio.NewReaderSize(h.tcp, readBuffer)

	if !h.identify() {
		return
	}
	if !g.enterAddress(h.peer.Client.Addr()) {
		g.metrics.refusals.WithLabelValues(refusedLimit).Inc()
		return
	}
	h.slot = true
	_ = h.tcp.SetDeadline(deadline)

	err := h.negotiate()
	if err == nil {
		err = h.login()
	}
	if err != nil {
		h.refuse(err)
	}
}

// identify finds out who calls: the TCP peer, or who the PROXY header of a
// trusted sender names.
func (h *handshake) identify() bool {
	g := h.gate
	socket := socketAddr(h.tcp)
	if !h.acceptor.conf.ProxyProtocol {
		h.peer = proxyproto.Direct(socket)
		return true
	}
	count := func(r proxyproto.Reason) { g.metrics.headerByName[r].Inc() }
	if !h.acceptor.trusted.Contains(socket.Addr()) {
		count(proxyproto.ReasonUntrusted)
		g.metrics.refusals.WithLabelValues(refusedHeader).Inc()
		g.limited.log(g.log, slog.LevelWarn, "untrusted:"+h.acceptor.conf.Name, "connection from an address that is not in trusted_proxies closed",
			"listener", h.acceptor.conf.Name, "address", socket.Addr().String())
		return false
	}
	_ = h.tcp.SetDeadline(h.started.Add(min(g.opts.Timeouts.ProxyHeader, g.opts.Timeouts.Login)))
	peer, err := proxyproto.Read(h.br, socket)
	if err == nil {
		count(proxyproto.ReasonOK)
		g.metrics.phase.WithLabelValues("proxy_header").Observe(time.Since(h.started).Seconds())
		h.peer = peer
		return true
	}
	var e *proxyproto.Error
	if !errors.As(err, &e) {
		return false
	}
	count(e.Reason)
	switch e.Reason {
	case proxyproto.ReasonLocal, proxyproto.ReasonEmpty:
		return false // health checks
	}
	g.metrics.refusals.WithLabelValues(refusedHeader).Inc()
	g.limited.log(g.log, slog.LevelWarn, "header:"+string(e.Reason), "connection without a usable PROXY header closed",
		"listener", h.acceptor.conf.Name, "address", socket.Addr().String(), "reason", string(e.Reason), "hint", e.Hint())
	return false
}

// negotiate goes through requests for encryption until there is a startup
// message, at most one request of each kind, and nothing that came in
// plaintext survives into TLS.
func (h *handshake) negotiate() error {
	first, err := h.br.Peek(1)
	if err != nil {
		return errQuiet
	}
	if first[0] == recordHandshake {
		if err := h.startTLS(true); err != nil {
			return err
		}
	}
	for {
		code, body, err := pgwire.ReadPacket(h.br)
		if err != nil {
			if err != io.EOF { // one that leaves between two packets did nothing wrong
				h.gate.metrics.refusals.WithLabelValues(refusedStartup).Inc()
			}
			return errQuiet // as Postgres: no answer to what is not the protocol
		}
		switch code {
		case pgwire.CodeCancel:
			if !h.cancelReplica(body) && !h.cancelConsole(body) {
				h.cancel(body)
			}
			return errQuiet
		case pgwire.CodeSSL:
			if h.sslDone || len(body) != 0 {
				return errUnsupported(code)
			}
			if err := h.answerSSL(); err != nil {
				return err
			}
		case pgwire.CodeGSSENC:
			if h.gssDone || len(body) != 0 {
				return errUnsupported(code)
			}
			h.gssDone = true
			if h.br.Buffered() > 0 {
				return errUnencryptedGSS
			}
			if err := h.write([]byte{'N'}); err != nil {
				return err
			}
		default:
			h.startup, err = pgwire.ParseStartup(code, body)
			if err != nil && code>>16 < 3 {
				return &versionTwo{err}
			}
			return err
		}
	}
}

// versionTwo is an error for a client of protocol 2 or older.
type versionTwo struct{ error }

func errUnsupported(code uint32) error {
	_, err := pgwire.ParseStartup(code, nil)
	return err
}

func (h *handshake) answerSSL() error {
	h.sslDone = true
	if h.gate.opts.Certificates == nil {
		if h.br.Buffered() > 0 {
			return errUnencrypted
		}
		return h.write([]byte{'N'})
	}
	// A ClientHello may come ahead of the answer; anything else is not TLS.
	if h.br.Buffered() > 0 {
		if b, _ := h.br.Peek(1); b[0] != recordHandshake {
			return errUnencrypted
		}
	}
	if err := h.write([]byte{'S'}); err != nil {
		return err
	}
	return h.startTLS(false)
}

// login routes, admits and authenticates the client, and hands it over.
func (h *handshake) login() error {
	g := h.gate
	s := h.startup
	if h.wantsConsole() {
		return h.loginConsole()
	}
	claim := tenants.Claim{User: s.User, Database: s.Database, Domain: g.opts.TenantDomain, Destination: h.peer.Destination.Addr()}
	if len(s.References) > 0 {
		claim.Reference = s.References[0]
		claim.ReferenceConflict = slices.ContainsFunc(s.References, func(r string) bool { return r != claim.Reference })
	}
	if h.tls != nil {
		claim.SNI = h.tls.ConnectionState().ServerName
	}
	route, err := tenants.Resolve(claim)
	if err != nil {
		g.metrics.refusals.WithLabelValues(refusedTenant).Inc()
		return errRoute(err)
	}
	if route.User == "" {
		g.metrics.refusals.WithLabelValues(refusedStartup).Inc()
		return fatal("28000", "no PostgreSQL user name specified in startup packet", "")
	}
	h.route = route
	conf, known := g.opts.Directory.Current().Tenant(route.Tenant)
	if err := h.admit(conf, known); err != nil {
		return err
	}
	if s.Negotiate {
		if err := h.write(pgwire.AppendNegotiate(nil, s.Version, s.Unrecognized)); err != nil {
			return err
		}
	}
	return h.authenticate(conf)
}

// admit asks everything that can be asked before the password, cheapest first.
func (h *handshake) admit(conf *tenants.Tenant, known bool) error {
	g := h.gate
	addr := h.peer.Client.Addr()
	refuse := func(reason string, e *pgwire.Error) error {
		g.metrics.refusals.WithLabelValues(reason).Inc()
		return e
	}
	if known {
		switch {
		case conf.RequireTLS && h.tls == nil:
			return refuse(refusedTLS, errTLSRequired)
		case !conf.Allow.Allows(addr):
			return refuse(refusedAddress, errAddress(addr, conf.ID))
		case g.clients.Load() >= g.admits.Load():
			return refuse(refusedLimit, errLimit)
		case g.tenant(conf.ID).admitted.Load() >= int64(conf.Pool.MaxClients):
			return refuse(refusedLimit, errTenantLimit)
		}
	}
	return h.throttled()
}

// handOver gives the client to its tenant's loop, with everything it has sent
// ahead. The place that was reserved goes with it.
func (h *handshake) handOver(t *tenant, conf *tenants.Tenant, at place) error {
	if h.gate.consoles.closed(conf.ID) {
		h.gate.release(t, at)
		return errDisabled
	}
	if h.startup.Replication != "" {
		if err := h.write(nil); err != nil {
			h.gate.release(t, at)
			return err
		}
		return h.replicate(t, conf, at)
	}
	g := h.gate
	user, database := at.user, at.database
	if !conf.AllowsDatabase(database) {
		g.release(t, at)
		return fatal("3D000", fmt.Sprintf(`database "%s" does not exist`, clip(database)), "")
	}
	if name := startOnly(h.startup.Params); name != "" {
		g.release(t, at)
		return fatal("55P02", fmt.Sprintf(`parameter "%s" cannot be set after connection start`, name), "A pooled connection has started already.")
	}
	mode := h.acceptor.mode
	if conf.Pool.Mode != "" {
		mode = parseMode(conf.Pool.Mode)
	}
	if n := h.br.Buffered(); n > 0 {
		h.early, _ = h.br.Peek(n)
	}
	c := &client{tenant: t, place: at, peer: h.peer, database: database, mode: mode, started: h.started, listener: h.acceptor.conf}
	c.key = g.keys.add(c, h.startup.Version == pgwire.Version32)
	tcp := h.tcp
	h.tcp = nil
	fd, err := loop.Detach(tcp)
	if err != nil {
		g.keys.remove(c.key)
		g.release(t, at)
		return err
	}
	over := handover{tls: h.tls, swap: h.swap, early: h.early, owed: h.owed, key: poolKey{user, database}, params: h.startup.Params}
	if !t.post(func() { t.admit(c, fd, over) }) {
		loop.CloseFD(fd)
		g.keys.remove(c.key)
		g.release(t, at)
	}
	return nil
}

// stream is where the client's bytes come from and go to.
func (h *handshake) stream() net.Conn {
	if h.tls != nil {
		return h.tls
	}
	return h.tcp
}

func (h *handshake) write(b []byte) error {
	if len(h.owed) > 0 {
		b, h.owed = append(h.owed, b...), nil
	}
	if _, err := h.stream().Write(b); err != nil {
		return errQuiet
	}
	return nil
}

// refuse tells the client, if it is to be told, and waits until it has read it.
func (h *handshake) refuse(err error) {
	if h.tcp == nil || errors.Is(err, errQuiet) {
		return
	}
	var old *versionTwo
	var e *pgwire.Error
	var out []byte
	switch {
	case errors.As(err, &old) && errors.As(old.error, &e):
		out = e.AppendV2(nil)
	case errors.As(err, &e):
		out = e.Append(nil)
	default:
		h.gate.limited.log(h.gate.log, slog.LevelInfo, "handshake", "handshake failed", "client", h.peer.Client.String(), "error", err)
		return
	}
	g := h.gate
	if h.startup == nil {
		g.metrics.refusals.WithLabelValues(refusedStartup).Inc()
	}
	g.limited.log(g.log, slog.LevelInfo, "refused:"+e.Code, "client refused", "client", h.peer.Client.String(), "tenant", clip(h.route.Tenant),
		"user", clip(h.route.User), "sqlstate", e.Code, "message", e.Message)
	if h.write(out) != nil {
		return
	}
	if h.tls != nil {
		_ = h.tls.CloseWrite()
	}
	_ = h.tcp.CloseWrite()
	_ = h.tcp.SetReadDeadline(time.Now().Add(lingerFor))
	_, _ = io.CopyN(io.Discard, h.tcp, 64<<10)
}
