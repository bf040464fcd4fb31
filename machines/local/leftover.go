// Servers that an earlier process has left below a folder: who may look for them, and how they are stopped.

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// leftoverPause is between two looks at a server that was told to stop.
const leftoverPause = 20 * time.Millisecond

// A Folder is where the machines of one process are. While it is claimed, no server runs below it that this process has not
// started, but for those that an earlier one has left.
type Folder struct {
	dir  *os.File // locked, for as long as the process lives and does not release it
	path string
	log  *slog.Logger
}

// ErrClaimed means that another process runs machines in the folder.
var ErrClaimed = errors.New("another process runs machines in this folder")

// Claim takes a folder, which is made if absent. The kernel gives it back when the process dies, however it dies.
func Claim(path string, log *slog.Logger) (*Folder, error) {
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return &Folder{dir, path, log}, nil
	}
	dir.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrClaimed
	}
	return nil, fmt.Errorf("%s: %w", path, err)
}

// Share lets other processes take part in a folder that this one has claimed.
func (f *Folder) Share() error { return syscall.Flock(int(f.dir.Fd()), syscall.LOCK_SH) }

// joinLimit is how long a process claims a folder at most before it shares it.
const joinLimit = 5 * time.Second

// Join takes part in a folder that another process has claimed and shares.
func Join(path string, log *slog.Logger) (*Folder, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), joinLimit)
	defer cancel()
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
		if err == nil {
			return &Folder{dir, path, log}, nil
		}
		if pause(ctx, leftoverPause) != nil {
			dir.Close()
			return nil, fmt.Errorf("%s: %w", path, ErrClaimed)
		}
	}
}

// Alone reports whether no other process takes part in the folder, and from then on none does before it is released.
func (f *Folder) Alone() bool {
	return syscall.Flock(int(f.dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

// Release gives the folder back.
func (f *Folder) Release() { f.dir.Close() }

// A Leftover is a server that nobody owns any more, or what is left of one. It runs, or is frozen.
type Leftover struct {
	dir    string   // of its cluster
	first  member   // the server's first process; without a pid: it has ended
	others []member // that are left of it
	log    *slog.Logger
}

// String names the server by its directory.
func (l *Leftover) String() string { return "PostgreSQL that was left in " + l.dir }

// Stop thaws the server and stops it in order, and by force when it takes too long or ctx ends. It returns when no process
// is left. After an error some may be.
func (l *Leftover) Stop(ctx context.Context) error {
	began := time.Now()
	how, err := l.stop(ctx)
	if err != nil {
		return fmt.Errorf("%v: %w", l, err)
	}
	l.log.Info("a server that an earlier Postern has left was stopped", "dir", l.dir, "pid", l.first.pid, "how", how, "seconds", time.Since(began).Seconds())
	return nil
}

func (l *Leftover) stop(ctx context.Context) (how string, err error) {
	all := append([]member{l.first}, l.others...)
	for _, m := range all { // the children, too: the first waits for them
		m.signal(syscall.SIGCONT)
	}
	for _, step := range []struct {
		how    string
		signal syscall.Signal
		limit  time.Duration
		until  <-chan struct{}
	}{
		{string(Fast), syscall.SIGINT, fastLimit, ctx.Done()},
		{string(Immediate), syscall.SIGQUIT, immediateLimit, nil},
		{killed, syscall.SIGKILL, immediateLimit, nil},
	} {
		l.first.signal(step.signal)
		if step.signal == syscall.SIGKILL {
			for _, m := range l.others {
				m.signal(syscall.SIGKILL)
			}
		}
		if gone(all, step.limit, step.until) {
			return step.how, nil
		}
	}
	return "", errors.New("it does not stop, and cannot be killed")
}

// gone waits until all of the processes have ended.
func gone(all []member, limit time.Duration, until <-chan struct{}) bool {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(leftoverPause)
	defer tick.Stop()
	for {
		left := false
		for _, m := range all {
			left = left || m.lives()
		}
		if !left {
			return true
		}
		select {
		case <-tick.C:
		case <-late.C:
			return false
		case <-until:
			return false
		}
	}
}
