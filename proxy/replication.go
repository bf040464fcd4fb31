// A replication session: a client and a walsender of its own, outside the pools and the loops.

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/tenants"
)

const (
	// maxReplicas bounds a tenant's replication sessions. They are not counted
	// against max_servers, so that none can starve the pools: ten is Postgres's
	// default for max_wal_senders.
	maxReplicas = 10
	// physical stands for the database of physical replication, which has none, as
	// in pg_hba.conf.
	physical = "replication"
)

// replica is one replication session. It was admitted and has proved its
// password as everybody, and is a client of its tenant. Its life is told from
// top to bottom by run; whatever ends it calls end, from any goroutine.
type replica struct {
	// Static.
	gate     *Gate
	tenant   *tenant
	id       uint64 // in the console
	long     bool   // its cancel key has a long secret
	place    place  // what it counts against
	listener *Listener
	peer     proxyproto.Peer
	user     string
	database string // "replication" for a physical one
	kind     string // of the startup message: true or database
	settings []pgwire.Param
	started  time.Time
	ctx      context.Context // ends with the session; its cause is an *ending
	over     context.CancelCauseFunc

	// The client's connection. br is read by up, what is under it written by run.
	tcp socket
	tls *tls.Conn // nil in plaintext
	br  *bufio.Reader

	key cancelKey // run's; from the greeting on

	// The server's, from the moment that served is closed.
	server *backend.Conn
	target backend.Target // without credentials
	served chan struct{}

	// Owned by the loop's thread.
	seated bool   // has a server
	epoch  uint64 // of the machine, when it dialed

	// Shared.
	changed chan struct{} // the machine may stand otherwise; room for one
	copying sync.WaitGroup
	ebbing  atomic.Bool // the client sends no more
	goodbye atomic.Bool // the last that the client sent looks like a Terminate
	cancels crossing
	in, out atomic.Uint64 // bytes from and to the client
}

// ending is why a replication session is over.
type ending struct {
	reason string        // in the log
	told   *pgwire.Error // to a client that has not been greeted; nil: nothing
}

func (e *ending) Error() string { return e.reason }

// end ends the session, if it has not ended before.
func (r *replica) end(e *ending) { r.over(e) }

// why says what has ended the session: end, or the gate.
func (r *replica) why() *ending {
	var e *ending
	if errors.As(context.Cause(r.ctx), &e) {
		return e
	}
	return &ending{"shutdown", errDraining}
}

// replicate gives the client a session of its own, in place of one on the
// loop. The place that was reserved goes with it.
func (h *handshake) replicate(t *tenant, conf *tenants.Tenant, at place) error {
	g := h.gate
	r := &replica{gate: g, tenant: t, place: at, listener: h.via, peer: h.peer, user: at.user, database: at.database, kind: h.startup.Replication,
		settings: withAddress(h.startup.Params, conf.ClientAddress, h.peer.Client), started: h.started,
		tcp: h.tcp, tls: h.tls, br: h.br, served: make(chan struct{}), changed: make(chan struct{}, 1)}
	if r.database == "" {
		r.database = physical
	}
	if err := r.refusal(conf); err != nil {
		g.release(t, at)
		return err
	}
	if t.counters.replicas.Add(1) > maxReplicas {
		t.counters.replicas.Add(-1)
		g.release(t, at)
		return deny(denyReplicas)
	}
	_ = h.tcp.SetDeadline(time.Time{})
	h.tcp = nil
	r.ctx, r.over = context.WithCancelCause(g.ctx)
	r.id, r.long = g.ids.Add(1), h.startup.Version == pgwire.Version32
	g.replicas.add(r)
	if h.born != nil {
		h.born <- func() { r.end(&ending{"drain", errDraining}) }
	}
	if !g.spawn(r.run) {
		r.end(&ending{"shutdown", nil})
		r.leave()
	}
	return nil
}

// refusal says what speaks against the session now, in its startup message or
// in the tenant's configuration.
func (r *replica) refusal(conf *tenants.Tenant) error {
	for _, p := range r.settings {
		if backend.IsReserved(p.Name) { // from options: as Postgres, which knows no such setting
			return deny(denySetting, clip(p.Name))
		}
	}
	switch {
	case conf.AllowsDatabase(r.database):
		return nil
	case r.database == physical:
		return deny(denyPhysical)
	}
	return deny(denyDatabase, clip(r.database))
}

