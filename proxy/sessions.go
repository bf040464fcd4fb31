// A tenant's sessions, for whoever manages it: which there are, and their end.

package proxy

import (
	"cmp"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/proxy/console"
)

// ErrNoSession means that the tenant has no session with the id.
var ErrNoSession = errors.New("the tenant has no such session")

// Session is a client that is logged in.
type Session struct {
	ID          string // names this session of this process, and never another one
	User        string
	Database    string
	Listener    string
	Client      netip.AddrPort
	Mode        string    // session, transaction, statement or replication
	State       string    // idle, active or waiting
	Since       time.Time // it came
	Active      time.Time // since when it is in its state, as far as is known; else when it came
	TLS         bool
	Application string
	Server      bool // it holds a server connection

	number uint64 // in the order in which they came
}

// Sessions lists a tenant's sessions that came after the one called after ("": from the first), at most limit of them, in
// the order in which they came. It fails with ErrNoTenant, ErrGateClosed, or ErrNoSession if after was never an id.
func (g *Gate) Sessions(tenant, after string, limit int) ([]Session, error) {
	p := page{limit: limit}
	if after != "" {
		number, ok := g.sessionIDs.number(after)
		if !ok {
			return nil, ErrNoSession
		}
		p.after = number
	}
	err := g.withSessions(tenant, func(c *client) { p.add(c.id, c.shown) }, func(r *replica) { p.add(r.id, r.shown) })
	p.cut()
	return p.list, err
}

// EndSession ends one session at the next boundary between messages to its client. It fails with ErrNoTenant, ErrNoSession
// or ErrGateClosed.
func (g *Gate) EndSession(tenant, id string) error {
	number, ok := g.sessionIDs.number(id)
	if !ok {
		number = math.MaxUint64 // which nobody has: whether the tenant is there comes first
	}
	n, err := g.endSessions(tenant, func(id uint64) bool { return id == number })
	if err == nil && n == 0 {
		return ErrNoSession
	}
	return err
}

// EndSessions ends all that a tenant has now, in the same way, and says how many. It fails with ErrNoTenant or
// ErrGateClosed.
func (g *Gate) EndSessions(tenant string) (int, error) {
	return g.endSessions(tenant, func(uint64) bool { return true })
}

func (g *Gate) endSessions(tenant string, which func(number uint64) bool) (n int, err error) {
	err = g.withSessions(tenant,
		func(c *client) {
			if which(c.id) {
				n++
				c.revoke(errKilled, "killed")
			}
		},
		func(r *replica) {
			if which(r.id) {
				n++
				r.end(&ending{"killed", errKilled})
			}
		})
	return n, err
}

// withSessions calls one of the functions, on the loop, for each session that a tenant has and that nobody has ended.
func (g *Gate) withSessions(id string, ofClients func(*client), ofReplicas func(*replica)) error {
	if _, ok := g.opts.Directory.Tenant(id); !ok {
		return ErrNoTenant
	}
	g.mu.Lock()
	t := g.tenants[id]
	g.mu.Unlock()
	if t == nil {
		return nil // nobody has used it
	}
	alive := t.eachClient(func(c *client) {
		if c.revoked == nil {
			ofClients(c)
		}
	})
	alive = alive && t.call(func() {
		g.replicas.each(t, func(r *replica) {
			if r.ctx.Err() == nil {
				ofReplicas(r)
			}
		})
	})
	if !alive {
		return ErrGateClosed
	}
	return nil
}

// eachClient calls f on the loop, in turns that each are short, for every client that is there now. Nobody is missed, since it
// goes backwards: the place of one that leaves is taken by the last, who has had his turn. So some may be met twice.
func (t *tenant) eachClient(f func(*client)) (alive bool) {
	for end := math.MaxInt; end > 0; {
		alive = t.call(func() {
			end = min(end, len(t.clients))
			from := max(0, end-clientsAtATime)
			for _, c := range slices.Clone(t.clients[from:end]) {
				if !c.gone() {
					f(c)
				}
			}
			end = from
		})
		if !alive {
			return false
		}
	}
	return true
}

// page collects the first sessions after one, whatever the order in which they are met.
type page struct {
	after uint64
	limit int
	list  []Session
}

func (p *page) add(number uint64, shown func() Session) {
	if number <= p.after {
		return
	}
	p.list = append(p.list, shown())
	if len(p.list) > 2*p.limit+clientsAtATime {
		p.cut()
	}
}

func (p *page) cut() {
	slices.SortFunc(p.list, func(a, b Session) int { return cmp.Compare(a.number, b.number) })
	p.list = slices.CompactFunc(p.list, func(a, b Session) bool { return a.number == b.number })
	p.list = p.list[:min(len(p.list), p.limit)]
}

// shown describes the session. On its loop.
func (c *client) shown() Session {
	s := c.tenant.gate.sessionOf(c.id, c.socket())
	s.Client, s.Listener, s.Mode = c.peer.Client, c.listener.Name, c.mode.String()
	return s
}

// shown describes the session. On its tenant's loop.
func (r *replica) shown() Session {
	s := r.gate.sessionOf(r.id, r.sockets()[0])
	s.Client, s.Listener, s.Mode = r.peer.Client, r.listener.Name, "replication"
	return s
}

// sessionOf is what the console knows as well.
func (g *Gate) sessionOf(number uint64, s console.Socket) Session {
	return Session{ID: g.sessionIDs.id(number), User: s.User, Database: s.Database, State: s.State, Since: s.Connected, Active: s.Requested,
		TLS: s.TLS != "", Application: s.Application, Server: s.Link != "", number: number}
}
