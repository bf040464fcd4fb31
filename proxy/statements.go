// The bytes around prepared statements: what is put in for them, and whose names stand in messages and errors.

package proxy

import (
	"bytes"
	"strings"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// settings stands for the client's settings: a text may mean something else
// under others. The name of the application means nothing.
func (c *client) settings() any { return c.params.Base() }

// pinned is why the client keeps its server.
func (c *client) pinned() sqltext.State {
	if c.sess.Fixed() {
		return c.has.Pins | sqltext.StatePrepared
	}
	return c.has.Pins
}

// judgeParse keeps what a Parse defines, because it may be used when the client
// has another server.
func (c *client) judgeParse(message []byte, size int) action {
	if size > maxStatement {
		return c.refuse(refuseLong)
	}
	if len(message) < size {
		return needMore
	}
	body := message[pgwire.HeaderSize:]
	name, text, ok := pgwire.CString(body)
	if !ok { // malformed: the server says so
		c.server.link.Sent(link.Entry{Kind: link.Parse})
		return passOn
	}
	if c.refuses(text) {
		return c.refuse(refuseState)
	}
	fixed := c.sess.Fixed()
	plan := c.server.link.Parse(c.settings(), name, body[len(name):])
	if c.sess.Fixed() && !fixed {
		c.tenant.counters.pins.add("prepare")
	}
	return c.carryOut(plan, message, size, pgwire.HeaderSize, len(name))
}

// judgeBind finds out which statement is bound to which portal. The rest of
// the message may be long.
func (c *client) judgeBind(message []byte, size int) action {
	if portal, rest, ok := pgwire.CString(message[pgwire.HeaderSize:]); ok {
		if name, _, ok := pgwire.CString(rest); ok {
			plan := c.server.link.Bind(c.settings(), portal, name)
			c.mayName(portal, rest[len(name)+1:], len(message) == size)
			return c.carryOut(plan, message, size, pgwire.HeaderSize+len(portal)+1, len(name))
		}
	}
	if len(message) < size && len(message) < maxStatement {
		return needMore
	}
	c.server.link.BindUnseen() // malformed: the server says so
	return passOn
}

// judgeDescribe deals with Describe and Close.
func (c *client) judgeDescribe(message []byte, size int) action {
	if len(message) < size {
		return needMore
	}
	l := c.server.link
	kind := kindOf(message[0])
	const from = pgwire.HeaderSize + 1
	if size <= from || message[pgwire.HeaderSize] != 'S' {
		if kind == link.Close && c.has.Pins&sqltext.StateCursor != 0 {
			c.mayLeave(sqltext.StateEnds, nil) // a portal may be the cursor WITH HOLD
		}
		l.Sent(link.Entry{Kind: kind})
		return passOn
	}
	name, rest, ok := pgwire.CString(message[from:])
	if !ok || len(rest) > 0 { // malformed: the server says so
		l.Sent(link.Entry{Kind: kind})
		return passOn
	}
	var plan link.Plan
	if kind == link.Describe {
		plan = l.DescribeStatement(c.settings(), name)
	} else {
		plan = l.CloseStatement(name)
	}
	return c.carryOut(plan, message, size, from, len(name))
}

// judgeExecute finds out what may be executed.
func (c *client) judgeExecute(message []byte, size int) action {
	if len(message) < size {
		return needMore
	}
	l := c.server.link
	portal, _, _ := pgwire.CString(message[pgwire.HeaderSize:]) // malformed: the server says so
	state, names := l.Bound(portal)
	if c.mustForget(state) {
		return c.forget(true)
	}
	plan := l.Execute(portal)
	do := c.carryOut(plan, message, size, 0, 0)
	if do != later && do != flush {
		c.tenant.vacate(l.Vacates(portal))
		c.query(state)
		c.mayLeave(state, func() []string { return names })
	}
	return do
}

// carryOut does what was planned for a message. The client's name for the
// statement stands in it at from and has n bytes.
func (c *client) carryOut(plan link.Plan, message []byte, size, from, n int) action {
	out := c.tenant.insert[:0]
	for _, put := range plan.Puts {
		switch put.Kind {
		case link.Parse:
			out = appendParse(out, put.Name, put.Stmt, put.Types)
		case link.Describe:
			out = link.AppendAbout(out, pgwire.Describe, put.Name)
		default:
			out = link.AppendClose(out, put.Name)
		}
	}
	c.tenant.insert, c.cut = out, 0
	do := insert
	switch plan.Do {
	case link.Wait:
		return c.wait(plan)
	case link.TooMany:
		return c.refuse(refuseMany)
	case link.Changed:
		return c.refuse(refuseChanged)
	case link.Pass:
		if len(out) == 0 {
			do = passOn
		}
	case link.Rename:
		start := len(out)
		out = pgwire.AppendHeader(out, message[0], 0)
		out = append(out, message[pgwire.HeaderSize:from]...)
		out = plan.Name.Append(out)
		c.cut = from + n
		pgwire.AppendHeader(out[:start], message[0], len(out)-start-pgwire.HeaderSize+size-c.cut)
	case link.Rewrite:
		out, do = appendParse(out, plan.Name, plan.Stmt, ""), replace
	case link.StandIn:
		out, do = link.AppendClose(out, plan.Name), replace
	}
	c.tenant.insert = out
	return do
}

// wait holds a message back, behind what was put in.
func (c *client) wait(plan link.Plan) action {
	if plan.Flush {
		c.tenant.insert = pgwire.AppendHeader(c.tenant.insert, pgwire.Flush, 0)
		return flush
	}
	return later
}

// appendParse appends a Parse of stmt, nil for an empty text, with these types of
// parameters, "" for its own.
func appendParse(dst []byte, name link.ServerName, stmt *link.Stmt, types string) []byte {
	body := "\x00\x00\x00\x00"
	if stmt != nil {
		body = stmt.Body
	}
	if types != "" {
		body = body[:1+strings.IndexByte(body[1:], 0)+1]
	}
	start := len(dst)
	dst = name.Append(pgwire.AppendHeader(dst, pgwire.Parse, 0))
	dst = append(append(dst, body...), types...)
	pgwire.PutLength(dst[start:])
	return dst
}

// routine returns the name of the server's function that has raised an error.
func routine(body []byte) string {
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := pgwire.CString(body[1:])
		if !ok {
			break
		}
		if body[0] == 'R' {
			return string(value)
		}
		body = rest
	}
	return ""
}

