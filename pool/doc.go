// Package pool decides which client gets which server connection, who waits, and when to dial or close one. It is pure
// bookkeeping: no I/O, no clock (every call that needs the time is handed it), no locks, no goroutines. All pools of a
// [Tenant] belong to one event loop and are touched by that loop's thread alone; now must never run backwards.
//
// A [Tenant] has one [Pool] per (user, database, mode). Clients wait first come, first served; idle servers are lent
// last in, first out, so that surplus ones grow old at the other end and time out; a released server goes straight to
// the oldest waiter.
//
// # States
//
// A server's state is the list it stands in, and Pool.set is the only function that moves it:
//
//	           StartDial                DialDone, nobody waits
//	(new) ───────────────> Dialing ───────────────────────────> Idle
//	                          │                                 ^  │
//	                          │ DialDone,        Release,       │  │ Acquire
//	                          │ somebody waits   nobody waits   │  v
//	                          └───────────────────────────────> Active <┐
//	                                                            │  │ ^  │ Release, somebody waits:
//	                                              BeginCleaning │  │ └──┘ handed over
//	                                                            v  │
//	        EndCleaning: as Release, to Idle or Active <─── Cleaning
//
//	any state ──> Closed: RemoveServer, DialFailed, Retire, Sweep, NextDial's victim, or a Next that says Close
//
// A server told to close has already left the pool when the caller hears of it, and it never comes back: each dial has
// a Server of its own. A client is Away (not here), Waiting (in its pool's queue) or Served (a server is Active for it).
//
// # Invariants
//
//   - A server is Active exactly while it has a client, and that client is Served by it.
//   - A pool never has an idle server and a waiting client at the same time, so nobody can jump the queue.
//   - No dial starts that would take a pool above its size or its tenant above MaxServers; dialing ones count. Only a
//     lowered limit can leave a pool above it, and then releases and sweeps bring it down.
//   - Acquire, Release and the hand-over allocate nothing and take constant time, except that a release walks over the
//     tenant's pools with waiters while the tenant is at MaxServers and another of its pools has waiters.
//   - An operation that the state does not allow is a bug of the caller and panics with "BUG" before it changes anything.
//
// [Tenant.Check] recounts all of it.
//
// # How a caller reads
//
//	if err := p.Failing(now); err != nil { refuse(c, err) }         // before a client may queue
//	if s := p.Acquire(c, c.last, now); s != nil { serve(c, s) }     // otherwise it waits
//	next := p.Release(s, now)                                       // or EndCleaning, DialDone
//	switch {
//	case next.Close != pool.Keep: close(s, next.Close)
//	case next.Client != nil:      serve(next.Client, s)
//	}
//	for {                                                           // after every event, and on a tick
//		p, victim := t.NextDial(now)
//		if p == nil { break }
//		if victim != nil { close(victim, pool.Evicted) }
//		p.StartDial(newServer(p), now)
//	}
package pool
