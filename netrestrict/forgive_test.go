// Tests of what the throttle forgets.

package netrestrict

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"
)

func only(tenants ...string) func(string) bool {
	return func(tenant string) bool { return slices.Contains(tenants, tenant) }
}

func TestThrottleForgets(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	fail(th, start, "acme", mary, 10)
	fail(th, start, "acme", john, 10)
	fail(th, start, "globex", mary, 10)
	th.Forget(only("acme", "new"))
	wantWait(t, th, start, "acme", mary, 0)
	wantWait(t, th, start, "acme", john, 0)
	wantWait(t, th, start, "globex", mary, DefaultBlock)
	fail(th, start, "acme", mary, 9) // a whole new allowance
	wantWait(t, th, start, "acme", mary, 0)

	// Of mary's address, 10 + 9 failures are left: another 31 block it.
	for i := range 30 {
		th.Failed(start, "t"+strconv.Itoa(i), mary)
	}
	wantWait(t, th, start, "other", mary, 0)
	th.Failed(start, "t", mary)
	wantWait(t, th, start, "other", mary, DefaultBlock)
	// What blocked it is forgotten: so is the block.
	th.Forget(only("globex"))
	wantWait(t, th, start, "other", mary, 0)
	fail(th, start, "x", mary, 9)
	wantWait(t, th, start, "other", mary, 0)
	fail(th, start, "y", mary, 1)
	wantWait(t, th, start, "other", mary, DefaultBlock)
}

// TestThrottleForgetsOnlyItsWindow: failures of a window that has passed are not taken out of the one that came after it.
func TestThrottleForgetsOnlyItsWindow(t *testing.T) {
	th := NewThrottle(ThrottleConfig{AddressFailures: 12, Window: 10 * time.Second, Block: 60 * time.Second})
	fail(th, start, "acme", mary, 10)
	later := start.Add(10 * time.Second)
	fail(th, later, "globex", mary, 9)
	th.Forget(only("acme"))
	fail(th, later, "initech", mary, 3)
	wantWait(t, th, later, "other", mary, 60*time.Second)
}

func TestThrottleRemoved(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	for i := range 6 {
		tenant := "t" + strconv.Itoa(i)
		th.Removed(start, tenant)
		fail(th, start, tenant, mary, 10)
		wantWait(t, th, start, tenant, mary, DefaultBlock) // as any other
	}
	wantWait(t, th, start, "other", mary, 0)
	th.Forget(only("t0"))
	wantWait(t, th, start, "t0", mary, 0)
	wantWait(t, th, start, "t1", mary, DefaultBlock)

	// After an hour a name is one like any other.
	late := start.Add(removedFor)
	for i := 1; i < 6; i++ {
		fail(th, late, "t"+strconv.Itoa(i), mary, 9)
	}
	fail(th, late, "t1", mary, 5)
	wantWait(t, th, late, "other", mary, DefaultBlock)
}

// TestThrottleUnknownCountsAsKnown: the throttle is told nothing of a tenant that it could count otherwise for.
func TestThrottleUnknownCountsAsKnown(t *testing.T) {
	known, unknown := NewThrottle(ThrottleConfig{}), NewThrottle(ThrottleConfig{})
	known.Forget(only("acme")) // it appeared
	for i := range 60 {
		a, b := known.Wait(start, "acme", mary), unknown.Wait(start, "acme", mary)
		if a != b {
			t.Fatalf("after %d failures: %v at a known tenant, %v at an unknown one", i, a, b)
		}
		known.Failed(start, "acme", mary)
		unknown.Failed(start, "acme", mary)
	}
}

func TestRemovalsAreBounded(t *testing.T) {
	r := recent{kept: removedFor}
	for i := range 100 {
		r.add(start.Add(time.Duration(i)), strconv.Itoa(i%30), 10)
	}
	if len(r.at) > 10 || len(r.order) != 10 {
		t.Errorf("%d tenants and %d entries, want at most 10", len(r.at), len(r.order))
	}
	if !r.has(start, "9") || r.has(start, "20") {
		t.Error("the latest are not those that are kept")
	}
	r.add(start.Add(removedFor+100), "last", 10)
	if len(r.at) != 1 || len(r.order) != 1 {
		t.Errorf("%d tenants and %d entries after an hour, want the last", len(r.at), len(r.order))
	}
	// One that comes back and goes again is remembered from then on.
	r = recent{kept: removedFor}
	r.add(start, "acme", 10)
	r.drop(only("acme"))
	if r.has(start, "acme") {
		t.Error("it is back, and taken for removed")
	}
	again := start.Add(removedFor / 2)
	r.add(again, "acme", 10)
	r.add(start.Add(removedFor), "other", 10)
	if !r.has(start.Add(removedFor), "acme") {
		t.Error("forgotten half an hour after it went again")
	}
}

