// memberlist's log in ours: its levels, and not more lines than somebody can read.

package cluster

import (
	"context"
	"io"
	"log"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"
)

// linesPerMinute is how many lines of one kind are logged; whoever sends garbage could fill the log otherwise.
const linesPerMinute = 10

// limiter counts lines by kind, of which there are few.
type limiter struct {
	mu     sync.Mutex
	minute time.Time
	counts map[string]int
}

// allow says whether a line of this kind may be logged now; last, that it is the last one for this minute.
func (l *limiter) allow(kind string, now time.Time) (ok, last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.minute) >= time.Minute {
		l.minute, l.counts = now, make(map[string]int)
	}
	l.counts[kind]++
	return l.counts[kind] <= linesPerMinute, l.counts[kind] == linesPerMinute
}

// warn logs a line that somebody else can provoke.
func (c *Cluster) warn(kind string, args ...any) { c.warnOf("", kind, args...) }

// warnOf is warn about a node, whose lines are counted for themselves.
func (c *Cluster) warnOf(node, kind string, args ...any) {
	if ok, last := c.lines.allow(kind+node, time.Now()); ok {
		if last {
			args = append(args, "more", "not logged for a minute")
		}
		c.log.Warn(kind, args...)
	}
}

// gossipLog takes memberlist's lines, such as "[WARN] memberlist: Refuting a suspect message".
type gossipLog struct {
	log     *slog.Logger
	own     string // name of this node
	suspect func(member string)
	lines   limiter
}

func gossipLogger(to *slog.Logger, own string, suspect func(member string)) *log.Logger {
	return log.New(&gossipLog{log: to, own: own, suspect: suspect}, "", 0)
}

var _ io.Writer = (*gossipLog)(nil)

// suspected is the line with which memberlist begins to suspect a member that did not answer.
var suspected = regexp.MustCompile(`^Suspect (\S+) has failed, no acks received$`)

// misled is the line about a ping for somebody else at this address.
var misled = regexp.MustCompile(`^Got ping for unexpected node '?([^/' ]+)/`)

func (g *gossipLog) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	level := slog.LevelWarn
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, after, ok := strings.Cut(rest, "] "); ok {
			text = after
			level = gossipLevel(name)
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if m := suspected.FindStringSubmatch(text); m != nil {
		g.suspect(m[1])
	}
	if m := misled.FindStringSubmatch(text); m != nil && m[1] == g.own {
		level = slog.LevelDebug // it is for the process before this one, of which others do not know yet that it has ended
	}
	if !g.log.Enabled(context.Background(), level) {
		return len(p), nil
	}
	kind, _, _ := strings.Cut(text, ":")
	if level > slog.LevelDebug {
		ok, last := g.lines.allow(firstWords(kind), time.Now())
		if !ok {
			return len(p), nil
		}
		if last {
			text += " (more of this is not logged for a minute)"
		}
	}
	g.log.Log(context.Background(), level, "gossip", "says", text)
	return len(p), nil
}

// firstWords keeps the kinds few: names and addresses stand behind.
func firstWords(text string) string {
	words := strings.Fields(text)
	return strings.Join(words[:min(2, len(words))], " ")
}

// gossipLevel is a level of ours: an error of memberlist's is one packet or stream that came to nothing.
func gossipLevel(name string) slog.Level {
	switch name {
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelDebug // who comes and goes is logged by those who read the store
	}
	return slog.LevelWarn
}
