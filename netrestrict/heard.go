// Failures between nodes: what one tells of them, and how the others count it.

package netrestrict

import (
	"net/netip"
	"strings"
	"time"
)

// Failures are what an address has failed at a tenant since it was told last.
type Failures struct {
	Tenant  string // any name that a stranger made up
	Address netip.Addr
	Cleared bool // it has logged in: what it had failed at the tenant before was forgotten
	Count   int  // and then it has failed so often; less than 0: so many that were told may have been right
}

const (
	// MaxTold is how many addresses at tenants are told of at once.
	MaxTold = 256
	// maxUntold bounds those that wait for that. What is more counts where it failed.
	maxUntold = 16 * MaxTold
	// maxHeard bounds what is believed of one.
	maxHeard = 1000
)

// Untold are failures that were not told yet, in the order in which they came. Its zero value is empty. It has no lock.
type Untold struct {
	all   []*Failures
	byWho map[untoldKey]*Failures
}

type untoldKey struct {
	scope
	addr netip.Addr
}

// Add takes some in.
func (u *Untold) Add(f Failures) {
	key := untoldKey{at(f.Tenant), f.Address}
	is, ok := u.byWho[key]
	if !ok {
		if len(u.all) >= maxUntold {
			return
		}
		if u.byWho == nil {
			u.byWho = make(map[untoldKey]*Failures)
		}
		key.tenant = strings.Clone(key.tenant) // see Throttle.counter
		is = &Failures{Tenant: key.tenant, Address: f.Address}
		u.all, u.byWho[key] = append(u.all, is), is
	}
	if f.Cleared {
		is.Cleared, is.Count = true, 0
	}
	is.Count += f.Count
}

// Take takes out what is to be told next, MaxTold at most.
func (u *Untold) Take() (some []Failures) {
	for len(u.all) > 0 && len(some) < MaxTold {
		f := u.all[0]
		delete(u.byWho, untoldKey{at(f.Tenant), f.Address})
		if u.all = u.all[1:]; f.Cleared || f.Count != 0 {
			some = append(some, *f)
		}
	}
	if len(u.all) == 0 {
		u.all = nil
	}
	return some
}

// Heard counts what another node has told, and returns the bans that begin with it and those that are over without it.
//
// Nodes judge at the same time, so a network may have failed more often than it may by the time all have heard of it. That lengthens its
// ban in proportion: in the long run it has no more guesses than at one node. What is told of a tenant that was repaired just now is
// not counted, because who tells it may not have heard of that yet.
func (t *Throttle) Heard(now time.Time, f Failures) (began, over []Ban) {
	if f.Cleared {
		t.Succeeded(now, f.Tenant, f.Address)
	}
	for range min(-f.Count, maxHeard) {
		over = append(over, t.Forgive(now, f.Tenant, f.Address)...)
	}
	if t.repaired.has(now, f.Tenant) {
		return nil, over
	}
	for range min(f.Count, maxHeard) {
		began = append(began, t.failed(now, f.Tenant, f.Address, true)...)
	}
	return began, over
}

// Repaired says that what failed at a tenant may be right now, which other nodes may not know yet.
func (t *Throttle) Repaired(now time.Time, tenant string) {
	t.repaired.add(now, tenant, t.cfg.MaxKeys)
}
