// What a turn writes: by io_uring and one by one, to peers that read, do not read, and are gone.

package loop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// eachWay runs a test on a loop that sends by io_uring, and on one that does not.
func eachWay(t *testing.T, test func(t *testing.T, l *Loop)) {
	for _, way := range []string{"io_uring", "one by one"} {
		t.Run(way, func(t *testing.T) {
			l := idle(t, slog.New(slog.DiscardHandler))
			if way == "io_uring" {
				mayBatch(t, l)
			}
			run(t, l)
			test(t, l)
		})
	}
}

func idle(t *testing.T, log *slog.Logger) *Loop {
	t.Helper()
	l, err := New(0, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func run(t *testing.T, l *Loop) {
	done := make(chan struct{})
	go func() { defer close(done); l.Run() }()
	t.Cleanup(func() { l.Stop(); <-done })
}

// mayBatch turns io_uring on, or sees that it is the system that forbids it.
func mayBatch(t *testing.T, l *Loop) {
	t.Helper()
	err := l.BatchWrites()
	if err == nil || runtime.GOOS != "linux" {
		return
	}
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOSYS) {
		t.Fatal(err)
	}
	t.Logf("this system has no io_uring, and the loop sends without it: %v", err)
}

// sink is a handler that only notices what becomes of its connection.
type sink struct{ hungUp bool }

func (s *sink) Ready(c *Conn)  { s.hungUp = s.hungUp || c.HungUp() }
func (s *sink) Panicked(*Conn) {}

// More connections than a system call takes write in one turn.
func TestManyWriteInOneTurn(t *testing.T) {
	eachWay(t, func(t *testing.T, l *Loop) {
		const many = 2*256 + 10
		conns, peers := make([]*Conn, many), make([]*net.TCPConn, many)
		for i := range many {
			ours, theirs := connect(t)
			conns[i], peers[i] = attach(t, l, ours, nil, nil, &sink{}), theirs
		}
		for round := range 3 {
			l.Call(func() {
				for i, c := range conns {
					c.Write(fmt.Appendf(nil, "%d to ", round))
					c.Write(fmt.Appendf(nil, "%06d", i))
				}
			})
			for i, peer := range peers {
				want := fmt.Sprintf("%d to %06d", round, i)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(peer, got); err != nil || string(got) != want {
					t.Fatalf("round %d, connection %d: %q, %v", round, i, got, err)
				}
			}
		}
		l.Call(func() {
			for i, c := range conns {
				if c.unsent() > 0 || c.out != nil || c.batched {
					t.Errorf("connection %d still has a buffer", i)
				}
			}
		})
	})
}

// One peer does not read, one is gone: the others get what is theirs, the first gets all of it later, and whoever
// belongs to the second is told.
func TestBatchWithPeersThatDoNotRead(t *testing.T) {
	eachWay(t, func(t *testing.T, l *Loop) {
		var conns [4]*Conn
		var peers [4]*net.TCPConn
		var sinks [4]sink
		for i := range conns {
			ours, theirs := connect(t)
			conns[i], peers[i] = attach(t, l, ours, nil, nil, &sinks[i]), theirs
		}
		const slow, gone = 1, 2
		_ = peers[gone].SetLinger(0)
		peers[gone].Close()

		piece := random(batchMost)
		var sent [4]int
		for stuck := false; !stuck; {
			l.Call(func() {
				for i, c := range conns {
					c.Write(piece[:1000])
					sent[i] += 1000
				}
				conns[slow].Write(piece) // more than waits for the end of a turn
				sent[slow] += len(piece)
			})
			l.Call(func() { stuck = conns[slow].Pending() > 0 })
			for _, i := range []int{0, 3} {
				if _, err := io.CopyN(io.Discard, peers[i], 1000); err != nil {
					t.Fatal(err)
				}
			}
		}
		eventually(t, func() (told bool) {
			l.Call(func() { told = sinks[gone].hungUp })
			return told
		})
		got, err := io.CopyN(io.Discard, peers[slow], int64(sent[slow]))
		if err != nil {
			t.Fatalf("%d of %d bytes: %v", got, sent[slow], err)
		}
		eventually(t, func() (empty bool) {
			l.Call(func() { empty = conns[slow].Pending() == 0 && conns[slow].out == nil })
			return empty
		})
	})
}

// Whatever is written in whatever pieces, in whatever turns, to peers of whatever speed, arrives once and in order.
func TestEverythingArrivesInOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, l *Loop) {
		stuck := 0 // how often a socket was full
		rapid.Check(t, func(rt *rapid.T) {
			n := rapid.IntRange(1, 5).Draw(rt, "connections")
			seed := rapid.Uint64().Draw(rt, "seed")
			turns := rapid.IntRange(1, 10).Draw(rt, "turns")
			conns, want, got := make([]*Conn, n), make([][]byte, n), make([][]byte, n)
			var reading sync.WaitGroup
			for i := range conns {
				ours, theirs := connect(t)
				_ = ours.SetWriteBuffer(16 << 10)
				conns[i] = attach(t, l, ours, nil, nil, &sink{})
				reading.Go(func() {
					defer theirs.Close()
					pace := rand.New(rand.NewPCG(seed, uint64(i)))
					buf := make([]byte, 64<<10)
					for {
						k, err := theirs.Read(buf[:1+pace.IntN(len(buf))])
						got[i] = append(got[i], buf[:k]...)
						if err != nil {
							return
						}
					}
				})
			}
			chance := rand.New(rand.NewPCG(seed, 99))
			for range turns {
				l.Call(func() {
					for range 1 + chance.IntN(8) {
						i := chance.IntN(n)
						most := []int{1, 100, 5000, batchMost, 3 * batchMost, 100 << 10}[chance.IntN(6)]
						p := random(1 + chance.IntN(most))
						want[i] = append(want[i], p...)
						if conns[i].Queue(p[:len(p)/2]); chance.IntN(2) == 0 {
							conns[i].Flush()
						}
						conns[i].Write(p[len(p)/2:])
					}
				})
				l.Call(func() {
					for _, c := range conns {
						if c.Pending() > 0 {
							stuck++
						}
					}
				})
			}
			l.Call(func() {
				for _, c := range conns {
					if seed%2 == 0 {
						c.CloseWrite()
					}
					c.Linger(20 * time.Second)
				}
			})
			reading.Wait()
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					rt.Fatalf("connection %d: %d bytes were written, %d came, or others", i, len(want[i]), len(got[i]))
				}
			}
		})
		if stuck == 0 {
			t.Error("no socket was ever full, so this has shown little")
		}
	})
}

// A connection that is closed in the turn in which it wrote has sent what it wrote.
func TestCloseSendsWhatWaits(t *testing.T) {
	eachWay(t, func(t *testing.T, l *Loop) {
		ours, theirs := connect(t)
		c := attach(t, l, ours, nil, nil, &sink{})
		l.Call(func() {
			c.Write([]byte("last words"))
			c.Close()
		})
		if got, err := io.ReadAll(theirs); err != nil || string(got) != "last words" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
