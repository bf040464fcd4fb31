// Tests of the login throttle.

package netrestrict

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
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

// TestThrottleWideNetworks: whoever has many /64 is stopped by their /56, and by their /48; whoever has one never stops its
// neighbours.
func TestThrottleWideNetworks(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	guesses := func(now time.Time, from string, times int) (made int) { // as the gate has them
		for range times {
			if addr := netip.MustParseAddr(from); th.Wait(now, "acme", addr) == 0 {
				th.Failed(now, "acme", addr)
				made++
			}
		}
		return made
	}
	if n := guesses(start, "2001:db8:0:1::1", 50) + guesses(start.Add(DefaultBlock), "2001:db8:0:1::1", 50); n != 20 {
		t.Errorf("%d guesses from one /64 in a window, want 20", n)
	}
	wantWait(t, th, start.Add(DefaultBlock), "acme", netip.MustParseAddr("2001:db8:0:2::1"), 0)

	th = NewThrottle(ThrottleConfig{})
	made := 0
	for i := range 0x100 {
		made += guesses(start, "2001:db8:0:"+strconv.FormatInt(int64(i), 16)+"::1", 9) // never ten at one
	}
	if made != 40 {
		t.Errorf("%d guesses from one /56, want 40", made)
	}
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:0:ff::"), DefaultBlock)
	wantWait(t, th, start, "globex", netip.MustParseAddr("2001:db8:0:ff::"), 0)
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:0:100::"), 0)
	for i := 0x100; i < 0x10000; i += 7 {
		made += guesses(start, "2001:db8:0:"+strconv.FormatInt(int64(i), 16)+"::1", 9)
	}
	if made != 160 {
		t.Errorf("%d guesses from one /48, want 160", made)
	}
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:0:ffff::"), DefaultBlock)
	wantWait(t, th, start, "acme", netip.MustParseAddr("2001:db8:1::"), 0)
	if got := th.Bans(start); len(got) != 5 { // four /56, each with its own forty, and their /48
		t.Errorf("%d bans: %v", len(got), got)
	}
	if th.Len() > 2*(160+160+2) {
		t.Errorf("%d counters", th.Len())
	}
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
	for i := range 200_000 {
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
