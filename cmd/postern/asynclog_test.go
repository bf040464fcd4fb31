// Tests of the log writer: it keeps the order, and drops what nobody reads.

package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// pieces is a reader of the log that notes each write, and holds it up while it is blocked.
type pieces struct {
	mu      sync.Mutex
	got     []string
	blocked chan struct{} // nil: not
	fails   atomic.Bool   // half of each write, and then the reader is gone
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.blocked != nil {
		<-p.blocked
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails.Load() {
		return len(b) / 2, syscall.EPIPE
	}
	p.got = append(p.got, string(bytes.Clone(b)))
	return len(b), nil
}

func (p *pieces) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

func TestLogLinesThatComeTogetherAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pieces{}
		w := newAsyncWriter(out)
		line := func(s string) {
			if n, err := w.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
			synctest.Wait()
		}
		line("at once ")
		line("later ")
		line("together ")
		time.Sleep(logPause)
		synctest.Wait()
		want := []string{"at once ", "later together "}
		if diff := cmp.Diff(want, out.all()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(3 * logPause)
		line("alone again ")
		want = append(want, "alone again ")
		if diff := cmp.Diff(want, out.all()); diff != "" {
			t.Error(diff)
		}
		line("the last")
		w.flush()
		if diff := cmp.Diff(append(want, "the last"), out.all()); diff != "" {
			t.Error(diff)
		}
	})
}

// TestLogLinesComeInOrder, and whole, from several rounds of a reader that takes its time.
func TestLogLinesComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pieces{blocked: make(chan struct{})}
		w := newAsyncWriter(out)
		var want []string
		for i := range 6 {
			line := fmt.Appendf(nil, "line %d\n", i)
			want = append(want, string(line))
			_, _ = w.Write(line)
			copy(line, "never") // the writer keeps nothing of its caller's
			synctest.Wait()
			if i%2 == 0 {
				continue // the next one comes while this one is being written
			}
			out.blocked <- struct{}{}
			out.blocked <- struct{}{}
			time.Sleep(3 * logPause) // and there is nothing to write
		}
		w.flush()
		if diff := cmp.Diff(want, out.all()); diff != "" {
			t.Error(diff)
		}
	})
}

// In the bubble time passes only while everybody waits: a Write that waits takes time, or is a deadlock.
func TestLogDropsWhatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pieces{blocked: make(chan struct{})}
		w := newAsyncWriter(out)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		began := time.Now()
		_, _ = w.Write(line)
		synctest.Wait() // it is being written
		const fit, more = logQueue / 1024, 5
		for range fit + more {
			_, _ = w.Write(line)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("writing took %v", took)
		}
		close(out.blocked)
		w.flush()
		got := strings.Join(out.all(), "")
		if n := strings.Count(got, string(line)); n != 1+fit {
			t.Errorf("%d lines", n)
		}
		if want := fmt.Sprintf(`"log lines dropped","count":%d}`, more); strings.Count(got, want) != 1 {
			t.Errorf("not said once: %s", want)
		}
		if n := w.lost.Load(); n != more {
			t.Errorf("%d are counted", n)
		}
	})
}

// TestLogCountsWhatCannotBeWritten, whole lines, and says it when somebody reads again.
func TestLogCountsWhatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pieces{}
		w := newAsyncWriter(out)
		line := func() {
			_, _ = w.Write([]byte("a line\n"))
			time.Sleep(3 * logPause)
		}
		out.fails.Store(true)
		for range 3 {
			line()
		}
		if n := w.lost.Load(); n != 3 {
			t.Errorf("%d are counted", n)
		}
		out.fails.Store(false)
		line()
		line()
		w.flush()
		got := strings.Join(out.all(), "")
		if strings.Count(got, "a line\n") != 2 || strings.Count(got, `"log lines dropped","count":3}`) != 1 {
			t.Errorf("read: %s", got)
		}
		if n := w.lost.Load(); n != 3 {
			t.Errorf("%d are counted", n)
		}
	})
}

func TestLogDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &pieces{blocked: make(chan struct{})}
		w := newAsyncWriter(out)
		_, _ = w.Write([]byte("held up"))
		start := time.Now()
		w.flush()
		if took := time.Since(start); took != time.Second {
			t.Errorf("flush took %v", took)
		}
		close(out.blocked)
	})
}
