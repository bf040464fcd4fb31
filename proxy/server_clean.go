// What becomes of a server whose client has left in the middle of something: it is cleaned, or closed.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
)

// abandoned takes over a server whose client has left. parting says that it had
// said its last before, and what it asked for is to be done.
func (s *server) abandoned(c *client, parting bool) {
	if s.closing() {
		s.endLease(c)
		return
	}
	var f lease.Facts
	if c.partial > 0 {
		f |= lease.Mid
	}
	if s.link.Outstanding() > 0 {
		s.traces.MarkDirty() // what still runs may leave anything, and its end is not looked at
		f |= lease.Owes
	}
	if parting {
		f |= lease.Parting
	}
	if s.replay.Facts() != 0 {
		s.traces.Fail() // what it was refused may be what nothing takes back
	}
	do := s.next(lease.Left, f)
	s.endLease(c)
	s.stalled = false
	switch {
	case do.Has(lease.Close):
		s.close("client left in the middle of a message", true)
		s.tenant.dialMore()
		return
	case do.Has(lease.Patience):
		s.within(farewellFor) // what it asked for before it left is done
	default:
		s.within(abandonFor)
	}
	s.pool.books.BeginCleaning(&s.books)
	if do.Has(lease.Cancel) {
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
	if !s.phase.Cleaning() {
		return
	}
	s.finish()
	s.conn.Flush()
	f := s.facts(true)
	if s.link.Stuck() {
		f |= lease.Stuck
	}
	if f.Has(lease.Quiet) && f&(lease.Flying|lease.Mid) == 0 {
		s.dropUpcoming() // what it was for has ended
	}
	switch do := s.next(lease.Moved, f); {
	case do.Has(lease.Close) && f.Has(lease.Stuck):
		s.shut("what it owes is not known")
		s.tenant.dialMore()
	case do.Has(lease.Close):
		s.lost("reset failed")
	case do.Has(lease.RollBack):
		s.ask("ROLLBACK")
	case do.Has(lease.Reset):
		s.reset()
	case do.Has(lease.Return):
		s.returns(do.Has(lease.Fresh))
	}
}

// reset has the server forget its session.
func (s *server) reset() {
	s.traces.Reset()
	s.within(resetFor)
	s.link.Forget()
	var out []byte
	for _, text := range lease.Discards(s.params) {
		s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
		out = pgwire.AppendQuery(out, text)
	}
	s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
	s.conn.Write(appendSeed(out))
}

// returns gives a server that is clean to its next use. fresh says that its
// session is as after a login.
func (s *server) returns(fresh bool) {
	s.timer.Stop()
	if fresh {
		s.params, s.sequences = s.pool.fresh, lease.Sequences{}
		s.relearn()
	}
	s.heardAt = s.loop.Now()
	s.pool.confirmed = s.heardAt
	s.use(s.pool.books.EndCleaning(&s.books, s.loop.Now()))
}
