// Descriptions of statements: the types and columns that a client was told of are what runs, or nothing does.

package link

import (
	"bytes"
	"hash/maphash"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// A client's driver keeps what it was told of a statement: of which types its
// parameters are and which columns come. In a server the former stay as they
// were when it was parsed, and where the latter would change every use fails
// with "cached plan must not change result type", until the statement is parsed
// anew. Here a statement that a client was told of may be prepared again, on
// another server and at another time. So what a server holds is described once,
// beside its Parse or before its first use, and whoever was told something else
// does not get it. A client is told by the first Describe or Bind that succeeds.

// shape is what a server says of a statement.
type shape struct {
	types string // of its parameters, as in a ParameterDescription and in a Parse
	// columns digests their names, types and type modifiers, which is what Postgres
	// itself compares, less collations, which nobody is told. 0: there are none, or
	// Postgres holds the statement to none.
	columns uint64
}

// same reports whether two shapes say the same. Most are the same pointer.
func (s *shape) same(o *shape) bool { return s == o || *s == *o }

// asking are the types that a Parse of st must give so that its parameters are
// as they were told: none where its own body does that.
func (s *shape) asking(st *Stmt) string {
	if s == nil {
		return ""
	}
	if _, given, _ := strings.Cut(st.Body[1:], "\x00"); given == s.types {
		return ""
	}
	return s.types
}

// maxTypes is how long a ParameterDescription of Postgres can be.
const maxTypes = 2 + 4*65535

// heed is a description that is being read, which may come in pieces.
type heed struct {
	typ   byte // of the message; 0: it is not for us
	types []byte
	hash  maphash.Hash
	head  int // bytes to come of the number of columns
	tail  int // bytes to come behind the name of a column; 0: in the name
}

// What stands behind the name of a column in a RowDescription: the table's oid
// and the column's number there (6), the type's oid (4) and length (2), the type
// modifier (4) and the format (2).
const columnTail = 18

// columns reads a piece of a RowDescription.
func (d *heed) columns(p []byte) {
	for len(p) > 0 {
		switch {
		case d.head > 0:
			d.head--
			p = p[1:]
		case d.tail == 0:
			n := bytes.IndexByte(p, 0)
			if n < 0 {
				d.hash.Write(p)
				return
			}
			d.hash.Write(p[:n+1])
			p, d.tail = p[n+1:], columnTail
		default:
			if at := columnTail - d.tail; at >= 6 && at < 10 || at >= 12 && at < 16 {
				d.hash.WriteByte(p[0])
			}
			p, d.tail = p[1:], d.tail-1
		}
	}
}

// heeds begins to read a message about the entry e of a Describe.
func (l *Link) heeds(e *Entry, typ byte) {
	d := &l.heed
	d.typ = 0
	switch {
	case e.held != nil && e.held.shape != nil:
		if typ != pgwire.ParameterDescription {
			l.tell(e, e.held.shape)
		}
		return
	case e.held == nil && (e.name != Unnamed || l.client == nil):
		return
	}
	switch d.typ = typ; typ {
	case pgwire.ParameterDescription:
		d.types = d.types[:0]
	case pgwire.RowDescription:
		d.head, d.tail = 2, 0
		d.hash.SetSeed(l.stmts.seedOf())
	}
}

// Heeds reports whether the body of the message that was judged latest is to be
// read by Heed.
func (l *Link) Heeds() bool { return l.heed.typ != 0 }

// Heed reads a piece of it; last says that no more comes.
func (l *Link) Heed(piece []byte, last bool) {
	d := &l.heed
	switch d.typ {
	case pgwire.ParameterDescription:
		if len(d.types)+len(piece) <= maxTypes { // no server says more
			d.types = append(d.types, piece...)
		}
		if last {
			d.typ = 0
		}
		return
	case pgwire.RowDescription:
		d.columns(piece)
	}
	if !last {
		return
	}
	columns := uint64(0)
	if d.typ == pgwire.RowDescription {
		columns = d.hash.Sum64() | 1
	}
	d.typ = 0
	e := &l.last
	switch {
	case e.held == nil && l.client != nil && l.client.Unnamed != nil:
		l.tell(e, l.client.Unnamed.shapeOf(d.types, columns))
	case e.held != nil && e.held.stmt != nil:
		e.held.shape = e.held.stmt.shapeOf(d.types, columns)
		l.tell(e, e.held.shape)
	}
	if cap(d.types) > maxUnusedBody {
		d.types = nil
	}
}

// shapeOf returns a shape; the statement keeps the latest, because the next is
// most likely the same. A text or a Parse that gives types needs two bytes at
// least for each parameter, so that a server that tells of more costs nothing.
func (st *Stmt) shapeOf(types []byte, columns uint64) *shape {
	if len(types) > 2+2*len(st.Body) {
		types = nil
	}
	if st.shapeless {
		columns = 0
	}
	if s := st.shape; s == nil || s.types != string(types) || s.columns != columns {
		st.shape = &shape{string(types), columns}
	}
	return st.shape
}

// tell records that the answer to e, a Describe or a Bind, is true of s.
func (l *Link) tell(e *Entry, s *shape) {
	switch {
	case e.name == Unnamed && l.client != nil:
		switch l.shape = s; {
		case e.Mode == Forward:
			l.client.told = s
		case e.Mode == Quiet && l.client.told != nil && !l.client.told.same(s):
			l.Forget()
			l.restored = differs
		default:
			l.restored = agrees
		}
		if l.redefinitions == 0 {
			l.known = l.hasUnnamed(l.client)
		}
	case e.Mode == Forward && e.named != nil && e.named.told == nil:
		e.named.told = s
	}
}

// restored is what is known of an unnamed statement that was put in for a
// client who was told of it.
type restored uint8

const (
	agrees restored = iota // or nothing was put in, or nobody was told
	asked                  // its description is on its way
	differs
)

// agreed has the server hold a client's statement in the shape that the client
// was told of, for a Bind or Describe. Until that is known they wait, and where it
// cannot be they fail.
func (l *Link) agreed(kind Kind, n *Name, env any) (*held, Do) {
	h := l.lookup(n, env, "")
	if n.told == nil {
		switch {
		case h == nil && l.tells(n):
			return nil, Wait
		case h == nil:
			h = l.prepare(n, env, "")
		}
		if h.shape == nil && kind == Bind && l.Status() != 'E' { // there it might fail before the Bind does
			l.describe(h, n)
		}
		return h, Rename
	}
	if h == nil || h.shape != nil && h.shape != n.told && h.shape.types != n.told.types {
		if types := n.told.asking(n.stmt); h == nil || types != "" {
			if h = l.lookup(n, env, types); h == nil {
				h = l.prepare(n, env, types)
			}
		}
	}
	switch {
	case h.shape == nil:
		l.describe(h, n)
		return nil, Wait
	case !h.shape.same(n.told):
		// Its tables may be changed back: the server is asked again by whoever is next.
		h.shape, h.asked = nil, false
		return nil, Changed
	}
	return h, Rename
}

// tells reports whether the client is about to be told of a statement.
func (l *Link) tells(n *Name) bool {
	for _, e := range l.queue[l.head:] {
		if e.named == n && (e.Kind == Bind || e.Kind == Describe) {
			return true
		}
	}
	return false
}

// describe has the server describe what it holds, on behalf of a client's name.
func (l *Link) describe(h *held, n *Name) {
	if !h.asked {
		h.asked = true
		l.put(Put{Kind: Describe, Name: h.name}, Entry{held: h, named: n})
	}
}

// seedOf returns the seed of all digests.
func (s *Statements) seedOf() maphash.Seed {
	if !s.seeded {
		s.seed, s.seeded = maphash.MakeSeed(), true
	}
	return s.seed
}
