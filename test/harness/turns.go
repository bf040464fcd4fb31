// A relay that knows when its clients have a server's answer and are about to say something new.

package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Turns are what is done between the lines of programs that nobody can look into; who is a connection.
type Turns struct {
	// Before is called when a client says something after a ReadyForQuery; between means that it was in no transaction.
	Before func(ctx context.Context, who any, between bool) error
	// After is called when the ReadyForQuery outside a transaction has come, before the client hears it.
	After func(ctx context.Context, who any) error
}

// TurnRelay runs a relay in front of target, a server or a gate that refuses TLS, until the test ends. It returns its address.
func TurnRelay(t testing.TB, target string, turns Turns) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		l.Close()
		work.Wait()
	})
	work.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer client.Close()
				server, err := new(net.Dialer).DialContext(ctx, "tcp", target)
				if err != nil {
					return
				}
				defer server.Close()
				end := context.AfterFunc(ctx, func() {
					client.Close()
					server.Close()
				})
				defer end()
				c := &turning{turns: turns, client: client.(*net.TCPConn), server: server.(*net.TCPConn)}
				if err := c.run(context.WithoutCancel(ctx)); err != nil { // what is begun between two turns is ended
					t.Errorf("between two turns: %v", err)
				}
			})
		}
	})
	return l.Addr().String()
}

// turning is one connection.
type turning struct {
	turns          Turns
	client, server *net.TCPConn

	mu     sync.Mutex
	status byte // of the ReadyForQuery that was the last word; 0: the server has the word
}

const (
	cancelRequest = 1234<<16 | 5678
	gssRequest    = 1234<<16 | 5680
)

// run returns what the turns have come to; the ends of connections are nothing to tell.
func (c *turning) run(ctx context.Context) error {
	framed, err := c.begin()
	if err != nil {
		return nil
	}
	var work sync.WaitGroup
	var there, back error
	work.Go(func() {
		there = c.there(ctx)
		_ = c.server.CloseWrite()
	})
	work.Go(func() {
		if framed {
			back = c.back(ctx)
		} else {
			_, _ = io.Copy(c.client, c.server)
		}
		_ = c.client.CloseWrite()
	})
	work.Wait()
	return errors.Join(there, back)
}

// begin passes on what comes before messages, and tells whether messages follow.
func (c *turning) begin() (framed bool, err error) {
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(c.client, head); err != nil {
			return false, err
		}
		if _, err := c.server.Write(head); err != nil {
			return false, err
		}
		switch binary.BigEndian.Uint32(head[4:]) {
		case sslRequest, gssRequest:
			if _, err := io.CopyN(c.client, c.server, 1); err != nil {
				return false, err
			}
		case cancelRequest:
			return false, nil
		default:
			return true, nil
		}
	}
}

// there passes on what the client says.
func (c *turning) there(ctx context.Context) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.client.Read(buf)
		if n > 0 {
			c.mu.Lock()
			status := c.status
			c.status = 0
			c.mu.Unlock()
			if status != 0 {
				if err := c.turns.Before(ctx, c, status == 'I'); err != nil {
					return err
				}
			}
			if _, err := c.server.Write(buf[:n]); err != nil {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}

// back passes on what the server says, message by message.
func (c *turning) back(ctx context.Context) error {
	buf := make([]byte, 32<<10)
	var in []byte // what has come and is not a whole message yet, or is one and not looked at
	for {
		n, err := c.server.Read(buf)
		in = append(in, buf[:n]...)
		out := 0
		var status byte
		for rest := in; len(rest) >= 5; rest = in[out:] {
			size := 1 + int(binary.BigEndian.Uint32(rest[1:]))
			if len(rest) < size {
				break
			}
			status = 0
			if rest[0] == 'Z' {
				status = rest[5]
			}
			out += size
		}
		if out > 0 {
			if status == 'I' && out == len(in) {
				if err := c.turns.After(ctx, c); err != nil {
					return err
				}
			}
			c.mu.Lock()
			c.status = status
			c.mu.Unlock()
			if _, err := c.client.Write(in[:out]); err != nil {
				return nil
			}
			in = in[out:]
		}
		if err != nil {
			_, _ = c.client.Write(in)
			return nil
		}
	}
}
