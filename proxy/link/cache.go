// Which statements a server holds, and which of them goes when there are too many.

package link

import (
	"strconv"

	"github.com/postern/postern/proxy/pgwire"
)

// DefaultLimit is how many named statements a server holds at most, unless a
// link's Limit says otherwise.
const DefaultLimit = 200

// maxCacheBytes bounds the texts of the statements that a server holds: what
// they cost there, and here while no client has them any more.
const maxCacheBytes = 64 << 20

// ServerName is the name of a statement as a server knows it.
type ServerName uint64

// Names that no held statement has.
const (
	// Nothing is never defined: to close it is a success, to use it an error.
	Nothing ServerName = iota
	// Scratch is defined only to be dropped again; see deallocate.go.
	Scratch
	// Unnamed is the unnamed statement.
	Unnamed ServerName = 1<<64 - 1
)

// prefix begins every name that Postern gives to a statement.
const prefix = "postern_"

// Append appends the name, without a NUL.
func (n ServerName) Append(dst []byte) []byte {
	if n == Unnamed {
		return dst
	}
	return strconv.AppendUint(append(dst, prefix...), uint64(n), 10)
}

// AppendAbout appends a Describe or Close of a statement.
func AppendAbout(dst []byte, typ byte, name ServerName) []byte {
	start := len(dst)
	dst = append(pgwire.AppendHeader(dst, typ, 0), 'S')
	dst = append(name.Append(dst), 0)
	pgwire.PutLength(dst[start:])
	return dst
}

// AppendClose appends a Close of a statement.
func AppendClose(dst []byte, name ServerName) []byte { return AppendAbout(dst, pgwire.Close, name) }

// held is a statement that a server holds, or will when what was sent to it has
// been read.
type held struct {
	stmt    *Stmt // owns a reference; nil when the server has dropped it unasked
	env     any   // the settings under which it was parsed, or whose alone it is: a *Name
	version uint32
	changes uint64 // as counted by the Statements
	name    ServerName
	stale   bool   // it must be prepared again
	types   string // given in its Parse in place of those in the body; "" for none
	shape   *shape // what it is, nil until it was described
	asked   bool   // a Describe of it was sent

	older        *held // of the same Stmt
	newer, elder *held // by their last use
}

// cache is what a server holds. The zero value is empty.
//
// A Stmt may be there more than once: parsed under different settings, before its
// tables were changed, or for somebody who was told of other types. Those that nobody finds any more go with
// time, like all that is not used.
type cache struct {
	byStmt         map[*Stmt]*held // the newest
	newest, eldest *held           // by their last use
	n, bytes       int
	last           ServerName // the latest name given away
}

// find returns what was parsed of st under env most recently, with types given
// for its parameters, nil for nothing.
func (c *cache) find(st *Stmt, env any, types string) *held {
	h := c.byStmt[st]
	for h != nil && (h.env != env || h.types != types) {
		h = h.older
	}
	return h
}

// Held is how many named statements of ours the server holds.
func (l *Link) Held() int { return l.cache.n }

// touch makes h the latest used.
func (c *cache) touch(h *held) {
	if c.newest != h {
		c.unlink(h)
		c.link(h)
	}
}

// name returns a name that was never used on this server.
func (c *cache) name() ServerName {
	if c.last == Nothing {
		c.last = Scratch
	}
	c.last++
	return c.last
}

// add takes over the reference of h.stmt.
func (c *cache) add(h *held) {
	if c.byStmt == nil {
		c.byStmt = make(map[*Stmt]*held)
	}
	h.older = c.byStmt[h.stmt]
	c.byStmt[h.stmt] = h
	c.n++
	c.bytes += len(h.stmt.Body)
	c.link(h)
}

// remove gives the reference of h.stmt back to the caller.
func (c *cache) remove(h *held) {
	if first := c.byStmt[h.stmt]; first != h {
		for first.older != h {
			first = first.older
		}
		first.older = h.older
	} else if h.older != nil {
		c.byStmt[h.stmt] = h.older
	} else {
		delete(c.byStmt, h.stmt)
	}
	h.older = nil
	c.n--
	c.bytes -= len(h.stmt.Body)
	c.unlink(h)
}

// forget removes h and gives its reference back.
func (c *cache) forget(h *held, stmts *Statements) {
	c.remove(h)
	stmts.Drop(h.stmt)
	h.stmt = nil
}

// named returns what the server holds under a name. It looks at all.
func (c *cache) named(name ServerName) *held {
	for h := c.newest; h != nil; h = h.elder {
		if h.name == name {
			return h
		}
	}
	return nil
}

// clear forgets everything. Names are not given away twice all the same.
func (c *cache) clear(stmts *Statements) {
	for h := c.newest; h != nil; h = h.elder {
		stmts.Drop(h.stmt)
		h.stmt = nil // some may stand in the queue
	}
	*c = cache{last: c.last}
}

func (c *cache) link(h *held) {
	if h.elder = c.newest; h.elder != nil {
		h.elder.newer = h
	} else {
		c.eldest = h
	}
	c.newest = h
}

func (c *cache) unlink(h *held) {
	if h.newer != nil {
		h.newer.elder = h.elder
	} else {
		c.newest = h.elder
	}
	if h.elder != nil {
		h.elder.newer = h.newer
	} else {
		c.eldest = h.newer
	}
	h.newer, h.elder = nil, nil
}
