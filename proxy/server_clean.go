// What becomes of a server whose client has left in the middle of something: it is cleaned, or closed.

package proxy

import (
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
)

// abandoned takes over a server whose client has left, at a boundary between
// its messages or not.
func (s *server) abandoned(c *client, boundary bool) {
	owned := s.link.Outstanding() > 0
	s.dirty = s.dirty || owned // what still runs may leave anything, and its end is not looked at
	s.parted(c)
	s.stalled = false
	if s.closing {
		return
	}
	if !boundary {
		s.torn = true
		s.shut("client left in the middle of a message")
		s.tenant.dialMore()
		return
	}
	s.pool.books.BeginCleaning(&s.books)
	s.within(abandonFor)
	switch {
	case owned && c.leaving:
		s.within(farewellFor) // what it asked for before it left is done
	case owned:
		s.cancel(nil)
	}
	s.conn.Again() // it may have been stalled
	s.clean()
}

// finish ends a COPY and an extended exchange that the client has left open.
func (s *server) finish() {
	if s.link.CopyIn() {
		s.link.Sent(link.Entry{Kind: link.CopyEnd, Mode: link.Internal})
		s.conn.Queue(pgwire.AppendCopyFail(nil, "client left"))
	}
	if s.link.NeedsSync() && !s.link.AwaitsReady() {
		// A Sync alone would commit what the client had not: an error comes first.
		s.link.Sent(link.Entry{Kind: link.Describe, Mode: link.Internal})
		s.conn.Queue(pgwire.AppendRefusal(nil))
		s.link.Sent(link.Entry{Kind: link.Sync, Mode: link.Internal})
		s.conn.Queue(pgwire.AppendSync(nil))
	}
}

// within bounds the cleaning.
func (s *server) within(d time.Duration) {
	if s.timer == nil {
		s.timer = s.loop.AfterFunc(d, s.tenant.checked(func() { s.lost("not clean in time") }))
		return
	}
	s.timer.Reset(d)
}

// clean goes on with cleaning when the server owes nothing more.
func (s *server) clean() {
	if s.closing || s.books.State() != pool.Cleaning {
		return
	}
	s.finish()
	s.conn.Flush()
	switch {
	case s.link.Stuck():
		s.shut("what it owes is not known")
		s.tenant.dialMore()
	case !s.link.Quiet() || s.cancels > 0 || s.partial > 0:
	case s.upcoming.done != nil:
		s.dropUpcoming() // what it was for has ended
		s.clean()
	case s.failed:
		s.lost("reset failed")
	case s.link.Status() != 'I':
		s.ask("ROLLBACK")
	case s.dirty:
		s.dirty, s.resetting = false, true
		s.within(resetFor)
		s.reset()
	default:
		s.timer.Stop()
		if s.resetting {
			s.resetting = false
			s.params, s.sequences = s.pool.fresh, sequences{}
			s.relearn()
		}
		s.heardAt = s.loop.Now()
		s.pool.confirmed = s.heardAt
		s.settle(s.pool.books.EndCleaning(&s.books, s.loop.Now()))
	}
}

// reset has the server forget its session.
func (s *server) reset() {
	texts := []string{"DISCARD ALL"}
	if s.params.Defers() { // and DISCARD ALL must be alone in its transaction
		texts = []string{"RESET " + params.Deferrable, "DISCARD ALL"}
	}
	s.link.Forget()
	var out []byte
	for _, text := range texts {
		s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
		out = pgwire.AppendQuery(out, text)
	}
	s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
	s.conn.Write(appendSeed(out))
}

// ask sends a query of our own.
func (s *server) ask(text string) {
	s.link.Forget()
	s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
	s.conn.Write(pgwire.AppendQuery(nil, text))
}
