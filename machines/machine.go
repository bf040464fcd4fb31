// The owner of one machine: carries out what the rules say, one call of the driver at a time.

package machines

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

// Bounds of single calls. A wake has its own, in Settings.
const (
	askLimit     = 10 * time.Second
	probeLimit   = 2 * time.Second
	suspendLimit = 2 * time.Minute
)

// Options make a Machine.
type Options struct {
	Driver Driver
	// Probe returns nil once Postgres at an endpoint takes logins; any error
	// means: not yet. It is called often, and cancelled with its context.
	Probe    func(context.Context, Endpoint) error
	Settings Settings
	// Observe is told of every wake and every suspend that has ended, in order.
	// It must not block, nor call the Machine. nil: nobody is.
	Observe func(what Action, how Outcome)
	Log     *slog.Logger
}

// Machine owns one machine. It has no goroutine but those of the calls under
// way. Get one from a [Fleet]. Safe for concurrent use.
type Machine struct {
	key    string
	opts   Options
	log    *slog.Logger
	before <-chan struct{} // closed when nothing of an earlier owner is under way any more
	ctx    context.Context // ends with close
	stop   context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	rules    *Rules
	holders  map[*Holder]struct{}
	shown    View // what holders were told last
	cutShort context.CancelFunc
	timer    *time.Timer
	closed   bool
	over     func() // called once when it is retired and there is nothing more to do; nil: it is not retired
}

func newMachine(key string, o Options, before <-chan struct{}) *Machine {
	m := &Machine{key: key, opts: o, log: o.Log.With("machine", key), before: before,
		rules: NewRules(o.Settings, rand.Float64, time.Now()), holders: make(map[*Holder]struct{})}
	m.shown = m.rules.View()
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// do tells the rules something and does what follows from it.
func (m *Machine) do(tell func(r *Rules, now time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	now := time.Now()
	tell(m.rules, now)
	m.step(now)
}

// step starts what the rules want next, and tells the holders what is new.
func (m *Machine) step(now time.Time) {
	wake, sleep := m.shown.LastWake, m.shown.LastSleep
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
	for {
		action, again := m.rules.Next(now)
		if action == Nothing {
			if !again.IsZero() {
				m.timer = time.AfterFunc(again.Sub(now), func() { m.do(func(*Rules, time.Time) {}) })
			}
			break
		}
		if action == CutShort {
			m.cutShort()
			continue
		}
		m.begin(action)
	}
	v := m.rules.View()
	m.observe(Start, wake, v.LastWake)
	m.observe(Sleep, sleep, v.LastSleep)
	m.retiring(v.LastSleep != sleep)
	news := v.State != m.shown.State || v.Epoch != m.shown.Epoch || !v.Since.Equal(m.shown.Since)
	m.shown = v
	if !news {
		return
	}
	m.logState(v)
	for h := range m.holders {
		h.drained = false // of an earlier time
		h.notify(v)
	}
}

// retiring is for a machine that nobody holds any more: it says so when an
// attempt to put it to sleep has failed, and when there is nothing more to do.
func (m *Machine) retiring(tried bool) {
	t := m.rules.retired
	if !t.begun || m.over == nil {
		return
	}
	if tried && t.err != nil {
		m.log.Error(cannotRetire, "attempt", t.tries, "of", retireTries, "error", t.err)
	}
	if t.over {
		over := m.over
		m.over = nil
		over()
	}
}

const cannotRetire = "a machine that no tenant has any more could not be put to sleep"

func (m *Machine) logState(v View) {
	if v.State == StateFailed {
		m.log.Warn("machine", "state", v.State.String(), "until", v.Until, "error", v.Err)
		return
	}
	m.log.Debug("machine", "state", v.State.String(), "epoch", v.Epoch)
}

func (m *Machine) observe(what Action, old, now Outcome) {
	if now == old {
		return
	}
	text := "machine wake ended"
	if what == Sleep {
		text = "machine put to sleep"
	}
	m.log.Info(text, "reason", now.Reason, "result", now.Result, "seconds", now.Took.Seconds())
	if m.opts.Observe != nil {
		m.opts.Observe(what, now)
	}
}

// errUnfinished is the cause where Postern ends before a machine sleeps.
var errUnfinished = errors.New("there was no time left")

// begin starts the call of an action. Its result comes back through do.
func (m *Machine) begin(a Action) {
	ctx, cancel := context.WithTimeout(m.ctx, m.limit(a))
	if a == Sleep {
		m.cutShort = cancel
	}
	at := m.rules.endpoint
	m.work.Go(func() {
		defer cancel()
		select {
		case <-m.before:
			m.do(m.call(ctx, a, at))
		case <-m.ctx.Done():
		}
	})
}

// limit bounds one call.
func (m *Machine) limit(a Action) time.Duration {
	switch a {
	case Start:
		return m.rules.set.WakeLimit
	case Probe: // once Postgres answers, others have to hear of it before the machine is used
		return max(time.Until(m.rules.deadline), probeLimit)
	case Sleep:
		return suspendLimit
	}
	return askLimit
}

// call carries out an action and returns what to tell the rules.
func (m *Machine) call(ctx context.Context, a Action, at Endpoint) func(*Rules, time.Time) {
	var s Status
	err := m.guard(func() (err error) {
		switch a {
		case Ask:
			s, err = m.opts.Driver.State(ctx)
		case Start:
			if s, err = m.opts.Driver.Wake(ctx); err == nil {
				at, err = m.opts.Driver.Endpoint(ctx)
			}
		case Probe:
			if err = m.probe(ctx, at); err == nil {
				err = m.use(ctx)
			}
		case Locate:
			at, err = m.opts.Driver.Endpoint(ctx)
		case Sleep:
			err = m.opts.Driver.Suspend(ctx)
		}
		return err
	})
	m.complain(ctx, a, err)
	return func(r *Rules, now time.Time) {
		switch a {
		case Ask:
			r.Asked(s, err, now)
		case Start:
			r.Started(s, at, err, now)
		case Probe:
			r.Probed(err, now)
		case Locate:
			r.Located(at, err, now)
		case Sleep:
			r.Slept(err, now)
		}
	}
}

// probe finds out whether Postgres answers, soon.
func (m *Machine) probe(ctx context.Context, at Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	return m.opts.Probe(ctx, at)
}

// use says that the machine is used from now on: it is ready next.
func (m *Machine) use(ctx context.Context) error {
	if u, ok := m.opts.Driver.(user); ok {
		return u.use(ctx)
	}
	return nil
}

// guard makes an error of a panic: a driver's mistake costs its machine, not
// the process.
func (m *Machine) guard(call func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			m.log.Error("BUG: panic in a machine's driver", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("machine: panic: %v", p)
		}
	}()
	return call()
}

// complain logs a failed call, unless we have ended it ourselves.
func (m *Machine) complain(ctx context.Context, a Action, err error) {
	switch {
	case err == nil || errors.Is(context.Cause(ctx), context.Canceled):
	case a == Sleep && errors.Is(err, ErrInUse):
		m.log.Debug("the machine stays awake for others", "error", err)
	case a == Probe:
		m.log.Debug("Postgres does not answer yet", "error", err)
	default:
		m.log.Warn("machine call failed", "call", a.String(), "kind", KindOf(err).String(), "error", err)
	}
}

// close ends the calls under way and waits for them. The machine stays as it is.
func (m *Machine) close() {
	m.mu.Lock()
	if !m.closed && m.over != nil {
		m.log.Error(cannotRetire, "error", errUnfinished)
	}
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	m.mu.Unlock()
	m.stop()
	m.work.Wait()
}
