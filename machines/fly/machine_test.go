// The driver against the fake API, in a time that is not real.

package fly

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/test/fakefly"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a fake API with one machine and its driver.
type world struct {
	*testing.T
	api  *fakefly.Server
	vm   *fakefly.Memory
	fake *fakefly.Machine
	m    *Machine
	log  *bytes.Buffer
}

// in runs a test in a bubble of its own.
func in(t *testing.T, o MachineOptions, f func(w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := world{T: t, vm: fakefly.NewMemory(), log: &bytes.Buffer{}}
		w.api = fakefly.New(t, fakefly.Options{NoSocket: true, Boot: 2 * time.Second, Resume: 300 * time.Millisecond, Suspend: 3 * time.Second, Stop: time.Second})
		w.fake = w.api.AddMachine("acme-db", "9080e6f1", w.vm)
		c := newClient(t, Options{BaseURL: w.api.URL, TokenFile: w.api.TokenFile(), Transport: w.api.Transport(), Log: slog.New(slog.NewTextHandler(w.log, nil))})
		o.App, o.ID, o.Port = "acme-db", "9080e6f1", w.fake.Port()
		var err error
		if w.m, err = NewMachine(c, o); err != nil {
			t.Fatal(err)
		}
		f(w)
	})
}

func (w world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}

// wake must succeed.
func (w world) wake() machines.Status {
	w.Helper()
	s, err := w.m.Wake(w.within(time.Minute))
	if err != nil || s.Power != machines.Running {
		w.Fatalf("%v %v", s, err)
	}
	return s
}

// sleep must succeed.
func (w world) sleep() {
	w.Helper()
	if err := w.m.Suspend(w.within(time.Minute)); err != nil {
		w.Fatal(err)
	}
}

func TestLife(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		if s, err := w.m.State(w.Context()); err != nil || s.Power != machines.Asleep || s.Generation.Instance == "" || !s.Generation.Started.IsZero() {
			w.Fatalf("%+v %v", s, err)
		}
		began := time.Now()
		first := w.wake()
		if took := time.Since(began); took != 2*time.Second || first.Generation.Started != time.Now() {
			w.Errorf("a boot of two seconds took %v: %v", took, first)
		}
		if again := w.wake(); !again.Generation.Same(first.Generation) || w.fake.Starts() != 1 {
			w.Errorf("a running machine was woken: %v", again)
		}
		where, err := w.m.Endpoint(w.Context())
		if err != nil || where.Port != w.fake.Port() || !strings.HasPrefix(where.Host, "127.") {
			w.Errorf("%v %v", where, err)
		}
		w.sleep()
		if w.fake.State() != "suspended" {
			w.Error(w.fake.State())
		}
		w.sleep() // nothing to do
		began = time.Now()
		w.fake.Move()
		second := w.wake()
		if took := time.Since(began); took != 300*time.Millisecond || second.Generation.Same(first.Generation) || !second.Generation.Started.After(first.Generation.Started) {
			w.Errorf("a resume took %v: %v after %v", took, second, first)
		}
		if moved, err := w.m.Endpoint(w.Context()); err != nil || moved == where {
			w.Errorf("%v %v", moved, err)
		}
		if !strings.Contains(w.log.String(), "host-b") {
			w.Errorf("the move is not in the log: %s", w.log)
		}
		w.fake.Cold() // the provider does not say so, and a generation is new either way
		w.sleep()
		if third := w.wake(); third.Generation.Same(second.Generation) {
			w.Error(third)
		}
		w.fake.Exit()
		if s, err := w.m.State(w.Context()); err != nil || s.Power != machines.Asleep {
			w.Errorf("%v %v", s, err)
		}
		w.wake()
		if w.fake.Starts() != 4 || w.api.Count(fakefly.Start, "") != 4 || w.api.Count(fakefly.Suspend, "") != 2 {
			w.Errorf("%d starts, %d suspends", w.api.Count(fakefly.Start, ""), w.api.Count(fakefly.Suspend, ""))
		}
	})
}

