// Carrying bytes between two connections: those of a client, and those of whoever serves it.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/proxy/loop"
)

// carryBuffer is what is read at once, each way: a record of TLS.
const carryBuffer = 16 << 10

// carriage carries what a client and a server say until both have ended. That one of them has said all is told to the other; that one is
// lost ends both, so that the other reads an error and not an end. Whoever runs it closes both.
type carriage struct {
	client, server socket
	in, out        atomic.Uint64 // bytes from and to the client
	log            *slog.Logger
	panics         func()
}

// Why a carriage has ended.
var (
	errCarried  = errors.New("closed")
	errClient   = errors.New("client_lost")
	errServer   = errors.New("server_lost")
	errSilence  = errors.New("timeout")
	errCarryBug = errors.New("panic")
)

// run carries until the end, or until ctx ends, and says why. Who acknowledges nothing for as long as silence says is lost; 0: nobody is.
func (c *carriage) run(ctx context.Context, silence time.Duration) (why string) {
	ctx, over := context.WithCancelCause(ctx)
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		abort(c.client)
		abort(c.server)
	})
	var watching, copying sync.WaitGroup
	for _, end := range []socket{c.client, c.server} {
		watching.Go(func() {
			if loop.AwaitSilence(ctx, end, silence) {
				over(errSilence)
			}
		})
	}
	copying.Go(func() { c.guarded(over, c.up) })
	copying.Go(func() { c.guarded(over, c.down) })
	copying.Wait()
	if !stop() {
		<-aborted
	}
	over(errCarried)
	watching.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause.Error()
	}
	return "shutdown"
}

// guarded survives a panic, which costs nobody else anything.
func (c *carriage) guarded(over context.CancelCauseFunc, way func() error) {
	defer func() {
		if p := recover(); p != nil {
			c.panics()
			c.log.Error("panic in what carries a client", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			over(errCarryBug)
		}
	}()
	if err := way(); err != nil {
		over(err)
	}
}

// up carries from the client. A server that does not listen any more may still have something to say.
func (c *carriage) up() error {
	read, written := pump(c.server, c.client, &c.in)
	switch {
	case isDeadline(read): // the server has ended, and the client was waited for
	case read != nil:
		return errClient
	case written != nil:
		_, _ = io.CopyN(io.Discard, c.client, lingerBytes)
	default:
		_ = c.server.CloseWrite()
	}
	return nil
}

// down carries to the client. When the server has said all, the client has a while to hang up.
func (c *carriage) down() error {
	read, written := pump(c.client, c.server, &c.out)
	switch {
	case read != nil:
		return errServer
	case written != nil:
		return errClient
	}
	_ = c.client.SetReadDeadline(time.Now().Add(lingerFor))
	_ = c.client.CloseWrite()
	return nil
}

// pump copies until from has said all, or one of them fails.
func pump(to io.Writer, from io.Reader, count *atomic.Uint64) (read, written error) {
	buf := make([]byte, carryBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			count.Add(uint64(n))
			if _, err := to.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return err, nil
		}
	}
}

func isDeadline(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// abort ends a connection so that the other side reads an error, where that can be said.
func abort(c socket) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	default:
		_ = c.Close()
	}
}
