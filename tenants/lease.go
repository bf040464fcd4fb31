// Leases: what one node at a time may do to something that all share, and which nodes use it.

package tenants

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Lease is the right of one process to change something for a while.
type Lease struct {
	Key   string // of what
	Owner string // name of the node
	Boot  string // of its process
	// Epoch is greater than that of every lease of the key before. What is changed remembers it, and refuses smaller ones: a process that
	// stood still for longer than its lease finds out there.
	Epoch int64
	// Takeover says that the process that had it before has not given it back, or nobody knows whether one had it: it may be acting still.
	Takeover bool
}

// HeldError says that somebody else has the lease.
type HeldError struct {
	Owner string        // name of a node
	For   time.Duration // at most, unless it is renewed
}

// Error implements error.
func (e *HeldError) Error() string {
	return fmt.Sprintf("node %q is changing it, for %v more at most", e.Owner, e.For.Round(time.Millisecond))
}

// UsedError says that others use what nobody may use.
type UsedError struct{ Nodes []string }

// Error implements error.
func (e *UsedError) Error() string { return "it is used by " + strings.Join(e.Nodes, ", ") }

// What a store says of leases beside.
var (
	ErrLeaseLost = errors.New("the lease has ended, or is another's")
	// ErrAbandoned says that the process that had the lease last has not given it back. Whoever takes it next makes sure that it does not act
	// any more.
	ErrAbandoned = errors.New("the lease was not given back")
	// ErrUnannounced says that the store does not know this process among its nodes yet, so that nobody would heed what it uses.
	ErrUnannounced = errors.New("the store does not know this node yet")
	// ErrLate says beside ErrAway that the store was heard of a moment ago: it is slow, and may answer who asks again.
	ErrLate = errors.New("the store has not answered in time")
	// ErrUnsettled says that the store was restored a moment ago, and nodes may not have said yet what they use.
	ErrUnsettled = errors.New("the store is another one than it was: nodes have to say again what they use")
)

// LeaseNews is what another process has written down of leases.
type LeaseNews struct {
	Key string
	// Changed says that what the lease is about is not what it was, or that nobody answers for it any more; else the lease is free.
	Changed bool
	// Orphaned says that who used it last is gone, and nobody may have put it to sleep.
	Orphaned bool
}
