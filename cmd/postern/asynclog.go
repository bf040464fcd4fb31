// A log writer that never makes anybody wait: event loops log, and whoever reads the log may have stopped.

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// logQueue is how many bytes of lines may wait for the reader of the log.
	logQueue = 1 << 20
	// logPause is for how long lines are gathered once one has been written. A line that comes alone is written at once;
	// of a thousand in a second each would wake a thread and be a system call.
	logPause = 20 * time.Millisecond
)

// asyncWriter passes lines on in a goroutine of its own and drops those that
// find its queue full. Safe for concurrent use.
type asyncWriter struct {
	out   io.Writer
	wake  chan struct{} // has room for one
	ended chan struct{} // closed by flush
	done  chan struct{} // closed when run has ended

	mu      sync.Mutex
	queue   []byte
	dropped int  // lines, since that was last said
	awake   bool // run looks at the queue again without being woken
}

func newAsyncWriter(out io.Writer) *asyncWriter {
	w := &asyncWriter{out: out, wake: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one line.
func (w *asyncWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue)+len(line) > logQueue {
		w.dropped++
		return len(line), nil
	}
	w.queue = append(w.queue, line...)
	if !w.awake {
		w.awake = true
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

// take empties the queue; spare is what the next lines are kept in. Where there is nothing, run has to be woken again.
func (w *asyncWriter) take(spare []byte) (lines []byte, dropped int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, dropped = w.queue, w.dropped
	w.queue, w.dropped = spare[:0], 0
	w.awake = len(lines) > 0
	return lines, dropped
}

func (w *asyncWriter) run() {
	defer close(w.done)
	var spare []byte
	for ended := false; !ended; {
		select {
		case <-w.wake:
		case <-w.ended:
			ended = true
		}
		for {
			lines, dropped := w.take(spare)
			spare = nil // the queue has it now
			if len(lines) == 0 {
				break
			}
			_, _ = w.out.Write(lines)
			if dropped > 0 {
				fmt.Fprintf(w.out, "{\"level\":\"WARN\",\"msg\":\"log lines dropped\",\"count\":%d}\n", dropped) // JSON, whatever the format: it is for machines
			}
			spare = lines
			select {
			case <-time.After(logPause):
			case <-w.ended:
				ended = true
			}
		}
	}
}

// flush waits, for a second at most, until what was logged so far is out. Nothing may be logged after.
func (w *asyncWriter) flush() {
	close(w.ended)
	select {
	case <-w.done:
	case <-time.After(time.Second):
	}
}