// run is the session.
func (r *replica) run() {
	defer r.leave()
	defer r.recovered()
	unblocked := r.unblock(r.tcp)
	r.copying.Go(r.up) // from the start, because it notices a client that does not wait
	r.awaitSilence(r.tcp, "client_timeout")
	greeted, over := r.serve()
	r.end(over)
	<-unblocked
	r.copying.Wait()
	var words []byte
	if told := r.why().told; told != nil && !greeted {
		words = told.Append(nil)
	}
	_ = farewell(r.tcp, r.tls, func() error { r.write(words); return nil })
	linger(r.tcp)
}

// unblock has the session's end interrupt whoever reads or writes. The channel
// is closed when that has happened, and new deadlines may be set.
func (r *replica) unblock(c net.Conn) <-chan struct{} {
	done := make(chan struct{})
	context.AfterFunc(r.ctx, func() {
		_ = c.SetDeadline(r.started)
		close(done)
	})
	return done
}

// awaitSilence ends the session when a peer acknowledges nothing any more.
func (r *replica) awaitSilence(conn syscall.Conn, reason string) {
	r.copying.Go(func() {
		if loop.AwaitSilence(r.ctx, conn, r.gate.opts.TCP.UserTimeout) {
			r.end(&ending{reason, nil})
		}
	})
}

// serve finds a server for the client and copies until one of them ends.
func (r *replica) serve() (greeted bool, over *ending) {
	conn, over := r.connect()
	if over != nil {
		return false, over
	}
	servers := &r.tenant.counters.replicaServers
	servers.Add(1)
	defer servers.Add(-1)
	defer conn.Net.Close()
	r.server = conn
	unblocked := r.unblock(conn.Net)
	if tcp, ok := conn.Net.Conn.(*net.TCPConn); ok {
		r.awaitSilence(tcp, "server_timeout")
	}
	over, ended := r.greet(), false
	if over == nil {
		close(r.served)
		over, ended = r.down()
	}
	r.end(over)
	<-unblocked
	if !ended {
		r.dismiss()
	}
	return true, over
}

// greet tells the client what the server said, but with a cancel key of ours.
func (r *replica) greet() *ending {
	var out []byte
	for _, p := range r.server.Parameters {
		out = pgwire.AppendParameterStatus(out, p)
	}
	r.key = r.gate.keys.add(r, r.tenant, r.long, r.server.PID)
	out = pgwire.AppendBackendKeyData(out, r.key.pid, r.key.secret)
	return r.write(pgwire.AppendReady(out, 'I'))
}

// recovered ends the session after a panic, which costs nobody else anything.
func (r *replica) recovered() {
	if p := recover(); p != nil {
		r.gate.metrics.panics.Inc()
		r.gate.log.Error("panic in replication session", "panic", p, "stack", string(debug.Stack()))
		r.end(&ending{"panic", nil})
	}
}

// leave is the last that is heard of the session.
func (r *replica) leave() {
	t := r.tenant
	r.tcp.Close()
	r.gate.replicas.remove(r)
	r.gate.keys.remove(r.key)
	t.counters.replicas.Add(-1)
	r.gate.release(t, r.place)
	t.post(t.used) // perhaps nothing needs the machine any more
	reason := r.why().reason
	if r.goodbye.Load() && (reason == "client_closed" || reason == "server_lost") {
		reason = "terminated"
	}
	t.log.LogAttrs(context.Background(), slog.LevelInfo, "session ended",
		slog.String("client", r.peer.Client.String()), slog.String("user", clip(r.user)), slog.String("database", clip(r.database)), slog.String("mode", "replication"),
		slog.String("reason", reason), slog.Float64("seconds", time.Since(r.started).Seconds()),
		slog.Uint64("bytes_in", r.in.Load()), slog.Uint64("bytes_out", r.out.Load()), slog.Bool("tls", r.tls != nil))
}
