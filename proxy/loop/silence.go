// Peers that acknowledge nothing any more: the kernel is asked, now and then, about connections that have sent something.

package loop

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSilent is why a connection is broken whose peer has acknowledged nothing for too long. It is an ETIMEDOUT.
var ErrSilent = fmt.Errorf("the peer acknowledges nothing: %w", unix.ETIMEDOUT)

const (
	// silenceLeast is the shortest limit. Linux answers probes of a closed window once in half a second, so that some of those
	// that come early get no answer (net.ipv4.tcp_invalid_ratelimit).
	silenceLeast = 2 * time.Second
	// silenceLooks is how often within the limit a connection is looked at.
	silenceLooks = 4
	// silenceParts is how many parts the connections are looked at in, so that no turn of the loop becomes long.
	silenceParts = 8
)

// outgoing is what the kernel says of what was sent.
type outgoing struct {
	unacked, unsent uint32        // segments, bytes
	probes          uint32        // of a window that is closed, not answered yet
	lastAck         time.Duration // ago
}

// silence tells a peer that is gone from one that takes its time. Linux's TCP_USER_TIMEOUT does not: it also ends a
// connection whose peer does not read for so long, though it acknowledges all the while.
type silence struct {
	since time.Time // since when something is sent that was not acknowledged; zero: nothing is
}

// verdict is what becomes of a connection.
type verdict uint8

const (
	settled verdict = iota // all was acknowledged
	alive
	dead
)

// judge is told what the kernel says at a time. A peer with a closed window is asked ever more rarely, so the latest
// acknowledgement may be old although each question was answered.
func (s *silence) judge(o outgoing, now time.Time, limit time.Duration) verdict {
	switch {
	case o.unacked == 0 && o.probes == 0:
		s.since = time.Time{}
		if o.unsent == 0 {
			return settled
		}
	case s.since.IsZero():
		s.since = now
	case min(now.Sub(s.since), o.lastAck) >= limit:
		return dead
	}
	return alive
}

// EndSilent has connections fail with ErrSilent whose peer leaves what was sent unacknowledged for so long, and for two
// seconds at least; 0: none. Call it before Run.
func (l *Loop) EndSilent(after time.Duration) { l.silentFor = silenceLimit(after) }

func silenceLimit(d time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return max(d, silenceLeast)
}

// checkSilent looks at a part of the connections, as long as there are any.
func (l *Loop) checkSilent() {
	for fd := l.silencePart; fd < len(l.conns); fd += silenceParts {
		if c := l.conns[fd]; c != nil && c.owing {
			c.checkSilent()
		}
	}
	l.silencePart = (l.silencePart + 1) % silenceParts
	if l.attached > 0 {
		l.checkSilentLater()
	}
}

func (l *Loop) checkSilentLater() {
	if l.silentFor == 0 || l.silenceTimer.Armed() {
		return
	}
	next := l.silentFor / (silenceLooks * silenceParts)
	if l.silenceTimer == nil {
		l.silenceTimer = l.AfterFunc(next, l.checkSilent)
		return
	}
	l.silenceTimer.Reset(next)
}

func (c *Conn) checkSilent() {
	o, ok := outgoingOf(c.fd)
	if !ok {
		c.owing = false // no TCP connection any more
		return
	}
	switch c.silence.judge(o, c.loop.now, c.loop.silentFor) {
	case settled:
		c.owing = false // until something is sent again
	case dead:
		c.owing = false
		c.fail(ErrSilent)
	}
}

// AwaitSilence returns true when the peer of a connection that no loop owns is as silent as EndSilent says, and false when ctx
// ends or the connection was closed; 0: never before that.
func AwaitSilence(ctx context.Context, conn syscall.Conn, after time.Duration) bool {
	raw, err := conn.SyscallConn()
	if err != nil || after == 0 {
		return false
	}
	after = silenceLimit(after)
	tick := time.NewTicker(after / silenceLooks)
	defer tick.Stop()
	var s silence
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		var o outgoing
		ok := false
		if raw.Control(func(fd uintptr) { o, ok = outgoingOf(int(fd)) }) != nil || !ok {
			return false
		}
		if s.judge(o, time.Now(), after) == dead {
			return true
		}
	}
}
