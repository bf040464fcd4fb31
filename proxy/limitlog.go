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
	// logKinds bounds the kinds that are told apart.
	logKinds = 4096
)

// logKey names the lines that are alike. Only registered tenants get keys of their
// own: a stranger's are all alike, and one tenant's lines hide no other's.
type logKey struct{ tenant, cause string }

// logKey is the key of a line about a tenant that a client has named.
func (g *Gate) logKey(tenant, cause string) logKey {
	if _, known := g.opts.Directory.Tenant(tenant); !known {
		tenant = ""
	}
	return logKey{tenant, cause}
}

// limitedLog drops what repeats and says how much it dropped. Safe for concurrent use.
type limitedLog struct {
	mu    sync.Mutex
	kinds map[logKey]*logKind
	swept time.Time
}

type logKind struct {
	last    time.Time
	dropped int
}

func newLimitedLog() *limitedLog { return &limitedLog{kinds: make(map[logKey]*logKind)} }

func (l *limitedLog) log(to *slog.Logger, level slog.Level, key logKey, message string, args ...any) {
	if !to.Enabled(context.Background(), level) {
		return
	}
	l.mu.Lock()
	dropped, ok := l.pass(time.Now(), key)
	l.mu.Unlock()
	if !ok {
		return
	}
	if dropped > 0 {
		args = append(args, "alike_dropped", dropped)
	}
	to.Log(context.Background(), level, message, args...)
}

// pass reports whether a line may be written, and how many like it were not
// since the last one. Where there are too many kinds, tenants share one for each
// cause.
func (l *limitedLog) pass(now time.Time, key logKey) (dropped int, ok bool) {
	k := l.kinds[key]
	if k == nil && len(l.kinds) >= logKinds {
		l.sweep(now)
		if len(l.kinds) >= logKinds {
			key.tenant = ""
			k = l.kinds[key]
		}
	}
	if k == nil {
		k = &logKind{}
		l.kinds[key] = k
	}
	if now.Sub(k.last) < logEvery {
		k.dropped++
		return 0, false
	}
	dropped = k.dropped
	k.last, k.dropped = now, 0
	return dropped, true
}

// sweep lets go of kinds that have been quiet, at most once in logEvery.
func (l *limitedLog) sweep(now time.Time) {
	if now.Sub(l.swept) < logEvery {
		return
	}
	l.swept = now
	for key, k := range l.kinds {
		if now.Sub(k.last) >= logEvery {
			delete(l.kinds, key)
		}
	}
}
