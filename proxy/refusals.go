// Refusals: whom each tenant has turned away lately, for its owner to see; and what its restrictions would say of somebody.

package proxy

import (
	"cmp"
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/tenants"
)

// Strangers fill the list, so it is bounded, and the newest win.
const (
	maxRefusals    = 100    // of a tenant
	maxAllRefusals = 10_000 // of all
)

// Refusal is an address that a tenant has turned away for one reason, however often.
type Refusal struct {
	Tenant      string
	Address     netip.Addr
	Reason      string // as in postern_refusals_total, or "password"
	Observed    bool   // it was let in, because the restrictions are not enforced
	User        string // that it named last, fit to be shown; "": none
	Count       uint64
	First, Last time.Time
}

// listed is the reason under which a denial is found in the list; "": it is not there.
func (d denial) listed() string {
	switch d {
	case denyPassword, denyUnknownUser:
		return "password"
	case denyCertificateOfNobody:
		return reasonCertificate.String()
	}
	return denials[d].reason.String()
}

// refusedList keeps refusals. Its zero value is empty. Safe for concurrent use; never used by an event loop.
type refusedList struct {
	mu       sync.Mutex
	byTenant map[string]map[refusedKey]*list.Element
	order    list.List // of *Refusal, the latest first
}

type refusedKey struct {
	address  netip.Addr
	reason   string
	observed bool
}

func (r *Refusal) key() refusedKey { return refusedKey{r.Address, r.Reason, r.Observed} }

// note counts one.
func (l *refusedList) note(now time.Time, r Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.byTenant[r.Tenant]
	if known, ok := own[r.key()]; ok {
		was := known.Value.(*Refusal)
		was.Count++
		was.User, was.Last = r.User, now
		l.order.MoveToFront(known)
		return
	}
	if len(own) >= maxRefusals {
		l.drop(oldest(own))
	}
	if l.order.Len() >= maxAllRefusals {
		l.drop(l.order.Back())
	}
	if own = l.byTenant[r.Tenant]; own == nil {
		if l.byTenant == nil {
			l.byTenant = make(map[string]map[refusedKey]*list.Element)
		}
		own = make(map[refusedKey]*list.Element)
		l.byTenant[r.Tenant] = own
	}
	r.Count, r.First, r.Last = 1, now, now
	own[r.key()] = l.order.PushFront(&r)
}

// oldest is the one of a tenant's that came last the longest ago.
func oldest(own map[refusedKey]*list.Element) (first *list.Element) {
	for _, e := range own {
		if first == nil || e.Value.(*Refusal).Last.Before(first.Value.(*Refusal).Last) {
			first = e
		}
	}
	return first
}

func (l *refusedList) drop(e *list.Element) {
	r := l.order.Remove(e).(*Refusal)
	own := l.byTenant[r.Tenant]
	if delete(own, r.key()); len(own) == 0 {
		delete(l.byTenant, r.Tenant)
	}
}

// keep drops what is of tenants that are not there any more.
func (l *refusedList) keep(there func(id string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.byTenant {
		if !there(id) {
			l.dropTenant(id)
		}
	}
}

// forget drops a tenant's.
func (l *refusedList) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropTenant(id)
}

func (l *refusedList) dropTenant(id string) {
	for _, e := range l.byTenant[id] {
		l.drop(e)
	}
}

// of lists a tenant's, or with "" those of all, the latest first.
func (l *refusedList) of(tenant string) []Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Refusal{}
	if tenant == "" {
		for e := l.order.Front(); e != nil; e = e.Next() {
			out = append(out, *e.Value.(*Refusal))
		}
		return out
	}
	for _, e := range l.byTenant[tenant] {
		out = append(out, *e.Value.(*Refusal))
	}
	slices.SortFunc(out, latestFirst)
	return out
}

// list puts a denial on the list of the tenant that it is about, if there is such a tenant. The user is what a stranger said.
func (g *Gate) list(why denial, tenant string, addr netip.Addr, user string) {
	reason := why.listed()
	if _, known := g.opts.Directory.Tenant(tenant); !known || reason == "" {
		return
	}
	g.refused.note(time.Now(), Refusal{Tenant: tenant, Address: addr, Reason: reason, User: clip(user)})
}

// observe counts and lists somebody who is let in because the tenant's restrictions are not enforced.
func (g *Gate) observe(conf *tenants.Tenant, now time.Time, who netrestrict.Who, user string) {
	if conf.Restrictions != tenants.RestrictionsObserve || conf.Allow.Decide(now, who).Allowed {
		return
	}
	g.metrics.observed.Inc()
	g.denials.of(conf.ID).observed.Add(1)
	g.refused.note(now, Refusal{Tenant: conf.ID, Address: who.Address, Reason: reasonAddress.String(), Observed: true, User: clip(user)})
}

// Refusals lists whom a tenant has turned away lately, the latest first: at most a hundred, and none from before this process has
// started. It fails with ErrNoTenant.
func (g *Gate) Refusals(tenant string) ([]Refusal, error) {
	if _, known := g.opts.Directory.Tenant(tenant); !known {
		return nil, ErrNoTenant
	}
	return g.refused.of(tenant), nil
}

// MergeRefusals makes one list of those of several nodes, as if all had come to one. Times are by the clocks of the nodes.
func MergeRefusals(lists ...[]Refusal) []Refusal {
	byKey := make(map[refusedKey]*Refusal)
	for _, list := range lists {
		for _, r := range list {
			is, ok := byKey[r.key()]
			if !ok {
				byKey[r.key()] = &r
				continue
			}
			is.Count += r.Count
			if is.First.After(r.First) {
				is.First = r.First
			}
			if is.Last.Before(r.Last) {
				is.Last, is.User = r.Last, r.User
			}
		}
	}
	out := []Refusal{}
	for _, r := range byKey {
		out = append(out, *r)
	}
	slices.SortFunc(out, latestFirst)
	return out[:min(len(out), maxRefusals)]
}

// latestFirst is the order in which one tenant's are shown.
func latestFirst(a, b Refusal) int {
	return cmp.Or(b.Last.Compare(a.Last), a.Address.Compare(b.Address), cmp.Compare(a.Reason, b.Reason))
}

// Check is what a tenant's restrictions say of somebody now.
type Check struct {
	netrestrict.Verdict
	Mode    tenants.Restrictions
	Decides *netrestrict.Rule // the rule that Verdict.Rule counts to; nil: none decides
}

// CheckAddress says what a tenant's restrictions say of somebody, without a connection: by the function that admits. It fails with
// ErrNoTenant.
func (g *Gate) CheckAddress(tenant string, who netrestrict.Who) (Check, error) {
	conf, known := g.opts.Directory.Tenant(tenant)
	if !known {
		return Check{}, ErrNoTenant
	}
	c := Check{Verdict: conf.Allow.Decide(time.Now(), who), Mode: conf.Restrictions}
	if c.Rule >= 0 {
		c.Decides = new(conf.Allow.Rules()[c.Rule])
	}
	return c, nil
}

// Refusals are those of all tenants, for the console.
func (v *consoleGate) Refusals() (out []console.Refusal) {
	for _, r := range v.gate.refused.of("") {
		mode := tenants.RestrictionsEnforce
		if r.Observed {
			mode = tenants.RestrictionsObserve
		}
		out = append(out, console.Refusal{Tenant: r.Tenant, Address: r.Address.String(), Reason: r.Reason, Mode: string(mode), User: r.User, Count: r.Count, First: r.First, Last: r.Last})
	}
	return out
}
