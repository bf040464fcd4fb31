// The end of a connection whose peer should still read the last words.

package loop

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// lingerBytes bounds what is read and dropped from a peer that goes on sending.
const lingerBytes = 1 << 20

// Linger lets the peer read what was written: it sends FIN once everything is
// out, drops what still comes in, and closes when the peer does, after d, or
// when too much has come in.
// Closing at once, with unread bytes, would make the kernel send RST, and that
// destroys what the peer has not read yet. The handler is not called again.
func (c *Conn) Linger(d time.Duration) { c.LingerThen(d, func(bool) {}) }

// LingerThen is Linger, and calls then once it is closed: ended says that the peer has closed the connection, or aborted it. It
// may be called at once.
func (c *Conn) LingerThen(d time.Duration, then func(ended bool)) {
	if c.closed {
		return
	}
	if c.HungUp() {
		ended := c.aborted()
		c.Close()
		then(ended)
		return
	}
	g := &lingerer{left: lingerBytes}
	g.timer = c.loop.AfterFunc(d, c.Close)
	c.onClose = func() {
		g.timer.Stop()
		then(g.ended)
	}
	c.handler = g
	c.Again()
}

// aborted reports whether a connection that is broken was broken by its peer, and not because nothing is heard of that.
func (c *Conn) aborted() bool { return !errors.Is(c.Err(), unix.ETIMEDOUT) }

type lingerer struct {
	timer *Timer
	left  int
	fin   bool
	ended bool // the peer has closed
}

func (g *lingerer) Ready(c *Conn) {
	if !g.fin && c.Pending() == 0 {
		g.fin = true
		c.CloseWrite()
	}
	for g.left > 0 {
		n, err := c.Read(c.loop.scratch)
		g.left -= n
		if err == ErrWouldBlock {
			if c.HungUp() {
				g.ended = c.aborted()
				break
			}
			return
		}
		if err != nil {
			g.ended = !errors.Is(err, unix.ETIMEDOUT)
			break
		}
	}
	if c.Pending() > 0 && g.left > 0 && !c.HungUp() {
		return // the peer said FIN but may still read
	}
	c.Close()
}

func (g *lingerer) Panicked(*Conn) {}
