// A server that is frozen where it stands, and thawed.

package local

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNoFreeze means that this system offers no way to freeze a server. Only Linux does.
var ErrNoFreeze = errors.New("servers cannot be frozen on this system")

// freezeLimit bounds a Freeze. It takes a few milliseconds unless a process hangs in the kernel.
const freezeLimit = 5 * time.Second

// member is a process, told by the time of its birth from a later one of the same pid.
type member struct {
	pid  int
	born uint64 // in clock ticks since the system started
}

// Freeze stops every process of the server with SIGSTOP, so that it uses no CPU and keeps its memory, its port and its
// connections. Freezing one that is frozen, or does not run, does nothing. After an error the server runs on.
func (c *Cluster) Freeze(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	pid := c.PID()
	if pid == 0 || c.froze() && c.Frozen() {
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, freezeLimit)
	defer cancel()
	stopped, err := freeze(ctx, pid)
	if err != nil {
		thaw(pid, stopped)
		return fmt.Errorf("freezing %v: %w", c, err)
	}
	c.mu.Lock()
	c.frozen = stopped
	c.mu.Unlock()
	c.opts.Log.Info("PostgreSQL frozen", "dir", c.opts.Dir, "processes", len(stopped), "seconds", time.Since(began).Seconds())
	return nil
}

// Thaw lets a frozen server run on, also one that somebody else has stopped. Thawing any other does nothing.
func (c *Cluster) Thaw() {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.Frozen() || c.froze() {
		c.thaw()
	}
}

// thaw is for who has the turn. What Freeze has stopped is thawed even if the postmaster was killed meanwhile: its children
// cannot see that before.
func (c *Cluster) thaw() {
	c.mu.Lock()
	stopped := c.frozen
	c.frozen = nil
	c.mu.Unlock()
	thaw(c.PID(), stopped)
	c.opts.Log.Info("PostgreSQL thawed", "dir", c.opts.Dir)
}

// froze tells whether Freeze has stopped processes that nobody has thawed since.
func (c *Cluster) froze() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frozen) > 0
}

// Frozen tells whether the server's first process is there and stopped, by whomever.
func (c *Cluster) Frozen() bool {
	pid := c.PID()
	return pid != 0 && isStopped(pid)
}
