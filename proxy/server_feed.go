// From the server to its client: what each message means for the lease, and what is held back.

package proxy

import (
	"github.com/postern/postern/proxy/lease"
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
			start, i = s.goOnWith(data, start, i)
			continue
		}
		if c := s.client; c != nil && c.revoked != nil {
			s.give(data[start:i])
			s.conn.Again() // the rest is lost with the client; what follows is cleaned
			c.fail(c.revoked, c.reason)
			start = i
			if s.closing() {
				return i
			}
			continue
		}
		message, size, wrong := nextMessage(data[i:])
		if wrong != "" {
			s.give(data[start:i])
			s.lost(wrong)
			return i
		}
		if message == nil {
			break // wait for more
		}
		start = s.deliver(data, start, i, message, size)
		if s.closing() {
			return i
		}
		i += len(message)
		s.partial = size - len(message)
		if s.client == nil && start < i {
			start = i
		}
		if message[0] != pgwire.ReadyForQuery {
			continue
		}
		switch s.readyForQuery(data[start:i], i == len(data)) {
		case goOn:
		case taken:
			start = i
		case stop:
			return i
		}
	}
	if !s.closing() {
		s.give(data[start:i])
		s.pauses()
		s.fed(i < len(data))
	}
	return i
}

// goOnWith deals with the next bytes of a message that has begun. data[start:i]
// is what goes to the client.
func (s *server) goOnWith(data []byte, start, i int) (int, int) {
	n := min(s.partial, len(data)-i)
	s.partial -= n
	s.inspection.More(data[i:i+n], s.partial == 0, s.target.User)
	if s.heeds {
		s.heeds = s.partial > 0
		s.link.Heed(data[i:i+n], s.partial == 0)
	}
	if !s.toward {
		s.give(data[start:i])
		start = i + n
	}
	return start, i + n
}

// nextMessage returns the message at the start of data, of size bytes in all,
// of which all is there that is looked into; nil: it is not. wrong says why the
// server is not to be understood.
func nextMessage(data []byte) (message []byte, size int, wrong string) {
	size, status := pgwire.ServerFrame(data)
	switch {
	case status == pgwire.FrameShort:
		return nil, 0, ""
	case status != pgwire.FrameOK, data[0] == pgwire.ReadyForQuery && size != pgwire.HeaderSize+1:
		return nil, 0, "malformed message from the server"
	}
	typ := data[0]
	if !looked[typ] || len(data) >= size {
		return data[:min(size, len(data))], size, ""
	}
	switch {
	case len(data) < whole:
		return nil, 0, ""
	case link.Asynchronous(typ), typ == pgwire.ErrorResponse:
		return data, size, ""
	}
	return nil, 0, "overlong message from the server"
}

// deliver does with the message at data[i:] what the link says. data[start:i]
// goes to the client before it; the new start is returned.
func (s *server) deliver(data []byte, start, i int, message []byte, size int) int {
	switch verdict := s.judge(message[0], message, size); verdict {
	case link.AsParse:
		message[0] = pgwire.ParseComplete
		s.toward = s.client != nil
	case link.ToClient:
		s.toward = s.client != nil
		if message[0] != pgwire.ErrorResponse || s.client == nil || len(message) < size {
			break
		}
		if e := s.named(message); e != nil {
			s.give(data[start:i])
			s.client.write(e)
			return i + len(message)
		}
	case link.Swallow, link.Replace:
		s.give(data[start:i])
		s.toward = false
		if verdict == link.Replace && s.client != nil {
			s.client.write(s.tenant.gate.refusals[s.link.Last().Refusal].Append(nil))
		}
		return i + len(message)
	case link.Broken:
		s.give(data[start:i])
		s.lost("unexpected message from the server")
	}
	return start
}

// readyForQuery deals with a ReadyForQuery that ends gathered: the answer to the
// question whether there is news, which is put before all others, or another.
func (s *server) readyForQuery(gathered []byte, last bool) outcome {
	if !s.asked {
		return s.ready(gathered, last)
	}
	s.give(gathered)
	s.answered()
	if c := s.client; c != nil && s.betweenTransactions() && s.perform(s.next(lease.Ready, c.goodbyes(true)), nil, true) == stop {
		return stop
	}
	return taken
}

// fed is when all that has come was dealt with, but for the beginning of a
// message if more says so.
func (s *server) fed(more bool) {
	switch c := s.client; {
	case c == nil && s.phase == lease.Idle:
		if more || s.partial > 0 {
			s.lost("incomplete message from an idle server")
		}
	case c == nil:
		s.moved()
	case c.revoked != nil && s.partial == 0:
		c.fail(c.revoked, c.reason)
	case c.leaving() && c.served(): // a COPY has begun
		c.depart(c.farewell, c.reason)
	case c.drains() && s.betweenTransactions() && c.goodbyes(true).Has(lease.Drains): // it was in the middle of something of Postern's own
		c.fail(errDraining, "drain")
	case c.blocked():
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
		case s.phase != lease.Inspecting || s.link.Last().Mode != link.Internal:
		case len(message) < size:
			s.inspection.FirstOf(body, size)
		default:
			s.inspection.Row(body, s.target.User)
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
		s.replay.Completed(tag)
		if string(tag) == "LOAD" { // of a client that has left
			s.traces.Fail()
		}
	case s.client != nil:
		s.completed(tag, h.Note)
	}
	return verdict
}

// judgeError takes note of an error. owed says that it may be an answer.
func (s *server) judgeError(body []byte, verdict link.Verdict, owed bool) link.Verdict {
	internal := s.link.Last().Mode == link.Internal
	if !internal {
		s.traces.Erred()
	}
	e := pgwire.ParseError(body)
	s.link.Failed(e.Code, routine(body))
	switch {
	case !e.IsFatal() && !owed:
		return link.Broken
	case e.IsFatal() && s.client == nil:
		return link.Broken // its last words concern nobody, and nobody else may get it
	case e.IsFatal():
		s.traces.Fail()
		s.lastWords = verdict == link.ToClient
	}
	if !internal {
		return verdict
	}
	switch s.phase {
	case lease.Preparing, lease.Restoring:
		// As Postgres would have told it at startup.
		e.Severity = pgwire.Fatal
		s.client.refused = e
		s.replay.Erred(routine(body))
	case lease.Inspecting:
		s.inspection.Erred()
	case lease.Resetting:
		s.traces.Fail()
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
	if typ == pgwire.ParameterStatus {
		p, ok := pgwire.ParseParameterStatus(body)
		if !ok || s.shown.TooMuch() || !s.tenant.affords(s.reportCost()) {
			return link.Broken
		}
		old := s.shown
		s.report(p)
		switch {
		case p.Name == params.ApplicationName && s.asked:
		case s.asked, s.phase == lease.Idle, p.Name == params.InHotStandby:
			if !s.pool.defaultIs(p) { // nothing of anybody's runs, or nobody can set it
				return link.Broken
			}
		case !params.Fixed(p.Name) && s.phase != lease.Preparing && s.phase != lease.Restoring && s.phase != lease.Resetting:
			s.params = s.pool.sets.With(s.params, p.Name, p.Value)
			if s.client != nil {
				s.client.params = s.pool.sets.With(s.client.params, p.Name, p.Value)
			}
		}
		if s.phase.Audible() {
			s.client.heard(p, old)
		}
	}
	if !s.phase.Audible() || typ == pgwire.NoticeResponse && s.phase != lease.Serving {
		return link.Swallow
	}
	return link.ToClient
}
