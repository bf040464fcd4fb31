// What the API needs of the gate: its calls, and the ways in which they can be refused.

package admin

import (
	"context"
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
)

// Gate is what the API needs of the gate. It is safe for concurrent use, and its calls must not block for long: the context
// ends after a few seconds, or when the asker leaves. What a call has started does not end with the context. The refusals
// that each call names may be wrapped; any other error is a fault, which is logged and answered 500.
type Gate interface {
	// Machine says how the tenant's machine is doing: ErrNoTenant, ErrNoMachine. It touches no machine.
	Machine(ctx context.Context, tenant string) (Machine, error)
	// WakeMachine starts a wake and returns: ErrNoTenant, ErrNoMachine, ErrPaused. Waking a machine that is awake, or being
	// woken, is no error and does nothing.
	WakeMachine(ctx context.Context, tenant string) error
	// SuspendMachine starts a suspend and returns: ErrNoTenant, ErrNoMachine, a *BusyError while something keeps the machine
	// awake. Suspending a machine that sleeps, or is falling asleep, is no error and does nothing.
	SuspendMachine(ctx context.Context, tenant string) error
	// Pause lets what runs finish and what comes wait. It returns at once: ErrNoTenant. Pausing twice is pausing once.
	Pause(ctx context.Context, tenant string) error
	// Metrics collects what concerns the tenant alone: ErrNoTenant.
	Metrics(tenant string) (prometheus.Gatherer, error)
	// CheckAddress says what the tenant's restrictions say of somebody: ErrNoTenant.
	CheckAddress(tenant string, who netrestrict.Who) (Check, error)
	// Refusals lists whom the tenant has turned away lately, the latest first: ErrNoTenant.
	Refusals(tenant string) ([]Refusal, error)
	// Resume ends a pause: ErrNoTenant. Without a pause it does nothing.
	Resume(ctx context.Context, tenant string) error
}

// What the gate can refuse. These texts are the answers.
var (
	ErrNoTenant  = errors.New("there is no such tenant")
	ErrNoMachine = errors.New("the tenant has no machine: it has an upstream")
	ErrPaused    = errors.New("the tenant is paused: resume it first")
)

// BusyError says why a machine cannot be suspended now.
type BusyError struct {
	Reasons []string // as in Machine.AwakeBecause
}

func (e *BusyError) Error() string {
	if len(e.Reasons) == 0 {
		return "the machine is in use"
	}
	return "the machine is in use: " + strings.Join(e.Reasons, "; ")
}
