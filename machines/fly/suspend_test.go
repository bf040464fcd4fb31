// Suspending through faults, and waking in the middle of it.

package fly

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/test/fakefly"
)

func TestWakeInterruptsASuspend(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		first := w.wake()
		ctx, cancel := context.WithCancel(w.Context())
		time.AfterFunc(time.Second, cancel)
		if err := w.m.Suspend(ctx); !errors.Is(err, context.Canceled) || w.fake.State() != "suspending" {
			w.Fatalf("%v %s", err, w.fake.State())
		}
		began := time.Now()
		if s := w.wake(); s.Generation.Same(first.Generation) || time.Since(began) != 300*time.Millisecond || w.fake.Starts() != 2 {
			w.Errorf("%v after %v", s, time.Since(began))
		}
	})
}

// A suspend whose context ends while its request is on the way is not cut off, and the wake after it does not believe a
// machine that has not moved yet.
func TestWakeRightAfterASuspendThatWasCutShort(t *testing.T) {
	for name, tt := range map[string]struct {
		lost     fakefly.Lost
		suspends int
	}{
		"slow": {fakefly.NotLost, 1}, "answer lost": {fakefly.LostAfter, 1}, "request lost": {fakefly.LostBefore, 0},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, MachineOptions{}, func(w world) {
				w.wake()
				w.api.Inject(fakefly.Fault{Action: fakefly.Suspend, Times: 1, Delay: 2 * time.Second, Lost: tt.lost})
				ctx, cancel := context.WithCancel(w.Context())
				time.AfterFunc(time.Second, cancel)
				if err := w.m.Suspend(ctx); !errors.Is(err, context.Canceled) {
					w.Fatal(err)
				}
				w.wake()
				time.Sleep(time.Minute)
				if w.fake.State() != "started" || w.vm.Count("suspend") != tt.suspends {
					w.Errorf("the machine is %s after the wake; it was suspended %d times", w.fake.State(), w.vm.Count("suspend"))
				}
			})
		})
	}
}

// The API may tell of a machine as it was a moment ago.
func TestAStaleAnswerAfterASuspendIsNotBelieved(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.wake()
		remove := w.api.Inject(fakefly.Fault{Action: fakefly.Suspend, Body: `{"ok":true}`, Status: 200}) // accepted, and nothing is seen of it
		ctx, cancel := context.WithCancel(w.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := w.m.Suspend(ctx); !errors.Is(err, context.Canceled) {
			w.Fatal(err)
		}
		remove()
		time.AfterFunc(1100*time.Millisecond, w.fake.Exit)
		began := time.Now()
		w.wake()
		if w.fake.Starts() != 2 {
			w.Errorf("believed it after %v", time.Since(began))
		}
	})
}

