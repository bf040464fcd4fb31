// A cluster as a machine: the local driver.

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postern/postern/machines"
)

// Sleep is how a machine sleeps.
type Sleep string

const (
	SleepStop    Sleep = "stop"    // no process is left; the default
	SleepSuspend Sleep = "suspend" // frozen with its memory and connections; on Linux alone, elsewhere stopped
)

// MachineOptions say how a machine is made and run. Options.Dir alone is required.
type MachineOptions struct {
	Options
	Sleep Sleep
	// Shared says that other processes may run the machine as well: each finds what another has started, and changes are made under the
	// lock of its fence. A server ends with the process that has started it.
	Shared bool
	// Roles can log in. They are made, or given their secret, at the first wake and whenever they have changed since. The
	// superuser of the cluster cannot be one. A role that is no longer wanted stays: it may own something.
	Roles []Role
	// Databases are made if absent, for the first role.
	Databases []string
}

func (o MachineOptions) wanted() wanted { return wanted{o.Roles, o.Databases} }

// Validate finds mistakes without any I/O. A machine with a mistake does not wake.
func (o MachineOptions) Validate() error {
	switch o.Sleep {
	case "", SleepStop, SleepSuspend:
	default:
		return fmt.Errorf("sleep %q is neither %q nor %q", o.Sleep, SleepStop, SleepSuspend)
	}
	if o.Dir == "" {
		return errNoDir
	}
	return o.wanted().check(o.superuser())
}

// MachineDir is the Options.Dir of one of several machines that share a folder. A name is one element of a path, for it may
// come from people who have no business anywhere else.
func MachineDir(folder, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return "", fmt.Errorf("machine name %q is not one element of a path", name)
	}
	return filepath.Join(folder, name), nil
}

// Machine runs a cluster as a [machines.Driver]. Its methods may be called from any goroutine; those that change it wait
// for each other. What it has started ends with Close.
type Machine struct {
	opts     MachineOptions // immutable, but for Roles and Databases, which are in want
	noFreeze sync.Once      // says so in the log

	mu         sync.Mutex // guards what follows; never held while waiting
	want       wanted
	cluster    *Cluster // nil before the first wake
	op         *operation
	closed     bool
	starts     int // of the server
	generation machines.Generation
}

var _ machines.Driver = (*Machine)(nil)

// NewMachine returns the machine of a folder. It does no I/O: the cluster is made by the first wake.
func NewMachine(o MachineOptions) *Machine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	want := o.wanted().clone()
	o.Roles, o.Databases = nil, nil
	return &Machine{opts: o, want: want}
}

// Cluster is the machine's cluster, nil before the first wake.
func (m *Machine) Cluster() *Cluster {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cluster
}

// State never waits. A server that died by itself, or is frozen, sleeps.
func (m *Machine) State(context.Context) (machines.Status, error) {
	m.mu.Lock()
	c, op, generation := m.cluster, m.op, m.generation
	m.mu.Unlock()
	switch {
	case op != nil && op.changing.Load():
		return machines.Status{Power: machines.Changing}, nil
	case c == nil || !c.Running():
		if o := m.other(); o != nil {
			return o.status(), nil
		}
		return machines.Status{Power: machines.Asleep}, nil
	case c.Frozen():
		return machines.Status{Power: machines.Asleep}, nil
	}
	return machines.Status{Power: machines.Running, Generation: generation}, nil
}

// Endpoint is a port on this computer. It stays the same from start to start unless somebody else has taken it meanwhile.
func (m *Machine) Endpoint(context.Context) (machines.Endpoint, error) {
	port := m.opts.Port
	if c := m.Cluster(); c != nil {
		port = c.Port()
	}
	if o := m.other(); o != nil {
		port = o.port
	}
	if port == 0 {
		return machines.Endpoint{}, failed("endpoint", errors.New("the machine was never awake: it has no port yet"))
	}
	return machines.Endpoint{Host: "127.0.0.1", Port: uint16(port)}, nil
}

