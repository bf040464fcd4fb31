package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/postern/postern/machines"
)

// sharing is a machine of one folder, as one of several processes has it.
func sharing(t *testing.T, dir string, sleep Sleep) *Machine {
	t.Helper()
	return machine(t, MachineOptions{Options: Options{Dir: dir}, Shared: true, Sleep: sleep})
}

func epoch(ctx context.Context, n int64) context.Context {
	return machines.WithFence(ctx, machines.Fence{Epoch: n, Holder: "test"})
}

// TestOldEpochs: a folder obeys no epoch that is older than one that it has obeyed, and remembers it.
func TestOldEpochs(t *testing.T) {
	t.Parallel()
	m := sharing(t, filepath.Join(t.TempDir(), "m"), SleepStop)
	for _, c := range []struct {
		epoch int64
		want  error
	}{{5, nil}, {5, nil}, {4, errOldEpoch}, {1 << 60, nil}, {5, errOldEpoch}, {1<<60 + 1, nil}} {
		called := false
		err := m.fenced(epoch(t.Context(), c.epoch), func() error { called = true; return nil })
		if !errors.Is(err, c.want) || called != (c.want == nil) {
			t.Errorf("epoch %d: %v, changed %v", c.epoch, err, called)
		}
		if s, err := os.Stat(filepath.Join(m.opts.Dir, fenceName)); err != nil || s.Size() != 20 {
			t.Errorf("epoch %d: the file of another length could be without any for a moment: %v %v", c.epoch, s, err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.opts.Dir, fenceName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.fenced(epoch(t.Context(), 1<<61), func() error { return nil }); err == nil {
		t.Error("a fence that cannot be read lets everybody in")
	}
}

// TestThawedProcessIsRefused: a process that stands still anywhere between its right and its change does not change anything after
// another one has; and while it stands in the middle of one nobody else changes anything.
func TestThawedProcessIsRefused(t *testing.T) {
	t.Parallel()
	for _, at := range []string{atLock, atEpoch, atCheck, atChange} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "m")
			frozen, other := sharing(t, dir, SleepStop), sharing(t, dir, SleepStop)
			stands, thaw := make(chan struct{}), make(chan struct{})
			step := func(here string) {
				if here == at {
					close(stands)
					<-thaw
				}
			}
			var over error // the right of the frozen one, by its clocks
			ctx := machines.WithFence(t.Context(), machines.Fence{Epoch: 1, Check: func() error { return over }, Step: step})
			var order []string
			result := make(chan error, 1)
			go func() {
				result <- frozen.fenced(ctx, func() error { order = append(order, "frozen"); return nil })
			}()
			<-stands
			over = errors.New("the clock jumped")
			change := func() error { order = append(order, "other"); return nil }
			first := at == atLock // it has not got the lock
			short, cancel := context.WithTimeout(t.Context(), 5*fencePause)
			defer cancel()
			if first {
				short = t.Context()
			}
			if err := other.fenced(epoch(short, 2), change); (err == nil) != first {
				t.Errorf("another process, beside one that stands still: %v", err)
			}
			close(thaw)
			err := <-result
			if !first {
				if err := other.fenced(epoch(t.Context(), 2), change); err != nil {
					t.Error(err)
				}
			}
			switch {
			case at != atChange && (!errors.Is(err, errOldEpoch) || len(order) != 1):
				t.Errorf("the thawed process: %v, changes %v", err, order)
			case at == atChange && (err != nil || len(order) != 2 || order[0] != "frozen"):
				t.Errorf("one that has begun to change it: %v, changes %v", err, order)
			}
		})
	}
}

