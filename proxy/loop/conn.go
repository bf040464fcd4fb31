// One non-blocking connection, plain or TLS.

package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock is what Read returns when there is nothing to read now.
var ErrWouldBlock = errors.New("would block")

// maxRecord bounds the plaintext of one TLS record: libpq's asynchronous
// interface hangs on larger ones.
const maxRecord = 8 << 10

// Handler is told when something may have changed. Loop thread only.
type Handler interface {
	// Ready is called when the conn may be read, its output has drained, or its
	// peer is gone; the handler finds out which.
	Ready(c *Conn)
	// Panicked is called after a panic in Ready; the conn is closed next.
	Panicked(c *Conn)
}

// Conn is a connection owned by a loop. Every method is for the loop's thread.
type Conn struct {
	loop    *Loop
	handler Handler
	fd      int
	tls     *tls.Conn

	out     []byte // borrowed; what is to be sent
	outFrom int    // so much of it was sent
	outErr  error
	batched bool // it will be sent at the end of the turn
	stuck   bool // the socket took less than it was given; an event will say that it takes more
	owing   bool // something was sent that the peer may not have acknowledged
	silence silence

	budget     int
	readable   bool // an edge said so and no short read has said otherwise
	tlsPending bool // decrypted bytes may be left in the TLS session
	finish     bool // FIN follows the output
	halfClosed bool // the peer sent FIN
	hungUp     bool // both directions are gone
	queued     bool
	closed     bool
	onClose    func()
}

// Attach gives the loop a descriptor that Detach returned. For TLS the session
// and its Swap are given too. On an error the descriptor is closed. The
// handler is called in the next turn. Loop thread only.
func (l *Loop) Attach(fd int, session *tls.Conn, swap *Swap, h Handler) (*Conn, error) {
	c := &Conn{loop: l, handler: h, fd: fd, tls: session, readable: true}
	if session != nil {
		swap.Conn = shim{c}
		c.tlsPending = true
	}
	if err := l.poller.add(fd); err != nil {
		closeFD(fd)
		return nil, err
	}
	for fd >= len(l.conns) {
		l.conns = append(l.conns, nil)
	}
	l.conns[fd] = c
	l.attached++
	l.checkSilentLater()
	c.Again()
	return c, nil
}

// Again has the handler called in the next turn even without an event.
func (c *Conn) Again() {
	if !c.queued && !c.closed {
		c.queued = true
		c.loop.ready = append(c.loop.ready, c)
	}
}

// SetHandler replaces the handler.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// Closed reports whether Close was called.
func (c *Conn) Closed() bool { return c.closed }

// TLS reports whether the connection is encrypted.
func (c *Conn) TLS() bool { return c.tls != nil }

// HungUp reports whether the peer is known to be gone altogether.
func (c *Conn) HungUp() bool { return c.hungUp || c.outErr != nil }

// Err is why the connection is broken, if it is and that is known.
func (c *Conn) Err() error {
	if c.outErr == nil && c.hungUp && !c.closed {
		if n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			c.outErr = unix.Errno(n)
		}
	}
	return c.outErr
}

// HalfClosed reports whether the peer is known to have sent FIN. There may be
// bytes to read before it.
func (c *Conn) HalfClosed() bool { return c.halfClosed || c.hungUp }

// Read reads what is there into p. It returns ErrWouldBlock when there is
// nothing, io.EOF when the peer is done. A connection that has used up its
// turn gets ErrWouldBlock and another turn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if !c.readable && !c.tlsPending {
		return 0, ErrWouldBlock
	}
	if c.budget == 0 {
		c.Again()
		return 0, ErrWouldBlock
	}
	c.budget--
	if c.tls == nil {
		return c.recv(p)
	}
	n, err := c.tls.Read(p)
	c.tlsPending = err == nil
	c.sendLater() // an answer to a key update, or an alert
	if errors.Is(err, errAgain) {
		return n, ErrWouldBlock
	}
	return n, err
}

