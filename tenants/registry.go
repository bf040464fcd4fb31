// The registry: how whoever may do so reads and changes what a store has, and what is written down about it.

package tenants

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Registry is a store that can be asked, and perhaps be changed. Every call ends with its context, and may be made by any number of
// goroutines. What the Directory has is what is in force here; what a Registry tells is what the store has, which may be newer.
type Registry interface {
	// Tenant reads one tenant: ErrNoSuchTenant, ErrUnreadable.
	Tenant(ctx context.Context, id string) (Record, error)
	// Tenants reads at most limit tenants whose ids are greater than after, in the order of ids (byte by byte).
	Tenants(ctx context.Context, after string, limit int) ([]Record, error)
	// Change does one change in one transaction, with its row in the audit log, and says what there is then (Record.Tenant is nil if
	// the tenant is gone). Its errors are those of Edit, Problems, *ConflictError, ErrChanged, ErrTaken, ErrUnreadable, ErrReadOnly, ErrAway.
	Change(ctx context.Context, c Edit) (Record, error)
	// Applied says where a version is in force.
	Applied(ctx context.Context, version int64) (Applied, error)
	// Nodes lists the processes that follow the store, by name.
	Nodes(ctx context.Context) ([]Node, error)
	// ForgetNode says that a node that went without a goodbye does not serve any more, so that nobody waits for it: ErrNoSuchNode,
	// ErrServes.
	ForgetNode(ctx context.Context, by Actor, name string) error

	// Tokens reads at most limit tokens that were not revoked, of one tenant or, with "", of all, whose ids are greater than after, in
	// the order of ids (byte by byte).
	Tokens(ctx context.Context, tenant, after string, limit int) ([]Token, error)
	// Token reads one that was not revoked: ErrNoSuchToken.
	Token(ctx context.Context, id string) (Token, error)
	// AddToken keeps a token's digest. The id is the store's to give; ErrTaken if the digest is there.
	AddToken(ctx context.Context, by Actor, t Token, digest [32]byte) (Token, error)
	// RevokeToken ends a token: ErrNoSuchToken. A tenant that is not "" has to be the token's.
	RevokeToken(ctx context.Context, by Actor, tenant, id string) error
	// FindToken finds a token that is valid now by its digest: ErrNoSuchToken. It counts as a use.
	FindToken(ctx context.Context, digest [32]byte) (Token, error)

	// Audit reads at most limit entries whose numbers are smaller than before (0: from the end), the latest first, of one tenant or,
	// with "", of all.
	Audit(ctx context.Context, tenant string, before int64, limit int) ([]Entry, error)
	// Note writes down a call that has changed nothing in the store: it was refused, or done by the gate.
	Note(ctx context.Context, e Entry) error
}

// What a registry can say. These texts may be told to whoever asked.
var (
	ErrNoSuchTenant = errors.New("there is no such tenant")
	ErrNoSuchUser   = errors.New("the tenant has no such user")
	ErrNoSuchToken  = errors.New("there is no such token")
	ErrNoSuchNode   = errors.New("there is no such node")
	ErrServes       = errors.New("the node is alive: the store has heard of it within the last seconds")
	ErrTaken        = errors.New("it is there already")
	ErrChanged      = errors.New("somebody else has changed it: read it again")
	ErrUnreadable   = errors.New("what the store has of the tenant cannot be read, as the log says: give the whole tenant anew (PUT), or remove it")
	ErrReadOnly     = errors.New("tenants come from a file here, which is changed by editing it: this needs tenants.postgres")
	ErrAway         = errors.New("the store of tenants is away: what is known goes on, and nothing can be changed")
)

// Problems are why a tenant is refused.
type Problems []Problem

// Error implements error.
func (p Problems) Error() string {
	var all []error
	for _, problem := range p {
		all = append(all, problem)
	}
	return errors.Join(all...).Error()
}

// Record is a tenant as the store has it.
type Record struct {
	Tenant *Tenant
	// Revision tells one form of the tenant's row from every other that it ever had. It means nothing else.
	Revision int64
	// Version is that of its last change in the store's feed, for Applied; 0: the store has no versions.
	Version int64
	Changed time.Time // when
}

