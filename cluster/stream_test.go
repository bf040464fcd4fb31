// Tests of streams: what is carried, how they end, and who may have none.

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// streaming has a node take streams: they come out of the channel, and stay open until the test ends or somebody ends them.
func streaming(n *node) (*node, chan *Stream) {
	came := make(chan *Stream, 10)
	n.HandleStreams(func(ctx context.Context, s *Stream) {
		came <- s
		<-ctx.Done()
	})
	return n, came
}

// opened is both ends of a stream.
func opened(t *testing.T, from *node, to string, came chan *Stream) (ours, theirs *Stream) {
	t.Helper()
	ours, err := from.OpenStream(withDeadline(t), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	for _, s := range []*Stream{ours, <-came} {
		_ = s.SetDeadline(time.Now().Add(patience))
		theirs = s
	}
	return ours, theirs
}

func say(t *testing.T, from, to *Stream, what string) {
	t.Helper()
	if _, err := from.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(what))
	if _, err := io.ReadFull(to, got); err != nil || string(got) != what {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestStreams carry bytes both ways; that one side has said all is not that the other has; that one is lost is no end.
func TestStreams(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys)
	b, came := streaming(open(t, "b", s, keys))
	b.run(t)
	eventually(t, "a knows b", func() bool { _, ok := a.callable("b"); return ok })
	ours, theirs := opened(t, a, "b", came)
	if ours.Node() != "b" || theirs.Node() != "a" {
		t.Errorf("from %s to %s", theirs.Node(), ours.Node())
	}
	say(t, ours, theirs, "question")
	say(t, theirs, ours, "answer")
	if in, out := b.streams.open(true), a.streams.open(false); in != 1 || out != 1 {
		t.Errorf("%d in, %d out", in, out)
	}
	_ = ours.CloseWrite()
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	say(t, theirs, ours, "still there")
	_ = theirs.CloseWrite()
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	_ = ours.Close()
	if n := a.streams.open(false); n != 0 {
		t.Errorf("%d are open", n)
	}

	ours, theirs = opened(t, a, "b", came)
	ours.Abort()
	if _, err := theirs.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || isTimeout(err) {
		t.Errorf("lost: %v", err)
	}
	if _, err := b.OpenStream(withDeadline(t), "a"); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrAway) {
		t.Errorf("a takes none: %v", err)
	}
	if _, err := a.OpenStream(withDeadline(t), "c"); !errors.Is(err, ErrNoNode) {
		t.Errorf("nobody: %v", err)
	}
}

// TestStreamsEnd when the row of the node at the other end is gone, at both, and tell when that drains.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys)
	b, came := streaming(open(t, "b", s, keys))
	b.run(t)
	eventually(t, "a knows b", func() bool { _, ok := a.callable("b"); return ok })
	ours, theirs := opened(t, a, "b", came)
	a.leaving.Store(true)
	a.announce()
	select {
	case <-theirs.Left():
	case <-time.After(patience):
		t.Fatal("b does not hear that a drains")
	}
	say(t, ours, theirs, "not over yet")
	second, secondly := opened(t, a, "b", came)
	select {
	case <-secondly.Left(): // b reads it in the store
	case <-time.After(patience):
		t.Fatal("b does not see that a drains")
	}
	_ = second.Close()
	select {
	case <-ours.Left():
		t.Error("b does not drain")
	default:
	}
	s.remove("a")
	for _, end := range []*Stream{ours, theirs} {
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || isTimeout(err) {
			t.Errorf("the row is gone: %v", err)
		}
	}
}

