// The ends of connections: nothing that was written is lost, no descriptor is left.

package loop

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// secure returns a connection with its TLS session, and the peer's session.
func secure(t *testing.T, version uint16) (ours *net.TCPConn, session *tls.Conn, swap *Swap, theirs *net.TCPConn, peer *tls.Conn) {
	t.Helper()
	ours, theirs = connect(t)
	swap = &Swap{Conn: ours}
	session = tls.Server(swap, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MaxVersion: version})
	peer = tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
	errs := make(chan error, 1)
	go func() { errs <- session.Handshake() }()
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	return ours, session, swap, theirs, peer
}

// FIN comes behind everything that was written, also what the socket did not
// take at once.
func TestCloseWriteComesLast(t *testing.T) {
	words := random(16 << 20)
	t.Run("plain", func(t *testing.T) {
		l, _ := start(t)
		ours, theirs := connect(t)
		c := attach(t, l, ours, nil, nil, newEcho())
		l.Call(func() {
			c.Write(words)
			if c.Pending() == 0 {
				t.Error("the socket took everything: the test shows nothing")
			}
			c.CloseWrite()
		})
		if got, err := io.ReadAll(theirs); err != nil || !bytes.Equal(got, words) {
			t.Errorf("%d of %d bytes, %v", len(got), len(words), err)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		l, _ := start(t)
		ours, session, swap, _, peer := secure(t, tls.VersionTLS13)
		c := attach(t, l, ours, session, swap, newEcho())
		l.Call(func() {
			c.Write(words)
			c.CloseWrite()
		})
		// ReadAll tells a proper goodbye from a connection that was cut.
		if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, words) {
			t.Errorf("%d of %d bytes, %v", len(got), len(words), err)
		}
	})
}

// Bytes and FIN that the loop learns of in one event are both seen.
func TestLastBytesAndTheirEndInOneEvent(t *testing.T) {
	l, _ := start(t)
	for range 20 {
		ours, theirs := connect(t)
		e := newEcho()
		c := attach(t, l, ours, nil, nil, e)
		converse(t, theirs, []byte("hello"), false)
		held, gate := make(chan struct{}), make(chan struct{})
		l.Post(func() { close(held); <-gate })
		<-held
		if _, err := theirs.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		_ = theirs.CloseWrite()
		close(gate)
		if got, err := io.ReadAll(theirs); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := <-e.closed; err != io.EOF {
			t.Fatal(err)
		}
		l.Call(func() {
			if !c.HalfClosed() {
				t.Error("the end is not remembered")
			}
		})
	}
}

// Over TLS, too, bytes and their end may arrive together.
func TestLastRecordAndItsEnd(t *testing.T) {
	l, _ := start(t)
	for range 20 {
		ours, session, swap, theirs, peer := secure(t, tls.VersionTLS13)
		if _, err := peer.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		_ = peer.CloseWrite()
		_ = theirs.CloseWrite()
		e := newEcho()
		attach(t, l, ours, session, swap, e)
		got := make([]byte, 3)
		if _, err := io.ReadFull(peer, got); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := <-e.closed; err != io.EOF {
			t.Fatal(err)
		}
	}
}

// A record that is cut anywhere is put together again.
func TestRecordInPieces(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	cut := &slicer{Conn: theirs}
	swap := &Swap{Conn: ours}
	session := tls.Server(swap, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	peer := tls.Client(cut, &tls.Config{InsecureSkipVerify: true})
	errs := make(chan error, 1)
	go func() { errs <- session.Handshake() }()
	if err := peer.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	attach(t, l, ours, session, swap, newEcho())
	for n := 1; n < 60; n += 7 {
		cut.piece = n
		converse(t, peer, random(300), false)
	}
}

// slicer writes in pieces, each in a segment of its own.
type slicer struct {
	net.Conn
	piece int
}

func (s *slicer) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := len(p) - sent
		if s.piece > 0 {
			n = min(n, s.piece)
		}
		if _, err := s.Conn.Write(p[sent : sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

// A record is small enough for libpq's asynchronous interface.
func TestRecordsAreSmall(t *testing.T) {
	l, _ := start(t)
	ours, session, swap, theirs, _ := secure(t, tls.VersionTLS13)
	c := attach(t, l, ours, session, swap, newEcho())
	l.Call(func() { c.Write(random(100_000)); c.CloseWrite() })
	all, err := io.ReadAll(theirs) // as it is on the wire
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	for len(all) > 0 {
		n := int(all[3])<<8 | int(all[4])
		if n > maxRecord+64 {
			t.Errorf("a record of %d bytes", n)
		}
		all = all[5+n:]
		records++
	}
	if records < 100_000/maxRecord {
		t.Errorf("%d records", records)
	}
}

// However a connection ends, its descriptor is closed.
func TestNoDescriptorIsLeft(t *testing.T) {
	descriptors := func() int {
		entries, err := os.ReadDir("/dev/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := descriptors()
	t.Run("ends", func(t *testing.T) {
		l, _ := start(t)
		for i := range 60 {
			ours, theirs := connect(t)
			e := newEcho()
			e.panicOn = '!'
			c := attach(t, l, ours, nil, nil, e)
			switch i % 6 {
			case 0:
				theirs.Close()
				<-e.closed
			case 1:
				_ = theirs.SetLinger(0)
				theirs.Close()
				<-e.closed
			case 2:
				_, _ = theirs.Write([]byte("!"))
				_, _ = io.ReadAll(theirs)
			case 3:
				l.Call(c.Close)
			case 4:
				l.Call(func() { c.Write([]byte("bye")); c.Linger(10 * time.Second) })
				_, _ = io.ReadAll(theirs)
			case 5: // left to Stop
			}
			theirs.Close()
		}
	})
	eventually(t, func() bool { return descriptors() <= before })
}

// Detach takes the descriptor over: non-blocking, closed on exec, and nothing
// of it left in the net.Conn.
func TestDetach(t *testing.T) {
	ours, theirs := connect(t)
	fd, err := Detach(ours)
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v", flags, err)
	}
	if _, err := ours.Write([]byte("x")); err == nil {
		t.Error("the net.Conn still works")
	}
	if _, err := Detach(ours); err == nil {
		t.Error("detached twice")
	}
	CloseFD(fd)
	if b, err := io.ReadAll(theirs); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// A descriptor that cannot be polled is refused and closed.
func TestAttachRefused(t *testing.T) {
	l, _ := start(t)
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	l.Call(func() {
		if c, err := l.Attach(fd, nil, nil, newEcho()); err == nil || c != nil {
			t.Errorf("attached a file: %v", err)
		}
		if l.Attached() != 0 {
			t.Errorf("%d attached", l.Attached())
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("the descriptor is still open: %v", err)
		}
	})
}
