// The throttle beside plain bookkeeping for each network: random failures from random addresses, what forgives them, and time.

package netrestrict

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// naive is what the throttle should be, without a thought for time and memory.
type naive struct {
	cfg      ThrottleConfig
	tally    map[throttleKey]*tallied
	imposed  map[throttleKey]map[bool]time.Time // until when, by whether it is manual
	removed  map[string]time.Time
	neverBan map[string]netip.Prefix
}

type tallied struct {
	at           []string // the failures, by the tenant; "kept": not to be forgotten
	since, until time.Time
}

func (n *naive) spared(tenant string, addr netip.Addr) bool {
	return n.neverBan[tenant].IsValid() && n.neverBan[tenant].Contains(addr)
}

// nets are an address's networks, and how many times the limits each may fail.
func (n *naive) nets(addr netip.Addr) map[netip.Prefix]int {
	if addr.Is4() {
		return map[netip.Prefix]int{netip.PrefixFrom(addr, 32): 1}
	}
	out := make(map[netip.Prefix]int)
	for bits, times := range map[int]int{64: 1, 56: 4, 48: 16} {
		p, _ := addr.Prefix(bits)
		out[p] = times
	}
	return out
}

func (n *naive) count(now time.Time, key throttleKey, tenant string, limit int) {
	s := n.tally[key]
	if s == nil {
		s = &tallied{}
		n.tally[key] = s
	}
	if now.Before(s.until) {
		return
	}
	if !s.until.IsZero() || now.Sub(s.since) >= n.cfg.Window {
		*s = tallied{since: now}
	}
	if s.at = append(s.at, tenant); len(s.at) == limit {
		s.until = now.Add(n.cfg.Block)
	}
}

func (n *naive) failed(now time.Time, tenant string, addr netip.Addr) {
	for net, times := range n.nets(addr) {
		if !n.spared(tenant, addr) {
			n.count(now, throttleKey{at(tenant), net}, tenant, times*n.cfg.TenantFailures)
		}
		if gone, ok := n.removed[tenant]; !ok || now.Sub(gone) >= removedFor {
			n.count(now, throttleKey{everywhere, net}, tenant, times*n.cfg.AddressFailures)
		}
	}
}

// keep has what a network has failed at a tenant so far stay for good.
func (n *naive) keep(tenant string, net netip.Prefix) {
	if s := n.tally[throttleKey{everywhere, net}]; s != nil {
		for i := range s.at {
			if s.at[i] == tenant {
				s.at[i] = "kept"
			}
		}
	}
}

func (n *naive) forget(tenant string) {
	for key, s := range n.tally {
		if key.atTenant {
			if key.tenant == tenant {
				delete(n.tally, key)
			}
			continue
		}
		if !slices.Contains(s.at, tenant) {
			continue
		}
		limit := n.cfg.AddressFailures
		if key.net.Addr().Is6() {
			limit = n.nets(key.net.Addr())[key.net] * limit
		}
		s.at = slices.DeleteFunc(s.at, func(at string) bool { return at == tenant })
		if len(s.at) < limit {
			s.until = time.Time{}
		}
		if len(s.at) == 0 {
			delete(n.tally, key)
		}
	}
	delete(n.removed, tenant)
}

func (n *naive) lift(key throttleKey) {
	if key.atTenant {
		n.keep(key.tenant, key.net)
	}
	delete(n.tally, key)
	delete(n.imposed, key)
}

func (n *naive) wait(now time.Time, tenant string, addr netip.Addr) (failed, manual time.Duration) {
	holds := func(s scope, net netip.Prefix) bool {
		return net.Contains(addr) && (s == everywhere || s.tenant == tenant && !n.spared(tenant, addr))
	}
	for key, s := range n.tally {
		if holds(key.scope, key.net) {
			failed = max(failed, s.until.Sub(now))
		}
	}
	for key, until := range n.imposed {
		if holds(key.scope, key.net) {
			failed, manual = max(failed, until[false].Sub(now)), max(manual, until[true].Sub(now))
		}
	}
	return max(0, failed), max(0, manual)
}

// TestThrottleModel also shows that no network affects another but where a tenant's failures are forgotten.
func TestThrottleModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := ThrottleConfig{TenantFailures: 2, AddressFailures: 3, Window: 20 * time.Second, Block: 10 * time.Second, MaxKeys: 1000}
		now := start
		model := &naive{cfg, map[throttleKey]*tallied{}, map[throttleKey]map[bool]time.Time{}, map[string]time.Time{},
			map[string]netip.Prefix{"globex": netip.MustParsePrefix("2001:db8:0:100::/56")}}
		th := NewThrottle(cfg)
		th.Spare(model.spared)
		tenants := []string{"acme", "globex"}
		addrs := []netip.Addr{mary, john}
		for _, s := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:101::1", "2001:db8:0:202::1", "2001:db8:1::1"} {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		nets := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2001:db8::1/128")}
		for _, a := range addrs {
			nets = append(nets, slices.Collect(networks(a))...)
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			tenant, addr := rapid.SampledFrom(tenants).Draw(t, "tenant"), rapid.SampledFrom(addrs).Draw(t, "addr")
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 0, 0, 0, 1, 2, 6}).Draw(t, "seconds")) * time.Second)
			where := Ban{Tenant: rapid.SampledFrom([]string{"", "acme", "globex"}).Draw(t, "where"), Address: rapid.SampledFrom(nets).Draw(t, "net")}
			switch rapid.IntRange(0, 30).Draw(t, "op") {
			case 0:
				th.Succeeded(now, tenant, addr)
				key := throttleKey{at(tenant), Subscriber(addr)}
				delete(model.tally, key)
				model.keep(tenant, key.net)
			case 1:
				th.Forget(func(name string) bool { return name == tenant })
				model.forget(tenant)
			case 2:
				th.Removed(now, tenant)
				model.removed[tenant] = now
			case 3:
				now = now.Add(removedFor)
			case 4:
				clearOf(th, now, addr)
				for _, net := range nets {
					if net.Contains(addr) {
						for _, s := range []scope{everywhere, at("acme"), at("globex")} {
							model.lift(throttleKey{s, net})
						}
					}
				}
			case 5, 6:
				where.Manual = rapid.Bool().Draw(t, "manual")
				where.Left = time.Duration(rapid.IntRange(1, 30).Draw(t, "left")) * time.Second
				th.Impose(now, where)
				if model.imposed[where.key()] == nil {
					model.imposed[where.key()] = make(map[bool]time.Time)
				}
				if until := now.Add(where.Left); until.After(model.imposed[where.key()][where.Manual]) {
					model.imposed[where.key()][where.Manual] = until
				}
			case 7:
				th.Lift(now, where.Tenant, where.Address)
				model.lift(where.key())
			default:
				th.Failed(now, tenant, addr)
				model.failed(now, tenant, addr)
			}
			for _, tenant := range tenants {
				for _, addr := range addrs {
					failed, manual := model.wait(now, tenant, addr)
					if f, m := th.Waits(now, tenant, addr); f != failed || m != manual {
						t.Fatalf("Waits(%q, %s) = %v, %v, want %v, %v", tenant, addr, f, m, failed, manual)
					}
				}
			}
		}
	})
}
