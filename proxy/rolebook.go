// What is known of the roles of tenants with an auth_query: the tenants as they are in force with them, and who of them may log in.

package proxy

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/roles"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

const (
	// maxRoleFailures bounds the failed logins of a tenant that a newer list may forgive. The newest win.
	maxRoleFailures = 1000
	// maxGuests bounds the networks of a tenant that are remembered for having logged in.
	maxGuests = 256
	// maxRoleListings bounds the servers that are asked for their roles at a time.
	maxRoleListings = 32
)

// roleBooks has the books of tenants with an auth_query, by id. Safe for concurrent use.
type roleBooks struct {
	changing sync.Mutex    // held while tenants or lists change, so that what is in force arrives everywhere in one order
	slots    chan struct{} // see maxRoleListings
	listing  time.Duration // bounds the asking of one server
	patience rolePatience
	window   time.Duration // in which failures count together, see netrestrict.ThrottleConfig

	mu   sync.RWMutex // held briefly
	byID map[string]*roleBook
}

// roleBook is what is known of one tenant's roles.
type roleBook struct {
	mu       sync.Mutex // held briefly
	schedule roles.Schedule
	list     *roles.List     // nil: none is known
	listed   time.Time       // when the server has said so
	said     *tenants.Tenant // as the directory has it; nil: not any more
	conf     *tenants.Tenant // and with its roles
	endpoint machines.Endpoint
	cut      context.CancelFunc // ends the listing under way
	void     bool               // which asks whom nobody means any more
	happened chan struct{}      // closed when something has
	failures latest[roleFailure]
	guests   latest[netip.Prefix] // from where somebody has logged in
	alarm    *time.Timer          // for when what a failed login asks for may begin; nil: none has
	kept     rolesKept
}

// roleFailure is a failed login that counts, until a newer list says that it may have been right.
type roleFailure struct {
	role string
	addr netip.Addr
	at   time.Time
}

// latest keeps what was added last, at most so many.
type latest[T any] struct {
	all  []T
	next int // the oldest one, once there are so many
}

func (l *latest[T]) add(v T, most int) {
	if len(l.all) < most {
		l.all = append(l.all, v)
		return
	}
	l.all[l.next] = v
	l.next = (l.next + 1) % most
}

func newRoleBooks(window time.Duration) roleBooks {
	return roleBooks{slots: make(chan struct{}, maxRoleListings), byID: make(map[string]*roleBook), window: window,
		listing: roleListing, patience: rolePatience{2 * time.Second, 5 * time.Second}}
}

// of returns a tenant's book; nil: it has none.
func (b *roleBooks) of(id string) *roleBook {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.byID[id]
}

// conf returns a tenant as it is in force: as the directory has it, with the roles that its server has listed.
func (g *Gate) conf(id string) (*tenants.Tenant, bool) {
	said, ok := g.opts.Directory.Tenant(id)
	return g.withRoles(said), ok
}

// withRoles adds the roles that are known of a tenant.
func (g *Gate) withRoles(said *tenants.Tenant) *tenants.Tenant {
	if said == nil || said.AuthQuery == nil {
		return said
	}
	b := g.roles.of(said.ID)
	if b == nil {
		return said
	}
	b.mu.Lock()
	is, conf, list := b.said, b.conf, b.list
	b.mu.Unlock()
	if is == said {
		return conf
	}
	return mergeRoles(said, list) // it is changing right now
}

// mergeRoles makes users of the roles that nobody has listed as users.
func mergeRoles(said *tenants.Tenant, list *roles.List) *tenants.Tenant {
	if list.Len() == 0 {
		return said
	}
	conf := *said
	conf.Users = maps.Clone(said.Users)
	list.All(func(name string, r roles.Role) {
		if _, listed := said.Users[name]; listed {
			return
		}
		u := &tenants.User{Name: name, Verifier: tenants.NewSecret(r.Verifier.Encode()), ServerUser: name, ServerAuth: tenants.AuthSCRAM}
		switch {
		case r.Limit == 0:
			u.MaxClients = nobody
		case r.Limit > 0:
			u.MaxClients, u.MaxServers = r.Limit, r.Limit
		}
		conf.Users[name] = u
	})
	return &conf
}

// follow takes over changes of tenants and returns them as they concern everybody else: with roles. The caller holds changing.
func (b *roleBooks) follow(now time.Time, all []tenants.Change) []tenants.Change {
	has := func(t *tenants.Tenant) bool { return t != nil && t.AuthQuery != nil }
	if !slices.ContainsFunc(all, func(c tenants.Change) bool { return has(c.Old) || has(c.New) }) {
		return all
	}
	all = slices.Clone(all)
	for i, c := range all {
		if has(c.Old) || has(c.New) {
			all[i] = b.followOne(now, c, has(c.New))
		}
	}
	return all
}