func TestStates(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		for state, want := range map[string]machines.Power{
			"created": machines.Asleep, "stopped": machines.Asleep, "suspended": machines.Asleep, "failed": machines.Asleep, "started": machines.Running,
			"creating": machines.Changing, "starting": machines.Changing, "stopping": machines.Changing, "suspending": machines.Changing, "restarting": machines.Changing,
			"updating": machines.Changing, "replacing": machines.Changing, "launch_failed": machines.Changing, "dancing": machines.PowerUnknown,
		} {
			w.fake.SetState(state)
			if s, err := w.m.State(w.Context()); err != nil || s.Power != want {
				w.Errorf("%s: %v %v", state, s, err)
			}
		}
		for _, state := range []string{"destroying", "destroyed", "replaced", "migrated"} {
			w.fake.SetState(state)
			began, starts := time.Now(), w.api.Count(fakefly.Start, "")
			_, err := w.m.State(w.Context())
			_, wake := w.m.Wake(w.Context())
			_, where := w.m.Endpoint(w.Context())
			for _, err := range []error{err, wake, where, w.m.Suspend(w.Context())} {
				if machines.KindOf(err) != machines.Gone {
					w.Errorf("%s: %v", state, err)
				}
			}
			if time.Since(began) > time.Second || w.api.Count(fakefly.Start, "") != starts {
				w.Errorf("%s: took %v", state, time.Since(began))
			}
		}
		w.fake.SetState("started")
		for _, status := range []string{"unknown", "unreachable"} {
			w.fake.SetHostStatus(status)
			_, err := w.m.State(w.Context())
			_, wake := w.m.Wake(w.Context())
			for _, err := range []error{err, wake, w.m.Suspend(w.Context())} {
				if machines.KindOf(err) != machines.Unreachable {
					w.Errorf("%s: %v", status, err)
				}
			}
		}
	})
}

