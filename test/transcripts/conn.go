// One logged-in connection: what is sent, and messages as they come.

package transcripts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage is more than any reply of a script.
const maxMessage = 128 << 20

// A Conn is one session with a server, or with Postern.
type Conn struct {
	net      net.Conn
	pid      uint32
	greeting []string // what followed AuthenticationOk, parameters in order of their names
	refused  bool     // the greeting is an error
	in       []byte   // received, not yet a message
	sent     chan error
	sending  bool // sent will get a word
	ended    bool
}

// Close ends the connection without a word.
func (c *Conn) Close() { c.net.Close() }

// send writes in the background, so that whoever sends much can be read from meanwhile.
func (c *Conn) send(b []byte) error {
	if err := c.flushed(true); err != nil || len(b) == 0 {
		return err
	}
	c.sending = true
	go func() {
		_, err := c.net.Write(b)
		c.sent <- err
	}()
	return nil
}

// flushed waits for the last send, if it must.
func (c *Conn) flushed(must bool) error {
	if !c.sending {
		return nil
	}
	var err error
	if must {
		err = <-c.sent
	} else {
		select {
		case err = <-c.sent:
		default:
			return errBusy
		}
	}
	c.sending = false
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil // its end is read
	}
	return err
}

var errBusy = errors.New("not all is sent")

// message takes a whole message off what was received; kind is 0 while there is none.
func (c *Conn) message() (kind byte, body []byte, err error) {
	if len(c.in) < 5 {
		return 0, nil, nil
	}
	n := int(binary.BigEndian.Uint32(c.in[1:])) + 1
	if n < 5 || n > maxMessage {
		return 0, nil, fmt.Errorf("a reply %q of length %d", c.in[0], n)
	}
	if len(c.in) < n {
		return 0, nil, nil
	}
	kind, body = c.in[0], c.in[5:n:n]
	c.in = c.in[n:]
	return kind, body, nil
}

// line takes a whole message and renders it.
func (c *Conn) line() (line string, ok bool, err error) {
	kind, body, err := c.message()
	if kind == 0 || err != nil {
		return "", false, err
	}
	return render(kind, body), true, nil
}

// next waits for a message.
func (c *Conn) next(deadline time.Time) (kind byte, body []byte, err error) {
	for {
		if kind, body, err = c.message(); kind != 0 || err != nil {
			return kind, body, err
		}
		if c.ended {
			return 0, nil, io.ErrUnexpectedEOF
		}
		if err := c.read(deadline); err != nil {
			return 0, nil, err
		}
	}
}

// read takes in what comes before deadline. At the end of the connection ended is set.
func (c *Conn) read(deadline time.Time) error {
	_ = c.net.SetReadDeadline(deadline)
	buf := make([]byte, 64<<10)
	n, err := c.net.Read(buf)
	c.in = append(c.in, buf[:n]...)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		c.ended = true
		return nil
	}
	return err
}

// readAll takes in what is there already.
func (c *Conn) readAll() error {
	raw, err := c.raw()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		var n int
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.Read(int(fd), buf)
			return true
		}); err != nil {
			return err
		}
		switch {
		case errors.Is(failed, unix.EAGAIN):
			return nil
		case errors.Is(failed, unix.EINTR):
		case errors.Is(failed, unix.ECONNRESET), failed == nil && n == 0:
			c.ended = true
			return nil
		case failed != nil:
			return os.NewSyscallError("read", failed)
		default:
			c.in = append(c.in, buf[:n]...)
		}
	}
}

// unread is how much of what was sent the other side has not taken in. Only Unix sockets know.
func (c *Conn) unread() (int, error) {
	raw, err := c.raw()
	if err != nil {
		return 0, err
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
	return n, errors.Join(err, failed)
}

func (c *Conn) raw() (syscall.RawConn, error) {
	s, ok := c.net.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T is not a socket", c.net)
	}
	return s.SyscallConn()
}
