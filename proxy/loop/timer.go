// Timers: a heap ordered by time, touched by the loop's thread alone.

package loop

import (
	"container/heap"
	"time"
)

// maxWait bounds a wait without timers.
const maxWait = time.Minute

// Timer is a function to run later on the loop's thread.
type Timer struct {
	when  time.Time
	f     func()
	index int // in the heap, or -1
	loop  *Loop
}

// AfterFunc runs f on the loop's thread after d. Loop thread only.
func (l *Loop) AfterFunc(d time.Duration, f func()) *Timer {
	t := &Timer{f: f, index: -1, loop: l}
	t.Reset(d)
	return t
}

// Reset arms the timer anew, d from now but not in this turn: a timer that
// arms itself with 0 must not keep the loop. Loop thread only.
func (t *Timer) Reset(d time.Duration) {
	t.when = t.loop.now.Add(max(d, 1))
	if t.index >= 0 {
		heap.Fix(&t.loop.timers, t.index)
		return
	}
	heap.Push(&t.loop.timers, t)
}

// Stop disarms the timer. Loop thread only.
func (t *Timer) Stop() {
	if t != nil && t.index >= 0 {
		heap.Remove(&t.loop.timers, t.index)
	}
}

// Armed reports whether the timer will fire. Loop thread only.
func (t *Timer) Armed() bool { return t != nil && t.index >= 0 }

type timerHeap []*Timer

func (h *timerHeap) until(now time.Time) time.Duration {
	if len(*h) == 0 {
		return maxWait
	}
	return max(0, min(maxWait, (*h)[0].when.Sub(now)))
}

func (h *timerHeap) due(now time.Time) *Timer {
	if len(*h) == 0 || (*h)[0].when.After(now) {
		return nil
	}
	return heap.Pop(h).(*Timer)
}

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].when.Before(h[j].when) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
