// How a client's session ends: sent away, refused, or of its own accord.

package proxy

import (
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/pgwire"
)

// revoke ends the session at the next boundary between messages to the client.
func (c *client) revoke(e *pgwire.Error, reason string) {
	if c.server == nil || !c.server.midFrame() {
		c.fail(e, reason)
		return
	}
	c.revoked, c.reason = e, reason
}

// sendAway has the session end as if this node drained, which its client's way here does.
func (c *client) sendAway() {
	if !c.gone() {
		c.away = true
		c.drain()
	}
}

// drains reports whether the session ends between two transactions.
func (c *client) drains() bool { return c.away || c.tenant.draining }

// drain ends the session if nothing of its own is running, and else later.
func (c *client) drain() {
	if c.books.Waiting() || len(c.in) > 0 {
		return // a request has arrived already
	}
	if s := c.server; s == nil || s.link.Free() && s.phase != lease.Preparing && s.phase != lease.Restoring {
		c.fail(errDraining, "drain")
	}
}

// fail tells the client why and ends the session. In the middle of a message
// nothing can be told.
func (c *client) fail(e *pgwire.Error, reason string) {
	if c.gone() {
		return
	}
	if c.server == nil || !c.server.midFrame() {
		c.write(e.Append(nil))
	}
	c.end(reason)
}

// leave ends the session once the requests that it has sent are answered, as
// Postgres does, which reads one message after the other. e is what the client
// is told then; nil: nothing.
func (c *client) leave(e *pgwire.Error, reason string) {
	if c.server != nil && !c.served() {
		c.stage = stageLeaving
		c.block()
		c.farewell, c.reason = e, reason
		return
	}
	c.depart(e, reason)
}

// served reports whether no request that its client ended is still to be
// answered. What it has left open, a COPY or an extended exchange, has no end.
func (c *client) served() bool {
	l := c.server.link
	return !l.AwaitsReady() || l.CopyIn()
}

func (c *client) depart(e *pgwire.Error, reason string) {
	if e != nil {
		c.fail(e, reason)
		return
	}
	c.end(reason)
}

// goneBecause names in the log why a client is gone: err is its connection's.
func goneBecause(err error) string {
	if errors.Is(err, syscall.ETIMEDOUT) {
		return "client_timeout" // it vanished: it answers no keepalive, or acknowledges nothing
	}
	return "client_closed"
}

// end is the way out of every session, unless tenant.verify gives up all of them.
func (c *client) end(reason string) {
	if c.gone() {
		return
	}
	parting := c.leaving()
	c.stage = stageGone
	t := c.tenant
	if s := c.server; s != nil {
		c.server = nil
		s.abandoned(c, parting)
	} else {
		c.pool.books.Leave(&c.books)
	}
	c.sess.Release(&t.stmts)
	c.has.Forget()
	c.keep(nil)
	if reason == "terminated" && c.conn.Pending() == 0 {
		c.conn.Close() // it has said that it reads no more
	} else {
		c.conn.Linger(lingerFor)
	}

	if c.mode == sessionMode {
		t.machine.sessions--
	}
	n := len(t.clients) - 1
	t.clients[c.index] = t.clients[n]
	t.clients[c.index].index = c.index
	t.clients[n] = nil
	t.clients = t.clients[:n]
	t.gate.forget(c)
	t.publish()
	t.log.LogAttrs(t.gate.ctx, slog.LevelInfo, "session ended",
		slog.String("client", c.peer.Client.String()), slog.String("user", clip(c.pool.key.user)), slog.String("database", clip(c.database)),
		slog.String("reason", reason), slog.Float64("seconds", time.Since(c.started).Seconds()),
		slog.Uint64("bytes_in", c.received), slog.Uint64("bytes_out", c.sent), slog.Uint64("queries", c.queries), slog.Bool("tls", c.conn.TLS()))
	t.dialMore()
}
