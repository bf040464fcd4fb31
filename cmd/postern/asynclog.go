// A log writer that never makes anybody wait: event loops log, and whoever reads the log may have stopped.

package main

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// logQueue is how many lines may wait for the reader of the log.
const logQueue = 4096

// asyncWriter passes lines on in a goroutine of its own and drops those that
// find its queue full. Safe for concurrent use.
type asyncWriter struct {
	out     io.Writer
	lines   chan []byte
	dropped atomic.Uint64
	done    chan struct{}
}

func newAsyncWriter(out io.Writer) *asyncWriter {
	w := &asyncWriter{out: out, lines: make(chan []byte, logQueue), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *asyncWriter) Write(p []byte) (int, error) {
	select {
	case w.lines <- append([]byte(nil), p...):
	default:
		w.dropped.Add(1)
	}
	return len(p), nil
}

func (w *asyncWriter) run() {
	defer close(w.done)
	for lines := range w.lines {
		for range len(w.lines) { // what has come meanwhile is one system call
			lines = append(lines, <-w.lines...)
		}
		_, _ = w.out.Write(lines)
		if n := w.dropped.Swap(0); n > 0 {
			fmt.Fprintf(w.out, "{\"level\":\"WARN\",\"msg\":\"log lines dropped\",\"count\":%d}\n", n) // JSON, whatever the format: it is for machines
		}
	}
}

// flush waits, for a second at most, until what was logged so far is out. Nothing may be logged after.
func (w *asyncWriter) flush() {
	close(w.lines)
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}
