// A driver that is nothing but a clock, and a fleet with holders that do as they are told.

package machines

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "fm2_do-not-tell"

// fakeDriver is a machine whose calls take their time. It fails the test if two of them overlap.
type fakeDriver struct {
	t      *testing.T
	token  string
	takes  time.Duration // each call
	gives  time.Duration // up so late once its context has ended
	inside atomic.Int32

	mu    sync.Mutex
	power Power
	run   int
	calls map[string]int
	fail  map[string]error // instead of doing it
	panic string           // in this call
	hangs string           // this call, until its context ends
}

func newFake(t *testing.T, p Power) *fakeDriver {
	return &fakeDriver{t: t, token: token, takes: time.Second, power: p, calls: map[string]int{}, fail: map[string]error{}}
}

// call takes its time; do is what comes of it.
func (d *fakeDriver) call(ctx context.Context, name string, do func()) error {
	if d.inside.Add(1) > 1 {
		d.t.Errorf("%s beside another call", name)
	}
	defer d.inside.Add(-1)
	d.mu.Lock()
	d.calls[name]++
	takes, err, bad := d.takes, d.fail[name], d.panic == name
	if d.hangs == name {
		takes = 24 * time.Hour
	}
	d.mu.Unlock()
	if bad {
		panic("driver: index out of range")
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		time.Sleep(d.gives)
		return ctx.Err()
	}
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		do()
	}
	return err
}

func (d *fakeDriver) status() Status {
	s := runs(d.run)
	s.Power = d.power
	return s
}

func (d *fakeDriver) State(ctx context.Context) (s Status, err error) {
	return s, d.call(ctx, "state", func() { s = d.status() })
}

func (d *fakeDriver) Wake(ctx context.Context) (s Status, err error) {
	err = d.call(ctx, "wake", func() {
		if d.power != Running {
			d.power = Running
			d.run++
		}
		s = d.status()
	})
	return s, err
}

func (d *fakeDriver) Suspend(ctx context.Context) error {
	return d.call(ctx, "suspend", func() { d.power = Asleep })
}

func (d *fakeDriver) Endpoint(ctx context.Context) (at Endpoint, err error) {
	return here, d.call(ctx, "endpoint", func() {})
}

func (d *fakeDriver) probe(ctx context.Context, at Endpoint) error {
	if err := d.call(ctx, "probe", func() {}); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.power != Running || at != here {
		return errors.New("connection refused")
	}
	return nil
}

// set changes the machine, or what its calls do.
func (d *fakeDriver) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *fakeDriver) called(name string, want int) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if got := d.calls[name]; got != want {
		d.t.Errorf("%d calls of %s, want %d", got, name, want)
	}
}

type observed struct {
	What Action
	Outcome
}

// rig is a fleet with one machine.
type rig struct {
	*testing.T
	fleet  *Fleet
	driver *fakeDriver
	opts   Options

	mu  sync.Mutex
	log bytes.Buffer
	saw []observed
}

// Write takes the log.
func (g *rig) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(b)
}

func (g *rig) logged() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.String()
}

// inBubble runs a test with a machine on a clock of its own.
func inBubble(t *testing.T, p Power, set Settings, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &rig{T: t, fleet: NewFleet(), driver: newFake(t, p)}
		g.opts = Options{Driver: g.driver, Probe: g.driver.probe, Settings: set,
			Observe: func(what Action, how Outcome) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.saw = append(g.saw, observed{what, how})
			},
			Log: slog.New(slog.NewTextHandler(g, &slog.HandlerOptions{Level: slog.LevelDebug}))}
		test(g)
		g.fleet.Close()
	})
}

// part is a holder that keeps what it was told.
type part struct {
	*Holder
	mu    sync.Mutex
	views []View
}

func (g *rig) hold() *part {
	p := &part{}
	p.Holder = g.fleet.Hold("local/acme", g.opts, func(v View) { p.mu.Lock(); defer p.mu.Unlock(); p.views = append(p.views, v) })
	return p
}

// told returns the states that p was told, and forgets them.
func (p *part) told() (states []State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range p.views {
		states = append(states, v.State)
	}
	p.views = nil
	return states
}

func (g *rig) observed() []observed {
	g.mu.Lock()
	defer g.mu.Unlock()
	saw := g.saw
	g.saw = nil
	return saw
}

// pass lets time go by until all is quiet.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
