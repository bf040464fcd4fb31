// Servers that were closed here: their places are free once they have ended as well. Loop thread only.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
)

const (
	// leaveFor is how long a server may take to end its side of a connection that is closed. Postgres does that when nothing of
	// the session is left that counts against a limit, mostly at once; what nobody wants any more it may finish first.
	leaveFor = 5 * time.Second
	// doubtFor is how long a server is counted whose end was not seen in that time.
	doubtFor = 10 * time.Second
)

// leave ends a connection after the last words, and has the server counted until that has ended it, too.
func (s *server) leave(lastWords []byte) {
	s.conn.Write(lastWords)
	if s.conn.HalfClosed() || s.bygone() || s.tenant.ending {
		s.conn.Close() // there is nothing to wait for
		s.tenant.gone(s)
		return
	}
	s.linger()
	s.conn.LingerThen(leaveFor, func(ended bool) {
		if ended {
			s.tenant.checked(s.left)()
			return
		}
		s.timer = s.loop.AfterFunc(doubtFor, s.tenant.checked(s.left))
	})
}

// linger counts a server that was closed until gone is called.
func (s *server) linger() {
	t := s.tenant
	if _, lingers := t.parting[s]; !lingers {
		t.parting[s] = struct{}{}
		s.pool.books.Linger(&s.books)
	}
}

// left is called when nothing of a server is there any more, or when that has been assumed for long enough.
func (s *server) left() {
	s.tenant.gone(s)
	s.tenant.dialMore()
	s.tenant.claimSoon() // others may wait for it
}

// gone gives the place of a server that was closed free.
func (t *tenant) gone(s *server) {
	if _, lingers := t.parting[s]; lingers {
		delete(t.parting, s)
		s.pool.books.Gone(&s.books)
	}
}

// bygone reports whether a server was in an earlier run of the tenant's machine, of which nothing is left.
func (s *server) bygone() bool {
	return s.machine != "" && s.machine == s.tenant.machineKey() && s.epoch != s.tenant.machine.view.Epoch
}

// forgetBygone gives up waiting for what was in an earlier run of the machine.
func (t *tenant) forgetBygone() {
	for s := range t.parting {
		if s.bygone() {
			t.gone(s)
		}
	}
}

// abandonedDial ends what came of a dial that was given up meanwhile.
func (s *server) abandonedDial(conn *backend.Conn, fd int) {
	if fd >= 0 && !s.tenant.ending {
		if c, err := s.loop.Attach(fd, conn.TLS, conn.Net, silent{}); err == nil { // which closes it otherwise
			s.conn = c
			s.leave(pgwire.AppendTerminate(nil))
			return
		}
	} else if fd >= 0 {
		loop.CloseFD(fd)
	}
	s.left()
}

// silent is the handler of a connection that nobody listens to.
type silent struct{}

func (silent) Ready(*loop.Conn)    {}
func (silent) Panicked(*loop.Conn) {}
