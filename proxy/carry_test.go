// What is carried between two connections: ends, losses, and that nobody is overrun.

package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"
)

// carried is a client and a server with a carriage between them. why gets its end.
func carried(t *testing.T, ctx context.Context) (client, server *net.TCPConn, why chan string) {
	t.Helper()
	client, a := sockets(t)
	b, server := sockets(t)
	_, _ = a.SetDeadline(time.Time{}), b.SetDeadline(time.Time{})
	why = make(chan string, 1)
	go func() {
		c := carriage{client: a, server: b, log: slog.New(slog.DiscardHandler), panics: func() {}}
		why <- c.run(ctx, time.Minute)
		a.Close()
		b.Close()
	}()
	return client, server, why
}

func wantEnd(t *testing.T, why chan string, want string) {
	t.Helper()
	select {
	case got := <-why:
		if got != want {
			t.Errorf("it has ended: %s, want %s", got, want)
		}
	case <-time.After(patience):
		t.Fatal("it has not ended")
	}
}

func heard(t *testing.T, c net.Conn, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestCarryHalves: that a client has said all is told to the server, who may go on; then it is told to the client.
func TestCarryHalves(t *testing.T) {
	client, server, why := carried(t, t.Context())
	_, _ = io.WriteString(client, "all")
	_ = client.CloseWrite()
	if all, err := io.ReadAll(server); string(all) != "all" || err != nil {
		t.Fatalf("%q, %v", all, err)
	}
	_, _ = io.WriteString(server, "answer")
	if got := heard(t, client, 6); got != "answer" {
		t.Error(got)
	}
	_ = server.CloseWrite()
	if rest, err := io.ReadAll(client); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	wantEnd(t, why, "closed")
}

// TestCarryLastWords reach a client that goes on sending, and does not hang up.
func TestCarryLastWords(t *testing.T) {
	client, server, why := carried(t, t.Context())
	_, _ = io.WriteString(client, "unread")
	_, _ = io.WriteString(server, "goodbye")
	_ = server.CloseWrite()
	_, _ = io.WriteString(client, "more")
	if words, err := io.ReadAll(client); string(words) != "goodbye" || err != nil {
		t.Errorf("%q, %v", words, err)
	}
	wantEnd(t, why, "closed")
}

// TestCarryLosses: whoever is lost, the other one reads an error and not an end.
func TestCarryLosses(t *testing.T) {
	lost := func(c net.Conn) {
		t.Helper()
		if _, err := io.ReadAll(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it reads %v", err)
		}
	}
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }
	client, server, why := carried(t, t.Context())
	reset(client)
	lost(server)
	wantEnd(t, why, "client_lost")
	client, server, why = carried(t, t.Context())
	reset(server)
	lost(client)
	wantEnd(t, why, "server_lost")
	ctx, stop := context.WithCancel(t.Context())
	client, server, why = carried(t, ctx)
	stop()
	lost(client)
	lost(server)
	wantEnd(t, why, "shutdown")
}

// TestCarryWaits: who does not read has the other one wait, both ways, and then all arrives.
func TestCarryWaits(t *testing.T) {
	client, server, why := carried(t, t.Context())
	const much = 64 << 20
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		from, to := way[0], way[1]
		_ = from.SetWriteDeadline(time.Now().Add(time.Second))
		sent, err := from.Write(make([]byte, much))
		if !errors.Is(err, os.ErrDeadlineExceeded) || sent == much {
			t.Fatalf("%d bytes sent to who does not read, %v", sent, err)
		}
		_ = from.SetWriteDeadline(time.Time{})
		if n, err := io.CopyN(io.Discard, to, int64(sent)); err != nil {
			t.Fatalf("%d of %d, %v", n, sent, err)
		}
	}
	client.Close()
	_, _ = io.ReadAll(server)
	server.Close()
	wantEnd(t, why, "closed")
}
