// Callers at the door who go away, at each step: nothing of them is left.

package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// silentAfter is an exchange that answers nothing after a number of reads.
type silentAfter struct {
	net.Conn
	reads int
	deaf  chan struct{} // closed when it is asked for more
}

func (s *silentAfter) Read(p []byte) (int, error) {
	if s.reads--; s.reads == -1 {
		close(s.deaf)
	}
	return s.Conn.Read(p)
}

// TestDoorCallersThatLeave at each step leave nothing behind.
func TestDoorCallersThatLeave(t *testing.T) {
	gone := errors.New("gone")
	caller := func(t *testing.T, p Proof) Caller {
		return Caller{Client: netip.MustParseAddrPort("192.0.2.1:1"), Startup: startupOf(t, "user", "app.acme"), Proof: p}
	}
	quiet := func(t *testing.T, answers int) (Proof, chan struct{}) {
		ours, theirs := net.Pipe()
		deaf := make(chan struct{})
		var client sync.WaitGroup
		t.Cleanup(func() { ours.Close(); theirs.Close(); client.Wait() })
		client.Go(func() { // the conversation of somebody who stops before its second message, or says nothing at all
			hear := func() []byte {
				head := make([]byte, 5)
				if _, err := io.ReadFull(ours, head); err != nil {
					return nil
				}
				body := make([]byte, int(head[3])<<8|int(head[4])-4)
				_, _ = io.ReadFull(ours, body)
				return body
			}
			hear()
			if answers == 0 {
				return
			}
			c := scram.NewClient(scram.Credentials{Password: "right"}, scram.ChannelBinding{}, false, scram.ClientOptions{})
			first := append(append([]byte(scram.Mechanism), 0, 0, 0, 0, byte(len(c.First()))), c.First()...)
			_, _ = ours.Write(append(pgwire.AppendHeader(nil, pgwire.Password, len(first)), first...))
			hear()
		})
		return SASL(&silentAfter{theirs, 2 * answers, deaf}), deaf
	}
	now := make(chan struct{})
	close(now)
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, d *door) (p Proof, at <-chan struct{})
		login time.Duration
		want  error
	}{
		{"before it has come", func(*testing.T, *door) (Proof, <-chan struct{}) { return nil, now }, 0, gone},
		{"while it waits for its turn", func(_ *testing.T, d *door) (Proof, <-chan struct{}) {
			for range cap(d.gate.proofs) {
				d.gate.proofs <- struct{}{}
			}
			at := make(chan struct{})
			go func() {
				defer close(at)
				for len(d.gate.handshakes) == 0 {
					time.Sleep(time.Millisecond)
				}
			}()
			return Password("right"), at
		}, 0, gone},
		{"before its first message", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { return quiet(t, 0) }, 0, gone},
		{"before its second", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { return quiet(t, 1) }, 0, gone},
		{"too late for the gate", func(t *testing.T, _ *door) (Proof, <-chan struct{}) { p, _ := quiet(t, 1); return p, nil }, 50 * time.Millisecond, context.DeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDoor(t)
			if c.login > 0 {
				d.gate.opts.Timeouts.Login = c.login
			}
			p, at := c.leave(t, d)
			if p == nil {
				p = Password("right")
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var side sync.WaitGroup
			defer side.Wait()
			if at == now {
				cancel(gone)
			} else if at != nil {
				side.Go(func() { <-at; cancel(gone) })
			}
			seat, err := d.gate.Door(Listener{}).Admit(ctx, caller(t, p))
			want := c.want
			if want == gone {
				want = context.Canceled
			}
			if seat != nil || !errors.Is(err, want) {
				t.Errorf("%v, %v; want %v", seat, err, want)
			}
			for range len(d.gate.proofs) {
				<-d.gate.proofs
			}
			if !d.rests() {
				t.Error("something is held")
			}
			if n := d.gate.tenant("acme").counters.loginsFailed.Load(); n != 0 {
				t.Errorf("%d failed logins", n)
			}
		})
	}
	t.Run("after it was let in", func(t *testing.T) {
		d := newDoor(t)
		seat, err := d.gate.Door(Listener{}).Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		seat.Leave()
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
	t.Run("while it waits for a server", func(t *testing.T) {
		d := newDoor(t)
		seat, err := d.gate.Door(Listener{}).Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := seat.Open()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
	t.Run("when the gate has closed", func(t *testing.T) {
		d := newDoor(t)
		way := d.gate.Door(Listener{})
		seat, err := way.Admit(t.Context(), caller(t, Password("right")))
		if err != nil {
			t.Fatal(err)
		}
		d.gate.Close()
		if conn, err := seat.Open(); !errors.Is(err, ErrGateClosed) {
			t.Errorf("opened %v, %v", conn, err)
		}
		if _, err := way.Admit(t.Context(), caller(t, Password("right"))); !errors.Is(err, errDraining) {
			t.Errorf("let in: %v", err)
		}
		if !d.rests() {
			t.Error("the place is not given back")
		}
	})
}
