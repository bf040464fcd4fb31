// Portals: which statement's text an Execute may run, and plans for Execute and Query.

package link

import (
	"slices"

	"github.com/postern/postern/proxy/sqltext"
)

// bound is what is known of the texts behind a portal.
type bound struct {
	note        sqltext.Note
	state       sqltext.State
	names       []string
	vacates     []string
	deallocates string // see deallocate.go
}

// unknownText is what must be assumed of a text that was not seen; what it may
// leave only once it has run.
var unknownText = bound{note: sqltext.Unseen | sqltext.Alters | sqltext.Rereads | sqltext.Resets, state: sqltext.StateSequence | sqltext.StateReads}

// bind records that a statement, nil for none, is bound to a portal.
func (l *Link) bind(portal []byte, st *Stmt) {
	b := bound{}
	if st != nil {
		b = bound{st.Note, st.State, st.Names, st.Vacates, st.deallocates}
	}
	l.bindText(portal, b)
}

func (l *Link) bindText(portal []byte, b bound) {
	if len(portal) == 0 {
		l.bound = b
		return
	}
	// Which of them an Execute runs is not kept: it may be any. What is harmless
	// in one says nothing of the others.
	p := &l.portals
	p.note |= b.note &^ sqltext.SetHarmless
	p.state |= b.state
	for _, name := range b.names {
		if !slices.Contains(p.names, name) {
			p.names = append(p.names, name)
		}
	}
	for _, name := range b.vacates {
		if !slices.Contains(p.vacates, name) {
			p.vacates = append(p.vacates, name)
		}
	}
}

// BindUnseen records a Bind that cannot be read.
func (l *Link) BindUnseen() {
	l.bindText(nil, unknownText)
	l.Sent(Entry{Kind: Bind})
}

// Bound returns what sqltext.Scan and ParameterNames said of the texts that an
// Execute of the portal may run.
func (l *Link) Bound(portal []byte) (sqltext.State, []string) {
	if len(portal) == 0 {
		return l.bound.state, l.bound.names
	}
	return l.portals.state, l.portals.names
}

// Vacates returns the databases that an Execute of the portal may want for itself.
func (l *Link) Vacates(portal []byte) []string {
	if len(portal) == 0 {
		return l.bound.vacates
	}
	return l.portals.vacates
}

// Execute plans an Execute of a portal.
func (l *Link) Execute(portal []byte) Plan {
	l.puts = l.puts[:0]
	e := Entry{Kind: Execute, Note: l.portals.note}
	if len(portal) == 0 {
		e.Note = l.bound.note
		if l.bound.deallocates != "" && !l.deaf() {
			if l.unsettled() {
				return l.settle()
			}
			e.named, e.name = l.dropping([]byte(l.bound.deallocates)), Scratch
		}
	}
	l.Sent(e)
	return Plan{Puts: l.puts}
}

// Query plans a Query of a text of which sqltext.Scan has said note; text is nil where
// it has not been seen.
func (l *Link) Query(text []byte, note sqltext.Note) Plan {
	e := Entry{Kind: Query, Note: note}
	if note&sqltext.Deallocates != 0 && !l.deaf() {
		if name, ok := sqltext.Deallocated(text); ok {
			if l.unsettled() {
				return l.settle()
			}
			if n := l.client.find(name); n != nil {
				e.named, e.name = n, l.cache.name()
				l.Sent(e)
				return Plan{Do: Rewrite, Name: e.name}
			}
		}
	}
	l.Sent(e)
	return Plan{}
}
