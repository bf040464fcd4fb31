// A process that stands still at any line between its right to change a machine and the change: what it does when it goes on.

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/machines/fly"
	"github.com/postern/postern/machines/local"
	"github.com/postern/postern/test/fakefly"
	"github.com/postern/postern/test/harness"
)

// fencedMachine is one that two processes share.
type fencedMachine struct {
	key    string
	a, b   machines.Driver
	run    func() string // what tells its run from others; "": it sleeps, or is about to
	expire func()        // what its provider has given out ends
	locked func() bool   // whoever stands still keeps all others from it
}

// TestThawedProcessIsRefused: at every line between the right and the act a process stands still, and no clock tells it so. Another one has
// taken over and acts. Then the first one goes on: what it does is refused by the machine.
func TestThawedProcessIsRefused(t *testing.T) {
	t.Parallel()
	w := newLeaseWorld(t)
	a, b := w.node("a", noMachines{}), w.node("b", noMachines{})
	t.Run("fly", func(t *testing.T) {
		t.Parallel()
		api := fakefly.New(t, fakefly.Options{Unlimited: true})
		var mu sync.Mutex
		n := 0
		frozen(t, w, a, b, func(t *testing.T) fencedMachine {
			mu.Lock()
			defer mu.Unlock()
			n++
			return flyFenced(t, api, fmt.Sprint("m", n))
		})
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		m := localFenced(t) // there is one, so it is one after another
		var turn sync.Mutex
		frozen(t, w, a, b, func(t *testing.T) fencedMachine {
			turn.Lock()
			t.Cleanup(turn.Unlock)
			return m
		})
	})
}

// noMachines is a gate all of whose machines are in use.
type noMachines struct{}

func (noMachines) MachineIdle(string) bool     { return false }
func (noMachines) MachineChanged(string, bool) {}

