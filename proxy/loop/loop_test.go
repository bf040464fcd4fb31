package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
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
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
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

// echo writes back what it reads, stops reading while its output is full, and
// closes when the peer does.
type echo struct {
	panicOn byte
	most    int // longest output seen
	closed  chan error
	told    bool
}

func newEcho() *echo { return &echo{closed: make(chan error, 1)} }

func (e *echo) Ready(c *Conn) {
	for c.Pending() == 0 {
		n, err := c.Read(c.loop.Scratch())
		if err == ErrWouldBlock {
			return
		}
		if err != nil {
			e.closed <- err
			c.Close()
			return
		}
		if e.panicOn != 0 && bytes.IndexByte(c.loop.Scratch()[:n], e.panicOn) >= 0 {
			panic("told to")
		}
		c.Write(c.loop.Scratch()[:n])
		e.most = max(e.most, c.Pending())
	}
	if c.HungUp() {
		e.closed <- net.ErrClosed
		c.Close()
	}
}

func (e *echo) Panicked(*Conn) { e.told = true }

// converse sends data and reads it back, slowly if told to.
func converse(t *testing.T, conn net.Conn, data []byte, slow bool) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- err
	}()
	got := make([]byte, 0, len(data))
	piece := make([]byte, 64<<10)
	if slow {
		piece = piece[:997]
	}
	for len(got) < len(data) {
		n, err := conn.Read(piece)
		got = append(got, piece[:n]...)
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", len(got), len(data), err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("what came back is not what was sent")
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

var sizes = []int{1, 100, 4096, ScratchSize - 1, ScratchSize, ScratchSize + 1, 5 << 20}

func TestEchoInPlaintext(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	e := newEcho()
	c := attach(t, l, ours, nil, nil, e)
	for _, n := range sizes {
		converse(t, theirs, random(n), false)
	}
	l.Call(func() {
		if c.out != nil {
			t.Error("an idle connection owns a buffer")
		}
	})
	theirs.Close()
	if err := <-e.closed; err != io.EOF {
		t.Fatalf("end: %v", err)
	}
}

// A peer that does not read: the rest is kept, nothing more is read from it,
// and nothing is lost.
func TestSlowReader(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	e := newEcho()
	c := attach(t, l, ours, nil, nil, e)
	data := random(32 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := theirs.Write(data)
		sent <- err
	}()
	eventually(t, func() (full bool) {
		l.Call(func() { full = c.Pending() > 0 })
		return full
	})
	got := make([]byte, len(data))
	if _, err := io.ReadFull(theirs, got); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatal("what came back is not what was sent")
	}
	l.Call(func() {
		if e.most > ScratchSize {
			t.Errorf("%d bytes were kept", e.most)
		}
		if c.out != nil {
			t.Error("an idle connection owns a buffer")
		}
	})
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"postern.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestEchoOverTLSThatBeganInAGoroutine(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			l, _ := start(t)
			ours, theirs := connect(t)
			swap := &Swap{Conn: ours}
			session := tls.Server(swap, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MaxVersion: version})
			peer := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true})
			errs := make(chan error, 1)
			go func() { errs <- session.Handshake() }()
			if err := peer.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
			// Sent before the loop has the connection: must not be lost.
			if _, err := peer.Write([]byte("early")); err != nil {
				t.Fatal(err)
			}
			e := newEcho()
			c := attach(t, l, ours, session, swap, e)
			early := make([]byte, 5)
			if _, err := io.ReadFull(peer, early); err != nil || string(early) != "early" {
				t.Fatalf("%q, %v", early, err)
			}
			for _, n := range sizes {
				converse(t, peer, random(n), false)
			}
			converse(t, peer, random(1<<20), true)
			l.Call(func() {
				if c.out != nil {
					t.Error("an idle connection owns a buffer")
				}
			})
			_ = peer.CloseWrite()
			if err := <-e.closed; err != io.EOF {
				t.Fatalf("end: %v", err)
			}
		})
	}
}

// Bytes and FIN that arrive together are both seen, in order.
func TestLastBytesAndTheirEnd(t *testing.T) {
	l, _ := start(t)
	for range 200 {
		ours, theirs := connect(t)
		if _, err := theirs.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		if err := theirs.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		e := newEcho()
		attach(t, l, ours, nil, nil, e)
		got, err := io.ReadAll(theirs)
		if err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		if err := <-e.closed; err != io.EOF {
			t.Fatal(err)
		}
	}
}

func TestReset(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	e := newEcho()
	attach(t, l, ours, nil, nil, e)
	converse(t, theirs, []byte("hello"), false)
	_ = theirs.SetLinger(0)
	theirs.Close()
	if err := <-e.closed; err == nil || err == io.EOF {
		t.Fatalf("a reset looks like %v", err)
	}
}

func TestLingerLetsThePeerReadTheLastWords(t *testing.T) {
	l, _ := start(t)
	words := random(2 << 20)
	ours, theirs := connect(t)
	e := newEcho()
	c := attach(t, l, ours, nil, nil, e)
	// Unread bytes at the time of the close are what makes a kernel send RST.
	if _, err := theirs.Write(random(1000)); err != nil {
		t.Fatal(err)
	}
	l.Call(func() {
		c.Write(words)
		c.Linger(20 * time.Second)
	})
	got, err := io.ReadAll(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(got, words) {
		t.Fatalf("%d bytes came, the last words are not among them", len(got))
	}
	theirs.Close()
	eventually(t, func() (gone bool) {
		l.Call(func() { gone = l.Attached() == 0 })
		return gone
	})
}

func TestLingerEnds(t *testing.T) {
	l, _ := start(t)
	ours, _ := connect(t)
	c := attach(t, l, ours, nil, nil, newEcho())
	l.Call(func() { c.Linger(20 * time.Millisecond) })
	eventually(t, func() (gone bool) {
		l.Call(func() { gone = c.Closed() && l.Attached() == 0 })
		return gone
	})
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
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}
