// The driver against the fake API, in a time that is not real.

package fly

import (
	"bytes"
	"context"
	"log/slog"
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
