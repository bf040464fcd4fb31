// Silent peers and slow ones, told apart by what Linux says of them.

package loop

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filler writes without end to a peer.
type filler struct {
	broken chan error
	done   bool
}

func (f *filler) Ready(c *Conn) {
	if f.done {
		return
	}
	if c.HungUp() {
		f.done = true
		f.broken <- c.Err()
		c.Close()
		return
	}
	for c.Pending() == 0 && !c.HungUp() {
		c.Write(make([]byte, 64<<10))
	}
	_, _ = c.Read(make([]byte, 10))
}
func (f *filler) Panicked(*Conn) {}

// TestASilentPeerIsNoticedAndOneThatPausesIsNot by a loop, and where no loop is.
func TestASilentPeerIsNoticedAndOneThatPausesIsNot(t *testing.T) {
	t.Parallel()
	const limit = silenceLeast
	l, err := New(0, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.EndSilent(1) // the least
	ended := make(chan struct{})
	go func() { defer close(ended); l.Run() }()
	defer func() { l.Stop(); <-ended }()

	var conf net.ListenConfig
	conf.SetMultipathTCP(false) // whose sockets take no filters
	ln, err := conf.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pair := func() (near, far *net.TCPConn) {
		t.Helper()
		dialed, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dialed.Close(); accepted.Close() })
		return accepted.(*net.TCPConn), dialed.(*net.TCPConn)
	}
	onLoop, far := pair()
	f := &filler{broken: make(chan error, 1)}
	fd, err := Detach(onLoop)
	if err != nil {
		t.Fatal(err)
	}
	l.Call(func() { _, err = l.Attach(fd, nil, nil, f) })
	if err != nil {
		t.Fatal(err)
	}
	plain, plainFar := pair()
	ctx, stop := context.WithCancel(t.Context())
	silent := make(chan bool, 1)
	writing := make(chan struct{})
	go func() { silent <- AwaitSilence(ctx, plain, 1) }()
	go func() {
		defer close(writing)
		for {
			if _, err := plain.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	defer func() { plain.Close(); stop(); <-writing }()

	select { // both read nothing, and acknowledge
	case err := <-f.broken:
		t.Fatalf("the loop gave up a peer that pauses: %v", err)
	case <-silent:
		t.Fatal("a peer that pauses was taken for a silent one")
	case <-time.After(5 * limit / 2):
	}
	for _, peer := range []*net.TCPConn{far, plainFar} { // they go on reading, and are gone in the midst of it
		if _, err := io.CopyN(io.Discard, peer, 1<<20); err != nil {
			t.Fatal(err)
		}
		vanish(t, peer)
	}
	select {
	case err := <-f.broken:
		if !errors.Is(err, unix.ETIMEDOUT) {
			t.Errorf("the connection is broken by %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the loop has not noticed a peer that is gone")
	}
	select {
	case ok := <-silent:
		if !ok {
			t.Error("not silent")
		}
	case <-time.After(30 * time.Second):
		t.Error("a peer that is gone was not noticed")
	}
}

// vanish has everything that arrives for a socket dropped before TCP sees it.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}
