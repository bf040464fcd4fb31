// Tests of calls: what they come to, and that they end.

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCallErrors: a handler's error is told, a panic costs its call, what is not known is said so.
func TestCallErrors(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys), open(t, "b", s, keys)
	b.Handle("fail", 10, func(context.Context, string, []byte) ([]byte, error) { return []byte("x"), errors.New("not today") })
	b.Handle("long", 10, func(context.Context, string, []byte) ([]byte, error) {
		return nil, errors.New(strings.Repeat("x", 1<<20))
	})
	b.Handle("panic", 10, func(context.Context, string, []byte) ([]byte, error) { panic("at the wrong moment") })
	b.run(t)
	for what, want := range map[string]string{"fail": "node b: not today", "long": "node b: " + strings.Repeat("x", maxErrorText), "panic": "node b: the node has failed"} {
		_, err := a.Call(withDeadline(t), "b", what, nil)
		if remote := new(RemoteError); !errors.As(err, &remote) || err.Error() != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := a.Call(withDeadline(t), "b", "unheard-of", nil); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if !b.log.has("BUG: answering another node has panicked", "at the wrong moment") {
		t.Errorf("the log does not say it:\n%s", b.log)
	}
}

// TestCallEnds with its caller, and its handler hears of it.
func TestCallEnds(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys), open(t, "b", s, keys)
	begun, ended := make(chan time.Duration, 10), make(chan error, 10)
	b.Handle("wait", 10, func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
		deadline, _ := ctx.Deadline()
		begun <- time.Until(deadline)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	b.run(t)
	// The caller goes.
	ctx, cancel := context.WithCancel(withDeadline(t))
	go func() {
		<-begun
		cancel()
	}()
	if _, err := a.Call(ctx, "b", "wait", nil); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrAway) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler: %v", err)
	}
	// Its time is over; without any it is some seconds. On a busy computer that can be before it has reached the handler.
	for _, within := range []time.Duration{300 * time.Millisecond, 2 * time.Second, 0} {
		ctx, cancel := t.Context(), func() {}
		if within > 0 {
			ctx, cancel = context.WithTimeout(ctx, within)
		}
		_, err := a.Call(ctx, "b", "wait", nil)
		cancel()
		if remote := new(RemoteError); !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &remote) {
			t.Errorf("within %v: %v", within, err)
		}
		if within == 300*time.Millisecond && len(begun) == 0 {
			continue
		}
		if got := <-begun; got > callWait {
			t.Errorf("within %v: the handler has %v", within, got)
		}
		if err := <-ended; err == nil {
			t.Errorf("within %v: the handler has not ended", within)
		}
	}
}

// TestManyCalls at once, more than a connection takes, go over few connections.
func TestManyCalls(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a, b := start(t, "a", s, keys), echo(open(t, "b", s, keys)).run(t)
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			if got, err := a.Call(withDeadline(t), "b", "echo", fmt.Append(nil, i)); err != nil || string(got) != fmt.Sprint("a: ", i) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	b.callers.mu.Lock()
	defer b.callers.mu.Unlock()
	if n := b.callers.inside[a.print]; n != 1 {
		t.Errorf("over %d connections", n)
	}
}

// TestProtocols: neighbours work together, others are refused by either side, whatever is asked, and both logs say so.
func TestProtocols(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	const here = 5
	heard := make(chan string, 100) // what handlers of mid were asked
	speaks := func(protocol int) func(*Options) { return func(o *Options) { o.protocol = protocol } }
	kinds := []string{"clock", "cancel", "order", "sessions", "end", "servers", "anything"}
	mid, came := streaming(echo(open(t, "mid", s, keys, speaks(here))))
	for _, kind := range kinds {
		mid.Handle(kind, 10, func(_ context.Context, from string, _ []byte) ([]byte, error) {
			heard <- from + " " + kind
			return nil, nil
		})
	}
	mid.run(t)
	for protocol := here - 2; protocol <= here+2; protocol++ {
		name := fmt.Sprint("of-", protocol)
		other, _ := streaming(echo(open(t, name, s, keys, speaks(protocol))))
		other.run(t)
		together(t, mid, other)
		eventually(t, "they know each other's rows", func() bool {
			_, ok := mid.callable(name)
			_, too := other.callable("mid")
			return ok && too
		})
		if protocol >= here-1 && protocol <= here+1 {
			mid.echoes(t, name, "mid: hi")
			for _, kind := range append(kinds, hello) {
				if _, err := other.Call(withDeadline(t), "mid", kind, nil); err != nil {
					t.Errorf("%s asks for %s: %v", name, kind, err)
				}
				if kind != hello && <-heard != name+" "+kind {
					t.Errorf("%s was not heard", kind)
				}
			}
			opened(t, other, "mid", came)
			if mid.log.has("of a version that does not work together", "node="+name) {
				t.Errorf("mid complains:\n%s", mid.log)
			}
			continue
		}
		for _, kind := range append(kinds, hello, "unheard-of") {
			if _, err := other.Call(withDeadline(t), "mid", kind, nil); !errors.Is(err, ErrProtocol) {
				t.Errorf("%s asks for %s: %v", name, kind, err)
			}
			if _, err := mid.Call(withDeadline(t), name, kind, nil); !errors.Is(err, ErrProtocol) {
				t.Errorf("%s is asked for %s: %v", name, kind, err)
			}
		}
		if _, err := other.OpenStream(withDeadline(t), "mid"); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s opens a stream: %v", name, err)
		}
		mid.refusesStream(t, other, came)
		eventually(t, "both logs say it", func() bool {
			return mid.log.has("of a version that does not work together", "node="+name, fmt.Sprint("protocol=", protocol), "here=5") &&
				other.log.has("of a version that does not work together", "node=mid", "protocol=5", fmt.Sprint("here=", protocol))
		})
	}
	if len(heard) > 0 {
		t.Errorf("a handler was asked: %s", <-heard)
	}
}

// refusesStream fails unless a stream is refused at this end that a node opens which does not look at versions itself.
func (n *node) refusesStream(t *testing.T, by *node, came chan *Stream) {
	t.Helper()
	conn, err := (&tls.Dialer{Config: tlsConfig(by.own, judgeOnly(n.print), streamProtocol)}).DialContext(withDeadline(t), "tcp", n.Here().Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("it is not refused: %v", err)
	}
	select {
	case s := <-came:
		t.Errorf("a stream of %s is served", s.Node())
	default:
	}
}

// TestHello: both logs say that two nodes cannot work together before anybody has asked anything.
func TestHello(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	a := start(t, "a", s, keys, func(o *Options) { o.protocol = 3 })
	b := start(t, "b", s, keys, func(o *Options) { o.protocol = 5 })
	eventually(t, "both logs say it", func() bool {
		return a.log.has("of a version that does not work together", "node=b", "protocol=5", "here=3") && b.log.has("of a version that does not work together", "node=a", "protocol=3", "here=5")
	})
}
