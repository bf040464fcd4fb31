// All machines of the process: one owner each, however many hold it.

package machines

import (
	"sync"
	"time"
)

// Fleet makes sure that a machine has one owner in the process. Safe for
// concurrent use.
type Fleet struct {
	mu     sync.Mutex
	all    map[string]*Machine
	last   map[string]<-chan struct{} // of a machine that was given up: closed when its calls have ended
	ending sync.WaitGroup
	closed bool
}

// NewFleet returns an empty one.
func NewFleet() *Fleet {
	return &Fleet{all: make(map[string]*Machine), last: make(map[string]<-chan struct{})}
}

// Hold takes part in a machine, which is made if nobody holds it yet; for one
// that is there, only the settings count. notify is told at once how the
// machine stands, then of every change, in order. It must neither block nor
// call the Holder.
func (f *Fleet) Hold(key string, o Options, notify func(View)) *Holder {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.all[key]
	if ok && m.reclaim() {
		f.end(m) // it is somebody's again; its next owner finds out how far it came
		ok = false
	}
	if !ok {
		m = newMachine(key, o, f.ended(key))
		if m.closed = f.closed; !m.closed {
			f.all[key] = m
		}
	}
	h := &Holder{fleet: f, machine: m, notify: notify}
	m.do(func(r *Rules, _ time.Time) {
		m.holders[h] = struct{}{}
		r.Configure(o.Settings)
		notify(m.shown)
	})
	return h
}

// ended is closed when nothing runs any more for an earlier owner of a machine.
func (f *Fleet) ended(key string) <-chan struct{} {
	if last, ok := f.last[key]; ok {
		return last
	}
	none := make(chan struct{})
	close(none)
	return none
}

// Close ends all calls under way and returns when they have ended. No machine
// is started or stopped any more, and none is told to; who holds one hears no
// more of it.
func (f *Fleet) Close() {
	f.mu.Lock()
	f.closed = true
	for _, m := range f.all {
		f.ending.Go(m.close)
	}
	clear(f.all)
	f.mu.Unlock()
	f.ending.Wait()
}

// Tell says that another process may have changed a machine or, orphaned, that the one that used it last is gone. It reports whether the
// machine has an owner here.
func (f *Fleet) Tell(key string, orphaned bool) bool {
	f.mu.Lock()
	m, ok := f.all[key]
	f.mu.Unlock()
	if ok {
		m.do(func(r *Rules, now time.Time) { r.Told(orphaned, now) })
	}
	return ok
}

