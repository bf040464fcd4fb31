// What a client has defined: its unnamed statement, and its names for statements that are shared.

package link

import (
	"cmp"

	"github.com/postern/postern/proxy/sqltext"
)

// What one client may define, unless a Limits says otherwise.
const (
	MaxNamed      = 5000     // statements with a name
	MaxNamedBytes = 64 << 20 // their texts and names together
)

// Limits bound what one client may define. A zero stands for the default.
type Limits struct{ Named, NamedBytes int }

// OrDefault returns the limits with the defaults filled in.
func (l Limits) OrDefault() Limits {
	return Limits{cmp.Or(l.Named, MaxNamed), cmp.Or(l.NamedBytes, MaxNamedBytes)}
}

// Session is what a client has that outlives its leases. The zero value is a
// client that has defined nothing.
type Session struct {
	Unnamed *Stmt  // its unnamed statement, nil for none; the session owns the reference
	told    *shape // what it was told of that, nil for nothing

	named map[string]*Name // nil until the first; owns their references
	bytes int
	fixed int // how many of them are
	// prepares: it has used SQL's PREPARE, so that names may be there of which
	// nothing is known here.
	prepares bool
}

// Fixed reports whether the client has a statement that only its server can run
// as it was meant: it must keep that one.
func (s *Session) Fixed() bool { return s.fixed > 0 }

// Len is how many named statements the client has.
func (s *Session) Len() int { return len(s.named) }

// Name is a client's name for a statement. Only told changes, once.
type Name struct {
	text  string
	stmt  *Stmt
	env   any    // the settings under which it was parsed, or the Name itself
	alone bool   // its Parse says nothing of others, and theirs nothing of it; see meaning.go
	fixed bool   // and it cannot be prepared again elsewhere
	told  *shape // what the client was told of it, nil for nothing yet; see told.go
}

func (n *Name) key() string { return n.text[:min(len(n.text), sqltext.MaxName)] }

// size is what counts against Limits.NamedBytes.
func (n *Name) size() int { return len(n.text) + len(n.stmt.Body) }

// find returns the client's statement of this name, nil for none.
func (s *Session) find(name []byte) *Name {
	return s.named[string(name[:min(len(name), sqltext.MaxName)])]
}

// full reports whether there is no room for one more with n bytes.
func (s *Session) full(n int, most Limits) bool {
	most = most.OrDefault()
	return len(s.named) >= most.Named || s.bytes+n > most.NamedBytes
}

// add takes over the reference of n.
func (s *Session) add(n *Name) {
	if s.named == nil {
		s.named = make(map[string]*Name)
	}
	s.named[n.key()] = n
	s.bytes += n.size()
	if n.fixed {
		s.fixed++
	}
}

// remove gives the reference of n back to the caller. False: n is not there.
func (s *Session) remove(n *Name) bool {
	if s.named[n.key()] != n {
		return false
	}
	delete(s.named, n.key())
	s.bytes -= n.size()
	if n.fixed {
		s.fixed--
	}
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
	s.named, s.bytes, s.fixed = nil, 0, 0
}

// Release gives back all that a client holds. It must be called after the
// client's last lease has ended.
func (s *Session) Release(stmts *Statements) {
	stmts.Drop(s.Unnamed)
	s.Unnamed, s.told = nil, nil
	s.clear(stmts)
}
