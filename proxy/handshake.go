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
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/scram"
)

// readBuffer is how much a handshake reads ahead.
const readBuffer = 4 << 10

// errQuiet ends a handshake without a word to the client and without a line in the log.
var errQuiet = errors.New("closed quietly")

// handshake is the state of a connection before its hand-over.
type handshake struct {
	visitor
	trusted proxyproto.Trusted
	tcp     socket     // nil once handed over
	swap    *loop.Swap // around tcp
	br      *bufio.Reader
	tls     *tls.Conn
	cert    *tls.Certificate // that the client was shown
	sslDone bool
	gssDone bool
	slot    bool   // of the client's address is taken
	early   []byte // what the client sent ahead
	owed    []byte // goes out in front of what is written next

	versionTwo bool // the client speaks protocol 2, or an older one

	passed bool   // here by another node, which has said who it is; it goes no further
	said   []byte // the startup message as it came, if there are other nodes that it may go to
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

	err := h.addressRate() // before TLS: what it is told is told in plaintext
	if err == nil {
		err = h.negotiate()
	}
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
	if h.passed {
		return true
	}
	g := h.gate
	socket := socketAddr(h.tcp)
	if !h.via.ProxyProtocol {
		h.peer = proxyproto.Direct(socket)
		return true
	}
	count := func(r proxyproto.Reason) { g.metrics.headerByName[r].Inc() }
	if !h.trusted.Contains(socket.Addr()) {
		count(proxyproto.ReasonUntrusted)
		g.count(denyUntrusted, "")
		g.limited.log(g.log, slog.LevelWarn, logKey{cause: "untrusted:" + h.via.Name}, "connection from an address that is not in trusted_proxies closed",
			"listener", h.via.Name, "address", socket.Addr().String())
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
		"listener", h.via.Name, "address", socket.Addr().String(), "reason", string(e.Reason), "hint", e.Hint())
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
	if conf := h.elsewhere(h.flycast()); conf != nil {
		return h.passOnUntold(conf, nil, false)
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
			h.cancel(body)
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
			if h.tls == nil && h.mayGoOn() {
				h.said = pgwire.AppendPacket(nil, code, body)
			}
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
	if h.gate.opts.Certificate == nil {
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

// login admits the client, has it prove its password, and hands it over.
func (h *handshake) login() error {
	if h.wantsConsole() {
		return h.loginConsole()
	}
	if h.tls != nil {
		h.secure, h.host = true, h.tls.ConnectionState().ServerName
	}
	conf, err := h.admit()
	if isRegion(err) && h.said != nil {
		return h.passOn(conf, h.said, false)
	}
	if err != nil {
		return err
	}
	r, final, err := h.prove(h.gate.ctx, conf, h.sasl())
	if err != nil {
		return err
	}
	h.owed = pgwire.AppendAuthenticationOk(final)
	return h.handOver(r)
}

// sasl is the conversation about the password over this connection.
func (h *handshake) sasl() sasl {
	return sasl{h.br, h.stream(), scram.EndpointBinding(h.cert)}
}

// handOver gives the client to its tenant's loop, with everything it has sent
// ahead. The place that was reserved goes with it.
func (h *handshake) handOver(r reservation) error {
	err := h.refusal(r)
	if err == nil && h.startup.Replication != "" {
		if err = h.write(nil); err == nil {
			return h.replicate(r.tenant, r.conf, r.place)
		}
	}
	if err != nil {
		r.release()
		return err
	}
	if n := h.br.Buffered(); n > 0 {
		h.early, _ = h.br.Peek(n)
	}
	tcp := h.tcp
	h.tcp = nil
	fd, err := loop.Detach(tcp)
	if err != nil {
		r.release()
		return err
	}
	h.begin(r, fd, handover{tls: h.tls, swap: h.swap, early: h.early, owed: h.owed})
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
// it has read it.
func (h *handshake) refuse(err error) {
	if h.tcp == nil || errors.Is(err, errQuiet) {
		return
	}
	d := h.denied(err)
	if d == nil || d.told == nil {
		return
	}
	out := d.told.Append(nil)
	if h.versionTwo {
		out = d.told.AppendV2(nil)
	}
	err = farewell(h.tcp, h.tls, func() error { return h.write(out) })
	h.logDenial(d)
	if err == nil {
		linger(h.tcp)
	}
}