// TestSuspendEndsBeforeItsRight: where processes share a machine, who puts it to sleep and does not want to any more has either not begun,
// or waits until it sleeps.
func TestSuspendEndsBeforeItsRight(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "m")
	m, other := sharing(t, dir, SleepStop), sharing(t, dir, SleepStop)
	if _, err := m.Wake(epoch(t.Context(), 1)); err != nil {
		t.Fatal(err)
	}
	lock := func(n int64) (unlock func()) {
		held, end := make(chan struct{}), make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- other.fenced(epoch(t.Context(), n), func() error { close(held); <-end; return nil })
		}()
		<-held
		return func() {
			close(end)
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	unlock := lock(2)
	ctx, cancel := context.WithTimeout(t.Context(), 5*fencePause)
	defer cancel()
	if err := m.Suspend(epoch(ctx, 3)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another process has the lock: %v", err)
	}
	unlock()
	power(t, m, machines.Running)
	if _, err := m.Wake(epoch(t.Context(), 4)); err != nil {
		t.Fatalf("who waited for the lock in vain holds the machine: %v", err)
	}

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	ctx = machines.WithFence(ctx, machines.Fence{Epoch: 5, Step: func(at string) {
		if at == atChange {
			cancel()
		}
	}})
	if err := m.Suspend(ctx); err != nil || state(t, m).Power != machines.Asleep {
		t.Errorf("cut short in the middle: %v, and it is %v", err, state(t, m).Power)
	}

	defer lock(6)()
	waits := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		result <- m.Suspend(machines.WithFence(t.Context(), machines.Fence{Epoch: 7, Step: func(at string) {
			if at == atLock {
				close(waits)
			}
		}}))
	}()
	<-waits
	ctx, cancel = context.WithTimeout(t.Context(), 5*fencePause)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-result; err == nil {
		t.Error("who waited for the lock has changed a machine that is closed")
	}
}

// TestSharedServer: a machine that one process has started is the other's, too: found, joined, put to sleep by either, and woken again.
func TestSharedServer(t *testing.T) {
	t.Parallel()
	for _, sleep := range []Sleep{SleepStop, SleepSuspend} {
		t.Run(string(sleep), func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(folder(t), "m")
			a, b := sharing(t, dir, sleep), sharing(t, dir, sleep)
			var group sync.WaitGroup
			for i, m := range []*Machine{a, b} {
				group.Go(func() {
					if _, err := m.Wake(epoch(t.Context(), int64(i+1))); err != nil && !errors.Is(err, errOldEpoch) {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if _, err := b.Wake(epoch(t.Context(), 3)); err != nil {
				t.Fatal(err)
			}
			if a.Cluster() != nil && a.Cluster().Running() && b.Cluster().Running() {
				t.Fatal("two servers")
			}
			if a.Cluster() == nil || !a.Cluster().Running() {
				a, b = b, a // a has started it
			}
			if _, err := b.Wake(epoch(t.Context(), 4)); err != nil {
				t.Fatal(err)
			}
			at, err := a.Endpoint(t.Context())
			bt, err2 := b.Endpoint(t.Context())
			if err != nil || err2 != nil || at != bt {
				t.Errorf("%v %v, %v %v", at, err, bt, err2)
			}
			for n, m := range []*Machine{b, a} {
				power(t, a, machines.Running)
				power(t, b, machines.Running)
				if err := m.Suspend(epoch(t.Context(), int64(10*n+10))); err != nil {
					t.Fatal(err)
				}
				power(t, a, machines.Asleep)
				power(t, b, machines.Asleep)
				if err := m.Suspend(epoch(t.Context(), int64(10*n+11))); err != nil {
					t.Errorf("putting to sleep what sleeps: %v", err)
				}
				s, err := b.Wake(epoch(t.Context(), int64(10*n+12)))
				if err != nil {
					t.Fatal(err)
				}
				if now, err := b.State(t.Context()); err != nil || !now.Generation.Same(s.Generation) {
					t.Errorf("the run is %v, then %v: %v", s, now, err)
				}
			}
		})
	}
}

// power waits until the machine is asleep, or runs, as one process sees it: whose server another one has stopped, hears of it a moment later.
func power(t *testing.T, m *Machine, want machines.Power) {
	t.Helper()
	eventually(t, "it is "+want.String(), func() bool { return state(t, m).Power == want })
}
