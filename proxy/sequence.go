// What currval, lastval and random() would show of another client: numbers that are forgotten before they are read, seeds that are replaced.

package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// sequences is whose numbers a server's currval and lastval would show. The
// server cannot be asked, and DISCARD SEQUENCES takes the client's own away with
// the others', so it is sent before the client has drawn any, and at no cost for
// those who never read them:
//
//   - before a text that reads some, if the lease has not drawn yet;
//   - once a transaction of the pool has read some after it had begun, before
//     all its leases: what comes later in them cannot be known;
//   - before a session, and when a client is about to keep its server.
type sequences struct {
	owner *client // who had the server last; nil: nobody since it had none
	stale bool    // some may be another's, or the owner's from before it drew others elsewhere
	asked bool    // DISCARD SEQUENCES is on its way
	begun bool    // something was sent in the client's transaction
	drawn bool    // something that may draw was sent in its lease
}

// lend begins a lease.
func (q *sequences) lend(c *client, s *server) {
	if q.owner != c || c.latest != s {
		q.stale = q.owner != nil
		q.owner, c.latest = c, s
	}
	q.drawn = false
	q.rest()
}

// rest is between two transactions.
func (q *sequences) rest() { q.asked, q.begun = false, false }

// sent takes note of a text that goes to the server.
func (q *sequences) sent(state sqltext.State) {
	q.begun = true
	q.drawn = q.drawn || state&sqltext.StateSequence != 0
}

// lendSequences begins a lease.
func (s *server) lendSequences() {
	c := s.client
	s.sequences.lend(c, s)
	if c.mode == sessionMode || c.pool.reads && !c.greeting {
		s.discardSequences()
	}
}

// discardSequences is between two transactions.
func (s *server) discardSequences() {
	q := &s.sequences
	if !q.stale || q.asked || q.drawn || s.tenant.policies.forget == 0 {
		return
	}
	q.asked = true
	s.link.SentDiscard()
	s.conn.Write(pgwire.AppendQuery(nil, s.unhindered(link.DiscardSequences)))
}

// mustForget reports whether the server is to forget first what a text may
// read, or the client afterwards.
func (c *client) mustForget(state sqltext.State) bool {
	if state&c.tenant.policies.forget == 0 {
		return false
	}
	q, l := &c.server.sequences, c.server.link
	if state&sqltext.StateReads != 0 && state&sqltext.StateUnseen != sqltext.StateUnseen && q.begun {
		c.pool.reads = true // of a text that was not seen it is not known
	}
	return q.stale && !q.asked && !q.drawn && !l.Skipping() && !l.CopyIn()
}

// forget puts DISCARD SEQUENCES before a message. within says that the client
// has an extended exchange open, or an unnamed portal.
func (c *client) forget(within bool) action {
	s := c.server
	s.sequences.asked = true
	if out := c.tenant.insert[:0]; within {
		s.link.SentDiscardWithin()
		c.tenant.insert = appendDiscardWithin(out)
	} else {
		s.link.SentDiscard()
		c.tenant.insert = pgwire.AppendQuery(out, link.DiscardSequences)
	}
	return before
}

// appendDiscardWithin builds what link.SentDiscardWithin records.
func appendDiscardWithin(dst []byte) []byte {
	name := string(link.Scratch.Append(nil))
	dst = appendClose(dst, link.Scratch) // one may be left
	dst = pgwire.AppendParse(dst, name, link.DiscardSequences)
	dst = pgwire.AppendBind(dst, name, name)
	dst = pgwire.AppendExecute(dst, name)
	portal := len(dst)
	dst = appendClose(dst, link.Scratch)
	dst[portal+pgwire.HeaderSize] = 'P'
	return appendClose(dst, link.Scratch)
}

// discarded takes note of a tag, if it tells of it.
func (s *server) discarded(tag []byte) {
	if len(tag) == 0 || tag[0] != 'D' {
		return
	}
	switch string(tag) {
	case link.DiscardSequences, "DISCARD ALL":
		s.sequences.stale = false
		if c := s.client; c != nil {
			c.pins &^= sqltext.StateSequence
		}
	}
}

// appendSeed builds the Query that sets a seed which nobody knows. DISCARD ALL
// leaves the old one, and so does every other command.
func appendSeed(dst []byte) []byte {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	seed := float64(binary.NativeEndian.Uint64(random[:])>>11)/(1<<52) - 1
	return pgwire.AppendQuery(dst, "SELECT pg_catalog.setseed("+strconv.FormatFloat(seed, 'g', -1, 64)+")")
}
