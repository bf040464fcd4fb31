// A small model of the PostgreSQL server's main loop: what it answers depends on the texts it is sent, and on nothing else.

package link

import (
	"slices"
	"strings"
)

// sent is a frontend message. Its texts are scripts, statements separated by
// semicolons: sel, cmd, nothing, in and out (COPY), err (fails when it runs),
// syn (fails when it is parsed), in! (fails before it reads), susp (a portal
// that suspends), dfr (fails at the end of its transaction), begin, commit,
// dealloc (of the statement whose name follows #), dealloc-all, prepare (of what
// follows #), local (which sets what follows # until the transaction ends), look
// (which tells what local was when it was parsed). Otherwise a # and what follows is only a name.
type sent struct {
	typ  byte
	text string // Q, P, F: script; d and c: bad fails
	bad  bool   // malformed
	name string // P, B, D, C: of the statement
}

// answer is a backend message, with a detail for comparison.
type answer struct {
	typ    byte
	detail string // ReadyForQuery: the status
}

func (a answer) String() string { return string(a.typ) + a.detail }

// pgServer is the model. Messages are appended to in, step reads one, and out
// is what has been flushed.
type pgServer struct {
	in       []sent
	buffered []answer
	out      []answer

	skip     bool // ignore_till_sync
	open     bool // an extended exchange is open
	status   byte
	deferred bool
	local    string // a setting that ends with the transaction
	unnamed  *string
	named    map[string]*string
	portal   *string
	copying  *copying
	dead     bool

	// dropsUnread makes it drop the unnamed statement at a Parse or Query that
	// cannot be read. Postgres does not; the proxy does, for safety.
	dropsUnread bool
	copies      int // COPYs IN that began
	failedCopy  int // those that failed
}

// copying is a COPY IN that reads.
type copying struct {
	rest     []string // statements of the Query behind it
	extended bool
}

func newServer() *pgServer { return &pgServer{status: 'I', named: make(map[string]*string)} }

// idle reports whether the server waits for a new command, outside a
// transaction, with nothing on its way to it that has an answer, or from it.
func (s *pgServer) idle() bool {
	return !slices.ContainsFunc(s.in, func(m sent) bool { return !strings.ContainsRune("dcfH", rune(m.typ)) }) &&
		len(s.buffered)+len(s.out) == 0 && !s.skip && !s.open && s.copying == nil && s.status == 'I' && !s.dead
}

func (s *pgServer) say(typ byte, detail string) {
	s.buffered = append(s.buffered, answer{typ, detail})
}
func (s *pgServer) flush() { s.out, s.buffered = append(s.out, s.buffered...), nil }

// ready ends a command.
func (s *pgServer) ready() {
	s.open = false
	if s.deferred && s.status == 'I' {
		s.deferred = false
		s.say('E', "deferred")
	}
	if s.status == 'I' {
		s.portal = nil
	}
	s.say('Z', string(s.status))
	s.flush()
}

func (s *pgServer) fail(why string, extended bool) {
	s.say('E', why)
	s.flush() // an error is sent at once
	s.copying, s.deferred, s.portal = nil, false, nil
	if s.status == 'T' {
		s.status = 'E'
	}
	if extended {
		s.skip = true
	} else {
		s.ready()
	}
}

// step reads one message.
func (s *pgServer) step() {
	m := s.in[0]
	s.in = s.in[1:]
	if s.dead {
		return
	}
	if s.copying != nil {
		s.copyData(m)
		return
	}
	if m.typ == 'S' {
		s.skip = false
	}
	if s.skip {
		return
	}
	if strings.ContainsRune("PBDCE", rune(m.typ)) {
		s.open = true
	}
	switch m.typ {
	case 'Q':
		if !m.bad || s.dropsUnread {
			s.unnamed = nil
		}
		if m.bad {
			s.fail("unread", false)
			return
		}
		s.portal = nil
		script := strings.Split(m.text, ";")
		if slices.ContainsFunc(script, func(t string) bool { return verb(t) == "syn" }) {
			s.fail("syntax", false)
			return
		}
		s.run(script)
	case 'F':
		if m.text == "err" || s.status == 'E' {
			s.fail("function", false)
			return
		}
		s.say('V', "")
		s.ready()
	case 'P':
		if m.name == "" && (!m.bad || s.dropsUnread) {
			s.unnamed = nil
		}
		switch {
		case m.bad:
			s.fail("unread", true)
		case verb(m.text) == "syn":
			s.fail("syntax", true)
		case m.text != "" && s.aborted(m.text): // nothing may be prepared at any time
			s.fail("aborted", true)
		case m.name == "":
			s.unnamed = s.parsed(m.text)
			s.say('1', "")
		case s.named[m.name] != nil:
			s.fail("exists "+m.name, true)
		default:
			s.named[m.name] = s.parsed(m.text)
			s.say('1', "")
		}
	case 'B':
		st := s.statement(m.name)
		switch {
		case m.bad:
			s.fail("unread", true)
		case st == nil:
			s.fail("unknown "+m.name, true)
		case s.aborted(*st):
			s.fail("aborted", true)
		default:
			s.portal = st
			s.say('2', "")
		}
	case 'D':
		st := s.statement(m.name)
		switch {
		case m.bad:
			s.fail("unread", true)
		case st == nil:
			s.fail("unknown "+m.name, true)
		case s.status == 'E' && strings.HasPrefix(*st, "sel"): // else it has no columns to tell of
			s.fail("aborted", true)
		default:
			s.say('t', described(*st))
			if strings.HasPrefix(*st, "sel") {
				s.say('T', "")
			} else {
				s.say('n', "")
			}
		}
	case 'C':
		if m.name == "" {
			s.unnamed = nil
		}
		delete(s.named, m.name)
		s.say('3', "")
	case 'E':
		s.execute()
	case 'S':
		s.ready()
	case 'H':
		s.flush()
	}
}

