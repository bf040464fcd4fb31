// One machine: what it is doing, and where its Postgres listens.

package fly

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/machines"
)

// The driver's operations, as machines.Error names them.
const (
	inState    = "state"
	inWake     = "wake"
	inSuspend  = "suspend"
	inEndpoint = "endpoint"
)

// Sleep is how a machine is put to sleep.
type Sleep uint8

const (
	// Suspend keeps the memory in a snapshot: waking takes some hundred milliseconds, mostly.
	Suspend Sleep = iota
	// Stop shuts the machine down: waking is a boot.
	Stop
)

// MachineOptions name a machine.
type MachineOptions struct {
	App   string
	ID    string
	Port  uint16 // where Postgres listens on the machine's private address
	Sleep Sleep  // a machine that cannot be suspended is stopped, whatever this says
}

// Machine is the driver of one machine. State and Endpoint may run at any time; of Wake and Suspend one at a time, and
// others wait.
type Machine struct {
	client *Client
	opts   MachineOptions
	log    *slog.Logger

	turn      chan struct{}  // held through Wake and through Suspend
	ending    sync.WaitGroup // leases that are given back; of who has the turn
	after     doubt          // of the last Suspend; guarded by turn
	stopsOnly atomic.Bool    // the API said that the machine cannot be suspended
	stopsOnce sync.Once      // for the log
}

var _ machines.Driver = (*Machine)(nil)

// NewMachine returns the driver of a machine. It calls nobody.
func NewMachine(c *Client, o MachineOptions) (*Machine, error) {
	if !nameForm.MatchString(o.App) {
		return nil, fmt.Errorf("fly: %q is no name of an app", o.App)
	}
	if !nameForm.MatchString(o.ID) {
		return nil, fmt.Errorf("fly: %q is no id of a machine", o.ID)
	}
	if o.Port == 0 {
		return nil, errors.New("fly: a machine needs the port of its Postgres")
	}
	return &Machine{client: c, opts: o, log: c.log.With("app", o.App, "machine", o.ID), turn: make(chan struct{}, 1)}, nil
}

// String names the machine.
func (m *Machine) String() string { return "fly machine " + m.opts.App + "/" + m.opts.ID }

// State implements machines.Driver.
func (m *Machine) State(ctx context.Context) (machines.Status, error) {
	s, _, err := m.look(ctx)
	if err != nil {
		return machines.Status{}, failure(inState, err)
	}
	return s, nil
}

// Endpoint implements machines.Driver. The address is asked for each time: it changes when Fly moves the machine.
func (m *Machine) Endpoint(ctx context.Context) (machines.Endpoint, error) {
	_, i, err := m.look(ctx)
	if err != nil {
		return machines.Endpoint{}, failure(inEndpoint, err)
	}
	ip, err := netip.ParseAddr(i.PrivateIP)
	if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
		return machines.Endpoint{}, failure(inEndpoint, fmt.Errorf("fly: %.64q is no address of a machine", i.PrivateIP))
	}
	return machines.Endpoint{Host: ip.String(), Port: m.opts.Port}, nil
}

// look asks for the machine. A machine that is gone, or whose host does not answer, is an error: its state is old news.
func (m *Machine) look(ctx context.Context) (machines.Status, *Info, error) {
	i, err := m.client.Get(ctx, m.opts.App, m.opts.ID)
	if err != nil {
		return machines.Status{}, nil, err
	}
	switch i.State {
	case "destroying", "destroyed", "replaced", "migrated":
		return machines.Status{}, nil, &machines.Error{Kind: machines.Gone, Err: fmt.Errorf("fly: the machine is %s", i.State)}
	}
	if i.HostStatus != "" && i.HostStatus != "ok" {
		return machines.Status{}, nil, &machines.Error{Kind: machines.Unreachable, Err: fmt.Errorf("fly: the machine's host is %.64s", i.HostStatus)}
	}
	return machines.Status{Power: power(i.State), Generation: generation(i)}, i, nil
}

// power maps Fly's states. A machine that has failed stays so until somebody acts, and the act is a start: it is asleep.
// launch_failed is on its way to something else.
func power(state string) machines.Power {
	switch state {
	case "started":
		return machines.Running
	case "stopped", "suspended", "created", "failed":
		return machines.Asleep
	case "creating", "starting", "stopping", "suspending", "restarting", "updating", "replacing", "launch_failed":
		return machines.Changing
	}
	return machines.PowerUnknown
}

// generation is the run that the machine is in, or was in last. See the package comment on what counts as a start.
func generation(i *Info) machines.Generation {
	var newest int64
	for _, e := range i.Events {
		if e.Type == "start" && e.Status == "started" {
			newest = max(newest, e.Timestamp)
		}
	}
	g := machines.Generation{Instance: i.InstanceID}
	if newest > 0 {
		g.Started = time.UnixMilli(newest)
	}
	return g
}

// failure is a driver's error for what a call or a look ended with.
func failure(op string, err error) error {
	var known *machines.Error
	if errors.As(err, &known) {
		return &machines.Error{Kind: known.Kind, Op: op, After: known.After, Err: known.Err}
	}
	return &machines.Error{Kind: kindOf(err), Op: op, After: afterOf(err), Err: err}
}

// ended is the error of an operation whose context has ended: what was in the way, if anything was, says more than that
// the time was over.
func ended(ctx context.Context, op string, last error) error {
	cause := context.Cause(ctx)
	if last == nil {
		return failure(op, cause)
	}
	return &machines.Error{Kind: kindOf(last), Op: op, After: afterOf(last), Err: fmt.Errorf("%w; last: %w", cause, last)}
}

// take waits until nobody else wakes or suspends the machine.
func (m *Machine) take(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Machine) release() { <-m.turn }

// sleep pauses, or returns false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