// Idle reports whether nobody here uses a machine, nor will before its driver is asked again. Connections that were made while it was ready
// use it, also when it could not be asked since.
func (f *Fleet) Idle(key string) bool {
	f.mu.Lock()
	m, ok := f.all[key]
	f.mu.Unlock()
	if !ok {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch m.rules.state {
	case StateUnknown, StateAsleep, StateFailed:
		return !m.rules.connected
	}
	return false
}

// Holder is somebody's part in a machine: a tenant's. Its methods do not
// block, and may be called from any goroutine. After Release they do nothing.
type Holder struct {
	fleet   *Fleet
	machine *Machine
	notify  func(View)
	busy    bool // guarded by machine.mu, as is what follows
	drained bool
}

// do tells the rules something while h takes part.
func (h *Holder) do(tell func(r *Rules, now time.Time)) {
	h.machine.do(func(r *Rules, now time.Time) {
		if _, ok := h.machine.holders[h]; ok {
			tell(r, now)
		}
	})
}

// View is how the machine stands.
func (h *Holder) View() View {
	h.machine.mu.Lock()
	defer h.machine.mu.Unlock()
	return h.machine.rules.View()
}

// Key names the machine.
func (h *Holder) Key() string { return h.machine.key }

// Configure takes over other settings.
func (h *Holder) Configure(s Settings) {
	h.do(func(r *Rules, _ time.Time) { r.Configure(s) })
}

// Want says that a proven client needs the machine. What becomes of it, ready
// or failed, is told by notify, unless it is ready already, or has failed and
// is not to be tried again yet. Who still needs it when it stops being ready
// wants it again.
func (h *Holder) Want(reason string) {
	h.do(func(r *Rules, now time.Time) { r.Want(reason, now) })
}

// Check has it asked how it stands, if that is not known.
func (h *Holder) Check() { h.do(func(r *Rules, _ time.Time) { r.Check() }) }

// Use says whether the holder uses the machine now, and whether it did since
// the last call.
func (h *Holder) Use(now, since bool) {
	h.do(func(r *Rules, at time.Time) {
		h.busy = now
		if since {
			r.Used(at)
		}
		r.Busy(h.machine.anyBusy(), at)
	})
}

func (m *Machine) anyBusy() bool {
	for h := range m.holders {
		if h.busy {
			return true
		}
	}
	return false
}

// Drained says that the holder has no connection to it left, and makes none
// before the machine is ready again.
func (h *Holder) Drained() {
	h.do(func(r *Rules, _ time.Time) {
		h.drained = true
		h.machine.settle(r)
	})
}

// settle tells the rules once all holders have drained.
func (m *Machine) settle(r *Rules) {
	for h := range m.holders {
		if !h.drained {
			return
		}
	}
	r.Drained()
}

// Lost says that a dial in an epoch has failed, for somebody who needed it.
func (h *Holder) Lost(epoch uint64) {
	h.do(func(r *Rules, now time.Time) { r.Lost(epoch, now) })
}

// Suspend puts the machine to sleep without waiting for SuspendAfter. False:
// it is in use, or not ready.
func (h *Holder) Suspend(reason string) (ok bool) {
	h.do(func(r *Rules, _ time.Time) { ok = r.Suspend(reason) })
	return ok
}

// Release gives up the part. The owner ends with its last holder. What runs
// then is cut short, and the machine stays as it is.
func (h *Holder) Release() {
	f, m := h.fleet, h.machine
	f.mu.Lock()
	defer f.mu.Unlock()
	h.do(func(r *Rules, now time.Time) {
		delete(m.holders, h)
		r.Busy(m.anyBusy(), now)
		if len(m.holders) > 0 {
			m.settle(r)
		}
	})
	if f.all[m.key] == m && m.isNobodys() {
		f.end(m)
	}
}

// Retire gives up the part for good. The last holder's machine is put to sleep,
// because nobody else would do it: by its owner, which ends when that is done.
// Nothing of the holder's leads to it any more.
func (h *Holder) Retire(reason string) {
	f, m := h.fleet, h.machine
	f.mu.Lock()
	last := f.all[m.key] == m && m.onlyHolder(h)
	if last {
		m.do(func(r *Rules, now time.Time) {
			delete(m.holders, h)
			m.over = func() { f.ending.Go(func() { f.retired(m) }) }
			r.Retire(reason, now)
		})
	}
	f.mu.Unlock()
	if !last {
		h.Release()
	}
}

// retired ends the owner of a machine that is retired.
func (f *Fleet) retired(m *Machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[m.key] == m {
		f.end(m)
	}
}

// isNobodys reports whether there is nothing for its owner to do any more.
func (m *Machine) isNobodys() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.holders) == 0 && !m.rules.retired.begun
}

// reclaim reports whether the machine is retired, and has its owner say no more
// about it.
func (m *Machine) reclaim() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = nil
	return m.rules.retired.begun
}

// onlyHolder reports whether nobody but h takes part.
func (m *Machine) onlyHolder(h *Holder) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.holders[h]
	return ok && len(m.holders) == 1
}

// end closes a machine that nobody holds. Its next owner waits for that.
func (f *Fleet) end(m *Machine) {
	ended := make(chan struct{})
	delete(f.all, m.key)
	f.last[m.key] = ended
	f.ending.Go(func() {
		m.close()
		<-m.before // of its own calls none has begun before
		close(ended)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.last[m.key] == ended {
			delete(f.last, m.key)
		}
	})
}
