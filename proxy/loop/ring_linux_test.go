// The ring by itself: results, and their order; and sockets that take a part of what they are given.

package loop

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// breakRing makes the next submit fail.
func breakRing(r *ring) {
	_ = unix.Close(r.fd)
	r.fd = -1
}

// pair returns two sockets that are each other's peer.
func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func TestRingResults(t *testing.T) {
	r, err := newRing()
	if err != nil {
		if err, ok := err.(interface{ Unwrap() error }); ok && (err.Unwrap() == unix.EPERM || err.Unwrap() == unix.ENOSYS) {
			t.Logf("this system has no io_uring: %v", err)
			return
		}
		t.Fatal(err)
	}
	defer r.close()
	open, peer := pair(t)
	full, peerOfFull := pair(t)
	shut, peerOfShut := pair(t)
	defer unix.Close(open)
	defer unix.Close(peer)
	defer unix.Close(full)
	defer unix.Close(peerOfFull)
	defer unix.Close(shut)
	defer unix.Close(peerOfShut)
	for err := error(nil); err == nil; {
		_, err = unix.Write(full, make([]byte, 4096))
	}
	_ = unix.Shutdown(shut, unix.SHUT_WR)

	// Often enough for the indices to wrap around.
	for round := range 3 * ringSize {
		r.put(open, []byte("abc"))
		r.put(full, make([]byte, 4096))
		r.put(-1, []byte("x"))
		r.put(shut, []byte("x"))
		r.put(open, []byte("de"))
		var got [5]int32
		if err := r.submit(got[:]); err != nil {
			t.Fatal(err)
		}
		want := [5]int32{3, -int32(unix.EAGAIN), -int32(unix.EBADF), -int32(unix.EPIPE), 2}
		if got != want {
			t.Fatalf("round %d: %v, not %v", round, got, want)
		}
		var arrived [6]byte
		if n, _ := unix.Read(peer, arrived[:]); string(arrived[:n]) != "abcde" {
			t.Fatalf("round %d: %q arrived", round, arrived[:n])
		}
	}

	breakRing(r)
	r.put(open, []byte("abc"))
	var got [1]int32
	if err := r.submit(got[:]); err == nil || got[0] != notSent {
		t.Fatalf("a broken ring: %v, %v", got, err)
	}
}

// What a socket takes a part of, or nothing of, is kept, and goes out when there is room.
func TestBatchIntoFullSockets(t *testing.T) {
	eachWay(t, func(t *testing.T, l *Loop) {
		parts, nothing := 0, 0
		for room := range 20 {
			var conns [3]*Conn
			var peers, filled [3]int
			for i := range conns {
				ours, theirs := pair(t)
				defer unix.Close(theirs)
				_ = unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10)
				peers[i] = theirs
				l.Call(func() {
					var err error
					if conns[i], err = l.Attach(ours, nil, nil, &sink{}); err != nil {
						t.Error(err)
					}
				})
			}
			l.Call(func() {
				for i, c := range conns {
					for err := error(nil); err == nil; {
						var n int
						n, err = sendFD(c.fd, make([]byte, 500)) // past the Conn, which does not know
						filled[i] += max(n, 0)
					}
				}
			})
			for i, peer := range peers {
				n, _ := unix.Read(peer, make([]byte, min(room*500, filled[i])))
				filled[i] -= max(n, 0)
			}
			last := random(batchMost)
			l.Call(func() {
				for _, c := range conns {
					c.Write(last)
				}
			})
			l.Call(func() {
				for _, c := range conns {
					switch n := c.Pending(); {
					case n == len(last):
						nothing++
					case n > 0:
						parts++
					}
				}
			})
			for i, peer := range peers {
				var got []byte
				eventually(t, func() bool {
					buf := make([]byte, 64<<10)
					n, _ := unix.Read(peer, buf)
					got = append(got, buf[:max(n, 0)]...)
					return len(got) >= filled[i]+len(last)
				})
				if !bytes.Equal(got[filled[i]:], last) {
					t.Fatalf("room %d, connection %d: other bytes", room, i)
				}
			}
			l.Call(func() {
				for _, c := range conns {
					c.Close()
				}
			})
		}
		if parts == 0 || nothing == 0 {
			t.Errorf("%d sockets took a part, %d nothing: this has shown little", parts, nothing)
		}
	})
}

// A ring that fails loses nothing, and is not used again.
func TestBrokenRing(t *testing.T) {
	var logged bytes.Buffer
	l := idle(t, slog.New(slog.NewTextHandler(&logged, nil)))
	mayBatch(t, l)
	if l.batch.ring != nil {
		breakRing(l.batch.ring)
	}
	run(t, l)
	var conns [3]*Conn
	var peers [3]*net.TCPConn
	for i := range conns {
		ours, theirs := connect(t)
		conns[i], peers[i] = attach(t, l, ours, nil, nil, &sink{}), theirs
	}
	for range 2 {
		l.Call(func() {
			for _, c := range conns {
				c.Write([]byte("all the same"))
			}
		})
		for i, peer := range peers {
			got := make([]byte, len("all the same"))
			if _, err := io.ReadFull(peer, got); err != nil || string(got) != "all the same" {
				t.Fatalf("connection %d: %q, %v", i, got, err)
			}
		}
	}
	l.Call(func() {
		if l.batch.ring != nil || slices.ContainsFunc(conns[:], (*Conn).HungUp) {
			t.Error("the ring is still in use, or a connection is broken")
		}
	})
	if strings.Count(logged.String(), "io_uring failed") > 1 {
		t.Errorf("logged: %s", logged.String())
	}
}
