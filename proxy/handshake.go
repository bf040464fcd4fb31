// A handshake: from accept to the hand-over, one goroutine, one deadline, read from top to bottom.

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
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

	versionTwo bool // the client speaks protocol 2, or an older one
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
		g.count(denyHandshakes, "")
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
		g.count(denyUntrusted, "")
		g.limited.log(g.log, slog.LevelWarn, logKey{cause: "untrusted:" + h.acceptor.conf.Name}, "connection from an address that is not in trusted_proxies closed",
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
	g.count(denyHeader, "")
	g.limited.log(g.log, slog.LevelWarn, logKey{cause: "header:" + string(e.Reason)}, "connection without a usable PROXY header closed",
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
			if err == io.EOF { // one that leaves between two packets did nothing wrong
				return errQuiet
			}
			return deny(denyProtocol) // as Postgres: no answer to what is not the protocol
		}
		switch code {
		case pgwire.CodeCancel:
			if !h.cancelConsole(body) {
				h.cancel(body)
			}
			return errQuiet
		case pgwire.CodeSSL:
			if h.sslDone || len(body) != 0 {
				return denyVersion(code)
			}
			if err := h.answerSSL(); err != nil {
				return err
			}
		case pgwire.CodeGSSENC:
			if h.gssDone || len(body) != 0 {
				return denyVersion(code)
			}
			h.gssDone = true
			if h.br.Buffered() > 0 {
				return &denied{denyStartup, errUnencryptedGSS}
			}
			if err := h.write([]byte{'N'}); err != nil {
				return err
			}
		default:
			h.startup, err = pgwire.ParseStartup(code, body)
			if err != nil {
				h.versionTwo = code>>16 < 3
				return denyMessage(err)
			}
			return nil
		}
	}
}

// denyVersion is for a request in the place of a startup message.
func denyVersion(code uint32) error {
	_, err := pgwire.ParseStartup(code, nil)
	return denyMessage(err)
}

// denyMessage is for a startup message that cannot be understood.
func denyMessage(err error) error {
	var e *pgwire.Error
	if !errors.As(err, &e) {
		return err
	}
	return &denied{denyStartup, e}
}

func (h *handshake) answerSSL() error {
	h.sslDone = true
	if h.gate.opts.Certificates == nil {
		if h.br.Buffered() > 0 {
			return &denied{denyStartup, errUnencrypted}
		}
		return h.write([]byte{'N'})
	}
	// A ClientHello may come ahead of the answer; anything else is not TLS.
	if h.br.Buffered() > 0 {
		if b, _ := h.br.Peek(1); b[0] != recordHandshake {
			return &denied{denyStartup, errUnencrypted}
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
	switch {
	case errors.Is(err, tenants.ErrConflict):
		return deny(denyTwoTenants)
	case err != nil:
		return deny(denyNoTenant)
	case route.User == "":
		return deny(denyNoUser)
	}
	h.route = route
	conf, known := g.opts.Directory.Current().Tenant(route.Tenant)
	if known {
		a := admission{conf: conf, secure: h.tls != nil, addr: h.peer.Client.Addr(), clients: g.clients.Load(), most: g.admits.Load()}
		if err := a.judge(func() int64 { return g.tenant(conf.ID).admitted.Load() }); err != nil {
			return err
		}
	}
	if err := h.throttled(); err != nil {
		return err
	}
	if s.Negotiate {
		if err := h.write(pgwire.AppendNegotiate(nil, s.Version, s.Unrecognized)); err != nil {
			return err
		}
	}
	return h.authenticate(conf)
}

// admission is what can be judged of a client before its password, without a
// trace of it anywhere.
type admission struct {
	conf    *tenants.Tenant
	secure  bool // over TLS
	addr    netip.Addr
	clients int64 // of all tenants
	most    int64
}

// judge asks everything, cheapest first. own counts the tenant's clients, and is
// asked only for those who may come otherwise.
func (a admission) judge(own func() int64) error {
	switch {
	case a.conf.RequireTLS && !a.secure:
		return deny(denyTLS)
	case !a.conf.Allow.Allows(a.addr):
		return deny(denyAddress, a.addr, a.conf.ID)
	case a.clients >= a.most:
		return deny(denyClients)
	case own() >= int64(a.conf.Pool.MaxClients):
		return deny(denyTenantClients)
	}
	return nil
}

// handOver gives the client to its tenant's loop, with everything it has sent
// ahead. The place that was reserved goes with it.
func (h *handshake) handOver(t *tenant, conf *tenants.Tenant, at place) error {
	if h.gate.consoles.closed(conf.ID) {
		h.gate.release(t, at)
		return deny(denyDisabled)
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
		return deny(denyDatabase, clip(database))
	}
	if name := params.StartOnly(h.startup.Params); name != "" {
		g.release(t, at)
		return deny(denyStartOnly, name)
	}
	mode := h.acceptor.mode
	if conf.Pool.Mode != "" {
		mode = parseMode(conf.Pool.Mode)
	}
	if n := h.br.Buffered(); n > 0 {
		h.early, _ = h.br.Peek(n)
	}
	c := &client{tenant: t, place: at, peer: h.peer, database: database, mode: mode, started: h.started, listener: h.acceptor.conf}
	c.id, c.long = g.ids.Add(1), h.startup.Version == pgwire.Version32
	tcp := h.tcp
	h.tcp = nil
	fd, err := loop.Detach(tcp)
	if err != nil {
		g.release(t, at)
		return err
	}
	over := handover{tls: h.tls, swap: h.swap, early: h.early, owed: h.owed, key: poolKey{user, database}, params: h.startup.Params}
	if !t.post(func() { t.admit(c, fd, over) }) {
		loop.CloseFD(fd)
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

// refuse counts a denial, tells the client, if it is to be told, and waits until
// it has read it. The log comes after the answer, which must not take longer for
// a tenant that exists.
func (h *handshake) refuse(err error) {
	if h.tcp == nil || errors.Is(err, errQuiet) {
		return
	}
	g, log := h.gate, h.gate.log
	var d *denied
	if !errors.As(err, &d) {
		g.limited.log(log, slog.LevelInfo, logKey{cause: "handshake"}, "handshake failed", "client", h.peer.Client.String(), "error", err)
		return
	}
	g.count(d.why, h.route.Tenant)
	if d.told == nil {
		return
	}
	out := d.told.Append(nil)
	if h.versionTwo {
		out = d.told.AppendV2(nil)
	}
	if err = h.write(out); err == nil {
		if h.tls != nil {
			_ = h.tls.CloseWrite()
		}
		_ = h.tcp.CloseWrite()
	}
	g.limited.log(log, slog.LevelInfo, g.logKey(h.route.Tenant, d.Error()), "client refused", "client", h.peer.Client.String(), "tenant", clip(h.route.Tenant),
		"user", clip(h.route.User), "cause", d.Error(), "sqlstate", d.told.Code, "message", d.told.Message)
	if err == nil {
		_ = h.tcp.SetReadDeadline(time.Now().Add(lingerFor))
		_, _ = io.CopyN(io.Discard, h.tcp, 64<<10)
	}
}
