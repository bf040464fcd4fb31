// Package pool decides which client gets which server connection, who waits, and when to dial or close one. It is pure
// bookkeeping: no I/O, no clock (every call that needs the time is handed it), no locks, no goroutines. All pools of a
// [Tenant] belong to one event loop and are touched by that loop's thread alone; now must never run backwards.
//
// A [Tenant] has one [Pool] per user and database. Clients wait first come, first served; idle servers are lent last in,
// first out, so that surplus ones grow old at the other end and time out; a released server goes straight to the oldest
// waiter.
//
// # Limits
//
// A pool has a size, and a reserve above it, of which a server is dialed for each client that has waited for
// Settings.ReserveAfter. It leaves by the rule for idle servers, like any other. Besides, each pool is in three groups
// ([Group]) with a limit each: its user's pools, its database's, and all of the tenant's. The smallest limit counts.
// When a group is full, its longest idle server makes room for a pool that wants to dial.
//
// Others may share a limit: then what counts is our portion of it ([Quota.SetPortion]). [Tenant.Reckon] works out what is held and
// wanted of each limit, for those who divide it.
//
// A server that was closed here may still be there at its end for a while ([Pool.Linger]). The books have room for another one at
// once; but where a limit, or a portion, would be exceeded at the other end, that one connects only when the place is free
// ([Tenant.NextConnect]).
//
// # Fairness
//
// When nothing is idle, a server that is released is closed for another pool of the full group, if that one
//   - has at least two servers less. Users share a tenant evenly, and pools share a user or a database evenly; who needs
//     less than an even share gets what it needs. So a user who has less gets a server as soon as one that has more
//     releases one, however many clients that one has.
//   - has fewer, and its clients have waited a second longer (yieldAfter) than those of the pool that gives up, or has
//     none at all. So nobody starves where there are more pools than servers: a client waits no longer than a second
//     plus what those waited who were served before it, plus a transaction and a login.
//
// The room is kept for the pool that it was made for, a second at most. An idle server is kept from those who have more
// for a second as well, so that a client that thinks between two transactions does not cost two logins each time. All
// that holds where servers are released: one that is never given back is not taken away.
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
//	Closed ──> Leaving ──> Closed: Linger, Gone
//
// A server told to close has already left the pool when the caller hears of it, and it never comes back: each dial has
// a Server of its own. A client is Away (not here), Waiting (in its pool's queue) or Served (a server is Active for it).
//
// # Invariants
//
//   - A server is Active exactly while it has a client, and that client is Served by it.
//   - A pool never has an idle server and a waiting client at the same time, so nobody can jump the queue.
//   - No dial starts that would take a pool above its size and reserve or a group above its limit; dialing ones count.
//     Only a lowered limit, or portion, can leave a pool or a group above it, and then releases and sweeps bring it down.
//   - No server connects where there are, or may be, as many at the other end as a limit or portion allows.
//   - A group counts the servers of its pools, and a pool with waiters stands in the tenant's list of those.
//   - Acquire, Release and the hand-over allocate nothing and take constant time, except that a release walks over the
//     tenant's pools with waiters while clients of another pool wait, and over the pools of a full group that has idle
//     servers.
//   - An operation that the state does not allow is a bug of the caller and panics with "BUG" before it changes anything.
//
// [Tenant.Check] recounts what can be counted of it.
//
// # How a caller reads
//
//	if s := p.Acquire(c, nil, now); s != nil { serve(c, s) }        // otherwise it waits
//	if err := p.Failing(c.WaitedSince(), now); err != nil {         // and perhaps in vain: asked while it waits
//		p.Leave(c)
//		refuse(c, err)
//	}
//	next := p.Release(s, now)                                       // or EndCleaning, DialDone
//	switch {
//	case next.Close != pool.Keep: close(s, next.Close)
//	case next.Client != nil:      serve(next.Client, s)
//	}
//	for {                                                           // after every event, and on a tick
//		p := t.NextDial(now, func(s *pool.Server) { close(s, pool.Evicted) })
//		if p == nil { break }
//		if s := newServer(p); p.StartDial(s, now) { connect(s) }    // or else when NextConnect says so
//	}
package pool
