// What a client's session has that follows it, or keeps it where it is.

package lease

import (
	"encoding/binary"

	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/sqltext"
)

// Holder is what is known of a client's session for the sake of its leases. Not
// safe for concurrent use.
type Holder struct {
	// Alone says that the client is in session mode: its server is its own for as
	// long as it stays, and whatever is there is kept.
	Alone bool
	Pins  sqltext.State // why it keeps its server
	Names params.Names  // that it may have set and that pg_settings does not show
	// Resets are those since its server was last asked what it has.
	Resets params.Resets

	hidden bool       // it has set a parameter that is not known
	latest *Sequences // of the server that it has had
}

// Pin keeps the server for the client. It returns what is new of the reasons.
func (h *Holder) Pin(kinds sqltext.State) (added sqltext.State) {
	added = kinds &^ h.Pins
	h.Pins |= kinds
	return added
}

// suspected returns what is to be asked after a lease that may have left noted,
// and what pins without a question.
func (h *Holder) suspected(p *Policies, noted sqltext.State) (ask, pins sqltext.State) {
	asked := p.Track | p.Pin
	ask = noted & asked
	if noted&sqltext.StateEnds != 0 {
		ask |= h.Pins
		if h.Pins&sqltext.StatePrepared != 0 {
			ask |= sqltext.StateAny & asked // what it has run by EXECUTE did not say what it does
		}
	}
	if noted&sqltext.StateHidden != 0 && asked&sqltext.StateSet != 0 {
		h.hidden = true
		pins = sqltext.StateSet // it cannot be read, so it cannot be set again elsewhere
	}
	return ask, pins
}

// Discarded says that the client has discarded its session.
func (h *Holder) Discarded() { h.hidden = false }

// Leave notes what a text that goes to the server may leave there. temporary
// says that any table may be, because of the search_path; names tells the
// parameters that the text sets; nil: unknown.
func (h *Holder) Leave(t *Traces, p *Policies, state sqltext.State, temporary bool, names func() []string) {
	if state&sqltext.StateMakes != 0 && (temporary || t.Noted(sqltext.StateSet)) {
		state |= sqltext.StateTemp
	}
	t.noted |= state &^ p.unnoted
	if names == nil || state&sqltext.StateNamed == 0 || (p.Track|p.Pin)&sqltext.StateSet == 0 {
		return
	}
	for _, name := range names() {
		h.mention(t, name)
	}
}

// mention notes the name of a parameter that pg_settings does not show.
func (h *Holder) mention(t *Traces, name string) {
	h.Resets.Mention(name)
	if !h.Names.Add(name) {
		t.noted |= sqltext.StateHidden
	}
}

// Bind notes the parameters that a Bind may name: what follows the name of the
// statement in it. whole says that all of it is there.
func (h *Holder) Bind(t *Traces, rest []byte, whole bool) {
	if !whole || !h.bindValues(t, rest) {
		t.noted |= sqltext.StateNameUnknown
	}
}

// bindValues reads the values of a Bind.
func (h *Holder) bindValues(t *Traces, rest []byte) (ok bool) {
	if len(rest) < 2 {
		return false
	}
	formats := 2 + 2*int(binary.BigEndian.Uint16(rest))
	if len(rest) < formats {
		return false
	}
	list, _, ok := values(rest[formats:])
	for _, v := range list {
		if name, ok := sqltext.ParameterName(v); ok {
			h.mention(t, name)
		}
	}
	return ok
}