func (b *roleBooks) followOne(now time.Time, c tenants.Change, has bool) tenants.Change {
	b.mu.Lock()
	book := b.byID[c.ID()]
	switch {
	case !has:
		delete(b.byID, c.ID())
	case book == nil:
		book = &roleBook{happened: make(chan struct{})}
		b.byID[c.ID()] = book
	}
	b.mu.Unlock()
	if book == nil {
		return c
	}
	said := c.New
	if has {
		c.New = mergeRoles(said, book.list) // which does not change meanwhile
	}
	book.mu.Lock()
	defer book.mu.Unlock()
	before := book.said
	if before == c.Old && before != nil {
		c.Old = book.conf
	}
	if book.said, book.conf = nil, nil; has {
		book.said, book.conf = said, c.New
	}
	if !has || before == nil || !asksTheSame(before, said) {
		book.moved(now)
	}
	return c
}

// asksTheSame reports whether both mean the same server, and the same question.
func asksTheSame(a, b *tenants.Tenant) bool {
	return *a.AuthQuery == *b.AuthQuery && a.Database == b.Database && a.Upstream.Same(b.Upstream) && sameMachine(a, b)
}

func sameMachine(a, b *tenants.Tenant) bool {
	return a.Machine == nil && b.Machine == nil || a.Machine != nil && b.Machine != nil && a.Machine.SameMachine(b.Machine)
}

// moved is for a tenant whose roles are to be asked for elsewhere, or not at all. What is known holds until then.
func (b *roleBook) moved(now time.Time) {
	b.void = true
	if b.cut != nil {
		b.cut()
	}
	b.schedule.Moved()
	if b.said != nil && b.said.Machine == nil {
		b.schedule.Reach(now, roles.There)
	} else {
		b.schedule.Reach(now, roles.Unknown)
	}
	b.tell()
}

// tell has everybody look again who waits for something to happen.
func (b *roleBook) tell() {
	close(b.happened)
	b.happened = make(chan struct{})
}

// forgiven are the addresses whose failures may have been right, by a list that comes in place of the one that is known, and still count.
func (b *roleBook) forgiven(list *roles.List, now time.Time, window time.Duration) (out []netip.Addr) {
	for _, f := range b.failures.all {
		was, had := b.list.Role(f.role)
		is, has := list.Role(f.role)
		if has && (!had || !was.Verifier.Equal(is.Verifier)) && now.Sub(f.at) < window {
			out = append(out, f.addr)
		}
	}
	b.failures = latest[roleFailure]{}
	return out
}

// barred reports whether a user of a tenant is a role that may not log in now, though sessions of it go on.
func (g *Gate) barred(conf *tenants.Tenant, name string, now time.Time) bool {
	if conf.AuthQuery == nil {
		return false
	}
	b := g.roles.of(conf.ID)
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lists(name) {
		return false
	}
	r, ok := b.list.Role(name)
	return !ok || r.Expired(now) || b.schedule.Expired(now)
}

// lists reports whether somebody has listed the user, so that it is none of the server's roles.
func (b *roleBook) lists(name string) bool {
	if b.said == nil {
		return false
	}
	_, ok := b.said.User(name)
	return ok
}

// doubted says that a password was refused, and reports whether that counts: not if what it was judged by is not in force any more.
// Whomever it named, a newer list is asked for.
func (g *Gate) doubted(v *visitor) (counts bool) {
	if v.trial.conf == nil || v.trial.conf.AuthQuery == nil {
		return true
	}
	b := g.roles.of(v.trial.conf.ID)
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	name, now := v.route.User, time.Now()
	is, ok := b.list.Role(name)
	inForce := ok && !b.lists(name) && !is.Expired(now) && !b.schedule.Expired(now) // else it is judged as nobody, whose verifier is a mock
	if inForce && !is.Verifier.Equal(v.trial.verifier) {
		return false
	}
	doubt := roles.Strange
	if slices.Contains(b.guests.all, netrestrict.Subscriber(v.peer.Client.Addr())) {
		doubt = roles.Familiar
	}
	b.schedule.Doubt(doubt)
	g.armRoles(b, now)
	if len(name) <= maxRoleName {
		b.failures.add(roleFailure{strings.Clone(name), v.peer.Client.Addr(), now}, maxRoleFailures)
	}
	return true
}

// proved notes from where somebody has logged in: what fails there may well be right by now. As which role does not matter: who shares
// the address must not find out by how soon a list is asked for.
func (g *Gate) proved(v *visitor) {
	if v.trial.conf == nil || v.trial.conf.AuthQuery == nil {
		return
	}
	if b := g.roles.of(v.trial.conf.ID); b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if net := netrestrict.Subscriber(v.peer.Client.Addr()); !slices.Contains(b.guests.all, net) {
			b.guests.add(net, maxGuests)
		}
	}
}

// maxRoleName bounds the names that are noted of strangers, in bytes.
const maxRoleName = 255

// trial is what a visitor's proof is judged by.
type trial struct {
	conf     *tenants.Tenant
	verifier scram.Verifier
}
