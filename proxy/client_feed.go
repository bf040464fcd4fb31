// From the client to its server: what each message means for the lease, and what is put in, replaced or dropped.

package proxy

import (
	"encoding/binary"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

const (
	// collectFirst is how much of a message must be there before a server is
	// asked for, so that a slow sender does not hold one.
	collectFirst = 16 << 10
	maxStatement = link.MaxStatement
	// maxQuery bounds the simple queries that are collected to be read. What is in
	// longer ones is not known.
	maxQuery = 1 << 20
)

// action is what to do with a client's message.
type action uint8

const (
	passOn   action = iota
	needMore        // not enough of it is there yet
	insert          // put tenant.insert in the place of its first bytes, as many as c.cut says
	replace         // put tenant.insert in its place
	before          // put tenant.insert before it, and look at it again
	drop
	later // not now
	flush // the same, behind tenant.insert, which asks the server to send what it has to say
)

// feed deals with messages at the start of data and returns how much of it is done with.
func (c *client) feed(data []byte) int {
	start, i := 0, 0 // data[start:i] is to be passed on
	for i < len(data) && !c.blocked() && !c.gone() {
		if c.begun() > 0 {
			start, i = c.goOnWith(data, start, i)
			continue
		}
		if s := c.server; s != nil && !s.takes() {
			c.block()
			break
		}
		size, status := pgwire.ClientFrame(data[i:])
		if status == pgwire.FrameShort {
			break
		}
		if status != pgwire.FrameOK {
			c.passOn(data[start:i])
			c.malformed(data[i], status)
			return i
		}
		message := data[i:min(i+size, len(data))]
		do := passOn
		if c.server == nil {
			do = c.unlinked(message, size)
		}
		if do == passOn && c.server != nil {
			do = c.judge(message, size)
		}
		if do == needMore {
			break
		}
		start, i = c.act(do, data, start, i, len(message), size)
	}
	if !c.gone() {
		c.passOn(data[start:i])
		if s := c.server; s != nil && s.betweenTransactions() {
			s.moved() // the end of a message that came too late to matter
		}
	}
	return i
}

// goOnWith deals with the next bytes of a message that has begun. data[start:i]
// is to be passed on.
func (c *client) goOnWith(data []byte, start, i int) (int, int) {
	if c.partial == 0 {
		n := min(c.discard, len(data)-i)
		c.discard -= n
		return i + n, i + n
	}
	n := min(c.partial, len(data)-i)
	c.partial -= n
	i += n
	if s := c.server; c.partial == 0 && s.phase == lease.Condemned {
		s.conn.Queue(data[start:i])
		start = i
		s.moved()
	}
	return start, i
}

// act does with the message at data[i:], of which n bytes of size are there, what
// was decided. data[start:i] is to be passed on before it.
func (c *client) act(do action, data []byte, start, i, n, size int) (int, int) {
	switch do {
	case passOn:
		c.partial = size - n
		return start, i + n
	case later:
		c.block()
		return start, i
	case drop:
		if c.gone() {
			return start, i
		}
		c.passOn(data[start:i])
		c.discard = size - n
		return i + n, i + n
	}
	c.server.conn.Queue(data[start:i])
	c.server.conn.Queue(c.tenant.insert)
	switch do {
	case flush:
		c.block()
	case insert:
		c.partial = size - n
		return i + c.cut, i + n
	case replace:
		c.discard = size - n
		return i + n, i + n
	}
	return i, i
}

// passOn sends bytes to the server. If it does not take them all, the client waits.
func (c *client) passOn(b []byte) {
	s := c.server
	if s == nil {
		return
	}
	if s.link.Outstanding() > 0 {
		s.asks()
	}
	if len(b) > 0 {
		s.conn.Write(b)
	} else {
		s.conn.Flush()
	}
	if s.conn.Pending() > 0 {
		c.block()
	}
}

// malformed ends a session whose framing is lost.
func (c *client) malformed(typ byte, status pgwire.FrameStatus) {
	if status == pgwire.FrameBadType {
		c.leave(errViolation("invalid frontend message type "+itoa(int(typ))), "protocol_violation")
		return
	}
	c.leave(errViolation("invalid message length"), "protocol_violation")
}

// unlinked deals with a message of a client that has no server: what needs
// none is answered here, for the rest one is asked for.
func (c *client) unlinked(message []byte, size int) action {
	switch message[0] {
	case pgwire.Terminate:
		c.end("terminated")
		return drop
	case pgwire.CopyData, pgwire.CopyDone, pgwire.CopyFail, pgwire.Flush:
		return drop // ignored outside COPY, and nothing to flush
	case pgwire.Sync:
		if size == pgwire.HeaderSize && !c.drains() {
			c.quiet = c.tenant.loop.Now()
			c.write(pgwire.AppendReady(c.tenant.insert[:0], 'I'))
			return drop
		}
	}
	if len(message) < size && (len(message) < collectFirst || c.collects(message[0], size)) {
		return needMore
	}
	if !c.acquire() {
		if c.gone() {
			return drop
		}
		return later
	}
	return passOn
}

// collects reports whether all of a message must be there to be judged.
func (c *client) collects(typ byte, size int) bool {
	return c.mode != sessionMode && (typ == pgwire.Query && size <= maxQuery || typ == pgwire.Parse && size <= maxStatement)
}

// judge records a message that is about to go to the server.
func (c *client) judge(message []byte, size int) action {
	typ := message[0]
	if c.mustWait(typ) {
		return later
	}
	if c.mode != sessionMode {
		switch typ {
		case pgwire.Parse:
			return c.judgeParse(message, size)
		case pgwire.Bind:
			return c.judgeBind(message, size)
		case pgwire.Describe, pgwire.Close:
			return c.judgeDescribe(message, size)
		case pgwire.Execute:
			return c.judgeExecute(message, size)
		}
	}
	l := c.server.link
	switch typ {
	case pgwire.Query:
		return c.judgeQuery(message, size)
	case pgwire.FunctionCall:
		return c.judgeFunctionCall(message, size)
	case pgwire.Execute:
		c.query(0)
		l.Sent(link.Entry{Kind: link.Execute, Note: c.parsed})
	case pgwire.Parse:
		if name, text, ok := pgwire.CString(message[pgwire.HeaderSize:]); ok && len(message) == size {
			note, databases := c.mayReset(text)
			c.parsed |= note
			c.vacatesLater(name, databases)
		} else {
			c.parsed |= sqltext.Resets
		}
		l.Sent(link.Entry{Kind: link.Parse})
	case pgwire.Bind, pgwire.Describe, pgwire.Close, pgwire.Sync:
		if typ == pgwire.Bind && len(c.vacating) > 0 {
			c.vacatesNow(message)
		}
		l.Sent(link.Entry{Kind: kindOf(typ)})
	case pgwire.Flush:
		if size != pgwire.HeaderSize {
			// A server would fail at it and skip to Sync, and no answer would say that
			// it was this message.
			c.fail(errViolation("invalid message format"), "protocol_violation")
			return drop
		}
		l.SentFlush()
	case pgwire.CopyDone, pgwire.CopyFail:
		l.Sent(link.Entry{Kind: link.CopyEnd})
	case pgwire.Terminate:
		c.leave(nil, "terminated")
		return drop
	}
	return passOn
}

// awaits reports whether more waits for a cancel request, which could hit it, to
// have arrived, or for the answers to what was sent: in
// statement mode to all, because a BEGIN is answered before more is sent; else
// to what may put parameters back, because those that the client came with are
// set again first.
func (c *client) awaits() bool {
	if c.server.cancels > 0 {
		return true
	}
	l := c.server.link
	if c.mode == statementMode {
		return l.AwaitsReady() && !l.CopyIn()
	}
	return !c.came.Empty() && l.Resets()
}

// mustWait reports whether a message waits for what was sent before it.
func (c *client) mustWait(typ byte) bool {
	if !c.awaits() {
		return false
	}
	switch typ {
	case pgwire.CopyData, pgwire.CopyDone, pgwire.CopyFail, pgwire.Terminate:
		return false
	}
	return true
}

// judgeQuery finds out what a Query may leave on a server that others use, too.
func (c *client) judgeQuery(message []byte, size int) action {
	var note sqltext.Note
	var state sqltext.State
	var text []byte
	switch {
	case c.mode == sessionMode:
		if note = sqltext.Resets; len(message) == size {
			note, _ = c.mayReset(message[pgwire.HeaderSize:])
		}
	case len(message) == size:
		text = message[pgwire.HeaderSize:]
		if c.refuses(text) {
			return c.refuseQuery()
		}
		note, state = sqltext.Scan(text)
		c.vacates(note, text)
		c.mayLeave(state, func() []string { return sqltext.ParameterNames(text) })
	case size <= maxQuery:
		return needMore
	default: // what was not seen may leave anything
		note = sqltext.Deallocates | sqltext.Unseen | sqltext.Alters | sqltext.Rereads | sqltext.Resets
		state = sqltext.StateUnseen
		c.mayLeave(state, nil)
	}
	l := c.server.link
	if c.mustForget(state) {
		return c.forget(l.NeedsSync())
	}
	switch plan := l.Query(text, note); plan.Do {
	case link.Wait:
		c.tenant.insert = c.tenant.insert[:0]
		return c.wait(plan)
	case link.Rewrite:
		c.query(state)
		c.tenant.insert = pgwire.AppendQuery(c.tenant.insert[:0], link.Dropping(plan.Name))
		return replace
	}
	c.query(state)
	return passOn
}

// judgeFunctionCall looks at which function is called.
func (c *client) judgeFunctionCall(message []byte, size int) action {
	var state sqltext.State
	if oid := message[pgwire.HeaderSize:]; size >= pgwire.HeaderSize+4 {
		if len(oid) < 4 {
			return needMore
		}
		state = sqltext.FunctionState(binary.BigEndian.Uint32(oid))
		switch {
		case c.mode == sessionMode:
			c.server.traces.Mark(&c.tenant.policies, state&sqltext.StateLoad)
			state = 0
		case state&c.tenant.policies.Refuse != 0:
			return c.refuseQuery()
		case c.mustForget(state):
			return c.forget(c.server.link.NeedsSync())
		}
		c.mayLeave(state, nil)
	}
	c.query(state)
	c.server.link.Sent(link.Entry{Kind: link.FunctionCall})
	return passOn
}

// kindOf is the entry of a message that has a single answer.
func kindOf(typ byte) link.Kind {
	switch typ {
	case pgwire.Parse:
		return link.Parse
	case pgwire.Bind:
		return link.Bind
	case pgwire.Describe:
		return link.Describe
	case pgwire.Close:
		return link.Close
	}
	return link.Sync
}

// refuseQuery is refuse for a simple query.
func (c *client) refuseQuery() action {
	c.refuse(refuseState)
	c.server.link.Sent(link.Entry{Kind: link.Sync})
	c.tenant.insert = pgwire.AppendSync(c.tenant.insert)
	return replace
}

// refuse has the server fail at this point, and the client told why.
func (c *client) refuse(why uint8) action {
	c.server.link.Sent(link.Entry{Kind: link.Describe, Mode: link.Refused, Refusal: why})
	c.tenant.insert = pgwire.AppendRefusal(c.tenant.insert[:0])
	return replace
}
