// What runs a machine: the driver's contract, and the ways in which it can fail.

package machines

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// A Driver runs one machine: a Fly machine, or a PostgreSQL cluster on this
// computer. Its methods block, and return early when ctx ends. One owner calls
// them, State and Endpoint perhaps while Wake or Suspend runs, Wake and Suspend
// never at the same time. Errors are an *Error where the driver knows what
// they mean; any other error counts as Transient.
type Driver interface {
	// State asks what the machine is doing. It changes nothing.
	State(ctx context.Context) (Status, error)
	// Wake starts the machine, or resumes it, and returns when it runs. Whether
	// Postgres answers yet is not its affair. Waking a running machine is no
	// error and does nothing.
	Wake(ctx context.Context) (Status, error)
	// Suspend puts the machine to sleep and returns when it sleeps. If ctx ends
	// before, the machine may go to sleep still, and Wake may be called at once.
	// Suspending a sleeping machine is no error and does nothing.
	Suspend(ctx context.Context) error
	// Endpoint says where the running machine's Postgres listens now. It is
	// asked after each wake and after a failed dial, because addresses change.
	Endpoint(ctx context.Context) (Endpoint, error)
}

// Status is what a driver saw.
type Status struct {
	Power      Power
	Generation Generation
}

// Power is what a machine is doing, in the few words that all providers share.
type Power uint8

const (
	PowerUnknown Power = iota
	Asleep             // suspended or stopped: a wake is needed
	Running            // started; Postgres may not answer yet
	Changing           // starting, stopping or suspending: neither yet
)

// String names the power state for logs.
func (p Power) String() string {
	return [...]string{"unknown", "asleep", "running", "changing"}[p]
}

// Generation tells one run of a machine from the next: connections that were
// made to one are lies in the next. The zero value means that none is known.
type Generation struct {
	Instance string    // the provider's name for the incarnation
	Started  time.Time // of its last start or resume
}

// Same reports whether both are the same run.
func (g Generation) Same(o Generation) bool {
	return g.Instance == o.Instance && g.Started.Equal(o.Started)
}

// Endpoint is where Postgres listens.
type Endpoint struct {
	Host string // a name or an IP address without brackets
	Port uint16
}

// String is the endpoint as host:port.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))) }

// Kind says what a failure means for those who wait.
type Kind uint8

const (
	Transient   Kind = iota // trying again may help
	Capacity                // the provider has no room for it now
	Busy                    // somebody else holds it: a lease, or an operation under way
	RateLimited             // asked too often
	Auth                    // the provider does not know us, or does not let us
	Gone                    // there is no such machine
	Unreachable             // the host that it lives on does not answer
)

// String is the kind as a metric label.
func (k Kind) String() string {
	return [...]string{"transient", "capacity", "busy", "rate_limited", "auth", "gone", "unreachable"}[k]
}

// Error is a driver's failure of a known kind.
type Error struct {
	Kind  Kind
	Op    string        // state, wake, suspend or endpoint
	After time.Duration // not to be tried again before; 0: not said
	Err   error         // the cause, for the log alone
}

func (e *Error) Error() string { return fmt.Sprintf("machine: %s: %s: %v", e.Op, e.Kind, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns what an error means: Transient unless a driver said more.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Transient
}