func TestWakeThroughFaults(t *testing.T) {
	ok := machines.Kind(255)
	for name, tt := range map[string]struct {
		faults   []fakefly.Fault
		prepare  func(w world)
		limit    time.Duration // 0: a minute
		want     machines.Kind
		starts   int // asked for
		min, max time.Duration
	}{
		"429: somebody else is starting it": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Done()}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"429 and nobody is": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start)}, want: ok, starts: 2, min: 7 * time.Second, max: 8 * time.Second},
		"429 for ever": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Always()}, want: machines.RateLimited, starts: 3, min: 10 * time.Second, max: 12 * time.Second},
		"429 of everything but get": {
			faults: []fakefly.Fault{fakefly.TooManyRequests(fakefly.Start).Always(), fakefly.TooManyRequests(fakefly.Wait).Always()}, want: machines.RateLimited, starts: 3, min: 10 * time.Second, max: 15 * time.Second},
		"429 with a long Retry-After": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Status: 429, Header: http.Header{"Retry-After": {"600"}}}}, want: machines.RateLimited, starts: 1, min: time.Minute, max: time.Minute},
		"a lease, let go of": {
			faults: []fakefly.Fault{fakefly.LeaseHeld(fakefly.Start), fakefly.LeaseHeld(fakefly.Start), fakefly.StillActive(fakefly.Start)}, want: ok, starts: 4, min: 2 * time.Second, max: 6 * time.Second},
		"a lease for ever": {
			faults: []fakefly.Fault{fakefly.LeaseHeld(fakefly.Start).Always()}, want: machines.Busy, starts: 24, min: time.Minute, max: time.Minute},
		"408, not done": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start)}, want: ok, starts: 2, min: 2 * time.Second, max: 3 * time.Second},
		"408, done": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start).Done()}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"408 for ever": {
			faults: []fakefly.Fault{fakefly.HostSilent(fakefly.Start).Always()}, want: machines.Unreachable, starts: 2, max: time.Second},
		"answer lost, not done": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Lost: fakefly.LostBefore}}, want: ok, starts: 2, min: 2 * time.Second, max: 3 * time.Second},
		"answer lost, done": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Lost: fakefly.LostAfter}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"answer cut in half": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Truncate: true}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"answer is a web page": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Body: "<html>"}}, want: ok, starts: 1, min: 2 * time.Second, max: 2 * time.Second},
		"every answer lost": {
			faults: []fakefly.Fault{{Lost: fakefly.LostBefore}}, want: machines.Transient, starts: 0, min: time.Second, max: 10 * time.Second},
		"no host full": {
			faults: []fakefly.Fault{fakefly.HostFull(fakefly.Start).Always()}, want: machines.Capacity, starts: 1},
		"no capacity": {
			faults: []fakefly.Fault{fakefly.NoCapacity(fakefly.Start).Always()}, want: machines.Capacity, starts: 1},
		"500s, then well": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Start), fakefly.Broken(fakefly.Start), fakefly.Broken(fakefly.Get), fakefly.Broken(fakefly.Wait)}, want: ok, starts: 3, min: 2 * time.Second, max: 6 * time.Second},
		"500s for ever": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Start).Always()}, want: machines.Transient, starts: 4, max: 5 * time.Second},
		"500s of get": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Get).Always()}, want: machines.Transient, starts: 0, max: 10 * time.Second},
		"500s of wait": {
			faults: []fakefly.Fault{fakefly.Broken(fakefly.Wait).Always()}, want: ok, starts: 1, max: 10 * time.Second},
		"401": {
			faults: []fakefly.Fault{fakefly.Revoked("").Always()}, want: machines.Auth, starts: 0},
		"401 of start": {
			faults: []fakefly.Fault{fakefly.Revoked(fakefly.Start).Always()}, want: machines.Auth, starts: 1},
		"404": {
			faults: []fakefly.Fault{{Status: 404, Body: `{"error":"machine not found"}`}}, want: machines.Gone, starts: 0},
		"the API hangs": {
			faults: []fakefly.Fault{{Delay: time.Hour}}, want: machines.Transient, starts: 0, limit: 25 * time.Second, min: 25 * time.Second, max: 25 * time.Second},
		"start hangs": {
			faults: []fakefly.Fault{{Action: fakefly.Start, Times: 1, Delay: time.Hour}}, want: ok, starts: 2, min: 12 * time.Second, max: 13 * time.Second},
		"it fails to start": {
			prepare: func(w world) { w.fake.FailToStart() }, want: machines.Transient, starts: 1, min: 5 * time.Second, max: 20 * time.Second},
		"it is gone while it starts": {
			prepare: func(w world) { time.AfterFunc(time.Second, w.fake.Destroy) }, want: machines.Gone, starts: 1, max: 11 * time.Second},
		"its host is gone while it starts": {
			faults:  []fakefly.Fault{fakefly.HostSilent(fakefly.Start)},
			prepare: func(w world) { time.AfterFunc(time.Millisecond, func() { w.fake.SetHostStatus("unreachable") }) }, want: machines.Unreachable, starts: 1, max: time.Second},
		"created, and settles": {
			prepare: func(w world) {
				w.fake.SetState("created")
				time.AfterFunc(3*time.Second, func() { w.fake.SetState("stopped") })
			}, want: ok, starts: 8, min: 5 * time.Second, max: 12 * time.Second},
		"stopping": {
			prepare: func(w world) {
				w.fake.SetState("stopping")
				time.AfterFunc(3*time.Second, func() { w.fake.SetState("stopped") })
			}, want: ok, starts: 1, min: 5 * time.Second, max: 5 * time.Second},
		"somebody updates it": {
			prepare: func(w world) {
				w.fake.SetState("replacing")
				time.AfterFunc(15*time.Second, func() { w.fake.SetState("started") })
			}, want: ok, starts: 0, min: 15 * time.Second, max: 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, MachineOptions{}, func(w world) {
				for _, f := range tt.faults {
					w.api.Inject(f)
				}
				if tt.prepare != nil {
					tt.prepare(w)
				}
				if tt.limit == 0 {
					tt.limit = time.Minute
				}
				began := time.Now()
				s, err := w.m.Wake(w.within(tt.limit))
				took := time.Since(began)
				if (tt.want == ok) != (err == nil) || (err != nil && machines.KindOf(err) != tt.want) {
					w.Errorf("%v %v", s, err)
				}
				if took < tt.min || took > tt.max+100*time.Millisecond {
					w.Errorf("took %v", took)
				}
				n := w.api.Count(fakefly.Start, "")
				if n != tt.starts && !(tt.starts > 4 && n <= tt.starts && n >= tt.starts/2) { // of many, jitter decides
					w.Errorf("%d starts", n)
				}
				if w.fake.Starts() > 1 {
					w.Errorf("%d starts were accepted", w.fake.Starts())
				}
				noStorm(w)
				if strings.Contains(w.log.String(), fakefly.DefaultToken) {
					w.Error("the token is in the log")
				}
			})
		})
	}
}

// noStorm checks that starts never overlapped and each came after a look.
func noStorm(w world) {
	w.Helper()
	looked, free := false, time.Time{}
	for _, c := range w.api.Calls() {
		switch c.Action {
		case fakefly.Get:
			looked = true
		case fakefly.Start:
			if !looked || c.At.Before(free) {
				w.Errorf("a start at %v without a look, or before the one before had ended at %v", c.At, free)
			}
			looked, free = false, c.At.Add(c.Took)
		}
	}
}

