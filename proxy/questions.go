// What Postern asks a server for itself, while its client waits: settings, what a transaction has left, rolling back.

package proxy

import (
	"net/netip"
	"time"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// answerFor is how long a server may take over what Postern asks it between two
// transactions of its client. The client waits meanwhile, and can cancel
// nothing.
const answerFor = 30 * time.Second

// question sends a question. The client waits for the end.
func (s *server) question(q lease.Question) {
	s.link.Forget()
	for _, kind := range q.Answers {
		s.link.Sent(link.Entry{Kind: kind, Mode: link.Internal})
	}
	s.clocks.own = s.loop.Now()
	s.conn.Write(q.Out)
}

// ask sends a query of our own.
func (s *server) ask(text string) {
	s.link.Forget()
	s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
	s.clocks.own = s.loop.Now()
	s.conn.Write(pgwire.AppendQuery(nil, text))
}

// sweepQuestions ends servers that do not answer what Postern has asked them.
func (t *tenant) sweepQuestions(now time.Time) {
	for s := range t.servers {
		if s.phase.Busy() && now.Sub(s.clocks.own) >= answerFor {
			s.lost("no answer to a question of Postern's own")
		}
	}
}

// prepare gives the server its client's parameters.
func (s *server) prepare(c *client) {
	c.block()
	list := params.Changes(s.params, c.params)
	s.replay = lease.NewReplay(list)
	if c.mode == sessionMode && s.link.Held() > 0 {
		s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
		s.conn.Queue(pgwire.AppendQuery(nil, lease.WithoutWaiting(s.params, "DEALLOCATE ALL")))
	}
	q := c.has.Ask()
	q.Change(s.params, list)
	s.question(q)
}

// inspect asks the server, between two transactions of its client, what there
// is of the kinds that may have changed.
func (s *server) inspect(c *client) {
	c.block()
	q := c.has.Ask()
	q.Inspect(s.inspection.Begin(), c.has.Names)
	s.question(q)
}

// inspected acts on the answer, and returns what it means for the lease.
func (s *server) inspected() (f lease.Facts) {
	c, i := s.client, &s.inspection
	switch unknown, again := i.Unknown(); {
	case again:
		return lease.Unknown
	case unknown:
		s.traces.MarkDirty() // then nobody else is to see it
	default:
		if set, asked := i.Settings(); asked && !i.Huge() {
			s.params = s.pool.sets.Intern(set)
			c.params = i.Reset(&c.has, &s.pool.sets, c.came, c.params, s.params)
			s.relearn()
		}
		c.count(i.Pins(&s.tenant.policies, &c.has, s.params != s.pool.fresh))
	}
	s.agreed = c.params
	if !i.Huge() && !s.params.Same(c.params) {
		f = lease.Differs // what it came with is to be there, in the place of what was reset
	}
	s.inspection = lease.Inspection{}
	return f
}

// agree takes note that the server has its client's parameters.
func (s *server) agree() {
	s.params, s.agreed = s.client.params, s.client.params
	s.relearn()
}

// relearn is called when a server has a known set of parameters. If it shows
// others than clients with that set are greeted with, defaults have changed.
func (s *server) relearn() {
	if !s.reported || s.traces.Failed() {
		return
	}
	s.reported = false
	if s.params.Told() != nil {
		s.pool.learn(s.params, s.shown)
	}
}

// longReport deals with a ParameterStatus that is too long to be looked into:
// the server is asked for what it says.
func (s *server) longReport() link.Verdict {
	if !s.phase.Audible() {
		return link.Swallow
	}
	s.noteReport()
	return link.ToClient
}

// withAddress adds the client's address to what it came with, in the way that
// its tenant wants. What a client claims about its address is dropped.
func withAddress(list []pgwire.Param, how tenants.ClientAddress, client netip.AddrPort) []pgwire.Param {
	switch how {
	case tenants.AddressGUC:
		return params.WithAddress(list, client)
	case tenants.AddressName:
		return params.WithAddressInName(list, client)
	}
	return params.WithoutAddress(list)
}
