// From the client to its server: what each message means for the lease, and what is put in, replaced or dropped.

package proxy

import (
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
)

const (
	// collectFirst is how much of a message must be there before a server is
	// asked for, so that a slow sender does not hold one.
	collectFirst = 16 << 10
	maxStatement = link.MaxStatement
)

// action is what to do with a client's message.
type action uint8

const (
	passOn   action = iota
	needMore        // not enough of it is there yet
	insert          // put tenant.insert before it
	replace         // put tenant.insert in its place
	drop
	hold // not now
)

// feed deals with messages at the start of data and returns how much of it is done with.
func (c *client) feed(data []byte) int {
	start, i := 0, 0 // data[start:i] is to be passed on
loop:
	for i < len(data) && !c.blocked && !c.gone {
		if c.partial > 0 {
			n := min(c.partial, len(data)-i)
			c.partial -= n
			i += n
			continue
		}
		if c.discard > 0 {
			n := min(c.discard, len(data)-i)
			c.discard -= n
			i += n
			start = i
			continue
		}
		size, status := pgwire.ClientFrame(data[i:])
		switch status {
		case pgwire.FrameShort:
			break loop
		case pgwire.FrameBadType, pgwire.FrameBadLength:
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
		switch do {
		case needMore:
			break loop
		case hold:
			c.blocked = true
			break loop
		case drop:
			if c.gone {
				return i
			}
			c.passOn(data[start:i])
			i += len(message)
			c.discard = size - len(message)
			start = i
		case insert:
			c.server.conn.Queue(data[start:i])
			c.server.conn.Queue(c.tenant.insert)
			start = i
			i += len(message)
			c.partial = size - len(message)
		case replace:
			c.server.conn.Queue(data[start:i])
			c.server.conn.Queue(c.tenant.insert)
			i += len(message)
			c.discard = size - len(message)
			start = i
		case passOn:
			i += len(message)
			c.partial = size - len(message)
		}
		if s := c.server; s != nil && s.link.Outstanding() >= link.MaxOutstanding {
			c.blocked = true
		}
	}
	if !c.gone {
		c.passOn(data[start:i])
		if s := c.server; s != nil && s.mayRelease() {
			s.release() // the end of a message that came too late to matter
		}
	}
	return i
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
		c.blocked = true
	}
}

// malformed ends a session whose framing is lost.
func (c *client) malformed(typ byte, status pgwire.FrameStatus) {
	if status == pgwire.FrameBadType {
		c.fail(errViolation("invalid frontend message type "+itoa(int(typ))), "protocol_violation")
		return
	}
	c.fail(errViolation("invalid message length"), "protocol_violation")
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
		if size == pgwire.HeaderSize && !c.draining {
			c.write(pgwire.AppendReady(c.tenant.insert[:0], 'I'))
			return drop
		}
	}
	if len(message) < size && len(message) < collectFirst {
		return needMore
	}
	if !c.acquire() {
		if c.gone {
			return drop
		}
		return hold
	}
	return passOn
}

// judge records a message that is about to go to the server.
func (c *client) judge(message []byte, size int) action {
	l := c.server.link
	if c.mode == statementMode && l.AwaitsReady() {
		// One round at a time: a BEGIN must be answered before more is sent.
		switch message[0] {
		case pgwire.CopyData, pgwire.CopyDone, pgwire.CopyFail, pgwire.Terminate:
		default:
			if !l.CopyIn() {
				return hold
			}
		}
	}
	shared := c.mode != sessionMode
	switch message[0] {
	case pgwire.Query:
		var note link.Note
		if shared {
			if note = link.Leaves; len(message) == size { // what was not seen may leave anything
				note = link.Scan(message[pgwire.HeaderSize:])
			}
		}
		c.query()
		l.Sent(link.Entry{Kind: link.Query, Note: note})
	case pgwire.Parse:
		if shared {
			return c.judgeParse(message, size)
		}
		l.Sent(link.Entry{Kind: link.Parse})
	case pgwire.Bind:
		if shared {
			return c.judgeBind(message, size)
		}
		l.Sent(link.Entry{Kind: link.Bind})
	case pgwire.Describe, pgwire.Close:
		if shared {
			return c.judgeNamed(message, size)
		}
		l.Sent(link.Entry{Kind: kindOf(message[0])})
	case pgwire.Execute:
		c.query()
		l.Sent(link.Entry{Kind: link.Execute, Note: c.note})
	case pgwire.Sync:
		l.Sent(link.Entry{Kind: link.Sync})
	case pgwire.FunctionCall:
		c.query()
		l.Sent(link.Entry{Kind: link.FunctionCall})
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
		c.end("terminated")
		return drop
	}
	return passOn
}

