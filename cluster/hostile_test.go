// Tests with peers that mean ill, or are broken.

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
)

// counted counts what its handler was asked.
func counted(n *node, asked chan string) *node {
	n.Handle("count", 1000, func(_ context.Context, from string, body []byte) ([]byte, error) {
		asked <- from + ": " + string(body)
		return nil, nil
	})
	return n
}

func nothing(t *testing.T, asked chan string) {
	t.Helper()
	select {
	case got := <-asked:
		t.Errorf("the handler was asked: %s", got)
	default:
	}
}

// TestStranger knows the cluster's key and the node's address, and has no row: it sees the handshake end, and nothing of what it sends is read.
func TestStranger(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	asked := make(chan string, 10)
	a := counted(open(t, "a", s, keys), asked).run(t)
	stranger := open(t, "b", s, keys)
	defer func() { _ = stranger.Close() }()
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	for what, own := range map[string][]tls.Certificate{"a key that no row has": {stranger.own}, "no certificate": nil} {
		conf := tlsConfig(stranger.own, func(string) error { return nil }, callProtocol)
		conf.Certificates = own
		conn, err := (&tls.Dialer{Config: conf}).DialContext(t.Context(), "tcp", row.Address.String())
		if err == nil { // of TLS 1.3 a client is done before it is judged
			_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
			if err == nil {
				_, err = conn.Read(make([]byte, 100))
			}
			_ = conn.Close()
		}
		if alert := new(net.OpError); !errors.As(err, &alert) || alert.Op != "remote error" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := stranger.ask(withDeadline(t), row, "count", nil); !errors.Is(err, ErrRefused) {
		t.Errorf("calling: %v", err)
	}
	eventually(t, "the logs say it", func() bool {
		return a.log.has("level=WARN", "its key is that of no node in the store", "127.0.0.1") && stranger.log.has("another node refuses this one", "node=a")
	})
	eventually(t, "both are counted", func() bool { return a.turned("stranger") == 2 })
	nothing(t, asked)
}

// turned is how many were turned away for a reason.
func (n *node) turned(reason string) uint64 {
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	return n.counts.turned[reason]
}

func withDeadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// TestOldTLS and other protocols are refused.
func TestOldTLS(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	asked := make(chan string, 10)
	a, b := counted(open(t, "a", s, keys), asked).run(t), start(t, "b", s, keys)
	for what, change := range map[string]func(*tls.Config){
		"TLS 1.2":  func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"HTTP/1.1": func(c *tls.Config) { c.NextProtos, c.VerifyConnection = nil, nil },
	} {
		conf := tlsConfig(b.own, func(string) error { return nil }, callProtocol)
		change(conf)
		conn, err := (&tls.Dialer{Config: conf}).DialContext(withDeadline(t), "tcp", a.Here().Address.String())
		if err == nil {
			_, _ = conn.Write([]byte("POST /v1/count HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
			_, err = conn.Read(make([]byte, 100))
			_ = conn.Close()
		}
		if err == nil {
			t.Errorf("%s is answered", what)
		}
	}
	nothing(t, asked)
}

// TestForgotten: a node that was forgotten is refused on the connection that it has, and let in again when it announces itself.
func TestForgotten(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	b.echoes(t, "a", "b: hi")
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	s.remove("b")
	eventually(t, "it is refused", func() bool {
		_, err := b.ask(withDeadline(t), row, "echo", []byte("hi"))
		return errors.Is(err, ErrRefused)
	})
	b.announce()
	eventually(t, "it is let in", func() bool {
		_, err := b.ask(withDeadline(t), row, "echo", []byte("hi"))
		return err == nil
	})
}

// TestWrongServer: who answers at a node's address with another key hears nothing of a call.
func TestWrongServer(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	asked := make(chan string, 10)
	a, thief := start(t, "a", s, keys), counted(open(t, "thief", s, keys), asked).run(t)
	there := thief.Here()
	there.Fingerprint = strings.Repeat("ab", 32)
	s.put(tenants.Node{Name: "b", Boot: "boot", Here: there})
	if _, err := a.Call(withDeadline(t), "b", "count", []byte("secret")); !errors.Is(err, ErrAway) || !errors.Is(err, ErrWrongKey) {
		t.Error(err)
	}
	eventually(t, "the log says it", func() bool {
		return a.log.has("level=WARN", "what answers at the address of a node is not that node", "node=b")
	})
	nothing(t, asked)
}

// TestManyStrangers who say nothing take no room from nodes, and are closed.
func TestManyStrangers(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var quiet []net.Conn
	for range 2 * maxFromOne {
		conn, err := from.DialContext(t.Context(), "tcp", a.Here().Address.String())
		if err != nil {
			t.Fatal(err)
		}
		quiet = append(quiet, conn)
	}
	eventually(t, "those that are too many are turned away", func() bool { return a.turned("busy") == maxFromOne })
	b.echoes(t, "a", "b: hi")
	for _, conn := range quiet { // the others when their time is over
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
		_ = conn.Close()
	}
}

// TestGarbage on all ports.
func TestGarbage(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := echo(open(t, "a", s, keys)).run(t), echo(open(t, "b", s, keys)).run(t)
	together(t, a, b)
	here := a.Here()
	garbage := [][]byte{{0}, []byte("GET / HTTP/1.1\r\n\r\n"), bytes.Repeat([]byte{0xff}, 10000), []byte("\xf4\x07postern"), []byte("\xf4\x07postern\x0a"), []byte("\xf4\xffpostern")}
	udp, err := net.Dial("udp", here.Gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = udp.Close() }()
	for _, g := range garbage {
		_, _ = udp.Write(g)
		for _, at := range []string{here.Gossip.String(), here.Address.String()} {
			conn, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(g)
			_ = conn.(*net.TCPConn).CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if answer, err := io.ReadAll(io.LimitReader(conn, 1000)); errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%q: it is not closed: %q, %v", g, answer, err)
			}
			_ = conn.Close()
		}
	}
	eventually(t, "packets that no node sends are counted", func() bool { return a.gossip.refused.Load() >= uint64(len(garbage)) })
	a.echoes(t, "b", "a: hi")
	b.echoes(t, "a", "b: hi")
	if !a.sees(b, Alive) {
		t.Error("b is gone")
	}
	if n := strings.Count(a.log.String(), "level=WARN"); n > 4*linesPerMinute {
		t.Errorf("%d lines are logged", n)
	}
}

// TestEndlessStream of gossip is cut before it costs memory: who sends it need not know the key.
func TestEndlessStream(t *testing.T) {
	t.Parallel()
	a := start(t, "a", newStore(), keyFile(t, newKey()))
	conn, err := net.Dial("tcp", a.Here().Gossip.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	head := append(binary.BigEndian.AppendUint32([]byte("\xf4\x07postern\x0a"), 10<<20), sealedAs)
	_, err = conn.Write(head)
	for sent := 0; err == nil; sent += 1 << 10 {
		if sent > 10<<20 {
			t.Fatal("all was read")
		}
		_ = conn.SetWriteDeadline(time.Now().Add(patience))
		_, err = conn.Write(make([]byte, 1<<10))
	}
	eventually(t, "no more was read than a cluster can have to tell", func() bool {
		got := a.gossip.receivedBytes.Load()
		return got > 0 && got <= maxStream
	})
}

// TestManyStreams of gossip: beyond some they are closed at once.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	a := start(t, "a", newStore(), keyFile(t, newKey()))
	for range maxStreams + maxOfNodes + 10 {
		conn, err := net.Dial("tcp", a.Here().Gossip.String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	eventually(t, "some are turned away", func() bool { return a.gossip.refused.Load() >= 1 })
	eventually(t, "the others end with their time", func() bool { return len(a.gossip.room) == 0 })
}

// TestLiar knows the key, and tells what cannot be.
func TestLiar(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys)
	liar := open(t, "b", newStore(), keys, func(o *Options) { o.Join = []string{a.Here().Gossip.String()} })
	liar.opts.Region = "<script>\n\x1b[2J" // which Open would have refused
	liar.run(t)
	eventually(t, "it has talked to a", func() bool { return a.log.has("is none of ours") })
	if a.sees(liar, Alive) || a.log.has("\x1b") {
		t.Errorf("it is believed:\n%s", a.log)
	}
}

// TestSizes of what is asked and answered.
func TestSizes(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys), open(t, "b", s, keys)
	b.Handle("size", 1<<20, func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	b.Handle("small", 10, func(context.Context, string, []byte) ([]byte, error) { return nil, nil })
	b.Handle("much", 10, func(context.Context, string, []byte) ([]byte, error) { return make([]byte, maxAnswer+1), nil })
	b.Handle("most", 10, func(context.Context, string, []byte) ([]byte, error) { return make([]byte, maxAnswer), nil })
	b.run(t)
	for _, n := range []int{0, 1, 1 << 16, 1 << 20} {
		body := bytes.Repeat([]byte{7}, n)
		if got, err := a.Call(withDeadline(t), "b", "size", body); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
		}
	}
	for what, n := range map[string]int{"size": 1<<20 + 1, "small": 11, "much": 0} {
		if _, err := a.Call(withDeadline(t), "b", what, make([]byte, n)); !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := a.Call(withDeadline(t), "b", "most", nil); err != nil || len(got) != maxAnswer {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestSlowCaller: a node that begins a request and does not go on is told that its time is over.
func TestSlowCaller(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	asked := make(chan string, 1)
	a, b := counted(open(t, "a", s, keys), asked).run(t), start(t, "b", s, keys)
	row := tenants.Node{Name: "a", Boot: a.opts.Boot, Here: a.Here()}
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	req, err := http.NewRequestWithContext(withDeadline(t), http.MethodPost, "https://"+row.Address.String()+"/v1/count", reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(headerProtocol, "1")
	resp, err := b.peers.roundTrip(req.Context(), row, req)
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("it was answered")
		}
	}
	nothing(t, asked)
}
