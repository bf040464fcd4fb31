// Passing on: a client whose tenant may not be served in this region goes to a node of another one, with all its bytes, which nobody here
// reads. What names the tenant comes before TLS, or there is none: the destination in the PROXY header, TLS's server name, the startup message.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

// Streams is how a gate reaches nodes in other regions. Safe for concurrent use.
type Streams interface {
	// Nodes names those that may serve a tenant, the best first. It asks nobody.
	Nodes(tenant string, regions []string) []string
	// Open opens a stream to a node.
	Open(ctx context.Context, node string) (Stream, error)
}

// Stream is a connection between two nodes that nobody else can read along or have opened.
type Stream interface {
	net.Conn
	syscall.Conn // of TCP
	CloseWrite() error
	Abort()                // ends it so that the other side reads an error
	Left() <-chan struct{} // closed when the other node drains
}

// What came of passing a client on.
const (
	passedOK     = "ok"
	passedLimit  = "limit"
	passedFailed = "failed"
)

// answers of the node that a client is passed on to, before the first byte for the client.
const (
	answerServed   = 'K'
	answerDraining = 'D'
	answerBusy     = 'B'
	answerUnknown  = 'L' // it has no such listener
)

// passedSockets is what a passed client takes of the places of clients, at either node, beside its session's own: as many as it has sockets.
const passedSockets = 2

// passWithin bounds how long one node is tried.
const passWithin = 5 * time.Second

// errElsewhere ends the reading of a TLS handshake that is another node's.
var errElsewhere = errors.New("another node serves it")

// mayGoOn reports whether the client can go to another node at all.
func (h *handshake) mayGoOn() bool { return h.gate.opts.Streams != nil && !h.passed }

// elsewhere is the tenant called id if other nodes have to serve it; nil: it is served or refused here, or there is none.
func (h *handshake) elsewhere(id string) *tenants.Tenant {
	if id == "" || !h.mayGoOn() {
		return nil
	}
	conf, ok := h.gate.opts.Directory.Tenant(id)
	if !ok || conf.Residency.ServedIn(h.gate.opts.Region) {
		return nil
	}
	return conf
}

// flycast is the tenant that the destination in the PROXY header names; "": none.
func (h *handshake) flycast() string {
	conf, ok := h.gate.opts.Directory.Flycast(h.peer.Destination.Addr())
	if !ok {
		return ""
	}
	return conf.ID
}

// hosts is the tenant that a server name names; "": none.
func (h *handshake) hosts(server string) string {
	route, _ := tenants.Resolve(tenants.Claim{SNI: server, Domain: h.gate.opts.TenantDomain})
	return route.Tenant
}

// denyRegion says where a tenant is served.
func (g *Gate) denyRegion(conf *tenants.Tenant) *denied {
	if g.opts.TenantDomain != "" {
		return deny(denyRegion, "host "+conf.ID+"."+g.opts.TenantDomain+", which TLS's server name (SNI) tells before anything is said")
	}
	return deny(denyRegion, "a node in one of these regions: "+strings.Join(conf.Residency.Ingress, ", "))
}

func isRegion(err error) bool {
	d, ok := errors.AsType[*denied](err)
	return ok && d.why == denyRegion
}

// passOnHello is for a client whose TLS handshake has begun. Whoever serves it is asked for TLS as this node was.
func (h *handshake) passOnHello(conf *tenants.Tenant, hello []byte, direct bool) error {
	if direct {
		return h.passOnUntold(conf, hello, false)
	}
	return h.passOnUntold(conf, append(pgwire.AppendPacket(nil, pgwire.CodeSSL, nil), hello...), true)
}

// passOnUntold is for a client that cannot be told anything here: it waits for what only the other node can say.
func (h *handshake) passOnUntold(conf *tenants.Tenant, said []byte, answered bool) error {
	err := h.passOn(conf, said, answered)
	if !errors.Is(err, errQuiet) {
		h.logDenial(h.denied(err))
	}
	return errQuiet
}

