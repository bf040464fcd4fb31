// A server that another process has started in the folder of a machine that both share.

package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/postern/postern/machines"
)

// other is such a server.
type other struct {
	first   member
	started int64 // seconds since 1970, by its own word
	port    int
	ready   bool // it takes logins
	frozen  bool
}

func (o *other) status() machines.Status {
	switch {
	case o.frozen:
		return machines.Status{Power: machines.Asleep}
	case !o.ready:
		return machines.Status{Power: machines.Changing}
	}
	return machines.Status{Power: machines.Running, Generation: o.generation()}
}

func (o *other) generation() machines.Generation {
	return machines.Generation{Instance: fmt.Sprintf("%d-shared", o.first.pid), Started: time.Unix(o.started, 0)}
}

// other is the server that another process runs in the machine's folder; nil: none does, or the folder is this process's alone.
func (m *Machine) other() *other {
	if !m.opts.Shared {
		return nil
	}
	c := m.Cluster()
	if c != nil && c.Running() {
		return nil
	}
	o, err := findOther(filepath.Join(m.opts.Dir, dataName))
	if err != nil {
		m.opts.Log.Warn("it is not known whether another process runs the machine", "dir", m.opts.Dir, "error", err)
	}
	return o
}

var errOtherEnded = errors.New("the server of another process has ended")

// join lets a machine run on that another process has started: it is thawed, and has its roles and databases. errOtherEnded: it does not
// run any more.
func (m *Machine) join(ctx context.Context, c *Cluster, op *operation, o *other) error {
	if o.frozen {
		op.changing.Store(true)
		thaw(o.first.pid, nil)
		m.opts.Log.Info("PostgreSQL of another process thawed", "dir", m.opts.Dir, "pid", o.first.pid)
	}
	for ; o != nil && (!o.ready || o.frozen); o = m.other() {
		op.changing.Store(true)
		if err := pause(ctx, orphanPause); err != nil {
			return err
		}
	}
	if o == nil {
		return errOtherEnded
	}
	c.mu.Lock()
	c.port = o.port
	c.mu.Unlock()
	m.mu.Lock()
	m.generation = o.generation()
	m.mu.Unlock()
	return m.apply(ctx, c)
}

// suspendOther puts the server of another process to sleep, as that one would.
func (m *Machine) suspendOther(ctx context.Context, op *operation, o *other) error {
	if o.frozen {
		return nil
	}
	op.changing.Store(true)
	if m.opts.Sleep == SleepSuspend {
		ctx, cancel := context.WithTimeout(ctx, freezeLimit)
		defer cancel()
		stopped, err := freeze(ctx, o.first.pid)
		if err != nil {
			thaw(o.first.pid, stopped)
			return fmt.Errorf("freezing PostgreSQL of another process in %s: %w", m.opts.Dir, err)
		}
		m.opts.Log.Info("PostgreSQL of another process frozen", "dir", m.opts.Dir, "processes", len(stopped))
		return nil
	}
	l := Leftover{dir: m.opts.Dir, first: o.first, log: m.opts.Log}
	how, err := l.stop(ctx)
	if err != nil {
		return fmt.Errorf("stopping PostgreSQL of another process in %s: %w", m.opts.Dir, err)
	}
	m.opts.Log.Info("PostgreSQL of another process stopped", "dir", m.opts.Dir, "pid", o.first.pid, "how", how)
	return nil
}