func kindOf(typ byte) link.Kind {
	if typ == pgwire.Describe {
		return link.Describe
	}
	return link.Close
}

// judgeParse keeps what an unnamed Parse defines, because its Bind may come
// when the client has another server, and refuses names.
func (c *client) judgeParse(message []byte, size int) action {
	if len(message) <= pgwire.HeaderSize {
		return needMore
	}
	if message[pgwire.HeaderSize] != 0 {
		return c.refuse(refuseNamed)
	}
	if size > maxStatement {
		return c.refuse(refuseLong)
	}
	if len(message) < size {
		return needMore
	}
	l := c.server.link
	stmt := c.tenant.stmts.Intern(message[pgwire.HeaderSize:])
	c.note = stmt.Note
	l.Sent(link.Entry{Kind: link.Parse, Stmt: stmt})
	return passOn
}

// refuse has the server fail at this point, and the client told why.
func (c *client) refuse(why link.Note) action {
	c.server.link.Sent(link.Entry{Kind: link.Describe, Mode: link.Refused, Note: why})
	c.tenant.insert = pgwire.AppendRefusal(c.tenant.insert[:0])
	return replace
}

// judgeBind finds out which statement is bound.
func (c *client) judgeBind(message []byte, size int) action {
	_, rest, ok := pgwire.CString(message[pgwire.HeaderSize:])
	if ok {
		var name []byte
		if name, _, ok = pgwire.CString(rest); ok {
			return c.judgeUse(link.Bind, len(name) == 0)
		}
	}
	if len(message) < size && len(message) < maxStatement {
		return needMore
	}
	return c.judgeUse(link.Bind, false) // malformed: the server says so
}

// judgeNamed deals with Describe and Close.
func (c *client) judgeNamed(message []byte, size int) action {
	if len(message) < size {
		return needMore
	}
	kind := kindOf(message[0])
	unnamed := size == pgwire.HeaderSize+2 && message[5] == 'S' && message[6] == 0
	if kind == link.Close && unnamed {
		c.server.link.Sent(link.Entry{Kind: link.Close, Note: link.DropsUnnamed})
		return passOn
	}
	return c.judgeUse(kind, unnamed)
}

// judgeUse records a message that uses a statement. Where that is the unnamed
// one and the server has another client's, or an older one, in its place, the
// right one is defined again first.
func (c *client) judgeUse(kind link.Kind, unnamed bool) action {
	l := c.server.link
	do := passOn
	if unnamed {
		if l.Unsure() {
			return hold
		}
		if stmt, needed := l.Restore(); needed {
			do = insert
			if stmt != nil {
				c.note = stmt.Note
				c.tenant.insert = append(pgwire.AppendHeader(c.tenant.insert[:0], pgwire.Parse, len(stmt.Body)), stmt.Body...)
				l.Sent(link.Entry{Kind: link.Parse, Mode: link.Quiet, Stmt: c.tenant.stmts.Keep(stmt)})
			} else {
				c.tenant.insert = append(pgwire.AppendHeader(c.tenant.insert[:0], pgwire.Close, 2), 'S', 0)
				l.Sent(link.Entry{Kind: link.Close, Mode: link.Quiet})
			}
		}
	} else if kind == link.Bind {
		c.note = link.Leaves // a statement that SQL prepared: unknown
	}
	l.Sent(link.Entry{Kind: kind})
	return do
}
