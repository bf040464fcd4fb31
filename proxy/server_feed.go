// From the server to its client: what each message means for the lease, and what is held back.

package proxy

import (
	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
)

// whole bounds the messages that are looked into; longer ones of a kind that
// may be long are passed on unseen.
const whole = 16 << 10

// feed deals with messages at the start of data and returns how much of it is done with.
func (s *server) feed(data []byte) int {
	start, i := 0, 0 // data[start:i] goes to the client
	for i < len(data) {
		if s.partial > 0 {
			n := min(s.partial, len(data)-i)
			s.partial -= n
			s.look.goesOn(data[i:i+n], s.partial == 0, s.target.User)
			if s.heeds {
				s.heeds = s.partial > 0
				s.link.Heed(data[i:i+n], s.partial == 0)
			}
			if !s.toward {
				s.give(data[start:i])
				start = i + n
			}
			i += n
			continue
		}
		c := s.client
		if c != nil && c.revoked != nil {
			s.give(data[start:i])
			s.conn.Again() // the rest is lost with the client; what follows is cleaned
			c.fail(c.revoked, c.reason)
			start = i
			if s.closing {
				return i
			}
			continue
		}
		size, status := pgwire.ServerFrame(data[i:])
		if status == pgwire.FrameShort {
			break
		}
		if status != pgwire.FrameOK || data[i] == pgwire.ReadyForQuery && size != pgwire.HeaderSize+1 {
			s.give(data[start:i])
			s.lost("malformed message from the server")
			return i
		}
		typ := data[i]
		message := data[i:min(i+size, len(data))]
		if looked[typ] && len(message) < size {
			if len(message) < whole {
				break // wait for all of it
			}
			if !link.Asynchronous(typ) && typ != pgwire.ErrorResponse {
				s.give(data[start:i])
				s.lost("overlong message from the server")
				return i
			}
		}
		verdict := s.judge(typ, message, size)
		switch verdict {
		case link.AsParse:
			message[0] = pgwire.ParseComplete
			s.toward = s.client != nil
		case link.ToClient:
			s.toward = s.client != nil
			if typ != pgwire.ErrorResponse || s.client == nil || len(message) < size {
				break
			}
			if e := s.named(message); e != nil {
				s.give(data[start:i])
				start = i + len(message)
				s.client.write(e)
			}
		case link.Swallow, link.Replace:
			s.give(data[start:i])
			start = i + len(message)
			s.toward = false
			if verdict == link.Replace && s.client != nil {
				s.client.write(s.tenant.gate.refusals[s.link.Last().Refusal].Append(nil))
			}
		case link.Broken:
			s.give(data[start:i])
			s.lost("unexpected message from the server")
			return i
		}
		i += len(message)
		s.partial = size - len(message)
		if s.client == nil && start < i {
			start = i
		}
		if typ != pgwire.ReadyForQuery {
			continue
		}
		if s.asked { // before anything else, so this is its answer
			s.give(data[start:i])
			start = i
			if s.answered(); s.client != nil && s.rests() && s.internalReady() == stop {
				return i
			}
			continue
		}
		switch done := s.ready(data[start:i], i == len(data)); done {
		case goOn:
		case taken:
			start = i
		case stop:
			return i
		}
	}
	if !s.closing {
		s.give(data[start:i])
		s.pauses()
		s.fed(i < len(data))
	}
	return i
}

// fed is when all that has come was dealt with, but for the beginning of a
// message if more says so.
func (s *server) fed(more bool) {
	switch c := s.client; {
	case c == nil && s.books.State() == pool.Idle:
		if more || s.partial > 0 {
			s.lost("incomplete message from an idle server")
		}
	case c == nil:
		s.clean()
	case c.revoked != nil && s.partial == 0:
		c.fail(c.revoked, c.reason)
	case c.leaving && c.served(): // a COPY has begun
		c.depart(c.farewell, c.reason)
	case c.blocked:
		c.resume()
	}
}

