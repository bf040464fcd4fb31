// What a client's messages may leave on its server: noted as they go by, and refused or forgotten where its tenant wants that.

package proxy

import (
	"crypto/rand"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// policiesOf compiles a tenant's.
func policiesOf(conf *tenants.Tenant) lease.Policies {
	p := lease.Policies{Always: conf.ResetAlways}
	for i, name := range sqltext.StateNames() {
		kind := sqltext.State(1) << i
		switch conf.State[tenants.StateKind(name)] {
		case tenants.PolicyTrack:
			p.Track |= kind
		case tenants.PolicyPin:
			p.Pin |= kind
		case tenants.PolicyReset:
			p.Reset |= kind
		case tenants.PolicyRefuse:
			p.Refuse |= kind
		}
	}
	return p.Compile()
}

// pin keeps the server for the client.
func (c *client) pin(kinds sqltext.State) { c.count(c.has.Pin(kinds)) }

// count counts why clients keep their servers.
func (c *client) count(pins sqltext.State) {
	for _, reason := range pins.Names() {
		c.tenant.counters.pins.add(reason)
	}
}

// mayLeave notes what a text that goes to the server may leave there. names
// tells the parameters that it sets; nil: unknown.
func (c *client) mayLeave(state sqltext.State, names func() []string) {
	c.has.Leave(&c.server.traces, &c.tenant.policies, state, c.params.Temporary(), names)
}

// mayName notes the parameters that a Bind may name: what follows the name of
// the statement in it. whole says that all of it is there.
func (c *client) mayName(portal, rest []byte, whole bool) {
	if state, _ := c.server.link.Bound(portal); state&sqltext.StateNameInBind != 0 {
		c.has.Bind(&c.server.traces, rest, whole)
	}
}

// refuses reports whether the tenant does not want what a text would leave.
func (c *client) refuses(text []byte) bool { return c.tenant.policies.Refuses(text) }

// mayReset takes note of a text in session mode: what came with the client is to
// be there again after a reset, and a server that not even a reset gets clean is
// to be nobody else's. It returns whether there may be a reset, and the databases
// that the text wants for itself.
func (c *client) mayReset(text []byte) (note sqltext.Note, databases []string) {
	note, state := sqltext.Scan(text)
	databases = c.vacates(note, text)
	s := c.server
	s.traces.Mark(&c.tenant.policies, state&sqltext.StateLoad)
	if c.came.Empty() {
		return 0, databases
	}
	if note&sqltext.Resets != 0 {
		s.traces.Note(state & sqltext.StateSet) // set_config, which no tag shows
	}
	if state&sqltext.StateNamed == 0 {
		return note & sqltext.Resets, databases
	}
	for _, name := range sqltext.ParameterNames(text) {
		c.has.Resets.Mention(name)
		if name == params.ClientAddress { // which is not for the client to set
			note |= sqltext.Resets
		}
	}
	return note & sqltext.Resets, databases
}

// completed notes what a command has left, by its tag. A server that is one
// client's may keep it all; only what it came with is to be there again after
// a reset.
func (s *server) completed(tag []byte, note sqltext.Note) {
	c := s.client
	switch {
	case c.mode != sessionMode:
		left := s.traces.Completed(&s.tenant.policies, tag, note)
		s.sequences.Drawn(left)
		s.discarded(tag)
		if string(tag) == "DISCARD ALL" {
			c.has.Discarded()
		}
	case string(tag) == "LOAD":
		s.traces.Mark(&s.tenant.policies, sqltext.StateLoad)
	case !c.came.Empty() && (string(tag) == "RESET" || string(tag) == "DISCARD ALL"),
		!c.came.Base().Empty() && string(tag) == "SET",   // later it counts what was set and what came
		note&sqltext.Resets != 0 && string(tag) == "SET": // perhaps TO DEFAULT
		s.traces.Note(sqltext.StateSet)
	}
	c.has.Resets.Completed(tag)
}

// noteReport notes that the server has reported a parameter that was not read.
func (s *server) noteReport() {
	if s.client.mode != sessionMode {
		s.traces.Note(sqltext.StateSet)
	}
}

// lendSequences begins a lease.
func (s *server) lendSequences() {
	c := s.client
	s.sequences.Lend(&c.has)
	if c.mode == sessionMode || c.pool.reads && !c.greeting() {
		s.discardSequences()
	}
}

// discardSequences is between two transactions.
func (s *server) discardSequences() {
	if s.sequences.Discard(&s.tenant.policies) {
		s.link.SentDiscard()
		s.conn.Write(pgwire.AppendQuery(nil, lease.WithoutWaiting(s.params, link.DiscardSequences)))
	}
}

// mustForget reports whether the server is to forget first what a text may
// read, or the client afterwards.
func (c *client) mustForget(state sqltext.State) bool {
	q, l := &c.server.sequences, c.server.link
	concerns, late := q.Concerns(&c.tenant.policies, state)
	if late {
		c.pool.reads = true
	}
	return concerns && q.Foreign() && !l.Skipping() && !l.CopyIn()
}

// forget puts DISCARD SEQUENCES before a message. within says that the client
// has an extended exchange open, or an unnamed portal.
func (c *client) forget(within bool) action {
	s := c.server
	s.sequences.Forgets()
	if out := c.tenant.insert[:0]; within {
		s.link.SentDiscardWithin()
		c.tenant.insert = lease.AppendDiscardWithin(out)
	} else {
		s.link.SentDiscard()
		c.tenant.insert = pgwire.AppendQuery(out, link.DiscardSequences)
	}
	return before
}

// discarded takes note of a tag, if it tells that sequences are forgotten.
func (s *server) discarded(tag []byte) {
	if c := s.client; s.sequences.Discarded(tag) && c != nil {
		c.has.Pins &^= sqltext.StateSequence
	}
}

// appendSeed appends the Query that sets the seed of random() to one that nobody knows.
func appendSeed(dst []byte) []byte {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	return lease.AppendSeed(dst, random)
}
