// Tests of calls: what they come to, and that they end.

package cluster

import (
	"context"
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
	begun, ended := make(chan time.Duration, 1), make(chan error, 1)
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
	// Its time is over; without any it is some seconds.
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for what, ctx := range map[string]context.Context{"a short time": short, "no time": t.Context()} {
		_, err := a.Call(ctx, "b", "wait", nil)
		if remote := new(RemoteError); !errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &remote) {
			t.Errorf("%s: %v", what, err)
		}
		if got := <-begun; got > callWait {
			t.Errorf("%s: the handler has %v", what, got)
		}
		if err := <-ended; err == nil {
			t.Errorf("%s: the handler has not ended", what)
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

// TestProtocols: neighbours work together, others are refused by either side, and both logs say so.
func TestProtocols(t *testing.T) {
	t.Parallel()
	s, keys := newStore(), keyFile(t, newKey())
	speaks := func(protocol int) func(*Options) { return func(o *Options) { o.protocol = protocol } }
	old, mid, young := echo(open(t, "old", s, keys, speaks(4))), echo(open(t, "mid", s, keys, speaks(5))), echo(open(t, "young", s, keys, speaks(6)))
	for _, n := range []*node{old, mid, young} {
		n.run(t)
	}
	together(t, old, mid, young)
	old.echoes(t, "mid", "old: hi")
	mid.echoes(t, "old", "mid: hi")
	young.echoes(t, "mid", "young: hi")
	mid.echoes(t, "young", "mid: hi")
	for _, pair := range [][2]*node{{old, young}, {young, old}} {
		if _, err := pair[0].Call(withDeadline(t), pair[1].opts.Name, "echo", nil); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s asks %s: %v", pair[0].opts.Name, pair[1].opts.Name, err)
		}
	}
	if mid.log.has("of a version that does not work together") {
		t.Errorf("mid complains:\n%s", mid.log)
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
