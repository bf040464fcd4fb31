// A console session: PostgreSQL's protocol after the login, simple and extended.

package console

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/postern/postern/proxy/pgwire"
)

const (
	// MaxMessage bounds a client's message, header included: commands are short.
	MaxMessage = 16 << 10
	// maxNamed bounds the prepared statements, and the portals, of a session.
	maxNamed = 1000
	// flushAt is how much of an answer is collected before it is sent.
	flushAt = 64 << 10
)

// ErrEnded is what Handle returns when the client has said goodbye.
var ErrEnded = errors.New("session ended")

// Session is one client's. Make it with NewSession. Not safe for concurrent use.
type Session struct {
	gate Gate
	out  io.Writer

	buf        []byte
	broken     error // of out
	statements map[string]Command
	portals    map[string]*portal
	skipping   bool // to the next Sync, after an error
}

// portal is a bound command and how far its answer was fetched.
type portal struct {
	command Command
	formats formats
	ran     bool
	table   table
	next    int
}

// NewSession returns a session that answers to out.
func NewSession(g Gate, out io.Writer) *Session {
	return &Session{gate: g, out: out, statements: make(map[string]Command), portals: make(map[string]*portal)}
}

// Handle deals with one message of at most MaxMessage, whose type and length
// pgwire.ClientFrame has passed. It returns ErrEnded after a Terminate, or out's
// error.
func (s *Session) Handle(typ byte, body []byte) error {
	switch typ {
	case pgwire.Terminate:
		return ErrEnded
	case pgwire.Query:
		s.skipping = false
		s.query(body)
		s.flush()
		return s.broken
	case pgwire.Sync:
		s.skipping = false
		delete(s.portals, "")
		s.buf = pgwire.AppendReady(s.buf, 'I')
		s.flush()
		return s.broken
	case pgwire.Flush:
		s.flush()
		return s.broken
	case pgwire.CopyData, pgwire.CopyDone, pgwire.CopyFail:
		return nil // ignored outside COPY, as in PostgreSQL
	}
	if s.skipping {
		return nil
	}
	if err := s.extended(typ, body); err != nil {
		s.tell(err)
		s.skipping = true
		if typ == pgwire.FunctionCall { // which is answered as a Query is
			s.skipping = false
			s.buf = pgwire.AppendReady(s.buf, 'I')
			s.flush()
		}
	}
	return s.broken
}

// query is the simple protocol: one command.
func (s *Session) query(body []byte) {
	text, rest, ok := pgwire.CString(body)
	if !ok || len(rest) > 0 {
		s.tell(malformed())
	} else if c, err := Parse(string(text)); err != nil {
		s.tell(err)
	} else if c.Verb == Empty {
		s.buf = appendBare(s.buf, pgwire.EmptyQueryResponse)
	} else {
		p := &portal{command: c}
		if list := c.columns(); list != nil {
			s.buf = appendRowDescription(s.buf, list, nil)
		}
		if err := s.run(p, 0); err != nil {
			s.tell(err)
		}
	}
	s.buf = pgwire.AppendReady(s.buf, 'I')
}

func malformed() *pgwire.Error { return fail("08P01", "invalid message format", "") }

// extended deals with the messages of the extended protocol.
func (s *Session) extended(typ byte, body []byte) error {
	r := reader{rest: body}
	switch typ {
	case pgwire.Parse:
		return s.parse(&r)
	case pgwire.Bind:
		return s.bind(&r)
	case pgwire.Describe:
		return s.describe(&r)
	case pgwire.Execute:
		return s.execute(&r)
	case pgwire.Close:
		return s.close(&r)
	}
	return fail("0A000", "the console has no functions to call", "")
}

func (s *Session) parse(r *reader) error {
	name, text, params := r.text(), r.text(), r.int16()
	for range params {
		r.int32()
	}
	if !r.done() || params < 0 {
		return malformed()
	}
	c, err := Parse(text)
	if err != nil {
		return err
	}
	if _, taken := s.statements[name]; name != "" && taken {
		return fail("42P05", `prepared statement "`+name+`" already exists`, "")
	}
	if len(s.statements) >= maxNamed {
		return fail("54000", "too many prepared statements", "Close those that are not used any more.")
	}
	s.statements[name] = c
	s.buf = appendBare(s.buf, pgwire.ParseComplete)
	return nil
}

func (s *Session) bind(r *reader) error {
	name, statement := r.text(), r.text()
	for range r.int16() {
		r.int16()
	}
	values := r.int16()
	for range values {
		if n := r.int32(); n > 0 {
			r.skip(int(n))
		}
	}
	var f formats
	for range r.int16() {
		f = append(f, r.int16())
	}
	if !r.done() {
		return malformed()
	}
	c, known := s.statements[statement]
	if !known {
		return unknownStatement(statement)
	}
	if values != 0 {
		return fail("08P01", "the console's commands have no parameters", "Put the value into the text.")
	}
	if len(f) > 1 && len(f) != len(c.columns()) {
		return fail("08P01", "bind message has another number of result formats than the command has columns", "")
	}
	for _, code := range f {
		if code != 0 && code != 1 {
			return fail("22023", "unsupported format code", "")
		}
	}
	if _, taken := s.portals[name]; name != "" && taken {
		return fail("42P03", `cursor "`+name+`" already exists`, "")
	}
	if len(s.portals) >= maxNamed {
		return fail("54000", "too many portals", "Close those that are not used any more.")
	}
	s.portals[name] = &portal{command: c, formats: f}
	s.buf = appendBare(s.buf, pgwire.BindComplete)
	return nil
}

