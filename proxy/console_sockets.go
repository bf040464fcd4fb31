// What the console shows of single connections: clients, servers, and replication sessions, which are both.

package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/params"
)

// Clients are all that are logged in. The list moves while it is read.
func (v *consoleGate) Clients() (out []console.Socket) {
	for _, t := range v.gate.runtimeTenants() {
		for from, more := 0, true; more; from += clientsAtATime {
			more = false
			t.call(func() {
				end := min(from+clientsAtATime, len(t.clients))
				for _, c := range t.clients[min(from, end):end] {
					out = append(out, c.socket())
				}
				if more = end < len(t.clients); !more {
					t.gate.replicas.each(t, func(r *replica) { out = append(out, r.sockets()[0]) })
				}
			})
		}
	}
	return sorted(out, func(s *console.Socket) string { return s.Tenant })
}

// Servers are all connections to servers, those that are being made included.
func (v *consoleGate) Servers() (out []console.Socket) {
	v.gate.eachTenant(func(t *tenant) {
		for s := range t.servers {
			out = append(out, s.socket())
		}
		t.gate.replicas.each(t, func(r *replica) { out = append(out, r.sockets()[1:]...) })
	})
	slices.SortStableFunc(out, func(a, b console.Socket) int { return a.Connected.Compare(b.Connected) })
	return sorted(out, func(s *console.Socket) string { return s.Tenant })
}

// socket describes a client. On its loop.
func (c *client) socket() console.Socket {
	s := console.Socket{Tenant: c.tenant.id, Database: c.database, User: c.pool.key.user, State: "idle", Connected: c.started, Requested: c.quiet,
		CloseNeeded: c.revoked != nil || c.drains(), Ptr: fmt.Sprintf("%p", c), ID: int64(c.id), Pins: c.pinned().Names(), Statements: c.sess.Len(),
		Received: len(c.in), Pending: c.conn.Pending()}
	s.Addr, s.Port = hostPort(c.peer.Client)
	s.LocalAddr, s.LocalPort = hostPort(c.peer.Destination)
	s.Application, _ = c.params.Get(params.ApplicationName)
	if c.conn.TLS() {
		s.TLS = "TLS"
	}
	switch {
	case c.books.Waiting():
		s.State, s.Requested, s.Wait = "waiting", c.books.WaitedSince(), time.Since(c.books.WaitedSince())
	case c.server != nil:
		s.State, s.Link, s.PID, s.Since = "active", fmt.Sprintf("%p", c.server), int64(c.server.pid), c.books.WaitedSince()
		if asked := c.server.clocks.asked; !asked.IsZero() {
			s.Requested = asked
		}
	}
	if s.Requested.IsZero() {
		s.Requested = c.started
	}
	return s
}

// socket describes a server connection. On its loop.
func (s *server) socket() console.Socket {
	out := console.Socket{Server: true, Tenant: s.tenant.id, Database: s.pool.key.database, User: s.pool.key.user, Addr: s.target.Host,
		Port: int(s.target.Port), Connected: s.books.ConnectedAt(), Requested: s.clocks.asked, CloseNeeded: s.books.Retired(),
		Ptr: fmt.Sprintf("%p", s), PID: int64(s.pid), Received: len(s.in)}
	switch s.books.State() {
	case pool.Dialing:
		out.State = "new"
	case pool.Idle:
		out.State, out.Requested = "idle", s.books.IdleSince()
	case pool.Active:
		out.State = "active"
	default:
		out.State = "tested"
	}
	if s.client != nil {
		out.Link = fmt.Sprintf("%p", s.client)
	}
	if s.params != nil {
		out.Application, _ = s.params.Get(params.ApplicationName)
	}
	if s.conn != nil {
		out.Statements, out.Pending = s.link.Held(), s.conn.Pending()
		if s.conn.TLS() {
			out.TLS = "TLS"
		}
	}
	return out
}

// sockets describes a replication session: its client and, if it has one, its
// server. On its tenant's loop.
func (r *replica) sockets() []console.Socket {
	c := console.Socket{Tenant: r.tenant.id, Database: r.database, User: r.user, State: "waiting", Replication: "physical", Connected: r.started,
		Requested: r.started, Ptr: fmt.Sprintf("%p", r), ID: int64(r.id)}
	if r.kind == "database" {
		c.Replication = "logical"
	}
	c.Addr, c.Port = hostPort(r.peer.Client)
	c.LocalAddr, c.LocalPort = hostPort(r.peer.Destination)
	for _, p := range r.settings {
		if strings.EqualFold(p.Name, params.ApplicationName) {
			c.Application = p.Value
		}
	}
	if r.tls != nil {
		c.TLS = "TLS"
	}
	select {
	case <-r.served:
	default:
		c.Wait = time.Since(r.started)
		return []console.Socket{c}
	}
	s := c
	s.Server, s.Ptr, s.Link, s.PID, s.ID, s.State = true, fmt.Sprintf("%p", r.server), c.Ptr, int64(r.server.PID), 0, "active"
	s.Addr, s.Port, s.LocalAddr, s.LocalPort, s.TLS = r.target.Host, int(r.target.Port), "", 0, ""
	if r.server.TLS != nil {
		s.TLS = "TLS"
	}
	c.State, c.Link, c.PID = "active", s.Ptr, s.PID
	return []console.Socket{c, s}
}

func hostPort(a netip.AddrPort) (string, int) {
	if !a.Addr().IsValid() {
		return "", 0
	}
	return a.Addr().String(), int(a.Port())
}
