// The mirror: what is known of the store's feed, and what has to be read. Pure.

package postgres

// mirror knows which form of each tenant is in force here.
type mirror struct {
	epoch string           // in which versions can be compared; "": nothing was read yet
	seen  int64            // everything up to this version was read
	marks map[string]int64 // of the tenants that the store has
}

func newMirror() *mirror { return &mirror{marks: make(map[string]int64)} }

// head is where the store's feed ends.
type head struct {
	epoch   string
	version int64
}

// reading is what has to be read.
type reading uint8

const (
	readNothing reading = iota
	readNewer           // what has a newer version than was seen
	readMarks           // all versions, and what differs
	readAll             // everything: versions of before mean nothing
)

// next says what has to be read to be where the head is. compare: what is known is not trusted.
func (m *mirror) next(h head, compare bool) reading {
	switch {
	case h.epoch != m.epoch, h.version < m.seen:
		return readAll
	case compare:
		return readMarks
	case h.version > m.seen:
		return readNewer
	}
	return readNothing
}

// differing compares with the marks of all tenants that the store has: which must be read, and which are gone.
func (m *mirror) differing(all map[string]int64) (read, gone []string) {
	for id, mark := range all {
		if known, ok := m.marks[id]; !ok || known != mark {
			read = append(read, id)
		}
	}
	return read, m.missing(func(id string) bool { _, ok := all[id]; return ok })
}

// missing are those that are known and not there.
func (m *mirror) missing(there func(id string) bool) (gone []string) {
	for id := range m.marks {
		if !there(id) {
			gone = append(gone, id)
		}
	}
	return gone
}

// reached says that all was read up to the head.
func (m *mirror) reached(h head) { m.epoch, m.seen = h.epoch, h.version }

// at is what was reached.
func (m *mirror) at() head { return head{m.epoch, m.seen} }

// has says that a tenant is in force as its change with this mark has made it.
func (m *mirror) has(id string, mark int64) { m.marks[id] = mark }

// lacks says that a tenant is not there any more.
func (m *mirror) lacks(id string) { delete(m.marks, id) }
