// Tests of peers, of whom to trust, and of the set of reasons.

package proxyproto

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTrusted(t *testing.T) {
	networks := []netip.Prefix{
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("::ffff:192.0.2.0/120"),
		netip.MustParsePrefix("fe80::/10"),
		{},
	}
	trusted := NewTrusted(networks)
	clear(networks) // the set is its own
	for addr, want := range map[string]bool{
		"172.19.0.1":        true,
		"::ffff:172.19.0.1": true,
		"172.32.0.1":        false,
		"192.0.2.9":         true,
		"::ffff:192.0.2.9":  true,
		"192.0.3.9":         false,
		"fe80::1%eth0":      true,
		"fdaa::1":           false,
		"::1":               false,
	} {
		if got := trusted.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Contains(%s) = %v", addr, got)
		}
	}
	if trusted.Contains(netip.Addr{}) || (Trusted{}).Contains(netip.MustParseAddr("127.0.0.1")) {
		t.Error("an invalid address, or an empty set, is trusted")
	}
	// Not even a set of everything IPv6 takes in IPv4.
	if NewTrusted([]netip.Prefix{netip.MustParsePrefix("::/0")}).Contains(netip.MustParseAddr("::ffff:10.0.0.1")) {
		t.Error("::/0 trusts IPv4")
	}
}

func TestDirect(t *testing.T) {
	want := netip.MustParseAddrPort("10.0.0.1:5")
	got := Direct(netip.MustParseAddrPort("[::ffff:10.0.0.1]:5"))
	if diff := cmp.Diff(Peer{Socket: want, Client: want}, got, addrPortsByValue); diff != "" {
		t.Error(diff)
	}
}

// The set of reasons is what metrics are made of: every one is in it, once.
func TestReasons(t *testing.T) {
	all := Reasons()
	seen := map[Reason]bool{}
	for _, r := range all {
		if r == "" || seen[r] {
			t.Errorf("%q is empty or twice in the set", r)
		}
		seen[r] = true
	}
	for _, c := range cases() {
		if !slices.Contains(all, c.reason) {
			t.Errorf("%q is not in the set", c.reason)
		}
	}
}
