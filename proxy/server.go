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
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
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
	// connecting says that a goroutine dials it, which ends in dialed.
	connecting bool

	phase      lease.Phase
	traces     lease.Traces
	inspection lease.Inspection
	replay     lease.Replay
	sequences  lease.Sequences

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

	reported  bool // has reported something since its parameters were known
	lastWords bool // a FATAL of the server's has been passed on
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
	if c := s.client; c != nil && c.blocked() && s.conn.Pending() == 0 {
		c.resume()
	}
	if !s.closing() {
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
	for !s.closing() {
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
			s.keep(nil)
			used := s.feed(full)
			if !s.closing() {
				s.keep(full[used:])
			}
		}
		if err == loop.ErrWouldBlock {
			return
		}
		if err != nil && !s.closing() {
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

func (s *server) keep(rest []byte) {
	s.loop.Free(s.in)
	s.in = s.loop.Append(nil, rest)
}

// midFrame reports whether the client has been sent part of a message.
func (s *server) midFrame() bool { return s.partial > 0 && s.toward }

// takes reports whether the client's next message may come: nothing of Postern's
// own is going on, whose answer its would be taken for, and not too much is owed.
func (s *server) takes() bool {
	return s.phase == lease.Serving && s.link.Outstanding() < link.MaxOutstanding
}

// betweenTransactions reports whether the server is between two transactions of its client,
// with nothing of Postern's own going on and no message half said on either side.
func (s *server) betweenTransactions() bool {
	c := s.client
	return s.phase == lease.Serving && c.partial == 0 && s.partial == 0 && !c.greeting() && s.link.Free()
}

// lost ends a server that is gone or not to be trusted, and its client.
func (s *server) lost(why string) {
	c, was := s.client, s.phase
	s.client = nil
	if c != nil {
		c.server = nil
		s.pool.books.RemoveServer(&s.books)
	}
	mid, said := s.midFrame(), s.lastWords
	s.next(lease.Lost, 0)
	s.close(why, c != nil && c.partial > 0)
	if was != lease.Idle {
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

// closing reports whether it is over. A dial under way is given up.
func (s *server) closing() bool { return s.phase == lease.Closed }

// shut closes the connection for whatever cause and leaves the pool. A client
// that it still had is the caller's affair. Safe to call twice.
func (s *server) shut(why string) { s.close(why, false) }

// close is shut. torn says that the server has the beginning of a message and will
// not get its end: it would take whatever follows for that.
func (s *server) close(why string, torn bool) {
	if _, open := s.tenant.servers[s]; !open {
		return
	}
	s.next(lease.Lost, 0)
	s.dropUpcoming()
	delete(s.tenant.servers, s)
	s.pool.books.RemoveServer(&s.books)
	s.timer.Stop()
	s.sequences = lease.Sequences{}
	s.loop.Free(s.in)
	s.in = nil
	if s.conn == nil { // still being dialed, and nobody knows how far that is
		if s.connecting {
			s.linger()
		}
		return
	}
	s.link.Close()
	var lastWords []byte
	if s.partial == 0 && !torn {
		lastWords = pgwire.AppendTerminate(nil)
	}
	s.leave(lastWords)
	s.tenant.log.Debug("server connection closed", "why", why)
}

func itoa(n int) string { return strconv.Itoa(n) }