// named returns an ErrorResponse for the client: where a text in it contains
// the server's name for a statement, the client's stands instead. nil: there
// is nothing to replace.
func (s *server) named(message []byte) []byte {
	name, client, ok := s.link.Naming()
	if !ok {
		return nil
	}
	server := name.Append(nil)
	if !bytes.Contains(message, server) {
		return nil
	}
	out := pgwire.AppendHeader(nil, pgwire.ErrorResponse, 0)
	for body := message[pgwire.HeaderSize:]; len(body) > 0 && body[0] != 0; {
		value, rest, ok := pgwire.CString(body[1:])
		if !ok {
			return nil
		}
		out = append(out, body[0])
		switch body[0] {
		case 'M', 'D', 'H', 'W':
			out = appendNamed(out, value, server, client)
		default:
			out = append(out, value...)
		}
		out = append(out, 0)
		body = rest
	}
	out = append(out, 0)
	pgwire.PutLength(out)
	return out
}

// appendNamed appends text with the server's name replaced where it is a word.
func appendNamed(dst, text, server []byte, client string) []byte {
	for {
		i := bytes.Index(text, server)
		if i < 0 {
			return append(dst, text...)
		}
		end := i + len(server)
		if end < len(text) && text[end] >= '0' && text[end] <= '9' {
			dst = append(dst, text[:end]...) // another, longer name
		} else {
			dst = append(append(dst, text[:i]...), client...)
		}
		text = text[end:]
	}
}