// looked marks the messages that are looked into.
var looked = [256]bool{pgwire.CommandComplete: true, pgwire.ParameterStatus: true, pgwire.ReadyForQuery: true,
	pgwire.ErrorResponse: true, pgwire.NoticeResponse: true, pgwire.NotificationResponse: true}

// give sends bytes to the client, if there is one.
func (s *server) give(b []byte) {
	c := s.client
	if c == nil || len(b) == 0 {
		return
	}
	c.write(b)
}

// judge asks the link about a message and takes note of what matters.
func (s *server) judge(typ byte, message []byte, size int) link.Verdict {
	body := message[pgwire.HeaderSize:]
	if link.Asynchronous(typ) {
		if typ == pgwire.ParameterStatus && len(message) < size {
			return s.longReport()
		}
		return s.judgeAsync(typ, body)
	}
	status := byte(0)
	if typ == pgwire.ReadyForQuery {
		status = body[0]
	}
	owed := s.link.Outstanding() > 0
	verdict := s.link.Received(typ, status)
	switch typ {
	case pgwire.CommandComplete:
		return s.judgeTag(trimNUL(body), verdict)
	case pgwire.ErrorResponse:
		return s.judgeError(body, verdict, owed)
	case pgwire.ParameterDescription, pgwire.RowDescription, pgwire.NoData:
		if s.link.Heeds() {
			s.heeds = len(message) < size
			s.link.Heed(body, !s.heeds)
		}
	case pgwire.DataRow:
		switch {
		case !s.look.running || s.link.Last().Mode != link.Internal:
		case len(message) < size:
			s.look.begins(body, size)
		default:
			s.look.whole(body, s.target.User)
		}
	case pgwire.PortalSuspended:
		if h := s.link.Last(); h.Mode == link.Forward && s.client != nil {
			s.completed(nil, h.Note)
		}
	}
	return verdict
}

// judgeTag takes note of what a command has done.
func (s *server) judgeTag(tag []byte, verdict link.Verdict) link.Verdict {
	if verdict != link.Broken && s.link.Completed(tag) {
		return link.Swallow
	}
	switch h := s.link.Last(); {
	case h.Mode != link.Forward:
		s.discarded(tag)
		s.replay.completed(tag)
		s.failed = s.failed || string(tag) == "LOAD" // of a client that has left
	case s.client != nil:
		s.completed(tag, h.Note)
	}
	return verdict
}

// judgeError takes note of an error. owed says that it may be an answer.
func (s *server) judgeError(body []byte, verdict link.Verdict, owed bool) link.Verdict {
	internal := s.link.Last().Mode == link.Internal
	s.ending.failed = s.ending.failed || !internal
	e := pgwire.ParseError(body)
	s.link.Failed(e.Code, routine(body))
	switch {
	case !e.IsFatal() && !owed:
		return link.Broken
	case e.IsFatal() && s.client == nil:
		return link.Broken // its last words concern nobody, and nobody else may get it
	case e.IsFatal():
		s.failed, s.lastWords = true, verdict == link.ToClient
	}
	if !internal {
		return verdict
	}
	s.failed = s.failed || s.preparing || s.resetting
	s.look.failed = true
	if s.preparing && s.client != nil {
		// As Postgres would have told it at startup.
		e.Severity = pgwire.Fatal
		s.client.refused = e
		s.replay.failed(routine(body))
	}
	return verdict
}

func trimNUL(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return b[:n-1]
	}
	return b
}

