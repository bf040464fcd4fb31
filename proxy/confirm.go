// Whether what is known of a pool's servers still holds when a client is greeted with it: a server that has rested is asked.

package proxy

import (
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

const (
	// freshFor is how old what a client is greeted with may be. What changes by
	// itself (by a promotion, a reload) a server reports with its next answer,
	// and not before.
	freshFor = time.Second
	// confirmFor is how long a server may take to answer. It has nothing to do but
	// that, and clients wait for their greeting.
	confirmFor = 3 * time.Second
)

// question is put to one server of a pool at a time: a Sync, which changes
// nothing. Before its answer the server reports what is new.
type question struct {
	server  *server // nil: none is asked
	asked   time.Time
	clients []*client // who will be greeted
}

// confirm greets a client with what is known, at once or when it is known to
// hold still. A sleeping machine is not woken for that. Where all servers are
// busy and no more can be had it has to do: what is new is told by the next
// answer of any of them.
func (c *client) confirm() {
	t, p := c.tenant, c.pool
	now := t.loop.Now()
	switch {
	case c.params.Told() == nil:
		c.login()
	case now.Sub(p.confirmed) < t.gate.freshFor, !t.mayDial():
		c.welcome()
	case p.question.server != nil, p.ask(now):
		p.question.clients = append(p.question.clients, c)
	case p.hearsSoon(now):
		c.login()
	default:
		c.welcome()
	}
}

// hearsSoon reports whether waiting for a server is of use to who could be greeted without: one that logs in tells what is new, or that
// it lets nobody in.
func (p *serverPool) hearsSoon(now time.Time) bool {
	return p.books.Servers() == 0 && p.books.DialAfter().After(now) || p.books.Counts().Dialing > 0 || p.books.CanGrow(now)
}

// waitsInVain reports whether a client waits for its greeting behind others that have got, before it, what was hoped for: they
// may keep it for long.
func (c *client) waitsInVain(now time.Time) bool {
	return c.greeting() && c.mode != sessionMode && c.params.Told() != nil && c.tenant.mayDial() && !c.pool.hearsSoon(now)
}

// login has a client greeted by a server, as the first one is.
func (c *client) login() {
	if c.acquire() {
		c.resume()
	}
}

// welcome greets a client that has no server.
func (c *client) welcome() {
	c.told = c.params.Told()
	c.greet()
	c.resume()
	if t := c.tenant; !c.gone() && t.conf != nil && t.conf.Machine != nil && t.conf.Machine.Wake == tenants.WakeOnConnect {
		t.want()
	}
}

// ask puts the question to a server that rests, perhaps with its client. False:
// there is none.
func (p *serverPool) ask(now time.Time) bool {
	for b := range p.books.Live() {
		s := b.Owner.(*server)
		if s.asked || s.cancels > 0 || s.client == nil && !s.link.Free() || s.client != nil && !s.betweenTransactions() {
			continue
		}
		s.asked = true
		s.link.Sent(link.Entry{Kind: link.Sync, Mode: link.Internal})
		s.conn.Write(pgwire.AppendSync(nil))
		p.question = question{server: s, asked: now}
		return true
	}
	return false
}

// answered is when a server that was asked has answered. Who waits is greeted in
// a turn of its own: this one is the server's.
func (s *server) answered() {
	s.asked, s.heardAt = false, s.loop.Now()
	p := s.pool
	p.confirmed = s.heardAt
	if p.question.server == s {
		clients := p.question.clients
		p.question = question{}
		p.tenant.post(func() { greetAll(clients, true) })
	}
}

// greetAll looks again at clients that have waited for an answer.
func greetAll(clients []*client, confirmed bool) {
	for _, c := range clients {
		switch {
		case c.gone():
		case confirmed && c.params.Told() != nil:
			c.welcome()
		default:
			c.confirm()
		}
	}
}

// sweepQuestion gives up a server that does not answer, and with it those of the
// pool that have rested as long: if a network has gone they would be silent,
// too, one after the other, and clients would wait for each. Who waits gets to
// know from a server that logs in.
func (p *serverPool) sweepQuestion(now time.Time) {
	q := p.question
	switch {
	case q.server == nil:
		return
	case q.server.closing(): // another is asked
	case now.Sub(q.asked) < confirmFor:
		return
	default:
		for _, s := range p.silent() {
			s.lost("no answer to a question of Postern's own")
		}
	}
	p.question = question{}
	greetAll(q.clients, false)
}

// silent are the idle servers that were not heard lately.
func (p *serverPool) silent() (all []*server) {
	for b := range p.books.Live() {
		if s := b.Owner.(*server); b.State() == pool.Idle && s.unheard() {
			all = append(all, s)
		}
	}
	return all
}

// defaultIs takes over what a server reports by itself: it holds for whoever
// has not set the parameter. What it means for others is learned again. False:
// the servers report too much.
func (p *serverPool) defaultIs(param pgwire.Param) bool {
	return p.tenant.affords(p.sets.DefaultIs(param, &p.reports, p.remember))
}

// unheard reports whether a server has not said anything for so long that it may
// have something to report.
func (s *server) unheard() bool { return s.loop.Now().Sub(s.heardAt) >= s.tenant.gate.freshFor }