// Edit is a change that somebody asks for.
type Edit struct {
	By     Actor
	Action string // "tenant.put": what the audit log calls it
	Tenant string // id
	// Match, if not 0, is the Revision that the tenant must have; MatchNone, that there must be no such tenant.
	Match int64
	// Unread says that a tenant that cannot be read may be changed, too: Edit makes all of it, or removes it. It is given what can be
	// read, which need not be valid. Users and secrets that cannot be read are lost then.
	Unread bool
	// Unnoted says that a refusal is not written down, because there were too many.
	Unnoted bool
	// Edit makes of what is there (nil: nothing) what shall be there (nil: nothing). It must not change old, and be quick: a
	// transaction waits. It is called again if somebody else was there at the same time. Its error is the answer, and goes to the
	// audit log as a refusal.
	Edit func(old *Tenant) (*Tenant, error)
}

// MatchNone is an Edit's Match that says that the tenant must not be there.
const MatchNone = -1

// Applied says on which nodes a version is in force.
type Applied struct {
	Everywhere bool
	At         time.Time            // since when it is everywhere; zero: it is not
	Missing    []string             // names of nodes that have not said so, or went without a goodbye
	When       map[string]time.Time // by the name of a node: since when it is in force there
}

// Node is a process that follows a store.
type Node struct {
	Name    string
	Started time.Time
	Seen    time.Time // when it was last heard of, by the clock of the store
	Silent  bool      // that is too long ago: it went without a goodbye, or cannot reach the store
	Applied int64     // the version in force there; 0: none of the store's epoch
	Refused []string  // tenants that are not in force there as the store has them; "*": too many to tell
	Keys    []string  // ids of the keys that open secrets there; the first one seals
	Cache   string    // id of the key that its cache file was sealed with; "": it has none
	Boot    string    // tells processes of one name apart
	Here              // where others reach it
}

// Here is what a node that is one of several says about itself. It is the zero Here of one that is none.
type Here struct {
	Address     netip.AddrPort // of the port for other nodes
	Gossip      netip.AddrPort
	Fingerprint string // of the key of its certificate: sha256 in hex
	Region      string
	Protocol    int  // that it speaks with other nodes
	Leaving     bool // it drains
}

// Actor is who asks for something.
type Actor struct {
	Name    string         // of the token: "file" for those of the token file, "cli" for the command line
	Token   string         // its id; "": it has none
	Address netip.AddrPort // where the request came from
	Request string         // the request's id
}

// Scope is what a token may do.
type Scope string

// The scopes.
const (
	ScopeOperator Scope = "operator"     // everything
	ScopeMetrics  Scope = "metrics"      // read /metrics, and nothing else
	ScopeWrite    Scope = "tenant:write" // its tenant's restrictions, bans, TLS, passwords and pool numbers
	ScopeRead     Scope = "tenant:read"  // read what its tenant's owner may see
)

// Token is what is known of a bearer token. The token itself is shown once, when it is made, and kept nowhere.
type Token struct {
	ID      string
	Name    string // for people
	Scope   Scope
	Tenant  string    // of the tenant's scopes
	Created time.Time // when it was made
	Expires time.Time // zero: never
	Used    time.Time // last, to the minute; zero: never
}

// OutcomeDone is an Entry's outcome if what was asked for was done.
const OutcomeDone = "done"

// Entry is a row of the audit log.
type Entry struct {
	Number  int64 // without gaps, from 1
	At      time.Time
	By      Actor
	Action  string
	Tenant  string // "": none
	Outcome string // OutcomeDone, or why it was refused
	Version int64  // of the change in the store's feed; 0: nothing changed
	Changes []Difference
	Chain   string // in hex: a digest of this row and of the one before it
	// Applied says on which nodes the change is in force, the first one first. Not nil but empty: on none yet. Nil: nothing changed,
	// or it is not known any more.
	Applied []InForce
}

// InForce says since when a version, or a later one, is in force on a node, which may have ended since.
type InForce struct {
	Node string
	At   time.Time
}

// Difference is one value that is not what it was. Of secrets only the path is told.
type Difference struct {
	Path     string
	Old, New string // JSON; "": there was none
	Secret   bool
}
