// The loop itself: wait, dispatch, posted functions, timers.

package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ScratchSize is how much one read takes at most. There is one scratch buffer
	// per loop, and large results cost the less the larger it is.
	ScratchSize = 256 << 10
	// busyWait is the bound on a wait inside a raw system call.
	busyWait = time.Millisecond
	// busyTurns is how many empty waits make a loop idle.
	busyTurns = 5
	// readBudget is how many reads a connection gets before the others' turn.
	readBudget = 4
)

// Loop runs connections on one OS thread. Create with New, start with Run.
type Loop struct {
	// Static after New.
	index  int
	log    *slog.Logger
	poller poller
	panics func()
	// silentFor is how long a peer may leave what was sent unacknowledged; 0: as long as it likes.
	silentFor time.Duration

	// Owned by the loop's thread.
	conns        []*Conn // by descriptor
	ready        []*Conn // to be called in the next turn without an event
	turn         []*Conn // the ready list being worked through
	batch        batch
	scratch      []byte
	buffers      buffers
	timers       timerHeap
	now          time.Time
	idle         int // consecutive waits without an event
	attached     int
	silenceTimer *Timer
	silencePart  int // of the connections, to be looked at next

	// Shared.
	lag     atomic.Int64 // nanoseconds that the latest posted function waited
	mu      sync.Mutex
	posted  []posting
	stopped bool
}

type posting struct {
	f  func()
	at time.Time
}

// New makes a loop. Its index is for logs and metrics. onPanic is called for
// every recovered panic.
func New(index int, log *slog.Logger, onPanic func()) (*Loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, fmt.Errorf("loop: %w", err)
	}
	if onPanic == nil {
		onPanic = func() {}
	}
	l := &Loop{index: index, log: log, poller: p, panics: onPanic, scratch: make([]byte, ScratchSize), now: time.Now()}
	return l, nil
}

// Index is the loop's number. Safe for concurrent use.
func (l *Loop) Index() int { return l.index }

// Lag is how long the latest posted function waited for the loop. Safe for
// concurrent use.
func (l *Loop) Lag() time.Duration { return time.Duration(l.lag.Load()) }

// Now is the time at the start of the current turn. Loop thread only.
func (l *Loop) Now() time.Time { return l.now }

// Scratch is the loop's read buffer, ScratchSize bytes. A handler may use it
// until it returns. Loop thread only.
func (l *Loop) Scratch() []byte { return l.scratch }

// Attached is how many connections the loop owns. Loop thread only.
func (l *Loop) Attached() int { return l.attached }

// Post has f run on the loop's thread, soon. It reports false, and f is
// dropped, once the loop has stopped. Safe for concurrent use.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, posting{f, time.Now()})
	first := len(l.posted) == 1
	l.mu.Unlock()
	if first {
		l.poller.wake()
	}
	return true
}

// Call runs f on the loop's thread and waits until it has run. It reports
// false if the loop has stopped. Never call it from the loop's own thread.
func (l *Loop) Call(f func()) bool {
	done := make(chan struct{})
	if !l.Post(func() { defer close(done); f() }) {
		return false
	}
	<-done
	return true
}

// Run works until Stop. It takes over the calling goroutine's thread.
func (l *Loop) Run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		l.now = time.Now()
		l.runTimers()
		l.runReady()
		l.sendBatch()
		n := l.wait()
		// What was posted first is done first: a client may send its next query
		// because its cancel request was taken, and that must not hit the next one.
		if !l.runPosted() {
			break
		}
		if n > 0 {
			l.now = time.Now()
			l.idle = 0
			for i := range n {
				l.dispatch(l.poller.event(i))
			}
		} else {
			l.idle++
		}
	}
	for _, c := range l.conns {
		if c != nil {
			c.Close()
		}
	}
	if l.batch.ring != nil {
		l.batch.ring.close()
	}
	l.poller.close()
}

// Stop makes Run return after the functions posted so far. What is still
// attached is closed. Safe for concurrent use.
func (l *Loop) Stop() {
	l.Post(func() {
		l.mu.Lock()
		l.stopped = true
		l.mu.Unlock()
	})
}

// wait polls for events, for no longer than the next timer allows.
func (l *Loop) wait() int {
	limit := l.timers.until(l.now)
	switch {
	case len(l.ready) > 0 || limit == 0:
		return l.poller.poll(0)
	case l.idle < busyTurns:
		return l.poller.poll(min(limit, busyWait))
	default:
		return l.poller.block(limit)
	}
}

func (l *Loop) runPosted() (more bool) {
	l.mu.Lock()
	fs := l.posted
	l.posted = nil
	l.mu.Unlock()
	if len(fs) > 0 {
		l.now = time.Now()
		l.lag.Store(int64(l.now.Sub(fs[0].at)))
		for _, p := range fs {
			l.guard(p.f)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.stopped || len(l.posted) > 0
}

func (l *Loop) runTimers() {
	for {
		t := l.timers.due(l.now)
		if t == nil {
			return
		}
		l.guard(t.f)
	}
}

// runReady calls the connections that asked for another turn. Those that ask
// again during it have theirs in the next.
func (l *Loop) runReady() {
	l.turn, l.ready = l.ready, l.turn[:0]
	for i, c := range l.turn {
		l.turn[i] = nil
		c.queued = false
		if !c.closed {
			l.call(c)
		}
	}
}

func (l *Loop) dispatch(fd int, e events) {
	if fd >= len(l.conns) || l.conns[fd] == nil {
		return // closed earlier in this turn
	}
	c := l.conns[fd]
	if e.readable || e.hangup || e.halfClosed {
		c.readable = true
	}
	c.halfClosed = c.halfClosed || e.halfClosed
	c.hungUp = c.hungUp || e.hangup
	if e.writable && c.stuck {
		c.flush()
	}
	l.call(c)
}

// call runs a handler; a panic costs that connection only.
func (l *Loop) call(c *Conn) {
	defer func() {
		if r := recover(); r != nil {
			l.panicked(r)
			h := c.handler
			l.guard(func() { h.Panicked(c) })
			c.Close()
		}
	}()
	c.budget = readBudget
	c.handler.Ready(c)
}

// guard runs a function that belongs to no single connection.
func (l *Loop) guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			l.panicked(r)
		}
	}()
	f()
}

func (l *Loop) panicked(r any) {
	l.panics()
	l.log.Error("panic in loop", "loop", l.index, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
}
