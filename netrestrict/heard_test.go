// Tests of failures that other nodes tell.

package netrestrict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func heard(t *Throttle, now time.Time, tenant string, addr netip.Addr, times int) (began, over []Ban) {
	return t.Heard(now, Failures{Tenant: tenant, Address: addr, Count: times})
}

// TestFailuresElsewhereCount with those of here, at the tenant and for the address, as if they had been seen here.
func TestFailuresElsewhereCount(t *testing.T) {
	for _, addr := range []netip.Addr{mary, netip.MustParseAddr("2001:db8::7")} {
		th, alone := NewThrottle(ThrottleConfig{}), NewThrottle(ThrottleConfig{})
		for i := range DefaultTenantFailures - 1 {
			if i%2 == 0 {
				fail(th, start, "acme", addr, 1)
			} else {
				heard(th, start, "acme", addr, 1)
			}
		}
		fail(alone, start, "acme", addr, DefaultTenantFailures-1)
		wantWait(t, th, start, "acme", addr, 0)
		began, over := heard(th, start, "acme", addr, 1)
		want := alone.Failed(start, "acme", addr)
		if !slices.Equal(began, want) || len(began) != 1 || len(over) > 0 {
			t.Errorf("%v, %v, want %v", began, over, want)
		}
		wantWait(t, th, start, "acme", addr, DefaultBlock)
		for _, tenant := range []string{"b", "c", "d", "e"} {
			heard(th, start, tenant, addr, 10)
		}
		wantWait(t, th, start, "elsewhere", addr, DefaultBlock)
	}
}

// TestTooManyAtOnceWaitLonger: three nodes that have judged ten guesses each at the same moment come to the guesses of one in the long
// run, whoever has seen which; and what may have been right takes its part of the wait back.
func TestTooManyAtOnceWaitLonger(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	fail(th, start, "acme", mary, 10)
	heard(th, start, "acme", mary, 10)
	heard(th, start, "acme", mary, 10)
	wantWait(t, th, start, "acme", mary, 3*DefaultBlock)
	if got := th.Bans(start); len(got) != 1 || got[0].Failures != 30 {
		t.Errorf("%v", got)
	}
	if _, over := heard(th, start, "acme", mary, -5); len(over) > 0 {
		t.Errorf("over: %v", over)
	}
	wantWait(t, th, start, "acme", mary, 3*DefaultBlock-DefaultBlock/2)
	if _, over := heard(th, start, "acme", mary, -16); len(over) != 1 || over[0].Tenant != "acme" || over[0].Left != 0 {
		t.Errorf("over: %v", over)
	}
	wantWait(t, th, start, "acme", mary, 0)
	heard(th, start, "acme", mary, 1)
	wantWait(t, th, start, "acme", mary, DefaultBlock)
	// It is the same for the address, and forgotten with the tenant.
	th = NewThrottle(ThrottleConfig{TenantFailures: 1000})
	fail(th, start, "acme", mary, 40)
	fail(th, start, "globex", mary, 10)
	heard(th, start, "acme", mary, 25)
	wantWait(t, th, start, "other", mary, DefaultBlock*3/2)
	th.Forget(only("globex"))
	wantWait(t, th, start, "other", mary, DefaultBlock+DefaultBlock*15/50)
	th.Forget(only("acme"))
	wantWait(t, th, start, "other", mary, 0)
	if th.Len() != 0 {
		t.Errorf("%d counters", th.Len())
	}
}

// TestSuccessElsewhereForgives what it forgives here.
func TestSuccessElsewhereForgives(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	if th.Succeeded(start, "acme", mary) {
		t.Error("nothing was forgotten")
	}
	fail(th, start, "acme", mary, 9)
	th.Heard(start, Failures{Tenant: "acme", Address: mary, Cleared: true, Count: 9})
	wantWait(t, th, start, "acme", mary, 0)
	heard(th, start, "acme", mary, 1)
	wantWait(t, th, start, "acme", mary, DefaultBlock)
	if !th.Succeeded(start, "acme", mary) {
		t.Error("what was failed is not forgotten")
	}
}

// TestRepairedTenantsHearNothing of who may not have heard of it: for some seconds, of that tenant alone.
func TestRepairedTenantsHearNothing(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	th.Repaired(start, "acme")
	heard(th, start.Add(repairedFor-1), "acme", mary, 10)
	wantWait(t, th, start.Add(repairedFor-1), "acme", mary, 0)
	heard(th, start.Add(repairedFor-1), "globex", mary, 10)
	wantWait(t, th, start.Add(repairedFor-1), "globex", mary, DefaultBlock)
	fail(th, start.Add(repairedFor-1), "acme", mary, 4) // what fails here does
	heard(th, start.Add(repairedFor), "acme", mary, 6)
	wantWait(t, th, start.Add(repairedFor), "acme", mary, DefaultBlock)
}

// TestUntoldFailures: an address at a tenant is told once, with what counts in the end; there is a bound, and names of strangers cost
// no more than those of tenants.
func TestUntoldFailures(t *testing.T) {
	var u Untold
	if got := u.Take(); len(got) > 0 {
		t.Errorf("of nothing: %v", got)
	}
	long := strings.Repeat("x", maxTenantName+1)
	for _, f := range []Failures{{"acme", mary, false, 1}, {"acme", john, false, 1}, {"acme", mary, false, 1}, {"globex", mary, false, 1}, {long, mary, false, 1}, {"", mary, false, 1},
		{"acme", john, true, 0}, {"globex", mary, false, -1}, {"b", john, false, -1}, {"acme", john, false, 1}} {
		u.Add(f)
	}
	want := []Failures{{"acme", mary, false, 2}, {"acme", john, true, 1}, {nobodys, mary, false, 2}, {"b", john, false, -1}}
	if got := u.Take(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for i := range maxUntold + 10 {
		u.Add(Failures{fmt.Sprint("t", i), mary, false, 1})
	}
	n := 0
	for some := u.Take(); len(some) > 0; some = u.Take() {
		if len(some) > MaxTold || some[0].Tenant != fmt.Sprint("t", n) {
			t.Fatalf("%d, the first at %s, after %d", len(some), some[0].Tenant, n)
		}
		n += len(some)
	}
	if n != maxUntold || len(u.byWho) > 0 || u.all != nil {
		t.Errorf("%d were told, and %d are left", n, len(u.byWho))
	}
}

// TestHeardIsBounded, whatever a node says.
func TestHeardIsBounded(t *testing.T) {
	th := NewThrottle(ThrottleConfig{})
	heard(th, start, "acme", mary, 1<<60)
	if got := th.Bans(start); len(got) == 0 || got[0].Failures > maxHeard {
		t.Errorf("%v", got)
	}
	heard(th, start, "acme", mary, -1<<62)
	wantWait(t, th, start, "acme", mary, 0)
}