// judgeAsync deals with what a server may say at any time.
func (s *server) judgeAsync(typ byte, body []byte) link.Verdict {
	internal := s.client == nil || s.preparing && !s.restoring || s.punishing
	if typ == pgwire.ParameterStatus {
		p, ok := pgwire.ParseParameterStatus(body)
		if !ok || s.shown.TooMuch() || !s.tenant.affords(s.reportCost()) {
			return link.Broken
		}
		old := s.shown
		s.report(p)
		switch {
		case p.Name == params.ApplicationName && s.asked:
		case s.asked, s.books.State() == pool.Idle, p.Name == params.InHotStandby:
			if !s.pool.defaultIs(p) { // nothing of anybody's runs, or nobody can set it
				return link.Broken
			}
		case !params.Fixed(p.Name) && !s.preparing && !s.resetting:
			s.params = s.pool.sets.With(s.params, p.Name, p.Value)
			if s.client != nil {
				s.client.params = s.pool.sets.With(s.client.params, p.Name, p.Value)
			}
		}
		if !internal {
			s.client.heard(p, old)
		}
	}
	if internal || typ == pgwire.NoticeResponse && (s.look.running || s.preparing) {
		return link.Swallow
	}
	return link.ToClient
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
		return goOn
	}
	switch {
	case s.preparing:
		return s.preparedOr(last)
	case s.look.running:
		if s.link.Quiet() && !s.inspected(last) {
			return stop
		}
		return taken
	case s.punishing:
		if s.link.Quiet() {
			s.punishing = false
			c.write(pgwire.AppendReady(nil, 'I'))
			s.ending.rolledBack = true
			s.concluded()
			return s.rest(last)
		}
		return taken
	}
	s.answers()
	if s.link.Free() {
		s.sequences.rest()
	}
	if s.link.Last().Mode == link.Internal {
		return s.internalReady()
	}
	s.concluded()
	if s.link.Status() == 'I' {
		c.tenant.counters.transactions.Add(1)
	} else if c.mode == statementMode && s.link.Quiet() {
		c.write(gathered[:len(gathered)-6])
		c.write(errStatement.Append(nil))
		if s.punishing = true; c.partial == 0 {
			s.rollBack()
		}
		return taken
	}
	if c.leaving && c.served() {
		c.write(gathered)
		c.depart(c.farewell, c.reason)
		return stop
	}
	if c.draining && s.link.Free() {
		c.write(gathered)
		c.fail(errDraining, "drain")
		return stop
	}
	if s.rests() && s.tracksState() {
		c.write(gathered)
		return s.rest(last)
	}
	if !s.mayRelease() {
		return goOn
	}
	if last {
		s.release() // the next client first
		c.write(gathered)
		return stop
	}
	c.write(gathered)
	return s.part(false)
}

// internalReady deals with the end of something that was put in before the
// client's messages, which may not have come yet.
func (s *server) internalReady() outcome {
	switch c := s.client; {
	case c.leaving && c.served():
		c.depart(c.farewell, c.reason)
		return stop
	case c.draining && s.link.Free() && len(c.in) == 0:
		c.fail(errDraining, "drain")
		return stop
	}
	return goOn
}

// part ends the lease. Whatever follows what was received answers nothing:
// nobody else may see it, so the server is looked at without a client first.
func (s *server) part(last bool) outcome {
	if !last {
		s.unlend()
		return taken
	}
	s.release()
	return stop
}

// preparedOr ends the setting of parameters, one way or the other.
func (s *server) preparedOr(last bool) outcome {
	if !s.link.Quiet() {
		return taken
	}
	c := s.client
	s.preparing = false
	if s.replay.refused && last {
		return s.refused()
	}
	if s.failed || !last {
		e := c.refused
		if e == nil {
			e = errServerLost
		}
		// A server on which something of ours failed is not used again.
		c.server, s.client = nil, nil
		s.pool.books.RemoveServer(&s.books)
		s.shut("parameters refused")
		c.fail(e, "parameters")
		s.tenant.dialMore()
		return stop
	}
	s.heardAt = s.loop.Now()
	s.agree()
	if s.restoring {
		if s.restoring = false; s.rest(true) == stop {
			return stop
		}
	}
	if c.prepared() {
		c.resume()
	}
	return stop
}
