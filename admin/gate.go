// What the API needs of the gate: its calls, and the ways in which they can be refused.

package admin

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
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
	// Pause lets what runs finish and what comes wait, at this node, until it ends: for tenants that cannot be changed. It returns at
	// once: ErrNoTenant. Pausing twice is pausing once.
	Pause(ctx context.Context, tenant string) error
	// Metrics collects what concerns the tenant alone: ErrNoTenant.
	Metrics(tenant string) (prometheus.Gatherer, error)
	// CheckAddress says what the tenant's restrictions say of somebody: ErrNoTenant.
	CheckAddress(tenant string, who netrestrict.Who) (Check, error)
	// Refusals lists whom the tenant has turned away lately, the latest first: ErrNoTenant. Nodes that do not answer in time are missing.
	Refusals(ctx context.Context, tenant string) (all []Refusal, missing []string, err error)
	// Resume ends Pause, and what commands about all tenants have paused on any node: ErrNoTenant. Without a pause it does nothing.
	Resume(ctx context.Context, tenant string) error

	// Sessions lists those of a tenant that stand behind a place ("": from the first), by nodes and in the order in which they came,
	// at most limit: ErrNoTenant, ErrNoSession if there never was one at that place. Nodes that do not answer in time are missing.
	Sessions(ctx context.Context, tenant, after string, limit int) (all []Session, missing []string, err error)
	// EndSession ends one, wherever it is, at its next message boundary: ErrNoTenant, ErrNoSession, *SilentError.
	EndSession(ctx context.Context, tenant, session string) error
	// EndSessions ends all that there are, and says how many, and which nodes have not answered: ErrNoTenant.
	EndSessions(ctx context.Context, tenant string) (n int, missing []string, err error)
	// LockedOut says how many of a tenant's sessions would end if this were its configuration, and how many there are. Where some stay
	// it need not ask all nodes. Those that do not answer in time are missing.
	LockedOut(ctx context.Context, t *tenants.Tenant) (locked, open int, missing []string, err error)
	// Bans lists who may not log in at the tenant for now: ErrNoTenant.
	Bans(ctx context.Context, tenant string) ([]Ban, error)
	// Ban keeps a network out at the tenant for a time, from 1 s to 30 days: ErrNoTenant, ErrNeverBanned, ErrTooManyBans.
	Ban(ctx context.Context, tenant string, network netip.Prefix, d time.Duration) error
	// LiftBan lifts the tenant's bans that have an address, and says how many: ErrNoTenant.
	LiftBan(ctx context.Context, tenant string, addr netip.Addr) (int, error)
}

// What the gate can refuse. These texts are the answers.
var (
	ErrNoTenant    = errors.New("there is no such tenant")
	ErrNoMachine   = errors.New("the tenant has no machine: it has an upstream")
	ErrPaused      = errors.New("the tenant is paused: resume it first")
	ErrNoBan       = errors.New("nothing at the tenant bans this address")
	ErrNeverBanned = errors.New("the tenant has the network in its never_ban")
	ErrTooManyBans = errors.New("the tenant has too many manual bans already: lift one")
	ErrNoSession   = errors.New("the tenant has no such session")
	ErrConfigured  = errors.New("the tenants file says that the tenant is paused")
)

// SilentError says that a session may be on nodes that have not answered. No other node has it.
type SilentError struct{ Nodes []string }

func (e *SilentError) Error() string {
	return "nodes have not answered: " + strings.Join(e.Nodes, ", ") + "; no other node has this session"
}

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