// recv reads from the socket until a short read says that it is empty.
func (c *Conn) recv(p []byte) (int, error) {
	if !c.readable {
		return 0, ErrWouldBlock
	}
	n, err := recvFD(c.fd, p)
	switch {
	case (err == errAgain || n == 0 && err == nil) && c.outErr != nil && c.outErr != unix.EPIPE:
		return 0, c.outErr // which the kernel says once, or does not know of
	case err == errAgain:
		c.readable = false
		return 0, ErrWouldBlock
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	if n < len(p) && !c.halfClosed && !c.hungUp {
		c.readable = false
	}
	return n, nil
}

// Readable reports whether a Read may return something.
func (c *Conn) Readable() bool { return c.readable || c.tlsPending }

// Pending is how many bytes wait because the socket does not take them. It is 0
// while they only wait for the end of the turn.
func (c *Conn) Pending() int {
	if !c.stuck {
		return 0
	}
	return c.unsent()
}

func (c *Conn) unsent() int { return len(c.out) - c.outFrom }

// Write sends p: little at the end of the turn, together with what others
// write, much at once. What the socket does not take is kept. Errors show in
// HungUp.
func (c *Conn) Write(p []byte) {
	if c.closed || c.outErr != nil {
		return
	}
	if c.tls != nil || c.unsent() > 0 || len(p) <= batchMost {
		c.Queue(p)
		c.sendLater()
		return
	}
	c.owing = true
	n, err := sendFD(c.fd, p)
	if err != nil && err != errAgain {
		c.fail(err)
		return
	}
	if n < len(p) {
		c.out = c.loop.Append(c.out, p[n:])
		c.stuck = true
	}
}

// Queue keeps p to be sent by the next Write or Flush.
func (c *Conn) Queue(p []byte) {
	if c.closed || c.outErr != nil {
		return
	}
	if c.tls == nil {
		c.out = c.loop.Append(c.out, p)
		return
	}
	for len(p) > 0 {
		n := min(len(p), maxRecord)
		if _, err := c.tls.Write(p[:n]); err != nil {
			c.fail(err)
			return
		}
		p = p[n:]
	}
}

// Flush sends what was queued, as Write does.
func (c *Conn) Flush() {
	if !c.closed && c.outErr == nil {
		c.sendLater()
	}
}

// flush sends now.
func (c *Conn) flush() {
	if c.unsent() == 0 {
		return
	}
	switch n, err := sendFD(c.fd, c.out[c.outFrom:]); err {
	case nil:
		c.sent(n)
	case errAgain:
		c.stuck = true
	default:
		c.fail(err)
	}
}

// sent says that the socket took n bytes. If that was not all, it is full, and an event will say when it no longer is.
func (c *Conn) sent(n int) {
	c.owing = true
	c.outFrom += n
	if c.unsent() > 0 {
		c.stuck = true
		return
	}
	c.dropOutput()
	if c.finish {
		shutdownFD(c.fd)
	}
}

func (c *Conn) dropOutput() {
	c.loop.Free(c.out)
	c.out, c.outFrom, c.stuck = nil, 0, false
}

// fail remembers a broken output; the handler sees it in its next turn.
func (c *Conn) fail(err error) {
	c.outErr = err
	c.hungUp, c.readable = true, true
	c.dropOutput()
	c.Again()
}

// CloseWrite sends FIN after what was written; a TLS session says goodbye first.
func (c *Conn) CloseWrite() {
	if c.closed || c.outErr != nil {
		return
	}
	if c.tls != nil {
		_ = c.tls.CloseWrite()
	}
	c.finish = true
	switch {
	case c.unsent() == 0:
		shutdownFD(c.fd)
	case !c.stuck:
		c.flush()
	}
}

// Close closes the descriptor at once; output that the socket does not take is lost.
func (c *Conn) Close() {
	if c.closed {
		return
	}
	if !c.stuck {
		c.flush()
	}
	c.closed = true
	c.loop.conns[c.fd] = nil
	c.loop.attached--
	closeFD(c.fd) // leaves the poller by itself
	c.dropOutput()
	if c.onClose != nil {
		c.onClose()
	}
}

// shim is what a TLS session has for a socket inside a loop.
type shim struct{ c *Conn }

// errAgain is the temporary net.Error that leaves a TLS session intact.
var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "would block" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

func (s shim) Read(p []byte) (int, error) {
	n, err := s.c.recv(p)
	if err == ErrWouldBlock {
		err = errAgain
	}
	return n, err
}

func (s shim) Write(p []byte) (int, error) {
	s.c.out = s.c.loop.Append(s.c.out, p)
	return len(p), nil
}

func (s shim) Close() error                     { return nil }
func (s shim) LocalAddr() net.Addr              { return nil }
func (s shim) RemoteAddr() net.Addr             { return nil }
func (s shim) SetDeadline(time.Time) error      { return nil }
func (s shim) SetReadDeadline(time.Time) error  { return nil }
func (s shim) SetWriteDeadline(time.Time) error { return nil }