func TestSuspend(t *testing.T) {
	ok := machines.Kind(255)
	for name, tt := range map[string]struct {
		options  MachineOptions
		faults   []fakefly.Fault
		prepare  func(w world)
		want     machines.Kind
		state    string
		suspends int
		stops    int
	}{
		"well":                     {want: ok, state: "suspended", suspends: 1},
		"stop":                     {options: MachineOptions{Sleep: Stop}, want: ok, state: "stopped", stops: 1},
		"ineligible":               {prepare: func(w world) { w.fake.CannotSuspend("machine has swap enabled") }, want: ok, state: "stopped", suspends: 1, stops: 1},
		"500":                      {faults: []fakefly.Fault{fakefly.Broken(fakefly.Suspend)}, want: machines.Transient, state: "started", suspends: 1},
		"500, done":                {faults: []fakefly.Fault{fakefly.Broken(fakefly.Suspend).Done()}, want: ok, state: "suspended", suspends: 1},
		"408":                      {faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Suspend)}, want: machines.Unreachable, state: "started", suspends: 1},
		"408, done":                {faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Suspend).Done()}, want: ok, state: "suspended", suspends: 1},
		"lost":                     {faults: []fakefly.Fault{{Action: fakefly.Suspend, Lost: fakefly.LostBefore}}, want: machines.Transient, state: "started", suspends: 1},
		"lost, done":               {faults: []fakefly.Fault{{Action: fakefly.Suspend, Lost: fakefly.LostAfter}}, want: ok, state: "suspended", suspends: 1},
		"429":                      {faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Suspend)}, want: machines.RateLimited, state: "started", suspends: 1},
		"lease":                    {faults: []fakefly.Fault{fakefly.LeaseHeld(fakefly.Suspend)}, want: machines.Busy, state: "started", suspends: 1},
		"401":                      {faults: []fakefly.Fault{fakefly.Revoked(fakefly.Suspend)}, want: machines.Auth, state: "started", suspends: 1},
		"waits break":              {faults: []fakefly.Fault{fakefly.Broken(fakefly.Wait).Always()}, want: ok, state: "suspended", suspends: 1},
		"gets break":               {faults: []fakefly.Fault{fakefly.Broken(fakefly.Get).Always()}, want: machines.Transient, state: "started"},
		"asleep":                   {prepare: func(w world) { w.fake.Exit() }, want: ok, state: "stopped"},
		"somebody updates it":      {prepare: func(w world) { w.fake.SetState("updating") }, want: machines.Busy, state: "updating"},
		"somebody stops it":        {prepare: func(w world) { w.fake.SetState("stopping"); time.AfterFunc(time.Second, w.fake.Exit) }, want: ok, state: "stopped"},
		"destroyed on its way":     {prepare: func(w world) { time.AfterFunc(time.Second, w.fake.Destroy) }, want: machines.Gone, state: "destroyed", suspends: 1},
		"it is stopped on its way": {prepare: func(w world) { time.AfterFunc(time.Second, func() { w.fake.SetState("stopped") }) }, want: ok, state: "stopped", suspends: 1},
		"somebody wakes it meanwhile": {prepare: func(w world) {
			time.AfterFunc(time.Second, func() { _, _ = w.m.client.Start(w.Context(), "acme-db", "9080e6f1", "") })
		}, want: machines.Busy, state: "started", suspends: 1},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, tt.options, func(w world) {
				w.wake()
				time.Sleep(time.Minute)
				for _, f := range tt.faults {
					w.api.Inject(f)
				}
				if tt.prepare != nil {
					tt.prepare(w)
				}
				err := w.m.Suspend(w.within(time.Minute))
				if (tt.want == ok) != (err == nil) || (err != nil && machines.KindOf(err) != tt.want) || w.fake.State() != tt.state {
					w.Errorf("%v; the machine is %s", err, w.fake.State())
				}
				if n, m := w.api.Count(fakefly.Suspend, ""), w.api.Count(fakefly.Stop, ""); n != tt.suspends || m != tt.stops {
					w.Errorf("%d suspends and %d stops", n, m)
				}
			})
		})
	}
}

func TestAMachineThatCannotBeSuspendedIsStoppedFromThenOn(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.fake.CannotSuspend("suspend is not supported for machines with swap")
		for range 3 {
			w.wake()
			w.sleep()
		}
		if w.api.Count(fakefly.Suspend, "") != 1 || w.api.Count(fakefly.Stop, "") != 3 || strings.Count(w.log.String(), "cannot be suspended") != 1 {
			w.Errorf("%d suspends, log: %s", w.api.Count(fakefly.Suspend, ""), w.log)
		}
	})
}

func TestFewSuspendsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fakefly.New(t, fakefly.Options{NoSocket: true, Suspend: 5 * time.Second})
		c := newClient(t, Options{BaseURL: api.URL, TokenFile: api.TokenFile(), Transport: api.Transport(), Suspends: 2})
		results := make(chan error)
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			api.AddMachine("app", id, fakefly.NewMemory())
			m, err := NewMachine(c, MachineOptions{App: "app", ID: id, Port: 1})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Wake(t.Context()); err != nil {
				t.Fatal(err)
			}
			go func() { results <- m.Suspend(t.Context()) }()
		}
		time.Sleep(time.Second)
		if n := api.Count(fakefly.Suspend, ""); n != 2 {
			t.Errorf("%d suspends at once", n)
		}
		began := time.Now()
		for range 5 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != 14*time.Second {
			t.Errorf("took %v", took)
		}
		// Whoever waits for a place can leave.
		c.sleeping <- struct{}{}
		c.sleeping <- struct{}{}
		m, _ := NewMachine(c, MachineOptions{App: "app", ID: "a", Port: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
