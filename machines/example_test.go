// What the package is for, in a few lines that run.

package machines_test

import (
	"fmt"
	"time"

	"github.com/postern/postern/machines"
)

// The rules on a clock that is moved by hand: a machine that sleeps is woken for a client, and put to sleep when nobody has used it for
// five minutes. What Next names the owner does, and tells the rules how it went.
func ExampleRules() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	r := machines.NewRules(machines.Settings{SuspendAfter: 5 * time.Minute, WakeLimit: time.Minute}, nil, now)
	next := func() {
		do, again := r.Next(now)
		fmt.Printf("%s %v: %v", now.Format("15:04:05"), r.View().State, do)
		if !again.IsZero() {
			fmt.Printf(", ask again at %s", again.Format("15:04:05"))
		}
		fmt.Println()
	}

	r.Want("client", now) // its address and password are proven
	next()
	r.Asked(machines.Status{Power: machines.Asleep}, nil, now)
	next()
	now = now.Add(2 * time.Second)
	running := machines.Status{Power: machines.Running, Generation: machines.Generation{Instance: "i1", Started: now}}
	r.Started(running, machines.Endpoint{Host: "fdaa::1", Port: 5432}, nil, now)
	next()
	r.Probed(nil, now) // Postgres answers
	next()
	now = now.Add(5 * time.Minute)
	next()
	r.Drained() // its holder has closed its connections
	next()
	r.Slept(nil, now)
	next()
	// Output:
	// 12:00:00 unknown: ask
	// 12:00:00 waking: start
	// 12:00:02 waking: probe
	// 12:00:02 ready: nothing, ask again at 12:05:02
	// 12:05:02 draining: nothing, ask again at 12:05:12
	// 12:05:02 suspending: sleep
	// 12:05:02 asleep: nothing
}