// statement returns a statement's text, nil for none.
func (s *pgServer) statement(name string) *string {
	if name == "" {
		return s.unnamed
	}
	return s.named[name]
}

// parsed is a statement as it is held.
func (s *pgServer) parsed(text string) *string {
	if verb(text) == "look" {
		text = "look#" + s.local
	}
	return &text
}

func verb(text string) string {
	v, _, _ := strings.Cut(text, "#")
	return v
}

func (s *pgServer) aborted(text string) bool { return s.status == 'E' && verb(text) != "commit" }

// run runs the statements of a Query.
func (s *pgServer) run(script []string) {
	for i, text := range script {
		if s.aborted(text) {
			s.fail("aborted", false)
			return
		}
		switch verb(text) {
		case "err":
			s.fail("failed", false)
			return
		case "in", "in!":
			s.copyIn(text, script[i+1:], false)
			return
		case "sel", "susp":
			s.say('T', "")
			s.say('D', text)
			s.say('C', text)
		default:
			if !s.simple(text, false) {
				return
			}
		}
	}
	s.ready()
}

// simple runs a statement that is the same in both protocols. False: it has failed.
func (s *pgServer) simple(text string, extended bool) bool {
	_, object, _ := strings.Cut(text, "#")
	switch verb(text) {
	case "":
		s.say('I', "")
		return true
	case "begin":
		s.status = 'T'
	case "commit":
		s.status, s.local = 'I', ""
	case "local":
		if s.status == 'T' {
			s.local = object
		}
		text = "SET"
	case "out":
		s.say('H', "")
		s.say('d', text)
		s.say('c', "")
	case "dfr":
		s.deferred = true
	case "dealloc":
		if s.named[object] == nil {
			s.fail("unknown "+object, extended)
			return false
		}
		delete(s.named, object)
		text = "DEALLOCATE"
	case "prepare":
		s.named[object] = &text
		text = "PREPARE"
	case "dealloc-all":
		clear(s.named)
		text = "DEALLOCATE ALL"
	}
	s.say('C', text)
	return true
}

func (s *pgServer) execute() {
	if s.portal == nil {
		s.fail("no portal", true)
		return
	}
	text := *s.portal
	if s.aborted(text) {
		s.fail("aborted", true)
		return
	}
	switch verb(text) {
	case "err":
		s.fail("failed", true)
	case "in", "in!":
		s.copyIn(text, nil, true)
	case "sel":
		s.say('D', text)
		s.say('C', text)
	case "susp":
		s.say('D', text)
		s.say('s', "")
	default:
		s.simple(text, true)
	}
}

func (s *pgServer) copyIn(text string, rest []string, extended bool) {
	s.say('G', "")
	s.flush()
	s.copies++
	if verb(text) == "in!" {
		s.failedCopy++
		s.fail("trigger", extended)
		return
	}
	s.copying = &copying{rest, extended}
}

// copyData reads a message during COPY IN.
func (s *pgServer) copyData(m sent) {
	c := s.copying
	switch m.typ {
	case 'H', 'S':
	case 'd':
		if m.bad {
			s.failedCopy++
			s.fail("data", c.extended)
		}
	case 'f':
		s.failedCopy++
		s.fail("cancelled", c.extended)
	case 'c':
		if m.bad {
			s.failedCopy++
			s.fail("constraint", c.extended)
			return
		}
		s.copying = nil
		s.say('C', "copy")
		if !c.extended {
			s.run(c.rest)
		}
	default: // protocol synchronization was lost
		s.failedCopy++
		s.say('E', "unexpected")
		s.say('E', "FATAL")
		s.flush()
		s.copying, s.dead = nil, true
	}
}

// described is what shows of a statement in its description: not what it drops.
func described(text string) string {
	if verb(text) == "dealloc" {
		return "dealloc"
	}
	return text
}
