// Where processes share a machine: Fly's lease is taken around each change, and who stands still in the middle of one is refused.

package fly

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/test/fakefly"
)

func fenced(ctx context.Context, f machines.Fence) context.Context { return machines.WithFence(ctx, f) }

func TestChangesUnderALease(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		var during []string
		ctx := fenced(w.Context(), machines.Fence{Epoch: 7, Holder: "a1", Step: func(at string) {
			if at == atSend {
				_, description := w.fake.Leases()
				during = append(during, description)
			}
		}})
		if _, err := w.m.Wake(ctx); err != nil {
			w.Fatal(err)
		}
		if _, err := w.m.Wake(ctx); err != nil {
			w.Fatal(err)
		}
		if err := w.m.Suspend(ctx); err != nil {
			w.Fatal(err)
		}
		n, left := w.fake.Leases()
		if n != 2 || left != "" || strings.Join(during, "; ") != "postern a1 7; postern a1 7" {
			w.Errorf("%d leases taken, %q left, during the changes %q", n, left, during)
		}
		w.wake() // alone
		if n, _ := w.fake.Leases(); n != 2 {
			w.Error("a machine that nobody shares needs a lease")
		}
	})
}

// TestSomebodyElsesLease: it is waited for.
func TestSomebodyElsesLease(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		if _, err := w.m.client.Lease(w.Context(), "acme-db", "9080e6f1", "fly deploy", 10*time.Second); err != nil {
			w.Fatal(err)
		}
		began := time.Now()
		if _, err := w.m.Wake(fenced(w.Context(), machines.Fence{Epoch: 1})); err != nil || time.Since(began) < 10*time.Second || w.fake.Starts() != 1 {
			w.Errorf("after %v: %v, %d starts", time.Since(began), err, w.fake.Starts())
		}
	})
}

// TestThawedProcessIsRefused: a process stands still before it sends a change, for longer than its right lasts, and another one has taken
// the right over. What it sends then is not done.
func TestThawedProcessIsRefused(t *testing.T) {
	for name, stands := range map[string]time.Duration{"longer than Fly's lease": flyLease + time.Second, "not as long": useLease + time.Second} {
		t.Run(name, func(t *testing.T) {
			in(t, MachineOptions{}, func(w world) {
				w.wake()
				other, err := NewMachine(w.m.client, w.m.opts)
				if err != nil {
					w.Fatal(err)
				}
				thaw := make(chan struct{})
				frozen := make(chan struct{})
				step := func(at string) {
					if at == atCheck {
						close(frozen)
						<-thaw
					}
				}
				result := make(chan error, 1)
				go func() { result <- w.m.Suspend(fenced(w.Context(), machines.Fence{Epoch: 1, Step: step})) }()
				<-frozen
				time.Sleep(stands)
				if _, err := other.Wake(fenced(w.Context(), machines.Fence{Epoch: 2, Takeover: true})); err != nil {
					w.Fatal(err)
				}
				close(thaw)
				if err := <-result; machines.KindOf(err) != machines.Busy {
					w.Errorf("it may put the machine to sleep: %v", err)
				}
				if w.fake.State() != "started" || w.vm.Count("suspend") != 0 {
					w.Errorf("the machine is %s, and was suspended %d times", w.fake.State(), w.vm.Count("suspend"))
				}
			})
		})
	}
}

// TestUnconfirmedRight: whose right is gone by the time that it has Fly's lease sends nothing, and gives that back.
func TestUnconfirmedRight(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.wake()
		lost := errors.New("lost")
		ctx := fenced(w.Context(), machines.Fence{Epoch: 1, Confirm: func(context.Context) error {
			if _, left := w.fake.Leases(); left == "" {
				w.Error("it is confirmed before Fly's lease is there")
			}
			return lost
		}})
		err := w.m.Suspend(ctx)
		if n, left := w.fake.Leases(); !errors.Is(err, lost) || machines.KindOf(err) != machines.Busy || n != 1 || left != "" || w.api.Count(fakefly.Suspend, "") != 0 {
			w.Errorf("%v; %d leases, %q left, sent %d times", err, n, left, w.api.Count(fakefly.Suspend, ""))
		}
	})
}

// TestFlyRefusesAnOldNonce: where our own clocks do not notice, Fly does.
func TestFlyRefusesAnOldNonce(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.wake()
		c := w.m.client
		old, err := c.Lease(w.Context(), "acme-db", "9080e6f1", "old", time.Second)
		if err != nil {
			w.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		now, err := c.Lease(w.Context(), "acme-db", "9080e6f1", "new", time.Minute)
		if err != nil {
			w.Fatal(err)
		}
		var refused *APIError
		if err := c.Suspend(w.Context(), "acme-db", "9080e6f1", old); !errors.As(err, &refused) || refused.Kind() != machines.Busy {
			w.Errorf("an old nonce beside a newer lease: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := c.Release(w.Context(), "acme-db", "9080e6f1", now); err != nil {
			w.Error(err)
		}
		if err := c.Release(w.Context(), "acme-db", "9080e6f1", now); err != nil {
			w.Errorf("one that is given back already: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := c.Suspend(w.Context(), "acme-db", "9080e6f1", old); !errors.As(err, &refused) || refused.Kind() != machines.Busy {
			w.Errorf("an old nonce: %v", err)
		}
	})
}
