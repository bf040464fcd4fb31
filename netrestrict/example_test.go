// What the package is for, in a few lines that run.

package netrestrict_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/postern/postern/netrestrict"
)

// A list of networks that may connect. A family without an entry is denied, and an IPv4 address stays one however it is written.
func ExampleAllowList() {
	office, err := netrestrict.ParsePrefix("203.0.113.0/24")
	if err != nil {
		fmt.Println(err)
		return
	}
	list, err := netrestrict.Compile([]netip.Prefix{office})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, addr := range []string{"203.0.113.7", "::ffff:203.0.113.7", "198.51.100.7", "2001:db8::1"} {
		fmt.Println(addr, list.Decide(time.Now(), netrestrict.Who{Address: netip.MustParseAddr(addr)}).Allowed)
	}
	_, err = netrestrict.ParsePrefix("203.0.113.7/24")
	fmt.Println(err)
	// Output:
	// 203.0.113.7 true
	// ::ffff:203.0.113.7 true
	// 198.51.100.7 false
	// 2001:db8::1 false
	// "203.0.113.7/24" has bits set behind its prefix length: write 203.0.113.0/24
}

// Three wrong passwords from one address, and it has to wait, at that tenant. Others do not.
func ExampleThrottle() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	t := netrestrict.NewThrottle(netrestrict.ThrottleConfig{TenantFailures: 3, Block: time.Minute})
	guesser, neighbour := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.51.100.8")
	for range 3 {
		t.Failed(now, "acme", guesser)
	}
	now = now.Add(20 * time.Second)
	fmt.Println(t.Wait(now, "acme", guesser), t.Wait(now, "acme", neighbour), t.Wait(now, "globex", guesser))
	// Output:
	// 40s 0s 0s
}
