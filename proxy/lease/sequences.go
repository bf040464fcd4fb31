// Sequence numbers and seeds of random() that another client must not see: forgotten before they are read, or replaced.

package lease

import (
	"encoding/binary"
	"strconv"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// numbers says whose numbers a server would show.
type numbers uint8

const (
	owned      numbers = iota // the owner's, or nobody's
	foreign                   // some may be another's, or the owner's from before it drew others elsewhere
	forgetting                // the same, and DISCARD SEQUENCES is on its way
)

// Sequences is whose numbers a server's currval and lastval would show. The
// server cannot be asked, and DISCARD SEQUENCES takes the client's own away with
// the others', so it is sent before the client has drawn any, and at no cost for
// those who never read them:
//
//   - before a text that reads some, if the lease has not drawn yet;
//   - once a transaction of the pool has read some after it had begun, before
//     all its leases: what comes later in them cannot be known;
//   - before a session, and when a client is about to keep its server.
//
// The zero value is a new session's. Not safe for concurrent use, and not to be
// copied while it has an owner.
type Sequences struct {
	owner   *Holder // who had the server last; nil: nobody since it had none
	numbers numbers
	begun   bool // something was sent in the client's transaction
	drawn   bool // something that may draw was sent in its lease
}

// Lend begins a lease.
func (q *Sequences) Lend(h *Holder) {
	if q.owner != h || h.latest != q {
		q.numbers = owned
		if q.owner != nil {
			q.numbers = foreign
		}
		q.owner, h.latest = h, q
	}
	q.drawn = false
	q.Rest()
}

// Forget says that a client is gone.
func (h *Holder) Forget() { h.latest = nil }

// Rest is between two transactions.
func (q *Sequences) Rest() {
	q.begun = false
	if q.numbers == forgetting {
		q.numbers = foreign // it has failed
	}
}

// Sent takes note of a text that goes to the server. Of a session's texts it is
// not known whether they draw.
func (q *Sequences) Sent(state sqltext.State) {
	q.begun = true
	q.drawn = q.drawn || q.owner.Alone
	q.Drawn(state)
}

// Drawn takes note of what a command has left.
func (q *Sequences) Drawn(state sqltext.State) {
	q.drawn = q.drawn || state&sqltext.StateSequence != 0
}

// Foreign reports whether there are numbers that the client must not see, and
// none of its own: then they may be forgotten.
func (q *Sequences) Foreign() bool { return q.numbers == foreign && !q.drawn }

// Discard reports whether DISCARD SEQUENCES is to be sent between two
// transactions. It counts as sent.
func (q *Sequences) Discard(p *Policies) bool {
	if !q.Foreign() || p.forget == 0 {
		return false
	}
	q.Forgets()
	return true
}

// Forgets says that DISCARD SEQUENCES is on its way.
func (q *Sequences) Forgets() { q.numbers = forgetting }

// Concerns reports whether a text that goes to a server reads or draws numbers
// of which somebody else's must be forgotten first; late says that the
// transaction had begun before, so that the next one's are to be forgotten at once.
func (q *Sequences) Concerns(p *Policies, state sqltext.State) (concerns, late bool) {
	if state&p.forget == 0 {
		return false, false
	}
	// Of a text that was not seen it is not known whether it reads.
	return true, state&sqltext.StateReads != 0 && state&sqltext.StateUnseen != sqltext.StateUnseen && q.begun
}

// Discarded takes note of a tag, and reports whether it says that the numbers
// are forgotten.
func (q *Sequences) Discarded(tag []byte) bool {
	if len(tag) == 0 || tag[0] != 'D' {
		return false
	}
	switch string(tag) {
	case link.DiscardSequences, "DISCARD ALL":
		q.numbers = owned
		return true
	}
	return false
}

// AppendDiscardWithin builds DISCARD SEQUENCES for an open extended exchange:
// what link.SentDiscardWithin records.
func AppendDiscardWithin(dst []byte) []byte {
	name := string(link.Scratch.Append(nil))
	dst = link.AppendClose(dst, link.Scratch) // one may be left
	dst = pgwire.AppendParse(dst, name, link.DiscardSequences)
	dst = pgwire.AppendBind(dst, name, name)
	dst = pgwire.AppendExecute(dst, name)
	portal := len(dst)
	dst = link.AppendClose(dst, link.Scratch)
	dst[portal+pgwire.HeaderSize] = 'P'
	return link.AppendClose(dst, link.Scratch)
}

// AppendSeed builds the Query that sets the seed of random() to one that nobody
// knows, from random bytes. DISCARD ALL leaves the old one, and so does every
// other command.
func AppendSeed(dst []byte, random [8]byte) []byte {
	seed := float64(binary.NativeEndian.Uint64(random[:])>>11)/(1<<52) - 1
	return pgwire.AppendQuery(dst, "SELECT pg_catalog.setseed("+strconv.FormatFloat(seed, 'g', -1, 64)+")")
}
