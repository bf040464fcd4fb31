// A log for what strangers can cause: each kind of line at most once in a while.

package proxy

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// logEvery is how often a line of one kind is written.
	logEvery = time.Second
	// logKinds bounds the kinds that are remembered.
	logKinds = 1024
)

// limitedLog drops what repeats and says how much it dropped. Safe for concurrent use.
type limitedLog struct {
	mu    sync.Mutex
	kinds map[string]*logKind
}

type logKind struct {
	last    time.Time
	dropped int
}

func newLimitedLog() *limitedLog { return &limitedLog{kinds: make(map[string]*logKind)} }

func (l *limitedLog) log(to *slog.Logger, level slog.Level, kind, message string, args ...any) {
	if !to.Enabled(context.Background(), level) {
		return
	}
	now := time.Now()
	l.mu.Lock()
	k := l.kinds[kind]
	if k == nil {
		if len(l.kinds) >= logKinds {
			clear(l.kinds)
		}
		k = &logKind{}
		l.kinds[kind] = k
	}
	if now.Sub(k.last) < logEvery {
		k.dropped++
		l.mu.Unlock()
		return
	}
	dropped := k.dropped
	k.last, k.dropped = now, 0
	l.mu.Unlock()
	if dropped > 0 {
		args = append(args, "alike_dropped", dropped)
	}
	to.Log(context.Background(), level, message, args...)
}