func TestWakeEndsWithItsContextAndSaysWhatWasInTheWay(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.api.Inject(fakefly.LeaseHeld(fakefly.Start).Always())
		_, err := w.m.Wake(w.within(3 * time.Second))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lease currently held") || machines.KindOf(err) != machines.Busy {
			w.Error(err)
		}
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		n := w.api.Count("", "")
		if _, err := w.m.Wake(ctx); !errors.Is(err, context.Canceled) || w.api.Count("", "") != n {
			w.Error(err)
		}
	})
}

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
	for name, fault := range map[string]fakefly.Fault{
		"slow":        {Action: fakefly.Suspend, Times: 1, Delay: 2 * time.Second},
		"lost":        {Action: fakefly.Suspend, Times: 1, Delay: 2 * time.Second, Lost: fakefly.LostAfter},
		"never comes": {Action: fakefly.Suspend, Times: 1, Delay: 2 * time.Second, Lost: fakefly.LostBefore},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, MachineOptions{}, func(w world) {
				w.wake()
				w.api.Inject(fault)
				ctx, cancel := context.WithCancel(w.Context())
				time.AfterFunc(time.Second, cancel)
				if err := w.m.Suspend(ctx); !errors.Is(err, context.Canceled) {
					w.Fatal(err)
				}
				w.wake()
				time.Sleep(time.Minute)
				if w.fake.State() != "started" {
					w.Errorf("the machine is %s after the wake", w.fake.State())
				}
			})
		})
	}
}

// The API may tell of a machine as it was a moment ago.
func TestAStaleAnswerAfterASuspendIsNotBelieved(t *testing.T) {
	in(t, MachineOptions{}, func(w world) {
		w.wake()
		w.fake.SetState("started")
		remove := w.api.Inject(fakefly.Fault{Action: fakefly.Suspend, Body: `{"ok":true}`, Status: 200}) // accepted, and nothing is seen of it
		ctx, cancel := context.WithCancel(w.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if err := w.m.Suspend(ctx); !errors.Is(err, context.Canceled) {
			w.Fatal(err)
		}
		remove()
		time.AfterFunc(time.Second, func() { w.fake.SetState("suspending"); w.fake.SetState("stopped") })
		time.AfterFunc(time.Second, w.fake.Exit)
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
			time.AfterFunc(time.Second, func() { _, _ = w.m.client.Start(w.Context(), "acme-db", "9080e6f1") })
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

func TestWhatCountsAsAStart(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(ms) }
	for name, tt := range map[string]struct {
		events []Event
		want   time.Time
	}{
		"none":              {nil, time.Time{}},
		"asked for only":    {[]Event{{"start", "starting", "user", 5}}, time.Time{}},
		"started":           {[]Event{{"start", "started", "flyd", 7}, {"start", "starting", "user", 5}}, at(7)},
		"oldest first":      {[]Event{{"start", "started", "flyd", 7}, {"start", "started", "flyd", 9}}, at(9)},
		"others are newer":  {[]Event{{"suspend", "suspended", "flyd", 12}, {"update", "started", "user", 11}, {"start", "started", "flyd", 7}}, at(7)},
		"time of no use":    {[]Event{{"start", "started", "flyd", -1}}, time.Time{}},
		"a failed one last": {[]Event{{"start", "starting", "user", 20}, {"exit", "stopped", "flyd", 15}, {"start", "started", "flyd", 7}}, at(7)},
	} {
		g := generation(&Info{InstanceID: "i", Events: tt.events})
		if g.Instance != "i" || !g.Started.Equal(tt.want) {
			t.Errorf("%s: %v", name, g)
		}
	}
}

func TestEndpointMustBeAnAddress(t *testing.T) {
	for ip, want := range map[string]string{"fdaa:0:1:a7b:2::2": "fdaa:0:1:a7b:2::2", "127.0.0.1": "127.0.0.1", "": "", "::": "", "db.example.com": "", "ff02::1": ""} {
		c := newClient(t, Options{Transport: says(200, `{"id":"m","state":"started","private_ip":"`+ip+`"}`)})
		m, err := NewMachine(c, MachineOptions{App: "a", ID: "m", Port: 5432})
		if err != nil {
			t.Fatal(err)
		}
		e, err := m.Endpoint(t.Context())
		if e.Host != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v %v", ip, e, err)
		}
	}
}
