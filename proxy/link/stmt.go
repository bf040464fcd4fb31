// Definitions of statements, shared by content.

package link

import (
	"bytes"
	"hash/maphash"

	"github.com/postern/postern/proxy/sqltext"
)

// MaxStatement bounds the Parse messages that Postern keeps, in bytes.
const MaxStatement = 16 << 20

// Stmt is what a Parse defines, under whatever name. It is shared by all
// clients of a Statements.
type Stmt struct {
	Body  string        // the Parse message's body, with an empty name
	Note  sqltext.Note  // what sqltext.Scan said of its text
	State sqltext.State // and which kinds it may leave
	Names []string      // of parameters that it sets, see sqltext.ParameterNames
	// Vacates are the databases that it wants for itself, see there.
	Vacates []string
	refs    int
	// version counts how often a server has said that tables have changed so much
	// that the statement must be prepared again.
	version uint32
	shape   *shape // the latest that a server has told of it, nil for none
	// shapeless: Postgres does not hold it to the columns that it told of.
	shapeless bool
	// deallocates is the client's statement that this one drops, where Postern
	// has rewritten its text; see deallocate.go.
	deallocates string
}

// Statements shares definitions by content, so that a thousand clients with
// the same statement keep it once, and a repeated Parse allocates nothing. It
// keeps some that nobody uses at the moment. The zero value is ready.
type Statements struct {
	Limits Limits // of each client; set before the first is used

	seed   maphash.Seed // see told.go
	seeded bool

	byBody map[string]*Stmt
	unused int
	// changes counts what may have made an equal Parse mean something else: each
	// CREATE, ALTER, DROP, GRANT and REVOKE of all clients, once more the end of its
	// transaction, and what a server says has changed unseen.
	changes uint64
}

// maxUnused is how many definitions are kept without a user, and maxUnusedBody
// how long each may be.
const (
	maxUnused     = 256
	maxUnusedBody = 4096
)

// Intern returns the shared definition for the body of a Parse, less its name,
// and takes a reference.
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
	note, state := sqltext.Scan(body)
	st := &Stmt{Body: string(body), Note: note, State: state, Names: sqltext.ParameterNames(body), refs: 1}
	st.shapeless = sqltext.Shapeless(body)
	if note&sqltext.Alters != 0 {
		st.Vacates = sqltext.Vacates(bytes.TrimPrefix(body, []byte{0})) // which ends the name
	}
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