// passOn has another node serve the client, which has said something already. answered says that it was told that TLS may begin: the other
// node says that, too, and it is not told twice. The handshake ends here in any case: quietly, if that went well.
func (h *handshake) passOn(conf *tenants.Tenant, said []byte, answered bool) error {
	g := h.gate
	h.route.Tenant = conf.ID
	if g.clients.Add(passedSockets) > g.admits.Load() {
		g.clients.Add(-passedSockets)
		g.metrics.passed.WithLabelValues(passedLimit).Inc()
		return deny(denyClients)
	}
	header, err := proxyproto.Header(h.peer, h.via.Name)
	if err == nil {
		ahead, _ := h.br.Peek(h.br.Buffered())
		var s Stream
		var node string
		if s, node, err = h.findNode(conf, append(append(header, said...), ahead...), answered); err == nil {
			g.metrics.passed.WithLabelValues(passedOK).Inc()
			h.passTo(conf, s, node, len(said)+len(ahead))
			return errQuiet
		}
	}
	g.clients.Add(-passedSockets)
	g.metrics.passed.WithLabelValues(passedFailed).Inc()
	g.limited.log(g.log, slog.LevelWarn, logKey{conf.ID, "pass on"}, "client not passed on to a node that may serve its tenant", "tenant", conf.ID,
		"regions", strings.Join(conf.Residency.Ingress, ","), "client", h.peer.Client.String(), "error", err)
	return deny(denyNoNode)
}

// findNode opens a stream to the first node that serves the client.
func (h *handshake) findNode(conf *tenants.Tenant, first []byte, answered bool) (Stream, string, error) {
	g := h.gate
	ctx, stop := context.WithDeadline(g.ctx, h.started.Add(g.opts.Timeouts.Login))
	defer stop()
	err := errors.New("there is no node in its regions")
	for _, node := range g.opts.Streams.Nodes(conf.ID, conf.Residency.Ingress) {
		var s Stream
		within, stop := context.WithTimeout(ctx, passWithin)
		if s, err = g.opts.Streams.Open(within, node); err == nil {
			if err = introduce(within, s, first, answered); err == nil {
				stop()
				return s, node, nil
			}
			s.Abort()
		}
		stop()
		if err = fmt.Errorf("node %s: %w", node, err); ctx.Err() != nil {
			break
		}
	}
	return nil, "", err
}

// introduce tells a node who comes, and waits until it takes it.
func introduce(ctx context.Context, s Stream, first []byte, answered bool) (err error) {
	interrupted := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !interrupted() && err == nil {
			err = ctx.Err()
		}
	}()
	if _, err := s.Write(first); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := s.Read(answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case answerServed:
	case answerDraining:
		return errors.New("it drains")
	case answerBusy:
		return errors.New("it has too many logins")
	case answerUnknown:
		return errors.New("it has no listener of this name")
	default:
		return errors.New("its answer means nothing")
	}
	if !answered {
		return nil
	}
	if _, err := s.Read(answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("it has no TLS for clients")
	}
	return nil
}

// passTo gives the client to a stream, on a goroutine of its own. Its place among the clients goes with it.
func (h *handshake) passTo(conf *tenants.Tenant, s Stream, node string, said int) {
	g, tcp, client := h.gate, h.tcp, h.peer.Client
	h.tcp = nil
	_ = tcp.SetDeadline(time.Time{})
	leave := func() {
		_ = tcp.Close()
		_ = s.Close()
		g.clients.Add(-passedSockets)
	}
	if !g.spawn(func() {
		defer leave()
		c := carriage{client: tcp, server: s, log: g.log, panics: g.metrics.panics.Inc}
		c.in.Add(uint64(said))
		why := c.run(g.ctx, g.opts.TCP.UserTimeout)
		g.log.LogAttrs(context.Background(), slog.LevelInfo, "passed client ended", slog.String("tenant", conf.ID), slog.String("client", client.String()),
			slog.String("node", node), slog.String("reason", why), slog.Float64("seconds", time.Since(h.started).Seconds()),
			slog.Uint64("bytes_in", c.in.Load()), slog.Uint64("bytes_out", c.out.Load()))
	}) {
		leave()
	}
}
