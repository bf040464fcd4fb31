// The watchdog: what it waits for, and what it takes for a gate that stands still.

package proxy

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// watched runs the watchdog under a fake clock on something that is vital, and returns what it said and after how long.
func watched(t *testing.T, ask func(done func())) (said string, after time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		v := &vital{name: "it", ask: ask, busy: make(chan struct{}, 1)}
		start := time.Now()
		for range 3 * watchPatience {
			time.Sleep(watchPeriod)
			if v.check() {
				said, after = v.name, time.Since(start)
				return
			}
		}
	})
	return said, after
}

// TestWatchdog: what answers, if late, is left alone; what does not answer any more is told of in half a minute.
func TestWatchdog(t *testing.T) {
	after := func(d time.Duration) func(func()) {
		return func(done func()) { time.AfterFunc(d, done) }
	}
	const limit = watchPatience * watchPeriod
	for name, tc := range map[string]struct {
		ask     func(func())
		stalled bool
	}{
		"at once":          {func(done func()) { done() }, false},
		"soon":             {after(watchPeriod / 2), false},
		"late, every time": {after(limit - watchPeriod), false},
		"too late":         {after(limit + 2*watchPeriod), true},
		"never":            {func(func()) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			said, took := watched(t, tc.ask)
			if (said != "") != tc.stalled {
				t.Fatalf("said %q", said)
			}
			if tc.stalled && (took < limit || took > limit+2*watchPeriod) {
				t.Errorf("after %v", took)
			}
		})
	}
}

// TestWhatIsVital: each loop and each lock is told from the others when it stands still, and nothing of it is when nothing does.
func TestWhatIsVital(t *testing.T) {
	b := newBench(t)
	stalled := func() (names []string) {
		all := b.gate.vitals()
		for range watchPatience + 1 {
			for _, v := range all {
				if v.check() {
					names = append(names, v.name)
				}
				if v.name != "loop 0" && v.name != "the lock of cancel keys" {
					v.busy <- struct{}{} // until it has answered
					<-v.busy
				}
			}
		}
		return names
	}
	hold := make(chan struct{})
	b.gate.keys.mu.Lock()
	b.gate.loops[0].Post(func() { <-hold })
	names := stalled()
	b.gate.keys.mu.Unlock()
	close(hold)
	slices.Sort(names)
	if want := []string{"loop 0", "the lock of cancel keys"}; !slices.Equal(names, want) {
		t.Errorf("%q stand still, want %q", names, want)
	}
}