// clearOf lifts all bans of an address, and forgets its failures.
func clearOf(t *Throttle, now time.Time, addr netip.Addr) int {
	return len(t.LiftAll(now, func(b Ban) bool { return b.Address.Contains(addr) }))
}

func TestThrottleBans(t *testing.T) {
	th := NewThrottle(ThrottleConfig{TenantFailures: 2, AddressFailures: 4})
	six := netip.MustParseAddr("2001:db8:0:1::9")
	fail(th, start, "acme", mary, 2)
	fail(th, start, "globex", mary, 1)
	fail(th, start, "acme", six, 2)
	now := start.Add(20 * time.Second)
	fail(th, now, "globex", mary, 1)
	want := []Ban{
		{"", netip.MustParsePrefix("198.51.100.7/32"), DefaultBlock, 4, false},
		{"globex", netip.MustParsePrefix("198.51.100.7/32"), DefaultBlock, 2, false},
		{"acme", netip.MustParsePrefix("2001:db8:0:1::/64"), 100 * time.Second, 2, false},
		{"acme", netip.MustParsePrefix("198.51.100.7/32"), 100 * time.Second, 2, false},
	}
	if got := th.Bans(now); !slices.Equal(got, want) {
		t.Errorf("blocks %v\nwant   %v", got, want)
	}
	if n := clearOf(th, now, netip.MustParseAddr("2001:db8:0:1:ffff::1")); n != 1 {
		t.Errorf("%d lifted, want 1", n)
	}
	if n := clearOf(th, now, mary); n != 3 {
		t.Errorf("%d lifted, want 3", n)
	}
	if got := th.Bans(now); len(got) != 0 || th.Len() != 0 {
		t.Errorf("%v are left, of %d counters", got, th.Len())
	}
	if n := clearOf(th, now, mary); n != 0 {
		t.Errorf("%d lifted where there was none", n)
	}
	fail(th, now, "acme", mary, 2)
	if got := th.Bans(now.Add(DefaultBlock)); len(got) != 0 {
		t.Errorf("%v are blocked, although the time is over", got)
	}
}

// TestThrottleForgives: each failure that is forgiven is one guess more, here and everywhere, and no other address has any of it.
func TestThrottleForgives(t *testing.T) {
	for name, addr := range map[string]netip.Addr{"IPv4": mary, "IPv6": netip.MustParseAddr("2001:db8::1")} {
		th := NewThrottle(ThrottleConfig{TenantFailures: 3, AddressFailures: 5})
		fail(th, start, "acme", addr, 3)
		fail(th, start, "acme", john, 3)
		if over := th.Forgive(start, "acme", addr); len(over) != 1 || over[0].Tenant != "acme" || over[0].Left != 0 || !over[0].Address.Contains(addr) {
			t.Errorf("%s: %+v is over", name, over)
		}
		wantWait(t, th, start, "acme", addr, 0)
		wantWait(t, th, start, "acme", john, DefaultBlock)
		fail(th, start, "acme", addr, 1)
		wantWait(t, th, start, "acme", addr, DefaultBlock)
		fail(th, start, "globex", addr, 2) // the fifth of all
		wantWait(t, th, start, "other", addr, DefaultBlock)
		if over := th.Forgive(start, "acme", addr); len(over) != 2 {
			t.Errorf("%s: %+v is over", name, over)
		}
		wantWait(t, th, start, "other", addr, 0)
		for range 5 { // more than there were
			th.Forgive(start, "acme", addr)
		}
		fail(th, start, "acme", addr, 2)
		wantWait(t, th, start, "acme", addr, 0)
		wantWait(t, th, start, "other", addr, 0)

		late := start.Add(DefaultWindow)
		fail(th, late, "acme", addr, 3)
		th.Forgive(late.Add(2*DefaultBlock), "acme", addr) // what is over anyway
		th.Forgive(late, "nobody", addr)
		wantWait(t, th, late, "acme", addr, DefaultBlock)
	}
}

// TestThrottleForgivesNoManualBan: what somebody wants is not said to be over, or other nodes would lift it.
func TestThrottleForgivesNoManualBan(t *testing.T) {
	th := NewThrottle(ThrottleConfig{TenantFailures: 3, AddressFailures: 3})
	fail(th, start, "acme", mary, 3)
	for _, tenant := range []string{"acme", ""} {
		th.Impose(start, Ban{Tenant: tenant, Address: Subscriber(mary), Left: time.Hour, Manual: true})
	}
	if over := th.Forgive(start, "acme", mary); len(over) != 0 {
		t.Errorf("%+v is over", over)
	}
	wantWait(t, th, start, "acme", mary, time.Hour)

	later := start.Add(time.Hour) // when the manual ones are
	fail(th, later, "acme", mary, 3)
	if over := th.Forgive(later, "acme", mary); len(over) != 2 {
		t.Errorf("%+v is over", over)
	}
}