// Wake makes the cluster if there is none, starts or thaws its server, and makes the roles and databases that are wanted
// and were not made before. It waits for a suspend that is under way. When it fails, the machine sleeps as it did before.
func (m *Machine) Wake(ctx context.Context) (machines.Status, error) {
	op, ctx, err := m.begin(ctx, false)
	if err != nil {
		return machines.Status{}, failed("wake", err)
	}
	defer m.finish(op)
	if err := m.fenced(ctx, func() error { return m.wake(ctx, op) }); err != nil {
		return machines.Status{}, failed("wake", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return machines.Status{Power: machines.Running, Generation: m.generation}, nil
}

func (m *Machine) wake(ctx context.Context, op *operation) error {
	c, err := m.open(ctx, op)
	if err != nil {
		return err
	}
	if o := m.other(); o != nil {
		if err := m.join(ctx, c, op, o); !errors.Is(err, errOtherEnded) {
			return err
		}
	}
	var undo func() error
	switch {
	case !c.Running():
		op.changing.Store(true)
		if err := c.Start(ctx); err != nil {
			return err
		}
		m.newGeneration(c, 1)
		undo = func() error { return c.Stop(ctx, Fast) } // fast, but at once if ctx has ended
	case c.Frozen():
		op.changing.Store(true)
		c.Thaw()
		m.newGeneration(c, 0)
		undo = func() error { return c.Freeze(context.WithoutCancel(ctx)) }
	}
	err = m.apply(ctx, c)
	if err != nil && undo != nil {
		return errors.Join(err, undo()) // or it would be taken for one that is ready
	}
	return err
}

// open returns the cluster and makes it if need be.
func (m *Machine) open(ctx context.Context, op *operation) (*Cluster, error) {
	if c := m.Cluster(); c != nil {
		return c, nil
	}
	o := m.opts
	m.mu.Lock()
	o.Roles, o.Databases = m.want.roles, m.want.databases
	m.mu.Unlock()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	op.changing.Store(true)
	c, err := Create(ctx, o.Options)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.cluster = c
	m.mu.Unlock()
	return c, nil
}

// newGeneration begins one, after so many starts: none is a thaw, which is the same instance at another time.
func (m *Machine) newGeneration(c *Cluster, starts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts += starts
	m.generation = machines.Generation{Instance: fmt.Sprintf("%d-%d", c.PID(), m.starts), Started: time.Now()}
}

func (m *Machine) apply(ctx context.Context, c *Cluster) error {
	m.mu.Lock()
	want := m.want
	m.mu.Unlock()
	began := time.Now()
	made, err := c.apply(ctx, want)
	if err != nil {
		return err
	}
	if n, d := len(made.roles), len(made.databases); n+d > 0 {
		m.opts.Log.Info("roles and databases made", "dir", c.Dir(), "roles", n, "databases", d, "seconds", time.Since(began).Seconds())
	}
	return nil
}

// Reconfigure replaces the roles and databases that are wanted. If the server runs they are made before it returns; if not,
// or if that fails, by the next wake.
func (m *Machine) Reconfigure(ctx context.Context, roles []Role, databases []string) error {
	want := wanted{roles, databases}.clone()
	if err := want.check(m.opts.superuser()); err != nil {
		return fmt.Errorf("%v: %w", m, err)
	}
	m.mu.Lock()
	m.want = want
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	op, ctx, err := m.begin(ctx, false)
	if err != nil {
		return fmt.Errorf("%v: %w", m, err)
	}
	defer m.finish(op)
	o := m.other()
	if c := m.Cluster(); c != nil && (c.Running() && !c.Frozen() || o != nil && o.ready && !o.frozen) {
		if err := m.apply(ctx, c); err != nil {
			return fmt.Errorf("%v: %w", m, err)
		}
	}
	return nil
}

// Suspend puts the server to sleep. When ctx ends before it sleeps, it goes to sleep without anybody waiting, and a wake
// waits for that: to hurry a stop is to crash the server. Where processes share the machine, it is waited for all the same, because the
// right to do it is given back afterwards.
func (m *Machine) Suspend(ctx context.Context) error {
	op, patient, err := m.begin(ctx, true)
	if err != nil {
		return failed("suspend", err)
	}
	result := make(chan error, 1)
	go func() {
		begins, cancel := context.WithCancelCause(patient) // ends with ctx and with patient: it may not begin after either
		stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
		err := m.fenced(begins, func() error { return m.suspend(patient, op) })
		stop()
		cancel(nil)
		m.finish(op)
		result <- err
	}()
	if m.opts.Shared {
		return failed("suspend", <-result)
	}
	select {
	case err := <-result:
		return failed("suspend", err)
	case <-ctx.Done():
		return failed("suspend", context.Cause(ctx))
	}
}

func (m *Machine) suspend(ctx context.Context, op *operation) error {
	if o := m.other(); o != nil {
		return m.suspendOther(ctx, op, o)
	}
	c := m.Cluster()
	if c == nil || !c.Running() || c.Frozen() {
		return nil
	}
	op.changing.Store(true)
	if m.opts.Sleep == SleepSuspend {
		err := c.Freeze(ctx)
		if !errors.Is(err, ErrNoFreeze) {
			return err
		}
		m.noFreeze.Do(func() { m.opts.Log.Warn("machines are stopped instead of suspended", "dir", m.opts.Dir, "error", err) })
	}
	if err := c.Stop(ctx, Fast); err != nil {
		m.opts.Log.Warn("machine stopped by force", "dir", m.opts.Dir, "error", err) // it sleeps all the same
	}
	return nil
}

// Close stops the server for good, also a frozen one, and returns when no process is left. A start under way is given up, a
// stop under way is waited for. When ctx ends, all of it is hurried.
func (m *Machine) Close(ctx context.Context) error {
	m.closeOperations(ctx)
	c := m.Cluster()
	if c == nil {
		return nil
	}
	c.Thaw()
	return c.Stop(ctx, Fast)
}

// String names the machine by its folder.
func (m *Machine) String() string { return "local machine in " + m.opts.Dir }

// Format keeps the secrets out of every verb.
func (m *Machine) Format(f fmt.State, _ rune) { fmt.Fprint(f, m.String()) }

// LogValue keeps the secrets out of logs.
func (m *Machine) LogValue() slog.Value { return slog.StringValue(m.String()) }
