// Tests of the login throttle.

package netrestrict

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	mary  = netip.MustParseAddr("198.51.100.7")
	john  = netip.MustParseAddr("198.51.100.8")
)

func fail(t *Throttle, now time.Time, tenant string, addr netip.Addr, times int) {
	for range times {
		t.Failed(now, tenant, addr)
	}
}

func wantWait(t *testing.T, th *Throttle, now time.Time, tenant string, addr netip.Addr, want time.Duration) {
	t.Helper()
	if got := th.Wait(now, tenant, addr); got != want {
		t.Errorf("Wait(%s, %s) = %v, want %v", tenant, addr, got, want)
	}
}

func TestThrottleTenant(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	fail(th, start, "acme", mary, 9)
	wantWait(t, th, start, "acme", mary, 0)
	fail(th, start, "acme", mary, 1)
	wantWait(t, th, start, "acme", mary, 120*time.Second)
	wantWait(t, th, start, "acme", netip.MustParseAddr("::ffff:198.51.100.7"), 120*time.Second)
	wantWait(t, th, start, "acme", john, 0)
	wantWait(t, th, start, "globex", mary, 0)

	later := start.Add(119 * time.Second)
	fail(th, later, "acme", mary, 20) // does not lengthen the block
	wantWait(t, th, later, "acme", mary, time.Second)
	after := start.Add(120 * time.Second)
	wantWait(t, th, after, "acme", mary, 0)
	fail(th, after, "acme", mary, 9) // a new window, a new allowance
	wantWait(t, th, after, "acme", mary, 0)
	fail(th, after, "acme", mary, 1)
	wantWait(t, th, after, "acme", mary, 120*time.Second)
}

func TestThrottleWindow(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	fail(th, start, "acme", mary, 9)
	fail(th, start.Add(150*time.Second), "acme", mary, 9)
	wantWait(t, th, start.Add(150*time.Second), "acme", mary, 0)
	fail(th, start.Add(299*time.Second), "acme", mary, 1)
	wantWait(t, th, start.Add(299*time.Second), "acme", mary, 120*time.Second)
}

func TestThrottleAddress(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	for i := range 50 {
		wantWait(t, th, start, "t"+strconv.Itoa(i), mary, 0)
		th.Failed(start, "t"+strconv.Itoa(i), mary)
		th.Succeeded(start, "t"+strconv.Itoa(i), mary) // does not clear the address's own counter
	}
	wantWait(t, th, start, "never-tried", mary, 120*time.Second)
	wantWait(t, th, start, "never-tried", john, 0)
}

func TestThrottleSuccessClears(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	fail(th, start, "acme", mary, 9)
	th.Succeeded(start, "acme", mary)
	fail(th, start, "acme", mary, 9)
	wantWait(t, th, start, "acme", mary, 0)
	th.Succeeded(start, "acme", john) // knows nothing of john: no effect
	if th.Len() != 2 {
		t.Errorf("Len = %d", th.Len())
	}
}

func TestThrottleIPv6Subscriber(t *testing.T) {
	th := NewThrottle(ThrottleConfig{TenantFailures: 3})
	for i := range 3 {
		th.Failed(start, "acme", netip.MustParseAddr("2001:db8:0:1::"+strconv.Itoa(i+1)))
	}
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:0:1:ffff::"), DefaultBlock)
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:0:2::1"), 0)
	fail(th, start, "acme", netip.MustParseAddr("fe80::1%eth0"), 3)
	wantWait(t, th, start, "acme", netip.MustParseAddr("fe80::2%eth1"), DefaultBlock)
	fail(th, start, "acme", netip.Addr{}, 3)
	wantWait(t, th, start, "acme", netip.Addr{}, DefaultBlock)
}

func TestThrottleLongNamesShareAKey(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	for i := range 9 {
		th.Failed(start, strings.Repeat("x", 64+i), mary)
	}
	if th.Len() != 2 {
		t.Errorf("Len = %d, want one counter for all impossible tenants and one for the address", th.Len())
	}
}

func TestThrottleEvictsTheStalest(t *testing.T) {
	th := NewThrottle(ThrottleConfig{TenantFailures: 1, MaxKeys: 4})
	a, b, c := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	th.Failed(start, "acme", a)
	th.Failed(start, "acme", b)
	th.Failed(start, "acme", a) // fresher than b now
	th.Failed(start, "acme", c)
	wantWait(t, th, start, "acme", a, DefaultBlock)
	wantWait(t, th, start, "acme", b, 0)
	wantWait(t, th, start, "acme", c, DefaultBlock)
	if th.Len() != 4 {
		t.Errorf("Len = %d", th.Len())
	}
	one := NewThrottle(ThrottleConfig{MaxKeys: 1})
	fail(one, start, "acme", a, 100)
	if one.Len() != 1 {
		t.Errorf("Len = %d", one.Len())
	}
}

