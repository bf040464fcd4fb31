// Lane: work on files that may hang, one piece at a time, and waited for no longer than is sensible.

package files

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// patience is how long anybody waits for work on files.
const patience = 10 * time.Second

// ErrSlow is in every error that says that work on files was waited for long enough.
var ErrSlow = errors.New("the file system takes too long")

// Lane is where work on files is done that can hang, one piece at a time. A system call that hangs cannot be interrupted: its
// goroutine, and the thread under it, stay until it returns. So nobody waits for it longer than patience, and while it hangs
// all that would follow is refused: there is one such goroutine for a lane. Files that have nothing to do with each other are
// read in lanes of their own. Safe for concurrent use.
type Lane struct {
	turn chan struct{} // has room for one: who works

	mu   sync.Mutex
	late string // what work is waited for no more and goes on; "": none
}

// NewLane makes a lane in which nothing is done.
func NewLane() *Lane { return &Lane{turn: make(chan struct{}, 1)} }

// Do has f done in a lane and returns what it does. what names it in errors, such as "reading /a/file".
func Do[T any](l *Lane, what string, f func() (T, error)) (T, error) {
	var nothing T
	if err := l.hangs(); err != nil {
		return nothing, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case l.turn <- struct{}{}:
	case <-timer.C:
		return nothing, fmt.Errorf("%s: %w", what, ErrSlow)
	}

	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := f()
		done <- outcome{value, err}
		l.mu.Lock()
		l.late = ""
		l.mu.Unlock()
		<-l.turn
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-timer.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case o := <-done: // just now: nobody would take the mark away
		return o.value, o.err
	default:
		l.late = what
		return nothing, fmt.Errorf("%s: %w", what, ErrSlow)
	}
}

// hangs says what is waited for no more, if something is.
func (l *Lane) hangs() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late != "" {
		return fmt.Errorf("%s: %w, and still does", l.late, ErrSlow)
	}
	return nil
}

// Read is [Read] in the lane.
func (l *Lane) Read(path string, limit int) ([]byte, error) {
	return Do(l, "reading "+path, func() ([]byte, error) { return Read(path, limit) })
}
