// A log writer that never makes anybody wait or end: event loops log, and whoever reads the log may have stopped or gone.

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// logQueue is how many bytes of lines may wait for the reader of the log.
	logQueue = 1 << 20
	// logPause is for how long lines are gathered once one has been written. A line that comes alone is written at once;
	// of a thousand in a second each would wake a thread and be a system call.
	logPause = 20 * time.Millisecond
)

// survivePipes has a write to a pipe without a reader fail with EPIPE. Go ends a process that writes to such a standard
// error, unless somebody asks for the signal. It is asked for, not ignored: children would inherit that.
func survivePipes() (restore func()) {
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	return func() { signal.Stop(unread) }
}

// asyncWriter passes lines on in a goroutine of its own and drops those that
// find its queue full or cannot be written. Safe for concurrent use.
type asyncWriter struct {
	lost atomic.Uint64 // lines, in all

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
		w.drop(1)
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

// drop counts lines. mu is held.
func (w *asyncWriter) drop(lines int) {
	w.dropped += lines
	w.lost.Add(uint64(lines))
}

// write passes lines on, and then how many were dropped since that was last said. What cannot be written is dropped.
func (w *asyncWriter) write(lines []byte, dropped int) {
	n, err := w.out.Write(lines)
	if err == nil && dropped > 0 {
		// JSON, whatever the format: it is for machines.
		if _, err := fmt.Fprintf(w.out, "{\"level\":\"WARN\",\"msg\":\"log lines dropped\",\"count\":%d}\n", dropped); err == nil {
			dropped = 0
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.drop(bytes.Count(lines[n:], []byte("\n")))
	}
	w.dropped += dropped // to be said another time
}

// take empties the queue; spare is what the next lines are kept in. Where there is nothing, run has to be woken again.
func (w *asyncWriter) take(spare []byte) (lines []byte, dropped int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.awake = len(w.queue) > 0
	if !w.awake {
		return nil, 0 // what was dropped is said with the next line
	}
	lines, dropped = w.queue, w.dropped
	w.queue, w.dropped = spare[:0], 0
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
			if len(lines) == 0 {
				break
			}
			w.write(lines, dropped)
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
