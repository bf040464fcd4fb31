// The budget: what a gate asks of its node when limits hold over all nodes, and what it is told.

package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

// Ledger is where the portions of all nodes stand: package tenants/postgres has it.
type Ledger interface {
	// Portions hands a tenant's portions to f, writes what f makes of them, and tells other nodes if f says so. Nobody else does
	// the same for this tenant meanwhile. After an error nobody knows whether it was written.
	Portions(ctx context.Context, tenant string, f func(tenants.Portions) tenants.PortionsChange) error
	// Unheard says for how long the store has not heard that this process lives.
	Unheard(ctx context.Context) (time.Duration, error)
	// Survey returns all portions of this process by tenant, and tenants that somebody should look at: because others want more than they
	// have, or because portions have lapsed.
	Survey(ctx context.Context) (mine map[string][]tenants.Portion, look []string, err error)
	// Hear tells of tenants that other nodes should look at, until ctx ends or the store is away. ready is called when it has begun.
	Hear(ctx context.Context, ready func(), heard func(tenant string)) error
	// Return says that this process has no portions any more but of these tenants.
	Return(ctx context.Context, but []string) error
}

// BudgetOptions say whose budget it is.
type BudgetOptions struct {
	Ledger     Ledger
	Node, Boot string // of this process in the store
	// Granted is told all that this node may have of a tenant's limits, whenever that is something else than before, and again if the gate does
	// not know it. Numbers grow. It is called from goroutines, in order for each tenant. The gate answers with Claim, also for a tenant
	// that it does not know: that one has Claim(tenant, number, nil).
	Granted func(tenant string, number int64, g []tenants.Grant)
	// Strangers counts the server connections that a tenant's Postgres has and no living node says are its own. It first lists what
	// Postgres has and then asks the nodes. ok is false if the tenant has no service account; then time alone decides when the
	// portions of a silent node are over. It is asked for a tenant once at a time. ErrNotCounted is no fault: so it says while a silent node
	// answers. nil: none has.
	Strangers func(ctx context.Context, tenant string) (n int, ok bool, err error)
	// Floor says whether a node without a portion may have one server of a tenant while the store is away.
	Floor func(tenant string) bool
	// MaxNodes is how many nodes there may be: so many of a tenant's servers are set aside for floors. 0: there are no floors.
	MaxNodes int
	// Alive reports whether other nodes can be seen to live although the store has not heard of them: their portions stay. nil: none can.
	Alive func(node, boot string) bool
	// CutOff asks the other nodes whether they see this one: unseen says that one does not, and mute names those that do not answer. Both
	// may hand its portions on, if they can ask the store, the latter not at once. nil: none can.
	CutOff func(ctx context.Context) (unseen bool, mute []string)
	// Left names tenants whose servers may be there still when the gate has ended: their portions are not given back. nil: none.
	Left func() []string
	Log  *slog.Logger
}

// Budget is what a node may have of all tenants' limits. Its methods may be called by any goroutine, and return at once. A tenant of which
// nothing is open or wanted costs nothing; one that only keeps servers, no time.
//
// A gate has one number for each tenant: that of the last Granted that it has applied, 0 if it knows none and may dial nothing. With
// everything that it claims it says this number, so that a portion is given up only when no dial can use it any more.
type Budget struct {
	o   BudgetOptions
	me  self
	now func() time.Time

	maxNodes int // also where there are no floors

	mu       sync.Mutex // guards what follows; held briefly
	accounts map[string]*account
	due      dueList
	spare    dueList // those that no client here waits for: they wait for each other only
	numbers  int64   // the last one that a gate was told
	trust    trust
	away     bool // the store was when it was asked last

	warned    warned
	uncounted []*account // those that wait until strangers are counted

	poke, pokeSpare chan struct{} // hold one if something may be due earlier
	pokeCount       chan struct{} // holds one if something is to be counted
	wide            chan struct{} // holds one if all should be compared
}

// NewBudget returns a budget, which grants nothing until it runs.
func NewBudget(o BudgetOptions) *Budget {
	maxNodes := o.MaxNodes
	if o.Strangers == nil {
		o.Strangers = func(context.Context, string) (int, bool, error) { return 0, false, nil }
	}
	if o.Floor == nil || o.MaxNodes <= 0 {
		o.Floor, o.MaxNodes = func(string) bool { return false }, 0
	}
	if o.Alive == nil {
		o.Alive = func(string, string) bool { return false }
	}
	if o.CutOff == nil {
		o.CutOff = func(context.Context) (bool, []string) { return false, nil }
	}
	if o.Left == nil {
		o.Left = func() []string { return nil }
	}
	return &Budget{o: o, me: self{o.Node, o.Boot}, now: time.Now, maxNodes: maxNodes, accounts: make(map[string]*account),
		poke: make(chan struct{}, 1), pokeSpare: make(chan struct{}, 1), pokeCount: make(chan struct{}, 1), wide: make(chan struct{}, 1)}
}

// Claim says what the gate has of a tenant's limits now, and what it could use, after it has applied the Granted of this number. What is
// said last counts; the gate must not change d any more.
func (b *Budget) Claim(tenant string, seen int64, d []tenants.Demand) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[tenant]
	if a == nil {
		if len(d) == 0 {
			return
		}
		a = b.open(tenant)
	}
	a.aside = b.aside(tenant) // the tenant may be another than when the account was opened
	a.claim(seen, d, now)
	b.schedule(a, now)
}

// aside is how many servers of a tenant are set aside for floors.
func (b *Budget) aside(tenant string) int {
	if b.o.Floor(tenant) {
		return b.o.MaxNodes
	}
	return 0
}

// hear is called when somebody says that a tenant should be looked at.
func (b *Budget) hear(tenant string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.accounts[tenant]; a != nil {
		a.noted = true
		b.schedule(a, b.now())
	}
}

// open opens an account. The gate may know a number of an older one, which is not above the last.
func (b *Budget) open(tenant string) *account {
	a := newAccount(tenant, &b.numbers, b.aside(tenant))
	b.accounts[tenant] = a
	return a
}

// schedule puts an account where its time is, or closes it.
func (b *Budget) schedule(a *account, now time.Time) {
	if a.busy {
		return
	}
	list, other, poke := &b.due, &b.spare, b.poke
	if len(a.parts) == 0 {
		list, other, poke = &b.spare, &b.due, b.pokeSpare
	}
	other.remove(a)
	if a.empty() {
		list.remove(a)
		delete(b.accounts, a.tenant)
		return
	}
	at := a.dueAt(now)
	if at.IsZero() {
		list.remove(a)
		return
	}
	if list.put(a, at) {
		wake(poke)
	}
}

// wake has a goroutine look.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// MaxNodes is how many nodes there may be.
func (b *Budget) MaxNodes() int { return b.maxNodes }

// Away reports whether nobody can be asked for more: the store was away when it was asked last, or this process stood still and does not know
// yet what it has. It does not while the store was never asked.
func (b *Budget) Away() bool {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.away || !b.trust.at.IsZero() && !b.trust.holds(now)
}

// MayDial reports whether portions are known to be this node's still. A dial asks when it has connected, before it sends its first
// message: a process that was frozen meanwhile must not go on.
func (b *Budget) MayDial() bool {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trust.holds(now)
}
