// What a lease has left on its server: noted from texts and tags, made sure of when the transaction is over.

package lease

import "github.com/postern/postern/proxy/sqltext"

// worth is what a server is worth to somebody else. It only gets worse, until
// a reset.
type worth uint8

const (
	clean  worth = iota
	dirty        // a reset takes out what is on it
	loaded       // nothing takes out a library that is on it; its own client may keep it
	failed       // something of Postern's own went wrong, or the server is about to end
)

// course is how the transaction goes, as far as the server has said.
type course uint8

const (
	commits   course = iota
	rollsBack        // by the command that was completed last
	fails            // there was an error since the last ReadyForQuery
)

// unreadable is what cannot be asked about, and is over if its transaction is
// rolled back.
const unreadable = sqltext.StateHidden | sqltext.StateNameUnknown

// Traces are what the lease of a server may have left on it, and what was there
// before. The zero value is a server that has just logged in. Not safe for
// concurrent use.
type Traces struct {
	noted  sqltext.State // what is asked about when the transaction is over
	unsure sqltext.State // what was done in it and cannot be asked about
	course course
	worth  worth
}

// Any reports whether anything is to be looked at.
func (t *Traces) Any() bool { return t.noted != 0 }

// Noted reports whether something of a kind may have been left.
func (t *Traces) Noted(kind sqltext.State) bool { return t.noted&kind != 0 }

// Note takes note of what a lease may leave.
func (t *Traces) Note(state sqltext.State) { t.noted |= state }

// Facts says what the next client would find: of a server that is lent, or that
// its client has parted from.
func (t *Traces) Facts() Facts {
	switch t.worth {
	case dirty, loaded: // which fails when its client has parted from it
		return Dirty
	case failed:
		return Failed
	}
	return 0
}

// Mark marks the server for what must be gone before anybody else has it, and
// what nothing shows.
func (t *Traces) Mark(p *Policies, state sqltext.State) {
	if state&(p.Reset|p.Refuse) != 0 || state&sqltext.StateNameUnknown != 0 && p.minded()&(sqltext.StateSet|sqltext.StateSeed) != 0 {
		t.worth = max(t.worth, dirty)
	}
	if state&p.minded()&sqltext.StateLoad != 0 {
		t.worth = max(t.worth, loaded)
	}
}

// MarkDirty says that it is not known what is on the server, which is to be reset.
func (t *Traces) MarkDirty() { t.worth = max(t.worth, dirty) }

// Fail says that nobody else is to have the server.
func (t *Traces) Fail() { t.worth = failed }

// Failed reports whether that is so.
func (t *Traces) Failed() bool { return t.worth == failed }

// Erred says that a command of the client's has failed.
func (t *Traces) Erred() { t.course = fails }

// Completed takes note of what a command of a client that shares its server has
// left, by its tag and by what was noted of its text. It returns the kinds.
func (t *Traces) Completed(p *Policies, tag []byte, note sqltext.Note) sqltext.State {
	left := sqltext.TagState(tag, note)
	t.noted |= left &^ (p.unnoted | unreadable)
	t.unsure |= left & unreadable
	switch ended := string(tag) == "ROLLBACK"; {
	case t.course == fails:
	case ended:
		t.course = rollsBack
	default:
		t.course = commits
	}
	switch string(tag) {
	case "COMMIT", "PREPARE TRANSACTION":
		t.noted |= t.unsure
		t.unsure = 0
	case "DISCARD ALL":
		t.unsure = 0
		t.noted &^= unreadable
	}
	return left
}

// Concluded is at a ReadyForQuery: what was done in a transaction that has
// ended is there, unless it was rolled back. outside says that none is open.
func (t *Traces) Concluded(outside bool) {
	if outside {
		if t.course == commits {
			t.noted |= t.unsure
		}
		t.unsure = 0
	}
	t.course = commits
}

// RolledBack is Concluded for a transaction that Postern has rolled back.
func (t *Traces) RolledBack() { t.unsure, t.course = 0, commits }

// Suspects ends the noting, and returns what the server is to be asked about.
// What it cannot be asked about pins its client, or is reset.
func (t *Traces) Suspects(p *Policies, h *Holder) (ask, pins sqltext.State) {
	noted := t.noted
	t.noted = 0
	if h.Alone {
		return noted &^ sqltext.StateUnasked, noted & sqltext.StateUnasked
	}
	t.Mark(p, noted)
	ask, pins = h.suspected(p, noted)
	return ask &^ sqltext.StateUnasked, pins | ask&sqltext.StateUnasked
}

// End is the end of every lease, however it came about: what it has left and
// nobody has looked at, and what its client kept the server for, is to be gone
// before anybody else has the server. In the phases that ask for something it is
// not known what is there.
func (t *Traces) End(p *Policies, h *Holder, in Phase) {
	left := t.noted | t.unsure | h.Pins
	t.Mark(p, left)
	if left != 0 || h.Alone || in == Preparing || in == Restoring || in == Inspecting {
		t.MarkDirty()
	}
	if t.worth == loaded {
		t.worth = failed
	}
	t.noted, t.unsure, t.course = 0, 0, commits
}

// Reset says that a reset takes out what was left.
func (t *Traces) Reset() {
	if t.worth == dirty {
		t.worth = clean
	}
}
