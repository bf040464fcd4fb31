// The rule of a lease at work: what it is told about the moment, and how what it says is carried out.

package proxy

import (
	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// next tells the rule what has happened, and returns what is to be done. What a
// lease has left counts from the moment at which the rule ends it.
func (s *server) next(e lease.Event, f lease.Facts) (do lease.Actions) {
	was := s.phase
	if s.phase, do = lease.Next(was, e, f); do&(lease.Release|lease.Part) != 0 {
		s.traces.End(&s.tenant.policies, &s.client.has, was)
	}
	return do
}

// facts are those of the moment. last says that nothing was received behind what
// the server has said.
func (s *server) facts(last bool) lease.Facts {
	f := s.traces.Facts()
	if last {
		f |= lease.Last
	}
	if s.link.Quiet() {
		f |= lease.Quiet
	}
	if s.link.Status() == 'I' {
		f |= lease.Outside
	}
	if s.cancels > 0 {
		f |= lease.Flying
	}
	if s.partial > 0 {
		f |= lease.Mid
	}
	c := s.client
	if c == nil {
		return f
	}
	if c.partial > 0 {
		f |= lease.Mid
	}
	if c.greeting() {
		f |= lease.Greeting
	}
	if c.mode == sessionMode || c.pinned() != 0 {
		f |= lease.Kept
	}
	return f
}

// atRest adds what the rule is to know where a transaction may have ended: what
// the server is to be asked about. Anything that pins the client to it is pinned.
func (s *server) atRest(f lease.Facts) lease.Facts {
	if !f.Rests() || !s.leaves() {
		return f
	}
	if f.Has(lease.Flying) {
		return f | lease.Noted // and is asked later
	}
	ask, pins := s.traces.Suspects(&s.tenant.policies, &s.client.has)
	s.client.pin(pins)
	f = s.facts(f.Has(lease.Last)) // which has changed what the client keeps, and what is to be reset
	if ask != 0 {
		s.inspection.Suspect(ask)
		f |= lease.Noted
	}
	return f
}

// leaves reports whether anything of what a lease did is to be looked at.
func (s *server) leaves() bool {
	if c := s.client; c.mode != sessionMode && !c.params.Same(s.agreed) {
		s.traces.Note(sqltext.StateSet) // or its default has changed
	}
	return s.traces.Any()
}

// goodbyes are the facts about a client that is to go. unread says that input
// of its counts as something that runs.
func (c *client) goodbyes(unread bool) (f lease.Facts) {
	if c.leaving() && c.served() {
		f |= lease.Departs
	}
	if c.drains() && c.server.link.Free() && !(unread && len(c.in) > 0) {
		f |= lease.Drains
	}
	return f
}

// outcome says how feed goes on after a ReadyForQuery.
type outcome uint8

const (
	goOn  outcome = iota
	taken         // what was gathered has been sent
	stop          // this server is no longer feed's
)

// ready deals with a ReadyForQuery that ends gathered, which goes to the
// client. last says that nothing was received behind it.
func (s *server) ready(gathered []byte, last bool) outcome {
	c := s.client
	if c == nil {
		return goOn // see fed
	}
	var f lease.Facts
	switch s.phase {
	case lease.Serving:
		f = s.served(last)
	case lease.Inspecting:
		if f = s.facts(last); f.Has(lease.Quiet) {
			f = s.inspected() | s.facts(last)
		}
	case lease.Preparing, lease.Restoring:
		if f = s.facts(last); f.Has(lease.Quiet) {
			s.heardAt = s.loop.Now()
			f |= s.replay.Facts()
		}
	default:
		f = s.facts(last)
	}
	return s.perform(s.next(lease.Ready, f), gathered, last)
}

// served keeps the books of a transaction, and returns the facts about its end.
func (s *server) served(last bool) lease.Facts {
	c := s.client
	s.answers()
	if s.link.Free() {
		s.sequences.Rest()
	}
	if s.link.Last().Mode == link.Internal {
		return c.goodbyes(true) // of something that was put in before its messages, which may not have come yet
	}
	outside := s.link.Status() == 'I'
	s.traces.Concluded(outside)
	f := s.facts(last) | c.goodbyes(false)
	if outside {
		c.tenant.counters.transactions.Add(1)
	} else if c.mode == statementMode && f.Has(lease.Quiet) {
		return f | lease.InBlock
	}
	if f&(lease.Departs|lease.Drains) != 0 {
		return f
	}
	return s.atRest(f)
}

// moved is when something may have ended that was waited for: see lease.Moved.
func (s *server) moved() {
	switch {
	case s.phase == lease.Serving && s.betweenTransactions():
		s.perform(s.next(lease.Moved, s.atRest(s.facts(true))), nil, true)
	case s.phase == lease.Condemned:
		s.perform(s.next(lease.Moved, s.facts(true)), nil, true)
	case s.phase.Cleaning():
		s.clean()
	}
}

// perform carries out what the rule says. gathered is what goes to the client
// with Tell; last as for ready.
func (s *server) perform(do lease.Actions, gathered []byte, last bool) outcome {
	if do == 0 {
		return goOn
	}
	c := s.client
	if do.Has(lease.Release) {
		s.release() // the next client first
		if do.Has(lease.Tell) {
			c.write(gathered)
		}
		return stop
	}
	s.inform(c, do, gathered)
	switch {
	case do.Has(lease.Depart):
		c.depart(c.farewell, c.reason)
		return stop
	case do.Has(lease.Dismiss):
		c.fail(errDraining, "drain")
		return stop
	case do.Has(lease.Prepare):
		s.prepare(c)
	case do.Has(lease.Inspect):
		s.inspect(c)
	case do.Has(lease.RollBack):
		s.ask("ROLLBACK")
	case do.Has(lease.Keep):
		s.discardSequences()
		return goOn
	case do.Has(lease.Close):
		s.refuse(c, do)
		return stop
	case do.Has(lease.Part):
		return s.beginCleaning(c, do, last)
	case do.Has(lease.Settle):
		if f := s.facts(last); f.Rests() {
			if done := s.perform(s.next(lease.Moved, s.atRest(f)), nil, last); done != goOn {
				return done // taken, too, where it has parted them and more was received: feed goes on with that
			}
		}
	}
	if s.client != c || s.closing() {
		return stop
	}
	return taken
}

// inform does what concerns the client's side of an event.
func (s *server) inform(c *client, do lease.Actions, gathered []byte) {
	if do.Has(lease.Accuse) {
		c.write(gathered[:len(gathered)-6]) // all but the ReadyForQuery
		c.write(errStatement.Append(nil))
	}
	if do.Has(lease.Absolve) {
		s.traces.RolledBack()
		c.write(pgwire.AppendReady(nil, 'I'))
	}
	if do.Has(lease.Tell) {
		s.give(gathered)
	}
	if do.Has(lease.Agree) {
		s.agree()
	}
	if do.Has(lease.Welcome) {
		c.meet(s)
	}
}

// release parts a clean server from its client and finds its next use.
func (s *server) release() {
	c := s.client
	s.endLease(c)
	s.pool.confirmed = s.heardAt
	s.use(s.pool.books.Release(&s.books, s.loop.Now()))
	if c.blocked() {
		c.conn.Again()
	}
}

// beginCleaning parts a server that is to get clean from its client, which may be
// told why. What follows answers nothing, so it is seen by nobody.
func (s *server) beginCleaning(c *client, do lease.Actions, last bool) outcome {
	s.endLease(c)
	s.pool.books.BeginCleaning(&s.books)
	s.within(resetFor)
	switch {
	case do.Has(lease.Blame):
		e := c.refused
		c.refused = nil
		c.fail(e, "parameters")
	case c.blocked():
		c.conn.Again()
	}
	if !last {
		return taken // and fed goes on
	}
	s.clean()
	return stop
}

// refuse closes a server that has not taken its client's settings. What others
// have left there is no reason to send the client away: it gets another server.
func (s *server) refuse(c *client, do lease.Actions) {
	e := c.refused
	c.refused = nil
	s.endLease(c)
	s.pool.books.RemoveServer(&s.books)
	if do.Has(lease.Exchange) {
		s.shut("an earlier client's settings cannot be taken back")
		if c.acquire() {
			c.resume()
		}
	} else {
		if e == nil {
			e = errServerLost
		}
		s.shut("parameters refused")
		c.fail(e, "parameters")
	}
	s.tenant.dialMore()
}

// endLease takes a server from its client. The rule has said what becomes of both.
func (s *server) endLease(c *client) {
	if s.upcoming.held { // by the client
		s.dropUpcoming()
	}
	s.replay, s.inspection = lease.Replay{}, lease.Inspection{}
	c.server, s.client = nil, nil
	s.link.End()
}

// use does what the pool decided about a server that is free.
func (s *server) use(next pool.Next) {
	switch {
	case next.Close != pool.Keep:
		s.shut(next.Close.String())
		s.tenant.dialMore()
	case next.Client != nil:
		c := next.Client.Owner.(*client)
		c.waited()
		if c.lent(s) {
			c.resume()
		}
	case s.tenant.draining:
		s.shut("drain")
	}
}

// waited is called when a client that had to wait is served.
func (c *client) waited() {
	c.tenant.gate.metrics.wait.Observe(c.tenant.loop.Now().Sub(c.books.WaitedSince()).Seconds())
}

// lent ties the client to a server that the pool lent it. True: input may go on.
func (c *client) lent(s *server) bool {
	c.server, s.client = s, c
	c.tenant.leased(c)
	s.clocks = clocks{}
	s.link.Begin(&c.sess)
	s.lendSequences()
	var f lease.Facts
	if c.greeting() {
		f |= lease.Greeting
	}
	// A session's names are its own, and what it can list, too.
	foreign := c.mode == sessionMode && s.link.Held() > 0
	if foreign || s.params != c.params && !s.params.Same(c.params) || c.greeting() && s.unheard() {
		f |= lease.Differs
	}
	s.perform(s.next(lease.Lent, f), nil, true)
	return c.server == s && s.phase == lease.Serving
}

// meet is called when the server has the client's parameters.
func (c *client) meet(s *server) {
	if !c.greeting() {
		c.hear()
		return
	}
	c.pool.learn(c.params, s.shown)
	c.told = s.shown
	c.greet()
}
