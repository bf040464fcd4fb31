// Turns and timers: who is called when, and how often.

package loop

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// turns counts the reads of each turn.
type turns struct {
	reads []int
	bytes int
	after int // calls after the close
	gone  chan struct{}
}

func (h *turns) Ready(c *Conn) {
	if c.Closed() {
		h.after++
		return
	}
	n := 0
	for {
		got, err := c.Read(c.loop.Scratch()[:100])
		h.bytes += got
		if err == ErrWouldBlock {
			break
		}
		if err != nil {
			c.Again() // must come to nothing
			c.Close()
			c.Again()
			close(h.gone)
			return
		}
		n++
	}
	h.reads = append(h.reads, n)
}

func (*turns) Panicked(*Conn) {}

// A turn is over after some reads; the rest is read in later turns, without a
// new event, and nothing is called after the close.
func TestBudget(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	if _, err := theirs.Write(random(10_000)); err != nil {
		t.Fatal(err)
	}
	_ = theirs.CloseWrite()
	h := &turns{gone: make(chan struct{})}
	attach(t, l, ours, nil, nil, h)
	<-h.gone
	l.Call(func() {})
	var got turns
	l.Call(func() { got = *h })
	if got.bytes != 10_000 || got.after != 0 {
		t.Errorf("%d bytes, %d calls after the close", got.bytes, got.after)
	}
	if len(got.reads) < 10_000/100/readBudget-1 || slices.Max(got.reads) != readBudget {
		t.Errorf("reads per turn: %v", got.reads)
	}
}

// A loop that is asked all the time to call somebody again still hears the others.
func TestAgainForEver(t *testing.T) {
	l, _ := start(t)
	ours, _ := connect(t)
	attach(t, l, ours, nil, nil, restless{})
	ours2, theirs2 := connect(t)
	attach(t, l, ours2, nil, nil, newEcho())
	for range 50 {
		converse(t, theirs2, []byte("ping"), false)
		if !l.Call(func() {}) {
			t.Fatal("stopped")
		}
	}
}

type restless struct{}

func (restless) Ready(c *Conn)  { c.Again() }
func (restless) Panicked(*Conn) {}

// Timers are due in the order of their times, whatever was reset or stopped
// meanwhile; compared with a list that is searched from end to end.
func TestTimerOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &Loop{now: time.Unix(1000, 0)}
		type item struct {
			*Timer
			when  time.Time
			armed bool
		}
		var all []*item
		fired := -1
		pick := func() *item { return all[rapid.IntRange(0, len(all)-1).Draw(t, "which")] }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			d := time.Duration(rapid.IntRange(-5, 50).Draw(t, "ms")) * time.Millisecond
			switch op := rapid.IntRange(0, 4).Draw(t, "op"); {
			case op == 0 || len(all) == 0:
				i := len(all)
				all = append(all, &item{l.AfterFunc(d, func() { fired = i }), l.now.Add(max(d, 1)), true})
			case op == 1:
				it := pick()
				it.Reset(d)
				it.when, it.armed = l.now.Add(max(d, 1)), true
			case op == 2:
				it := pick()
				it.Stop()
				it.armed = false
			default:
				l.now = l.now.Add(max(d, 0))
				for {
					due := l.timers.due(l.now)
					if due == nil {
						break
					}
					due.f()
					it := all[fired]
					for _, other := range all {
						if other.armed && other.when.Before(it.when) {
							t.Fatalf("%v fired before %v", it.when, other.when)
						}
					}
					if !it.armed || it.when.After(l.now) {
						t.Fatalf("fired at %v: %+v", l.now, it)
					}
					it.armed = false
				}
			}
			next := maxWait
			for i, it := range all {
				if it.armed != it.Armed() {
					t.Fatalf("timer %d: armed %v", i, it.Armed())
				}
				if it.armed {
					next = min(next, max(0, it.when.Sub(l.now)))
				}
			}
			if got := l.timers.until(l.now); got != next {
				t.Fatalf("the next is due in %v, want %v", got, next)
			}
		}
	})
}

// A timer that is always due does not keep the loop from its other work.
func TestTimerThatArmsItselfAtOnce(t *testing.T) {
	l, _ := start(t)
	fired := 0
	var timer *Timer
	l.Call(func() { timer = l.AfterFunc(0, func() { fired++; timer.Reset(0) }) })
	ours, theirs := connect(t)
	attach(t, l, ours, nil, nil, newEcho())
	for range 20 {
		converse(t, theirs, []byte("ping"), false)
	}
	eventually(t, func() (enough bool) {
		l.Call(func() { enough = fired > 3 })
		return enough
	})
	l.Call(func() { timer.Stop() })
}

// A timer is not missed by a loop that sleeps, and not early.
func TestTimerWakesASleepingLoop(t *testing.T) {
	l, _ := start(t)
	time.Sleep(10 * busyTurns * busyWait) // by then it sleeps; if not, the test is merely easier
	fired := make(chan time.Duration, 1)
	began := time.Now()
	l.Call(func() { l.AfterFunc(30*time.Millisecond, func() { fired <- time.Since(began) }) })
	if after := <-fired; after < 30*time.Millisecond {
		t.Errorf("fired after %v", after)
	}
}

func TestLag(t *testing.T) {
	l, _ := start(t)
	l.Post(func() { time.Sleep(20 * time.Millisecond) })
	eventually(t, func() bool {
		l.Post(func() { time.Sleep(20 * time.Millisecond) })
		l.Call(func() {})
		return l.Lag() > 0
	})
}

// Posted before the start: runs when the loop does.
func TestPostBeforeRun(t *testing.T) {
	l, err := New(3, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for i := range 3 {
		l.Post(func() { got = append(got, i) })
	}
	l.Stop()
	l.Run()
	if fmt.Sprint(got) != "[0 1 2]" || l.Index() != 3 {
		t.Errorf("%v, index %d", got, l.Index())
	}
}

// Reads and writes of a closed connection are harmless.
func TestClosedConn(t *testing.T) {
	l, _ := start(t)
	ours, theirs := connect(t)
	c := attach(t, l, ours, nil, nil, newEcho())
	l.Call(func() {
		c.Close()
		c.Close()
		c.Write([]byte("x"))
		c.Queue([]byte("x"))
		c.Flush()
		c.CloseWrite()
		c.Linger(time.Second)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read from a closed connection")
		}
		if !c.Closed() || c.Pending() != 0 || c.out != nil || l.Attached() != 0 {
			t.Errorf("%+v", c)
		}
	})
	if b, err := io.ReadAll(theirs); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}