func TestThrottleFloodStaysBoundedAndShrinks(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	rng := rand.New(rand.NewPCG(1, 2))
	var raw [16]byte
	for i := range 1_000_000 {
		binary.BigEndian.PutUint64(raw[:], rng.Uint64())
		th.Failed(start.Add(time.Duration(i)*time.Microsecond), "acme", netip.AddrFrom16(raw))
		if th.Len() > DefaultMaxKeys {
			t.Fatalf("Len = %d after %d", th.Len(), i)
		}
	}
	quiet := start.Add(time.Hour)
	for range DefaultMaxKeys / (sweep - 2) {
		th.Failed(quiet, "acme", mary)
	}
	if th.Len() > 2 {
		t.Errorf("Len = %d long after a flood", th.Len())
	}
}

// TestThrottleModel compares with plain bookkeeping per key, which shows as well that no key affects another but where a
// tenant's failures are forgotten.
func TestThrottleModel(t *testing.T) {
	type state struct {
		at           []string // the failures, by tenant; "": not to be forgotten
		since, until time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		cfg := ThrottleConfig{TenantFailures: 3, AddressFailures: 5, Window: 20 * time.Second, Block: 10 * time.Second, MaxKeys: 1000}
		th, model, now := NewThrottle(cfg), map[[2]string]*state{}, start
		tenants := []string{"acme", "globex", ""}
		addrs := []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"}
		removed := map[string]time.Time{}
		count := func(key [2]string, tenant string, limit int) {
			s := model[key]
			if s == nil {
				s = &state{}
				model[key] = s
			}
			if now.Before(s.until) {
				return
			}
			if len(s.at) >= limit || now.Sub(s.since) >= cfg.Window {
				*s = state{since: now}
			}
			if s.at = append(s.at, tenant); len(s.at) == limit {
				s.until = now.Add(cfg.Block)
			}
		}
		// renamed has an address's own failures at a tenant stay for good, and forgiven takes them out.
		renamed := func(tenant, text string) {
			if s := model[[2]string{"", text}]; s != nil {
				for i := range s.at {
					if s.at[i] == tenant {
						s.at[i] = "kept"
					}
				}
			}
		}
		forgiven := func(tenant, text string) {
			key := [2]string{"", text}
			s := model[key]
			if s == nil || !slices.Contains(s.at, tenant) {
				return
			}
			s.at = slices.DeleteFunc(s.at, func(at string) bool { return at == tenant })
			if len(s.at) < cfg.AddressFailures {
				s.until = time.Time{}
			}
			if len(s.at) == 0 {
				delete(model, key)
			}
		}
		left := func(key [2]string) time.Duration {
			if s := model[key]; s != nil && now.Before(s.until) {
				return s.until.Sub(now)
			}
			return 0
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			tenant, text := rapid.SampledFrom(tenants).Draw(t, "tenant"), rapid.SampledFrom(addrs).Draw(t, "addr")
			addr := netip.MustParseAddr(text)
			now = now.Add(time.Duration(rapid.IntRange(0, 6).Draw(t, "seconds")) * time.Second)
			here := [2]string{"@" + tenant, text}
			switch rapid.IntRange(0, 11).Draw(t, "op") {
			case 0:
				th.Succeeded(now, tenant, addr)
				delete(model, here)
				renamed(here[0], text)
			case 1:
				th.Forget(func(name string) bool { return name == tenant })
				for _, text := range addrs {
					delete(model, [2]string{here[0], text})
					forgiven(here[0], text)
				}
				delete(removed, tenant)
			case 2:
				th.Removed(now, tenant)
				removed[tenant] = now
			case 3:
				now = now.Add(removedFor)
			case 4:
				th.ForgetAddress(now, addr)
				for key := range model {
					if key[1] == text {
						delete(model, key)
					}
				}
			default:
				th.Failed(now, tenant, addr)
				count(here, here[0], cfg.TenantFailures)
				if at, ok := removed[tenant]; !ok || now.Sub(at) >= removedFor {
					count([2]string{"", text}, here[0], cfg.AddressFailures)
				}
			}
			for _, tenant := range tenants {
				for _, text := range addrs {
					want := max(left([2]string{"@" + tenant, text}), left([2]string{"", text}))
					if got := th.Wait(now, tenant, netip.MustParseAddr(text)); got != want {
						t.Fatalf("Wait(%q, %s) = %v, want %v", tenant, text, got, want)
					}
				}
			}
		}
	})
}

// BenchmarkThrottleFlood shows that a call costs the same with a full table and ever new keys.
func BenchmarkThrottleFlood(b *testing.B) {
	th := NewThrottle(ThrottleConfig{})
	var raw [16]byte
	var i uint64
	for b.Loop() {
		i++
		binary.BigEndian.PutUint64(raw[:], i*0x9e3779b97f4a7c15)
		addr := netip.AddrFrom16(raw)
		if th.Wait(start, "acme", addr) == 0 {
			th.Failed(start, "acme", addr)
		}
	}
}
