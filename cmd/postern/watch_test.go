// Noticing files that change, and a log that never makes anybody wait.

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pulse ticks slower than watchFiles wants quiet, the first time at once, until stop is closed.
func pulse(stop <-chan struct{}) <-chan struct{} {
	ticks := make(chan struct{})
	go func() {
		defer close(ticks)
		tick := time.NewTicker(2 * watchQuiet)
		defer tick.Stop()
		for {
			select {
			case ticks <- struct{}{}:
			case <-stop:
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return ticks
}

func TestWatchFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.crt")
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { ended <- watchFiles(ctx, []string{path}, func() { changed <- struct{}{} }) }()

	replaced := 0
	replace := func() { // as a deployment does: the file is new, under the same name
		if err := os.WriteFile(path+".new", []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		replaced++
	}
	wait := func() {
		t.Helper()
		stop := make(chan struct{})
		defer close(stop)
		again := pulse(stop)
		late := time.After(time.Minute)
		for {
			select {
			case <-again:
				replace()
			case <-changed:
				return
			case <-late:
				t.Fatal("nothing was noticed")
			}
		}
	}
	wait()
	wait() // not only the first time

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	// Many changes at a time are one: each replacement made two events at least.
	if calls := 2 + len(changed); calls > replaced {
		t.Errorf("%d calls for %d replacements", calls, replaced)
	}
}

func TestWatchFilesNeedsTheFolder(t *testing.T) {
	err := watchFiles(t.Context(), []string{filepath.Join(t.TempDir(), "none", "server.crt")}, func() {})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("got %v", err)
	}
}

// stuckWriter writes only what it gets a pass for.
type stuckWriter struct {
	passes chan struct{}
	buf    bytes.Buffer
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.passes
	return w.buf.Write(p)
}

// In the bubble time passes only while everybody waits: a Write that waits takes time, or is a deadlock.
func TestAsyncWriterDropsAndNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lines = 3 * logQueue
		out := &stuckWriter{passes: make(chan struct{})}
		w := newAsyncWriter(out)
		line, began := []byte("first line\n"), time.Now()
		for i := range lines {
			if n, err := w.Write(line); n != len(line) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
			copy(line, "later") // the writer keeps nothing of its caller's
			if i == 0 {
				synctest.Wait() // the first one has left the queue and is stuck
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("writing took %v", took)
		}
		close(out.passes)
		w.flush()
		got := out.buf.String()
		if !strings.HasPrefix(got, "first line\n") {
			t.Errorf("begins with %q", got[:40])
		}
		if n := strings.Count(got, " line\n"); n != logQueue+1 {
			t.Errorf("%d lines came out, want %d", n, logQueue+1)
		}
		if want := fmt.Sprintf(`"msg":"log lines dropped","count":%d`, lines-logQueue-1); strings.Count(got, want) != 1 {
			t.Errorf("no %s", want)
		}
	})
}

// writes gets a string per Write.
type writes chan string

func (w writes) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestAsyncWriterJoinsWhatComesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(writes)
		w := newAsyncWriter(out)
		_, _ = w.Write([]byte("at once\n"))
		synctest.Wait() // it is being written
		for _, line := range []string{"one\n", "two\n", "three\n"} {
			_, _ = w.Write([]byte(line))
		}
		if first, second := <-out, <-out; first != "at once\n" || second != "one\ntwo\nthree\n" {
			t.Errorf("%q, then %q", first, second)
		}
		w.flush()
	})
}

func TestAsyncWriterFlushIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuckWriter{passes: make(chan struct{})}
		w := newAsyncWriter(out)
		_, _ = w.Write([]byte("line\n"))
		began := time.Now()
		w.flush()
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		close(out.passes)
		<-w.done // so that the goroutine ends
	})
}
