// What a client has defined: its unnamed statement, and its names for statements that are shared.

package link

// What one client may define.
const (
	MaxNamed      = 5000     // statements with a name
	MaxNamedBytes = 64 << 20 // their texts and names together
)

// maxName is how much of a name Postgres looks at (NAMEDATALEN - 1).
const maxName = 63

// Session is what a client has that outlives its leases. The zero value is a
// client that has defined nothing.
type Session struct {
	Unnamed *Stmt // its unnamed statement, nil for none; the session owns the reference

	named map[string]*Name // nil until the first; owns their references
	bytes int
}

// Name is a client's name for a statement. It is immutable.
type Name struct {
	text string
	stmt *Stmt
}

func (n *Name) key() string { return n.text[:min(len(n.text), maxName)] }

// size is what counts against MaxNamedBytes.
func (n *Name) size() int { return len(n.text) + len(n.stmt.Body) }

// find returns the client's statement of this name, nil for none.
func (s *Session) find(name []byte) *Name {
	return s.named[string(name[:min(len(name), maxName)])]
}

// full reports whether there is no room for one more with n bytes.
func (s *Session) full(n int) bool {
	return len(s.named) >= MaxNamed || s.bytes+n > MaxNamedBytes
}

// add takes over the reference of n.
func (s *Session) add(n *Name) {
	if s.named == nil {
		s.named = make(map[string]*Name)
	}
	s.named[n.key()] = n
	s.bytes += n.size()
}

// remove gives the reference of n back to the caller. False: n is not there.
func (s *Session) remove(n *Name) bool {
	if s.named[n.key()] != n {
		return false
	}
	delete(s.named, n.key())
	s.bytes -= n.size()
	if len(s.named) == 0 {
		s.named = nil
	}
	return true
}

// clear forgets all named statements.
func (s *Session) clear(stmts *Statements) {
	for _, n := range s.named {
		stmts.Drop(n.stmt)
	}
	s.named, s.bytes = nil, 0
}

// Release gives back all that a client holds. It must be called after the
// client's last lease has ended.
func (s *Session) Release(stmts *Statements) {
	stmts.Drop(s.Unnamed)
	s.Unnamed = nil
	s.clear(stmts)
}
