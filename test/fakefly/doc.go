// Package fakefly is Fly's Machines API in this process, over machines that are real enough: PostgreSQL clusters on this
// computer, or nothing at all. It answers what the API documents, in the time that a test tells it to, and breaks in the
// ways that a test asks for.
//
// # What it is strict about
//
// A wrong method, path, query parameter or body, a missing token or one that was never valid is answered as the API would
// and recorded as a violation, which fails the test when it ends. Limits are enforced as documented: 429 is real, and no
// violation.
//
// # A machine
//
//	             start                             boot, or resume
//	stopped   ────────┐                      ┌──────────────────────────> started
//	suspended ────────┼────> starting ───────┘                             │  │
//	suspending ───────┘ (the snapshot is given up)          suspend, stop  │  │ the process ends
//	                                                                       v  v
//	                               stopped, suspended <──── suspending, stopping
//
//	any of them ──> destroyed
//
// Transitions take the time that [Options] say and what the [VM] itself needs. While a machine runs, its private address
// is a TCP listener on this computer's 127/8 that leads to the VM; otherwise it refuses. A suspended machine's
// connections are frozen and never thaw: whoever uses one after a resume waits for ever, as behind a network that has
// forgotten them. They end when the machine stops.
//
// Faults of calls are [Fault]s; faults of a machine are methods of [Machine].
package fakefly
