// The budget: what a gate asks of its node when limits hold over all nodes, and what it is told.

package cluster

import (
	"context"
	"log/slog"
	"time"

	"github.com/postern/postern/tenants"
)

// Ledger is where the portions of all nodes stand: package tenants/postgres has it.
type Ledger interface {
	// Portions hands a tenant's portions to f, writes what f makes of them, and tells other nodes if f says so. Nobody else does
	// the same for this tenant meanwhile. After an error nobody knows whether it was written.
	Portions(ctx context.Context, node, boot, tenant string, f func(tenants.Portions) tenants.PortionsChange) error
}

// BudgetOptions say whose budget it is.
type BudgetOptions struct {
	Ledger Ledger
	// Node is the name of this node in the store, which may have to take another one, and Boot tells its process from others.
	Node func() string
	Boot string
	// Granted is told all that this node may have of a tenant's limits, whenever that is something else than before, and again if the gate does
	// not know it. Numbers grow. It is called from goroutines, in order for each tenant. The gate answers with Claim, also for a tenant
	// that it does not know: that one has Claim(tenant, number, nil).
	Granted func(tenant string, number int64, g []tenants.Grant)
	// Strangers counts the server connections that a tenant's Postgres has and no living node says are its own. It first lists what
	// Postgres has and then asks the nodes. ok is false if the tenant has no service account; then time alone decides when the
	// portions of a silent node are over.
	Strangers func(ctx context.Context, tenant string) (n int, ok bool, err error)
	// Floor says whether a node without a portion may have one server while the store is away.
	Floor func(tenant string) bool
	// MaxNodes is how many nodes there may be: so many of a tenant's servers are set aside for floors. 0: there are no floors.
	MaxNodes int
	// Alive reports whether other nodes can be seen to live although the store has not heard of them: their portions stay. nil: none can.
	Alive func(node, boot string) bool
	// Alone reports whether no other node can be seen although there were others. nil: it is never known.
	Alone func() bool
	Log   *slog.Logger
}

// Budget is what a node may have of all tenants' limits. Its methods may be called by any goroutine, and return at once.
//
// A gate has one number for each tenant: that of the last Granted that it has applied, 0 if it knows none and may dial nothing. With
// everything that it claims it says this number, so that a portion is given up only when no dial can use it any more.
type Budget struct {
	o BudgetOptions
}

// NewBudget returns a budget, which grants nothing until it runs.
func NewBudget(o BudgetOptions) *Budget { return &Budget{o: o} }

// Claim says what the gate has of a tenant's limits now, and what it could use, after it has applied the Granted of this number. What is
// said last counts; the gate must not change d any more. A gate that claims nothing of a tenant needs not claim.
func (b *Budget) Claim(tenant string, seen int64, d []tenants.Demand) {}

// MayDial reports whether portions are known to be this node's still. A dial asks when it has connected, before it sends its first
// message: a process that was frozen meanwhile must not go on.
func (b *Budget) MayDial() bool { return true }

// Run does what has to be done until ctx ends; then it gives everything back, for which it takes a second at most. The gate has ended
// before.
func (b *Budget) Run(ctx context.Context) { <-ctx.Done() }

const lookEvery = 100 * time.Millisecond // between two looks at a tenant's portions
