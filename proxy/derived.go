// Verifiers that are made of passwords, and remembered, because making one takes a while.

package proxy

import (
	"sync"

	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

// derivedVerifiers remembers what was made of tenants that are in force. Its zero
// value is empty. Safe for concurrent use.
type derivedVerifiers struct {
	mu     sync.Mutex
	users  map[derivedKey]derivedVerifier
	rounds map[*tenants.Tenant]knownRounds
}

type derivedKey struct{ tenant, user string }

type derivedVerifier struct {
	password tenants.Secret // it was made of
	make     func() (scram.Verifier, error)
}

// of returns a user's verifier. derive runs at most once for each password, as long
// as the tenant is current: a login that began before a change leaves nothing behind.
func (d *derivedVerifiers) of(t *tenants.Tenant, u *tenants.User, current func(*tenants.Tenant) bool, derive func() (scram.Verifier, error)) (scram.Verifier, error) {
	d.mu.Lock()
	key := derivedKey{t.ID, u.Name}
	is, ok := d.users[key]
	if !ok || is.password != u.Password {
		is = derivedVerifier{u.Password, sync.OnceValues(derive)}
		if current(t) {
			if d.users == nil {
				d.users = make(map[derivedKey]derivedVerifier)
			}
			d.users[key] = is
		}
	}
	d.mu.Unlock()
	return is.make()
}

// roundsOf returns a tenant's iteration counts.
func (d *derivedVerifiers) roundsOf(t *tenants.Tenant, current func(*tenants.Tenant) bool, count func() knownRounds) knownRounds {
	d.mu.Lock()
	n, ok := d.rounds[t]
	d.mu.Unlock()
	if ok {
		return n
	}
	n = count()
	d.mu.Lock()
	defer d.mu.Unlock()
	if current(t) {
		if d.rounds == nil {
			d.rounds = make(map[*tenants.Tenant]knownRounds)
		}
		d.rounds[t] = n
	}
	return n
}

// amend forgets what a change has made out of date: of that tenant alone, and of it
// the users whose passwords are what they were are kept.
func (d *derivedVerifiers) amend(c tenants.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.rounds, c.Old)
	for name, u := range c.Old.Users {
		if c.New != nil {
			if now, ok := c.New.User(name); ok && now.Password == u.Password {
				continue
			}
		}
		delete(d.users, derivedKey{c.Old.ID, name})
	}
}