func flyFenced(t *testing.T, api *fakefly.Server, id string) fencedMachine {
	fake := api.AddMachine("app", id, fakefly.NewMemory())
	driver := func() machines.Driver { // a process has its own budget of calls
		c, err := fly.NewClient(fly.Options{BaseURL: api.URL, TokenFile: api.TokenFile()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		m, err := fly.NewMachine(c, fly.MachineOptions{App: "app", ID: id, Port: fake.Port()})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	return fencedMachine{key: "fly/app/" + id, a: driver(), b: driver(), expire: fake.EndLease, locked: func() bool { return false },
		run: func() string {
			if s := fake.State(); s != "started" && s != "starting" {
				return ""
			}
			return fmt.Sprint(fake.Starts())
		}}
}

func localFenced(t *testing.T) fencedMachine {
	dir := filepath.Join(harness.Dir(t), "m")
	driver := func() *local.Machine {
		m := local.NewMachine(local.MachineOptions{Options: local.Options{Dir: dir}, Sleep: local.SleepSuspend, Shared: true})
		t.Cleanup(func() {
			if err := m.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	a, b := driver(), driver()
	return fencedMachine{key: "local/m", a: a, b: b, expire: func() {},
		run: func() string { // it is never stopped, but frozen
			s, err := b.State(context.Background())
			if err != nil || s.Power != machines.Running {
				return ""
			}
			return "it runs"
		},
		locked: func() bool {
			f, err := os.Open(filepath.Join(dir, "postern.epoch"))
			if err != nil {
				return false
			}
			defer f.Close()
			return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
		}}
}

// change is one try to change the machine, as a guarded driver makes it.
func (m *fencedMachine) change(ctx context.Context, l *leases, d machines.Driver, what machines.Action) error {
	held, end, err := l.Hold(ctx, m.key, what)
	if err != nil {
		return err
	}
	if what == machines.Start {
		_, err = d.Wake(held)
	} else {
		err = d.Suspend(held)
	}
	end(true, err)
	return err
}

// must has a process change the machine, which other processes may be doing still.
func (m *fencedMachine) must(t *testing.T, l *leases, d machines.Driver, what machines.Action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for {
		err := m.change(ctx, l, d, what)
		if err == nil {
			return
		}
		if !errors.Is(err, machines.ErrHeld) {
			t.Fatalf("%v: %v", what, err)
		}
		l.Await(ctx, m.key, time.Second)
	}
}

// stepping is a process whose changes stop wherever they stand.
func stepping(l *leases, step func(at string)) *leases {
	return &leases{ledger: l.ledger, holder: l.holder, several: true, log: slog.New(slog.DiscardHandler), step: step}
}

// frozen goes through all lines, for a start and for a suspend.
func frozen(t *testing.T, w *leaseWorld, a, b *leases, machine func(*testing.T) fencedMachine) {
	for _, what := range []machines.Action{machines.Start, machines.Sleep} {
		var all []string
		acted := make(map[string]bool) // by then
		t.Run(what.String()+" is undisturbed", func(t *testing.T) {
			m := machine(t)
			m.ready(t, a, b, what)
			before := m.run()
			m.must(t, stepping(a, func(at string) {
				all = append(all, at)
				acted[at] = m.run() != before
			}), m.a, what)
			if m.run() == before {
				t.Fatal("nothing was changed")
			}
		})
		t.Logf("%v: %s", what, strings.Join(all, ", "))
		if len(all) < 6 || acted[all[2]] || !acted[all[len(all)-1]] {
			t.Fatalf("%v goes through %q, acted %v", what, all, acted)
		}
		for _, at := range all {
			t.Run(what.String()+", before "+at, func(t *testing.T) {
				t.Parallel()
				m := machine(t)
				m.ready(t, a, b, what)
				m.thaw(t, w, a, b, what, at, acted[at])
			})
		}
	}
}

// ready has the machine be as it is before a change, and used by nobody but, before a suspend, a.
func (m *fencedMachine) ready(t *testing.T, a, b *leases, what machines.Action) {
	t.Helper()
	m.must(t, a, m.a, machines.Start)
	if what == machines.Start {
		m.must(t, a, m.a, machines.Sleep)
	}
	harness.Eventually(t, harness.Patience, "the machine is seen as it is", func() bool { return (m.run() == "") == (what == machines.Start) })
}

// thaw has a stand still in a change, b take over and do the opposite, and a go on.
func (m *fencedMachine) thaw(t *testing.T, w *leaseWorld, a, b *leases, what machines.Action, at string, acted bool) {
	stands, thaw := make(chan struct{}), make(chan struct{})
	var once sync.Once
	goOn := sync.OnceFunc(func() { close(thaw) })
	defer goOn()
	result := make(chan error, 1)
	go func() {
		result <- m.change(t.Context(), stepping(a, func(here string) {
			if here == at {
				once.Do(func() {
					close(stands)
					<-thaw
				})
			}
		}), m.a, what)
	}()
	<-stands
	w.exec(`UPDATE postern.leases SET until = clock_timestamp() WHERE key = $1`, leasePrefix+m.key)
	m.expire()
	locked := m.locked()
	if locked { // nobody else can do anything: it goes on, and b comes after it
		goOn()
	}
	m.must(t, b, m.b, machines.Start) // whatever a was about to do
	if what == machines.Start {
		m.forgotten(t, w, b)
	}
	before := m.run()
	if (before == "") != (what == machines.Start) {
		t.Fatalf("b has left the machine %q", before)
	}
	goOn()
	err := <-result
	if now := m.run(); now != before {
		t.Errorf("who went on has made %q of %q", now, before)
	}
	if !acted && !locked && err == nil {
		t.Error("who went on believes that it was done")
	}
	if what == machines.Sleep {
		m.must(t, b, m.b, machines.Sleep)
	}
}

// forgotten has b put the machine to sleep although a uses it: it has been forgotten, or nobody could.
func (m *fencedMachine) forgotten(t *testing.T, w *leaseWorld, b *leases) {
	t.Helper()
	harness.Eventually(t, harness.Patience, "it is put to sleep", func() bool {
		w.exec(`DELETE FROM postern.uses WHERE key = $1 AND node = 'a'`, leasePrefix+m.key)
		err := m.change(t.Context(), b, m.b, machines.Sleep)
		if err != nil && !errors.Is(err, machines.ErrInUse) && !errors.Is(err, machines.ErrHeld) {
			t.Fatal(err)
		}
		return err == nil
	})
}
