// A server connection on its loop: lent, cleaned, closed.

package proxy

import (
	"errors"
	"io"
	"strconv"
	"syscall"
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

const (
	// abandonFor is how long the remains of a client that left may take.
	abandonFor = time.Second
	// farewellFor is how long what a client has asked for may take after it said
	// goodbye.
	farewellFor = time.Minute
	// resetFor is how long a reset may take.
	resetFor = 5 * time.Second
)

// server is one server connection. Everything is the loop's thread's.
type server struct {
	books   pool.Server
	tenant  *tenant
	pool    *serverPool
	loop    *loop.Loop
	conn    *loop.Conn
	pid     uint32
	secret  []byte
	target  backend.Target // where it was dialed, without credentials
	machine string         // that it was dialed on; "": an upstream
	epoch   uint64         // of the machine, when it was dialed
	clocks  clocks
	noted   sqltext.State // what the lease may have left since it was looked at
	look    inspection
	ending  conclusion

	sequences sequences

	link   *link.Link
	client *client
	params *params.Set     // what the session is set to
	agreed *params.Set     // what its client had when that was last known
	shown  *params.Reports // what the server has reported
	asked  bool            // whether there is more; see confirm.go

	heardAt time.Time // when it last was ready for a query

	in      []byte // borrowed: an incomplete message
	partial int    // bytes of the current message that still come
	toward  bool   // they go to the client
	heeds   bool   // they describe a statement
	stalled bool   // not read, because the client's output is full

	preparing bool // the client's parameters are being set
	restoring bool // and the client is to hear of it, for it has heard of the reset
	replay    replay
	reported  bool // has reported something since its parameters were known
	punishing bool // a transaction block in statement mode is being rolled back
	dirty     bool // has state that the next client must not see
	loaded    bool // has a library that it must not see, which nothing takes out again
	resetting bool
	lastWords bool // a FATAL of the server's has been passed on
	torn      bool // has the beginning of a message and will not get its end: whatever follows would be taken for that
	failed    bool // something of our own failed
	closing   bool // over; a dial under way is given up
	cancels   int  // cancel requests on their way: one, or none
	upcoming  upcoming
	timer     *loop.Timer
}

// attach brings a fresh login to the loop.
func (s *server) attach(conn *backend.Conn, fd int) error {
	c, err := s.loop.Attach(fd, conn.TLS, conn.Net, s)
	if err != nil {
		return err
	}
	s.conn, s.pid, s.secret = c, conn.PID, conn.Secret
	s.link = link.New(&s.tenant.stmts)
	s.link.Limit = s.tenant.gate.opts.Limits.ServerStatements
	s.params = s.pool.fresh
	s.shown = s.pool.reports.Intern(conn.Parameters)
	return nil
}

// Ready implements loop.Handler.
func (s *server) Ready(*loop.Conn) {
	if c := s.client; c != nil && c.blocked && s.conn.Pending() == 0 {
		c.resume()
	}
	if !s.closing {
		s.pump()
	}
}

// Panicked implements loop.Handler.
func (s *server) Panicked(*loop.Conn) {
	defer s.tenant.verify() // whatever becomes of the next line
	s.lost("panic")
}

// resume reads again after the client's output has drained.
func (s *server) resume() {
	s.stalled = false
	s.conn.Again()
}

// pump reads and passes on what is there.
func (s *server) pump() {
	for !s.closing {
		if c := s.client; c != nil && c.conn.Pending() > 0 {
			s.stalled = true
			return
		}
		buf := s.loop.Scratch()
		held := len(s.in)
		n, err := s.conn.Read(buf[held:])
		if n > 0 {
			full := buf[:held+n]
			copy(full, s.in)
			s.hold(nil)
			used := s.feed(full)
			if !s.closing {
				s.hold(full[used:])
			}
		}
		if err == loop.ErrWouldBlock {
			return
		}
		if err != nil && !s.closing {
			s.lost(lostBecause(err))
			return
		}
	}
}

// lostBecause names in the log why a server is gone: err is its connection's.
func lostBecause(err error) string {
	switch {
	case errors.Is(err, loop.ErrSilent):
		return "timed out: the server acknowledges nothing"
	case errors.Is(err, syscall.ETIMEDOUT):
		return "timed out: the server answers no keepalive"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closed by the server"
	}
	return err.Error()
}

func (s *server) hold(rest []byte) {
	s.loop.Free(s.in)
	s.in = s.loop.Append(nil, rest)
}

// midFrame reports whether the client has been sent part of a message.
func (s *server) midFrame() bool { return s.partial > 0 && s.toward }

// takes reports whether the client's next message may come: nothing of Postern's
// own is going on, whose answer its would be taken for, and not too much is owed.
func (s *server) takes() bool {
	return !s.preparing && !s.punishing && !s.look.running && s.link.Outstanding() < link.MaxOutstanding
}

// mayRelease reports whether the lease is over. A client in session mode keeps
// its server, and one in the middle of a message, however pointless, needs it.
func (s *server) mayRelease() bool {
	c := s.client
	return s.rests() && c.mode != sessionMode && c.pinned() == 0
}

// rests reports whether the server is between two transactions of its client,
// with nothing of Postern's own going on and no message half said on either side.
func (s *server) rests() bool {
	c := s.client
	return c != nil && c.partial == 0 && s.partial == 0 && !s.preparing && !s.punishing && !s.look.running && !c.greeting && s.link.Free()
}

// rest is between two transactions, and the only way from a client that stays:
// what the lease may have left is asked, and then the server is given back
// unless the client keeps it. A cancel that is on its way could hit the
// question, which waits then; see cancel. last says that nothing was received
// behind what the server has said.
func (s *server) rest(last bool) outcome {
	if s.tracksState() && (s.cancels > 0 || s.inspect()) {
		return taken
	}
	if s.mayRelease() {
		return s.part(last)
	}
	if s.cancels == 0 {
		s.discardSequences() // the client keeps the server
	}
	return taken
}

// release parts a clean server from its client and finds its next use.
func (s *server) release() {
	c := s.client
	s.parted(c)
	if s.dirty || s.failed || s.cancels > 0 {
		s.cleanse(c)
		s.clean()
		return
	}
	s.pool.confirmed = s.heardAt
	s.settle(s.pool.books.Release(&s.books, s.loop.Now()))
	if c.blocked {
		c.conn.Again()
	}
}

// unlend parts a server from its client before it is known to be clean.
func (s *server) unlend() {
	c := s.client
	s.parted(c)
	s.cleanse(c)
}

// cleanse begins to clean a server that its client has no more.
func (s *server) cleanse(c *client) {
	s.pool.books.BeginCleaning(&s.books)
	s.within(resetFor)
	if c.blocked {
		c.conn.Again()
	}
}

// parted is the end of every lease, however it came about: what it has left and
// nobody has looked at, and what its client kept the server for, is to be gone
// before anybody else has the server.
func (s *server) parted(c *client) {
	s.soil(s.noted | s.ending.unsure | c.pins)
	s.dirty = s.dirty || c.mode == sessionMode || s.noted|s.ending.unsure|c.pins != 0 || s.look.running || s.preparing
	s.failed = s.failed || s.loaded
	s.restoring = false
	if s.upcoming.held { // by the client
		s.dropUpcoming()
	}
	s.preparing, s.punishing, s.noted, s.look, s.ending = false, false, 0, inspection{}, conclusion{}
	c.server, s.client = nil, nil
	s.link.End()
}

// settle does what the pool decided about a server that is free.
func (s *server) settle(next pool.Next) {
	switch {
	case next.Close != pool.Keep:
		s.shut(next.Close.String())
		s.tenant.dialMore()
	case next.Client != nil:
		c := next.Client.Owner.(*client)
		c.waited()
		if c.lent(s) {
			c.resume()
		}
	case s.tenant.draining:
		s.shut("drain")
	}
}

// waited is called when a client that had to wait is served.
func (c *client) waited() {
	c.tenant.gate.metrics.wait.Observe(c.tenant.loop.Now().Sub(c.books.WaitedSince()).Seconds())
}

// prepare gives the server a client's parameters.
func (s *server) prepare(want *params.Set) {
	list := params.Changes(s.params, want)
	s.preparing, s.replay = true, replay{list: list}
	if s.client.mode == sessionMode && s.link.Held() > 0 {
		s.link.Sent(link.Entry{Kind: link.Query, Mode: link.Internal})
		s.conn.Queue(pgwire.AppendQuery(nil, s.unhindered("DEALLOCATE ALL")))
	}
	steps := s.own()
	steps.change(s.params, list)
	s.askOwn(steps)
}

// lost ends a server that is gone or not to be trusted, and its client.
func (s *server) lost(why string) {
	c := s.client
	wasIdle := s.books.State() == pool.Idle
	s.client = nil
	if c != nil {
		c.server = nil
		s.torn = c.partial > 0
		s.pool.books.RemoveServer(&s.books)
	}
	mid, said := s.midFrame(), s.lastWords
	s.shut(why)
	if !wasIdle {
		s.tenant.log.Warn("server connection lost", "why", why, "user", clip(s.pool.key.user), "database", clip(s.pool.key.database), "pid", strconv.FormatUint(uint64(s.pid), 10))
	}
	if c != nil {
		if mid || said {
			c.end("server_lost")
		} else {
			c.fail(lostWith(s.link), "server_lost")
		}
	}
	s.tenant.dialMore()
}

// shut closes the connection for whatever cause and leaves the pool. A client
// that it still had is the caller's affair. Safe to call twice.
func (s *server) shut(why string) {
	if s.closing {
		return
	}
	s.closing = true
	s.dropUpcoming()
	delete(s.tenant.servers, s)
	s.pool.books.RemoveServer(&s.books)
	s.timer.Stop()
	s.sequences = sequences{}
	s.loop.Free(s.in)
	s.in = nil
	if s.conn == nil {
		return // still being dialed
	}
	s.link.Close()
	if s.partial == 0 && !s.torn {
		s.conn.Write(pgwire.AppendTerminate(nil))
	}
	s.conn.Close()
	s.tenant.log.Debug("server connection closed", "why", why)
}

func itoa(n int) string { return strconv.Itoa(n) }