func unknownStatement(name string) *pgwire.Error {
	if name == "" {
		return fail("26000", "unnamed prepared statement does not exist", "")
	}
	return fail("26000", `prepared statement "`+name+`" does not exist`, "")
}

func unknownPortal(name string) *pgwire.Error {
	return fail("34000", `portal "`+name+`" does not exist`, "")
}

func (s *Session) describe(r *reader) error {
	kind, name := r.byte(), r.text()
	if !r.done() {
		return malformed()
	}
	var c Command
	var f formats
	switch kind {
	case 'S':
		var known bool
		if c, known = s.statements[name]; !known {
			return unknownStatement(name)
		}
		s.buf = pgwire.AppendHeader(s.buf, pgwire.ParameterDescription, 2)
		s.buf = append(s.buf, 0, 0)
	case 'P':
		p, known := s.portals[name]
		if !known {
			return unknownPortal(name)
		}
		c, f = p.command, p.formats
	default:
		return malformed()
	}
	if list := c.columns(); list != nil {
		s.buf = appendRowDescription(s.buf, list, f)
	} else {
		s.buf = appendBare(s.buf, pgwire.NoData)
	}
	return nil
}

func (s *Session) execute(r *reader) error {
	name, most := r.text(), r.int32()
	if !r.done() {
		return malformed()
	}
	p, known := s.portals[name]
	switch {
	case !known:
		return unknownPortal(name)
	case p.command.Verb == Empty:
		s.buf = appendBare(s.buf, pgwire.EmptyQueryResponse)
		return nil
	}
	return s.run(p, int(most))
}

func (s *Session) close(r *reader) error {
	kind, name := r.byte(), r.text()
	switch {
	case !r.done():
		return malformed()
	case kind == 'S':
		delete(s.statements, name)
	case kind == 'P':
		delete(s.portals, name)
	default:
		return malformed()
	}
	s.buf = appendBare(s.buf, pgwire.CloseComplete)
	return nil
}

// run executes a portal up to a number of rows; 0 or less is all.
func (s *Session) run(p *portal, most int) error {
	c := p.command
	list := c.columns()
	switch {
	case c == Command{Show, showHelp}:
		s.buf = (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "Console usage", Detail: help()}).Append(s.buf)
	case c == Command{Show, showFDs}:
		return fail("0A000", "SHOW FDS is not available: connections are not handed to another process", "")
	case c.Verb == Set && setUp(c.Arg):
		s.buf = (&pgwire.Error{Severity: pgwire.Notice, Code: "00000", Message: "SET ignored"}).Append(s.buf)
	case c.Verb == Set:
		return fail("0A000", "settings cannot be changed in the console", "Change the configuration file; the file of tenants takes effect by itself, or with RELOAD.")
	case c.Verb == Suspend:
		return fail("0A000", "SUSPEND is not available: connections are not handed to another process",
			"PAUSE holds all clients; POST /v1/tenants/{id}/machine/suspend of the admin API puts a machine to sleep.")
	case list == nil:
		if p.ran {
			return fail("34000", "the command was executed already", "")
		}
		p.ran = true
		s.flush() // it may take a while
		if err := s.gate.Do(c); err != nil {
			return err
		}
	default:
		return s.rows(p, list, most)
	}
	s.buf = appendComplete(s.buf, c.Verb)
	return nil
}

// rows sends the next rows of a portal.
func (s *Session) rows(p *portal, list []Column, most int) error {
	if !p.ran {
		p.ran = true
		if show := shows[p.command.Arg]; show.rows != nil {
			p.table = show.rows(s.gate)
		}
	}
	for sent := 0; p.next < p.table.n; sent++ {
		if most > 0 && sent == most {
			s.buf = appendBare(s.buf, pgwire.PortalSuspended)
			return nil
		}
		s.buf = appendRow(s.buf, list, p.table.row(p.next), p.formats)
		p.next++
		if len(s.buf) >= flushAt {
			if s.flush(); s.broken != nil {
				return nil
			}
		}
	}
	s.buf = appendComplete(s.buf, Show)
	return nil
}

// columns are those of the command's answer; nil if it has no rows.
func (c Command) columns() []Column {
	if c.Verb != Show {
		return nil
	}
	return shows[c.Arg].columns
}

// tell sends an error. One that has no SQLSTATE is told by its text: operators may
// see it.
func (s *Session) tell(err error) {
	var e *pgwire.Error
	if !errors.As(err, &e) {
		e = fail("XX000", err.Error(), "")
	}
	s.buf = e.Append(s.buf)
}

func (s *Session) flush() {
	if s.broken == nil && len(s.buf) > 0 {
		_, s.broken = s.out.Write(s.buf)
	}
	if s.buf = s.buf[:0]; cap(s.buf) > 4*flushAt {
		s.buf = nil
	}
}

// help is the list of commands as PgBouncer lays it out.
func help() string {
	out := []byte("\n\t")
	for i := range len(commands) {
		if out = append(out, commands[i]); commands[i] == '\n' {
			out = append(out, '\t')
		}
	}
	return string(out)
}

// reader takes fields off a message's body. After the first that is missing, bad is set.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, min(n, 4))
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) byte() byte   { return r.take(1)[0] }
func (r *reader) int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *reader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }
func (r *reader) skip(n int)   { r.take(n) }
func (r *reader) text() string {
	s, rest, ok := pgwire.CString(r.rest)
	if r.bad || !ok {
		r.bad = true
		return ""
	}
	r.rest = rest
	return string(s)
}

// done reports whether the body had exactly what was taken off it.
func (r *reader) done() bool { return !r.bad && len(r.rest) == 0 }
