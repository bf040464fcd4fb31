// What the package is for, in a few lines that run.

package pool_test

import (
	"fmt"
	"time"

	"github.com/postern/postern/pool"
)

// A pool of one server and two clients: the second one waits, and is handed the server when the first one is done.
func Example() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	tenant := pool.NewTenant(pool.Settings{MaxServers: 60})
	p := tenant.NewPool(1, nil, nil)
	var ada, bob pool.Client

	fmt.Println("ada has a server:", p.Acquire(&ada, nil, now) != nil)

	// Whoever owns the pool dials when it says so.
	server := &pool.Server{}
	for p := tenant.NextDial(now, nil); p != nil; p = tenant.NextDial(now, nil) {
		p.StartDial(server, now)
	}
	next := p.DialDone(server, now.Add(time.Millisecond))
	fmt.Println("the new one is ada's:", next.Client == &ada)

	p.Acquire(&bob, nil, now.Add(2*time.Millisecond))
	fmt.Println("bob waits:", bob.Waiting())

	next = p.Release(server, now.Add(3*time.Millisecond))
	fmt.Println("then it is bob's:", next.Client == &bob)

	p.Release(server, now.Add(4*time.Millisecond))
	fmt.Println("idle:", p.Counts().Idle)
	// Output:
	// ada has a server: false
	// the new one is ada's: true
	// bob waits: true
	// then it is bob's: true
	// idle: 1
}
