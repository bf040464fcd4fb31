// Bans: listed, made and lifted by people and by other nodes.

package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/tenants"
)

// Ban is a network that may not log in for now: Tenant, Address, Left, Failures, Manual.
type Ban = netrestrict.Ban

// LongestBan is for how long somebody may ban a network.
const LongestBan = 30 * 24 * time.Hour

// What speaks against a ban that somebody wants. These texts may be told to whoever asked.
var (
	ErrBanTime     = fmt.Errorf("a ban lasts from %v to %v", time.Second, LongestBan)
	ErrBanNetwork  = errors.New("what is banned is a network without bits behind its length, such as 203.0.113.7/32")
	ErrNeverBanned = errors.New("the tenant has the network in its never_ban")
	ErrTooManyBans = fmt.Errorf("there are %d manual bans already: lift one", netrestrict.MaxManual)
)

// Bans lists who is banned at a tenant now or, with "", at all tenants together, the latest first. Whom the tenant never wants banned
// is not. Safe for concurrent use, as all of these are.
func (g *Gate) Bans(tenant string) []Ban {
	return slices.DeleteFunc(g.allBans(), func(b Ban) bool { return b.Tenant != tenant })
}

func (g *Gate) allBans() (all []Ban) {
	g.throttle.with(func(t throttle) { all = t.Bans(time.Now()) })
	return slices.DeleteFunc(all, func(b Ban) bool {
		conf, ok := g.opts.Directory.Tenant(b.Tenant)
		return ok && conf.NeverBans(b.Address)
	})
}

// LiftBan lets an address in again at a tenant or, with "", where it was banned from all tenants together: every ban there that has it
// is lifted, on all nodes, and what it has failed there is forgotten. It says how many bans that were.
func (g *Gate) LiftBan(tenant string, addr netip.Addr) int {
	addr = addr.Unmap()
	return g.lift(func(b Ban) bool { return b.Tenant == tenant && b.Address.Contains(addr) })
}

// lift lifts the bans for which which says yes. It must not look at how long they last.
func (g *Gate) lift(which func(Ban) bool) int {
	var over []Ban
	g.throttle.with(func(t throttle) { over = t.LiftAll(time.Now(), which) })
	g.tell(lifted(over))
	return len(over)
}

// Ban keeps a network out at a tenant or, with "", at all of them for a while, on all nodes. Sessions that it has go on. It fails with
// ErrNoTenant, or with one of the errors above.
func (g *Gate) Ban(tenant string, addr netip.Prefix, d time.Duration) error {
	conf, known := g.opts.Directory.Tenant(tenant)
	switch {
	case !known && tenant != "":
		return ErrNoTenant
	case d < time.Second || d > LongestBan:
		return ErrBanTime
	case !addr.IsValid() || addr != addr.Masked() || addr.Addr().Is4In6():
		return ErrBanNetwork
	case known && conf.NeverBans(addr):
		return ErrNeverBanned
	}
	b := Ban{Tenant: tenant, Address: addr, Left: d, Manual: true}
	room := false
	g.throttle.with(func(t throttle) { room = t.Impose(time.Now(), b) })
	if !room {
		return ErrTooManyBans
	}
	g.tell([]Ban{b})
	return nil
}

// ApplyBan takes over what another node has told: a ban, or with nothing left of it, that it is over.
func (g *Gate) ApplyBan(b Ban) {
	g.throttle.with(func(t throttle) {
		if b.Left > 0 {
			t.Impose(time.Now(), b)
		} else {
			t.Lift(time.Now(), b.Tenant, b.Address)
		}
	})
}

// began logs bans that failures have led to, and tells other nodes.
func (g *Gate) began(bans []Ban) {
	for _, b := range bans {
		g.limited.log(g.log, slog.LevelWarn, g.logKey(b.Tenant, "ban"), "too many failed logins: address banned", "tenant", clip(b.Tenant),
			"address", b.Address.String(), "failures", b.Failures, "seconds", int(b.Left.Seconds()))
	}
	g.tell(bans)
}

// tell has other nodes told of bans, but for those at tenants that strangers have made up.
func (g *Gate) tell(bans []Ban) {
	if g.opts.TellBan == nil {
		return
	}
	for _, b := range bans {
		if _, known := g.opts.Directory.Tenant(b.Tenant); (known || b.Tenant == "") && b.Address.IsValid() {
			g.opts.TellBan(b)
		}
	}
}

// lifted are bans that are over.
func lifted(bans []Ban) []Ban {
	for i := range bans {
		bans[i].Left = 0
	}
	return bans
}

// Bans are the addresses that have to wait, for the console.
func (v *consoleGate) Bans() (out []console.Ban) {
	for _, b := range v.gate.allBans() {
		address := b.Address.String()
		if b.Address.IsSingleIP() {
			address = b.Address.Addr().String()
		}
		out = append(out, console.Ban{Tenant: clip(b.Tenant), Address: address, Left: b.Left, Failures: b.Failures})
	}
	slices.SortFunc(out, func(a, b console.Ban) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// clearBan lets an address in again everywhere, lifts the bans of a network, or all that a tenant has. A tenant's id
// is neither an address nor a network.
func (g *Gate) clearBan(arg string) error {
	var forgiven []Ban
	if tenants.ValidID(arg) {
		g.throttle.with(func(t throttle) { forgiven = t.Pardon(time.Now(), func(tenant string) bool { return tenant == arg }) })
		g.tell(lifted(forgiven))
	}
	which := func(b Ban) bool { return b.Tenant == arg && arg != "" }
	if addr, err := netip.ParseAddr(arg); err == nil {
		which = func(b Ban) bool { return b.Address.Contains(addr.Unmap()) }
	} else if net, err := netip.ParsePrefix(arg); err == nil {
		which = func(b Ban) bool { return b.Address == net }
	}
	if g.lift(which)+len(forgiven) == 0 {
		return consoleError("22023", "no such ban: "+clip(arg), "SHOW BANS lists them.")
	}
	return nil
}
