// Package netrestrict holds the rules about where a client comes from: compiled lists of rules who may connect,
// and the throttle that slows password guessing down.
//
// It is pure: no I/O, no clock (callers hand in now), no locks, no goroutines.
//
// # Invariants
//
//   - An address is unmapped before it is judged: ::ffff:203.0.113.7 is 203.0.113.7, and only IPv4 entries cover it.
//   - No range is special. Loopback, private and unspecified addresses need an entry like any other.
//   - What cannot be judged is denied: an invalid address, a family without a rule, every address under an empty list or one
//     that has rules for private endpoints alone. Only a nil *AllowList, which means "no list was given", allows everyone.
//   - A rule allows by what it is about and by nothing else, and no longer than until it expires. What admits and what only
//     explains is one function, AllowList.Decide.
//   - A spelling with two readings is refused, not guessed at: 203.0.113.7/24 and ::ffff:203.0.113.0/120 are errors that
//     name the spelling to use instead.
//   - The throttle's memory is bounded, and one client's failures never make another wait. A client is an IPv4 address or an
//     IPv6 /64.
//   - A name that was never a tenant's counts like a tenant's. One that was a tenant's within the hour counts for itself alone.
package netrestrict
