// Unnamed statements: whose definition a server holds, and how to define it again elsewhere.

package link

// MaxStatement bounds the Parse messages that Postern keeps, in bytes.
const MaxStatement = 16 << 20

// Session is what a client has that outlives its leases. The zero value is a
// client that has defined nothing.
type Session struct {
	Unnamed *Stmt // its unnamed statement, nil for none; the session owns the reference
}

// Begin starts a lease for a client whose messages follow.
func (l *Link) Begin(s *Session) {
	l.client = s
	l.known = l.holds(s)
}

// holds reports whether the server's unnamed statement is the client's.
func (l *Link) holds(s *Session) bool {
	return s != nil && l.owner == s && l.unnamed == s.Unnamed
}

// End ends the lease. What the client still had coming is nobody's.
func (l *Link) End() {
	l.client = nil
	if l.redefinitions > 0 {
		l.Forget() // how they end is not followed any more
	}
	l.redefinitions, l.unsure = 0, false
	for i := l.head; i < len(l.queue); i++ {
		e := &l.queue[i]
		l.stmts.Drop(e.Stmt)
		e.Stmt, e.Mode = nil, Internal
		if e.redefines() {
			l.redefinitions++
		}
	}
}

// Forget records that Postern itself used the server's unnamed statement.
func (l *Link) Forget() { l.owner, l.unnamed, l.known = nil, nil, false }

// Restore is asked before a Bind or Describe of the unnamed statement is sent:
// needed says that the server does not hold what the client expects. Then the
// server must be sent a Parse of stmt or, where stmt is nil because the client
// has defined nothing, a Close of the unnamed statement, in Quiet mode.
func (l *Link) Restore() (stmt *Stmt, needed bool) {
	if l.known || l.skip {
		return nil, false
	}
	l.known = true
	return l.client.Unnamed, true
}

// Unsure reports whether it is still open what the server's unnamed statement
// will be: wait with a Bind or Describe of it until an answer has come.
// While the server waits for COPY data nothing is worth waiting for.
func (l *Link) Unsure() bool { return l.unsure && !l.copyIn }

// redefines reports whether the message changes the server's unnamed statement.
func (e Entry) redefines() bool {
	return e.Stmt != nil || e.Kind == Query || e.Kind == Close && (e.Note&DropsUnnamed != 0 || e.Mode == Quiet)
}

// defined records a ParseComplete.
func (l *Link) defined(h Entry) {
	if h.Stmt == nil || h.Mode == Internal {
		l.owner, l.unnamed = nil, nil // nobody's, as far as is known
		return
	}
	l.owner, l.unnamed = l.client, h.Stmt
	if h.Mode == Forward && l.client != nil && l.client.Unnamed != h.Stmt {
		l.stmts.Drop(l.client.Unnamed)
		l.client.Unnamed = l.stmts.Keep(h.Stmt)
	}
}

// undefined records that the server has dropped its unnamed statement, or may
// have: a Parse or Query that it cannot even read fails without doing so, and
// what it then still holds may be anybody's.
func (l *Link) undefined(h Entry, certain bool) {
	if l.owner, l.unnamed = nil, nil; certain {
		l.owner = l.client
	}
	if h.Mode == Forward && l.client != nil {
		l.stmts.Drop(l.client.Unnamed)
		l.client.Unnamed = nil
	}
}

// Stmt is what an unnamed Parse defines. It is shared by all clients of a
// Statements and immutable.
type Stmt struct {
	Body string // the Parse message's body, with its empty name
	Note Note   // what Scan said of its text
	refs int
}

// Statements shares definitions by content, so that a thousand clients with
// the same statement keep it once, and a repeated Parse allocates nothing. It
// keeps some that nobody uses at the moment. The zero value is ready.
type Statements struct {
	byBody map[string]*Stmt
	unused int
}

// maxUnused is how many definitions are kept without a user, and maxUnusedBody
// how long each may be.
const (
	maxUnused     = 256
	maxUnusedBody = 4096
)

// Intern returns the shared definition for the body of an unnamed Parse and
// takes a reference.
func (s *Statements) Intern(body []byte) *Stmt {
	if st, ok := s.byBody[string(body)]; ok {
		if st.refs == 0 {
			s.unused--
		}
		st.refs++
		return st
	}
	if s.byBody == nil {
		s.byBody = make(map[string]*Stmt)
	}
	st := &Stmt{Body: string(body), Note: Scan(body), refs: 1}
	s.byBody[st.Body] = st
	return st
}

// Keep takes another reference; nil is allowed.
func (s *Statements) Keep(st *Stmt) *Stmt {
	if st != nil {
		if st.refs == 0 {
			s.unused--
		}
		st.refs++
	}
	return st
}

// Drop gives a reference back; nil is allowed.
func (s *Statements) Drop(st *Stmt) {
	if st == nil {
		return
	}
	st.refs--
	if st.refs < 0 {
		panic("BUG: statement dropped more often than kept")
	}
	if st.refs > 0 {
		return
	}
	if len(st.Body) > maxUnusedBody {
		delete(s.byBody, st.Body)
		return
	}
	if s.unused++; s.unused > maxUnused {
		for body, other := range s.byBody {
			if other.refs == 0 {
				delete(s.byBody, body)
			}
		}
		s.unused = 0
	}
}

// Len is how many definitions are held.
func (s *Statements) Len() int { return len(s.byBody) }
