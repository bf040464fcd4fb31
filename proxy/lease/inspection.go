// What a server says when it is asked what its session has in it.

package lease

import (
	"encoding/binary"
	"slices"

	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

const (
	// MaxSettings bounds what a session may have set and be lent different servers,
	// in bytes of the answer about it.
	MaxSettings = 4 << 20
	// MaxTries is how often a server is asked what it has, if it fails to answer: a
	// statement_timeout of its client's holds for the question, too.
	MaxTries = 8
)

// Inspection is a question about what a server's session has in it, and the
// answer. Begin starts one. Not safe for concurrent use.
type Inspection struct {
	tries  int
	kinds  sqltext.State // asked for
	found  sqltext.State
	params []pgwire.Param // what is set, as pg_settings shows it
	named  []pgwire.Param // what was asked for by name
	unset  []string       // of these, what pg_settings shows and is not set
	failed bool
	row    []byte // what has come of a long row
	size   int    // of all rows, in bytes
}

// Suspect says what is asked for first.
func (i *Inspection) Suspect(kinds sqltext.State) { *i = Inspection{kinds: kinds} }

// Begin starts the next try, and returns what is asked for.
func (i *Inspection) Begin() (kinds sqltext.State) {
	*i = Inspection{kinds: i.kinds, tries: i.tries + 1}
	return i.kinds
}

// Row takes a row that came in one piece. login is who the session is by itself.
func (i *Inspection) Row(row []byte, login string) {
	if i.size += len(row); i.size <= MaxSettings {
		i.read(row, login)
	}
}

// FirstOf takes the first piece of a long row, of size bytes in all.
func (i *Inspection) FirstOf(piece []byte, size int) {
	if i.size += size; i.size <= MaxSettings {
		i.row = append(make([]byte, 0, size), piece...)
	}
}

// More takes another.
func (i *Inspection) More(piece []byte, last bool, login string) {
	if i.row == nil {
		return
	}
	if i.row = append(i.row, piece...); last {
		i.read(i.row, login)
		i.row = nil
	}
}

// Erred says that the server has answered with an error.
func (i *Inspection) Erred() { i.failed = true }

// Huge reports whether the answer was too long to be kept: there is too much to
// be set again elsewhere.
func (i *Inspection) Huge() bool { return i.size > MaxSettings }

// Unknown reports whether the server has failed to answer; again says that it is
// worth another try.
func (i *Inspection) Unknown() (unknown, again bool) {
	unknown = i.failed && !i.Huge()
	return unknown, unknown && i.tries < MaxTries
}

// read takes note of a row of the answer.
func (i *Inspection) read(row []byte, login string) {
	fields, ok := textRow(row)
	if !ok || len(fields) != 3 || fields[0] == nil {
		i.failed = true
		return
	}
	kind := string(fields[0])
	if kind != "set" && kind != "unset" && kind != "named" {
		for n, name := range sqltext.StateNames() {
			if name == kind {
				i.found |= 1 << n
			}
		}
		return
	}
	if fields[1] == nil || fields[2] == nil {
		return // no such parameter in this session
	}
	name, value := string(fields[1]), string(fields[2])
	switch {
	case params.AsNotSet(name, value, login):
	case len(i.params) >= params.MaxTracked || len(i.named) >= 2*params.MaxTracked:
		i.size = MaxSettings + 1 // too many is too much
	case kind == "set":
		i.params = append(i.params, pgwire.Param{Name: name, Value: value})
	case kind == "named":
		i.named = append(i.named, pgwire.Param{Name: name, Value: value})
	default:
		i.unset = append(i.unset, name)
	}
}

// Settings returns what the session has set. false: it was not asked for.
func (i *Inspection) Settings() ([]pgwire.Param, bool) {
	all := i.params
	for _, p := range i.named {
		if !slices.Contains(i.unset, p.Name) {
			all = append(all, p)
		}
	}
	return all, i.kinds&sqltext.StateSet != 0
}

// Reset returns what a holder's session has set, with what it came with in the
// place of what it has reset: in Postgres, RESET goes back to the startup packet.
// had is what it had before; found what the server has, both of sets.
func (i *Inspection) Reset(h *Holder, sets *params.Sets, came, had, found *params.Set) *params.Set {
	want := h.Resets.Wanted(sets, came, had, found, i.unset)
	h.Resets = params.Resets{}
	h.Names.Prune(came, i.named)
	return want
}

// Pins settles why the holder keeps its server from now on, and returns what
// is new of it. set says that it has settings other than a fresh session's.
func (i *Inspection) Pins(p *Policies, h *Holder, set bool) (added sqltext.State) {
	if i.Huge() {
		return h.Pin(i.found | sqltext.StateSet)
	}
	if i.kinds&sqltext.StateSet != 0 && (h.hidden || p.Pin&sqltext.StateSet != 0 && set) {
		i.found |= sqltext.StateSet
	}
	h.Pins = h.Pins&^i.kinds | h.Pins&i.found
	return h.Pin(i.found & (p.Pin | h.Pins))
}

// textRow splits the body of a DataRow; nil stands for NULL.
func textRow(body []byte) (fields [][]byte, ok bool) {
	fields, rest, ok := values(body)
	return fields, ok && len(rest) == 0
}

// values splits what has a number and so many values with their lengths.
func values(body []byte) (fields [][]byte, rest []byte, ok bool) {
	if len(body) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	for body = body[2:]; n > 0; n-- {
		if len(body) < 4 {
			return nil, nil, false
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if size == -1 {
			fields = append(fields, nil)
			continue
		}
		if size < 0 || int(size) > len(body) {
			return nil, nil, false
		}
		fields = append(fields, body[:size:size])
		body = body[size:]
	}
	return fields, body, true
}
