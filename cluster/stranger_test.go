// Tests with who is not a node any more, or never was: it takes no room, ends nothing, and hears nothing.

package cluster

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// TestStrangersLeaveRoom for nodes, from wherever they come: one that was not connected yet gets in while they say nothing.
func TestStrangersLeaveRoom(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := echo(open(t, "a", s, keys)).run(t)
	b := open(t, "b", s, keys)
	b.announce()
	eventually(t, "it is known", func() bool { _, ok := a.rows.named("b"); return ok })
	for host := byte(2); a.turned("busy") == 0 && host < 20; host++ {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
		for range maxFromOne {
			conn, err := from.DialContext(t.Context(), "tcp", a.Here().Address.String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
		}
	}
	eventually(t, "there is no room for more of them", func() bool { return a.turned("busy") > 0 })
	b.run(t)
	b.echoes(t, "a", "b: hi")
}

// sealed is what memberlist would send, of one of its two versions.
func (n *node) sealed(version byte, plain []byte, head func(size int) []byte) []byte {
	key := n.Keys("gossip")[0]
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	outside := head(1 + len(nonce) + len(plain) + gcm.Overhead())
	return append(outside, gcm.Seal(append([]byte{version}, nonce...), nonce, plain, append(outside, label...))...)
}

// TestDeadlyMessages of who knows the key: memberlist trusts the padding of version 0, and that there is something in a stream. Neither
// ends the process, sent by who calls or by who is called.
func TestDeadlyMessages(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a := echo(open(t, "a", s, keys, func(o *Options) { o.Join = []string{ln.Addr().String()} })).run(t)
	b := echo(open(t, "b", s, keys)).run(t)
	together(t, a, b)
	before := a.gossip.refused.Load()
	padding := bytes.Repeat([]byte{0xff}, 16)
	stream := func(size int) []byte { return binary.BigEndian.AppendUint32([]byte{10}, uint32(size)) }
	streams := [][]byte{a.sealed(0, padding, stream), a.sealed(1, nil, stream)}
	header := []byte("\xf4\x07postern")

	udp, err := net.Dial("udp", a.Here().Gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	_, _ = udp.Write(append(bytes.Clone(header), a.sealed(0, padding, func(int) []byte { return nil })...))
	for _, m := range streams {
		conn, err := net.Dial("tcp", a.Here().Gossip.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(append(bytes.Clone(header), m...))
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	for _, m := range streams { // to a, which joins whom it is told to
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(m)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	eventually(t, "all are refused", func() bool { return a.gossip.refused.Load() >= before+5 })
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "a", "b: hi")
	together(t, a, b)
}

// TestAnotherBoot: a process whose name another one has taken is refused, on the connection that it has and on new ones.
func TestAnotherBoot(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	asked := make(chan string, 10_000) // more than are asked until the rows are read again
	a, old := counted(open(t, "a", s, keys), asked).run(t), start(t, "b", s, keys)
	if _, err := old.Call(withDeadline(t), "a", "count", nil); err != nil || <-asked != "b: " {
		t.Fatal(err)
	}
	now := start(t, "b", s, keys) // writes the row
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	eventually(t, "the old one is refused", func() bool {
		_, err := old.ask(withDeadline(t), row, "count", nil)
		return errors.Is(err, ErrRefused)
	})
	for len(asked) > 0 {
		<-asked
	}
	old.peers.keep(nil) // its connection
	if _, err := old.ask(withDeadline(t), row, "count", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("on a new connection: %v", err)
	}
	nothing(t, asked)
	if _, err := now.Call(withDeadline(t), "a", "count", nil); err != nil || <-asked != "b: " {
		t.Error(err)
	}
}

// TestRunWaitsForAnswers that are being given when it ends: what they use may be closed behind it.
func TestRunWaitsForAnswers(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := open(t, "a", s, keys), start(t, "b", s, keys)
	begun, gone, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	a.Handle("linger", 0, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		close(begun)
		<-ctx.Done()
		close(gone)
		<-release
		return nil, nil
	})
	a.run(t)
	var all sync.WaitGroup
	all.Go(func() { _, _ = b.Call(withDeadline(t), "a", "linger", nil) })
	<-begun
	a.end(nil)
	<-gone
	early := time.NewTimer(300 * time.Millisecond)
	defer early.Stop()
	select {
	case <-a.ended:
		t.Error("it has not waited")
	case <-early.C:
	}
	close(release)
	<-a.ended
	all.Wait()
}
