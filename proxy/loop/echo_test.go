// Bytes in and out, plain and over TLS, and the ends of connections.

package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

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
			ours, session, swap, _, peer := secure(t, version)
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