// TestLeaveTellsStreams: who drains says so to the nodes that serve its clients, although nobody reads the store.
func TestLeaveTellsStreams(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys)
	b, came := streaming(open(t, "b", s, keys))
	b.run(t)
	c := start(t, "c", s, keys)
	eventually(t, "they know b", func() bool {
		_, ok := a.callable("b")
		_, too := c.callable("b")
		return ok && too
	})
	_, theirs := opened(t, a, "b", came)
	_, others := opened(t, c, "b", came)
	a.Leave(withDeadline(t))
	select {
	case <-theirs.Left():
	default:
		t.Error("b was not told")
	}
	select {
	case <-others.Left():
		t.Error("c stays")
	default:
	}
}

// TestStreamHerd: of many at once no more come to a node's door than it lets in.
func TestStreamHerd(t *testing.T) {
	t.Parallel()
	all := newStreams()
	var opened []func()
	for range maxStreamDials {
		done, err := all.dials(t.Context(), "boot of b")
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, done)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := all.dials(late, "boot of b"); !errors.Is(err, context.Canceled) {
		t.Errorf("one more: %v", err)
	}
	if _, err := all.dials(t.Context(), "boot of c"); err != nil {
		t.Errorf("to another node: %v", err)
	}
	opened[0]()
	opened[0]()
	if _, err := all.dials(t.Context(), "boot of b"); err != nil {
		t.Errorf("in the place of one that is over: %v", err)
	}

	if maxStreamDials >= maxFromOne { // calls have to be dialed, too
		t.Error("a node would be turned away by another one")
	}
}

// TestStreamStrangers know the cluster's key and the address, and have no row: nothing that they say is read.
func TestStreamStrangers(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, came := streaming(open(t, "a", s, keys))
	a.run(t)
	stranger := open(t, "b", s, keys)
	defer func() { _ = stranger.Close() }()
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	for what, own := range map[string][]tls.Certificate{"a key that no row has": {stranger.own}, "a certificate of somebody else": {{Certificate: a.own.Certificate, PrivateKey: stranger.own.PrivateKey}}, "no certificate": nil} {
		conf := tlsConfig(stranger.own, judgeOnly(row.Fingerprint), streamProtocol)
		conf.Certificates = own
		conn, err := (&tls.Dialer{Config: conf}).DialContext(withDeadline(t), "tcp", row.Address.String())
		if err == nil { // of TLS 1.3 a client is done before it is judged
			_, _ = conn.Write([]byte("\r\n\r\n\x00\r\nQUIT\n"))
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		if err == nil || isTimeout(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, first := range map[string]string{"plain text": "\r\n\r\n\x00\r\nQUIT\n", "nothing": ""} {
		conn, err := net.Dial("tcp", row.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, first)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Errorf("%s is not closed", what)
		}
		_ = conn.Close()
	}
	eventually(t, "those with a certificate of their own are counted", func() bool { return a.turned("stranger") >= 1 })
	select {
	case <-came:
		t.Error("a stranger is served")
	default:
	}
	// With a row the same key is let in.
	stranger.announce()
	conf := tlsConfig(stranger.own, judgeOnly(row.Fingerprint), streamProtocol)
	conn, err := (&tls.Dialer{Config: conf}).DialContext(withDeadline(t), "tcp", row.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if s := <-came; s.Node() != "b" {
		t.Errorf("it is %s", s.Node())
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestStreamsAreBounded for each node and for all, each way for itself.
func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	all := newStreams()
	for _, in := range []bool{false, true} {
		var last *Stream
		for i := range maxStreamsOfAll {
			last = &Stream{key: fmt.Sprint(i % (maxStreamsOfAll / maxStreamsOfOne)), in: in}
			if err := all.add(last); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if err := all.add(&Stream{key: "another", in: in}); !errors.Is(err, ErrBusy) {
			t.Errorf("one more: %v", err)
		}
		all.remove(last)
		all.remove(last)
		if err := all.add(&Stream{key: "0", in: in}); !errors.Is(err, ErrBusy) {
			t.Errorf("one more of a node that has all of its own: %v", err)
		}
		if err := all.add(&Stream{key: "another", in: in}); err != nil {
			t.Errorf("in its place: %v", err)
		}
	}
}
