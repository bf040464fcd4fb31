// The end of a connection whose peer should still read the last words.

package loop

import "time"

// lingerBytes bounds what is read and dropped from a peer that goes on sending.
const lingerBytes = 1 << 20

// Linger lets the peer read what was written: it sends FIN once everything is
// out, drops what still comes in, and closes when the peer does, after d, or
// when too much has come in.
// Closing at once, with unread bytes, would make the kernel send RST, and that
// destroys what the peer has not read yet. The handler is not called again.
func (c *Conn) Linger(d time.Duration) {
	if c.closed {
		return
	}
	if c.HungUp() {
		c.Close()
		return
	}
	g := &lingerer{left: lingerBytes}
	g.timer = c.loop.AfterFunc(d, c.Close)
	c.onClose = g.timer.Stop
	c.handler = g
	c.Again()
}

type lingerer struct {
	timer *Timer
	left  int
	fin   bool
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
				break
			}
			return
		}
		if err != nil {
			break
		}
	}
	if c.Pending() > 0 && g.left > 0 && !c.HungUp() {
		return // the peer said FIN but may still read
	}
	c.Close()
}

func (g *lingerer) Panicked(*Conn) {}
