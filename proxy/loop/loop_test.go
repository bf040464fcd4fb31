// Tests of the loop: panics, timers, posted functions, and its end.

package loop

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a loop until the test ends and counts its panics.
func start(t *testing.T) (*Loop, *atomic.Int64) {
	t.Helper()
	var panics atomic.Int64
	l, err := New(0, slog.New(slog.DiscardHandler), func() { panics.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); l.Run() }()
	t.Cleanup(func() { l.Stop(); <-done })
	return l, &panics
}

// connect returns both ends of a TCP connection.
func connect(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// attach gives a connection to the loop.
func attach(t *testing.T, l *Loop, tcp *net.TCPConn, session *tls.Conn, swap *Swap, h Handler) *Conn {
	t.Helper()
	fd, err := Detach(tcp)
	if err != nil {
		t.Fatal(err)
	}
	var c *Conn
	l.Call(func() { c, err = l.Attach(fd, session, swap, h) })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPanicClosesOneConnection(t *testing.T) {
	l, panics := start(t)
	ours, theirs := connect(t)
	bad := newEcho()
	bad.panicOn = '!'
	attach(t, l, ours, nil, nil, bad)
	ours2, theirs2 := connect(t)
	attach(t, l, ours2, nil, nil, newEcho())
	if _, err := theirs.Write([]byte("!")); err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Read(make([]byte, 1)); err == nil {
		t.Fatal("still open")
	}
	converse(t, theirs2, []byte("fine"), false)
	l.Call(func() {
		if !bad.told || panics.Load() != 1 || l.Attached() != 1 {
			t.Errorf("told %v, %d panics, %d attached", bad.told, panics.Load(), l.Attached())
		}
	})
	l.Post(func() { panic("in a posted function") })
	converse(t, theirs2, []byte("still fine"), false)
	if panics.Load() != 2 {
		t.Errorf("%d panics", panics.Load())
	}
}

func TestTimers(t *testing.T) {
	l, _ := start(t)
	var mu sync.Mutex
	var order []string
	note := func(s string) func() { return func() { mu.Lock(); order = append(order, s); mu.Unlock() } }
	done := make(chan struct{})
	l.Call(func() {
		l.AfterFunc(30*time.Millisecond, note("third"))
		l.AfterFunc(10*time.Millisecond, note("first"))
		stopped := l.AfterFunc(15*time.Millisecond, note("stopped"))
		later := l.AfterFunc(5*time.Millisecond, note("second"))
		later.Reset(20 * time.Millisecond)
		stopped.Stop()
		if stopped.Armed() || !later.Armed() {
			t.Error("Armed is wrong")
		}
		var again *Timer
		again = l.AfterFunc(40*time.Millisecond, func() {
			note("fourth")()
			if len(order) == 4 {
				again.Reset(time.Millisecond)
				return
			}
			close(done)
		})
	})
	<-done
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(order, []string{"first", "second", "third", "fourth", "fourth"}) {
		t.Fatalf("%v", order)
	}
}

func TestPostIsInOrderAndRefusedAfterTheEnd(t *testing.T) {
	l, err := New(0, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); l.Run() }()
	const posters, each = 8, 1000
	last := make([]int, posters)
	var all sync.WaitGroup
	for p := range posters {
		all.Go(func() {
			for i := 1; i <= each; i++ {
				if !l.Post(func() {
					if last[p] != i-1 {
						t.Errorf("poster %d: %d after %d", p, i, last[p])
					}
					last[p] = i
				}) {
					t.Error("refused while running")
				}
			}
		})
	}
	all.Wait()
	ours, theirs := connect(t)
	fd, err := Detach(ours)
	if err != nil {
		t.Fatal(err)
	}
	l.Call(func() { _, err = l.Attach(fd, nil, nil, newEcho()) })
	if err != nil {
		t.Fatal(err)
	}
	l.Stop()
	<-done
	for p, n := range last {
		if n != each {
			t.Errorf("poster %d: %d functions ran", p, n)
		}
	}
	if l.Post(func() {}) || l.Call(func() {}) {
		t.Error("taken after the end")
	}
	if _, err := theirs.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what was attached is not closed: %v", err)
	}
}

// One connection that never runs dry must not keep the others waiting.
func TestBusyConnectionLeavesTurnsToOthers(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	attach(t, l, ours, nil, nil, discard{})
	stop := make(chan struct{})
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		b := random(1 << 20)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = theirs.Write(b)
			}
		}
	}()
	ours2, theirs2 := connect(t)
	attach(t, l, ours2, nil, nil, newEcho())
	for range 100 {
		converse(t, theirs2, []byte("ping"), false)
	}
	close(stop)
	<-flooded
}

type discard struct{}

func (discard) Ready(c *Conn) {
	for {
		if _, err := c.Read(c.loop.Scratch()); err != nil {
			if err != ErrWouldBlock {
				c.Close()
			}
			return
		}
	}
}
func (discard) Panicked(*Conn) {}

// The collector stops the world while loops are busy; it must get its turn.
func TestGarbageCollectionWhileBusy(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	attach(t, l, ours, nil, nil, newEcho())
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for range 20 {
			runtime.GC()
		}
	}()
	for {
		select {
		case <-collected:
			return
		default:
			converse(t, theirs, []byte("ping"), false)
		}
	}
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	attach(t, l, ours, nil, nil, newEcho())
	const turns = 5000
	piece := make([]byte, 100)
	turn := func() {
		if _, err := theirs.Write(piece); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, piece); err != nil {
			t.Fatal(err)
		}
	}
	turn()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range turns {
		turn()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > turns/10 {
		t.Fatalf("%d allocations in %d turns", n, turns)
	}
}

func TestBuffersAreReusedAndBounded(t *testing.T) {
	var b buffers
	for _, n := range []int{1, minBuffer, minBuffer + 1, 5000, maxPooled} {
		buf := b.get(n)
		if cap(buf) < n || len(buf) != 0 {
			t.Fatalf("get(%d): len %d, cap %d", n, len(buf), cap(buf))
		}
		b.put(buf)
		if again := b.get(n); cap(again) != cap(buf) {
			t.Fatalf("get(%d) again: cap %d, before %d", n, cap(again), cap(buf))
		}
	}
	for range 10_000 {
		b.put(make([]byte, 0, maxPooled))
	}
	kept := 0
	for _, f := range b.free {
		for _, buf := range f {
			kept += cap(buf)
		}
	}
	if kept > numClasses*(keepBytes+maxPooled) {
		t.Fatalf("%d bytes are kept", kept)
	}
	b.put(make([]byte, 0, maxPooled+1)) // not one of ours
	if huge := b.get(maxPooled + 1); cap(huge) < maxPooled+1 {
		t.Fatal("too small")
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}
