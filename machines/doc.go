// Package machines knows where the machine of a tenant stands, wakes it when a client needs it and lets it sleep when
// nobody does. It holds the rules ([Rules], pure), the owner that carries them out ([Machine]) and the contract of those
// who can start and stop machines ([Driver]; see the packages fly and local).
//
// # States
//
//	            Want, Check: ask                 asked: asleep
//	unknown ─────────────────────┬───────────────────────────────> asleep <──────────────┐
//	   ^                         │ asked: running                   │ Want              │
//	   │ a suspend failed        v         asked: asleep            v                   │
//	   │                      waking ────────────────────────> (budget, start)          │
//	   │                         │   <──────────────────────────────┘                   │
//	   │                         │ Postgres answers                 ^                   │
//	   │                         v                                  │ wanted meanwhile  │
//	   │      ┌──────────────> ready ──> lost: ask, and so on       │                   │
//	   │ Want,│                  │ unused for SuspendAfter          │                   │
//	   │ Busy,│                  v                                  │                   │
//	   │ Used └───────────── draining ── Drained ──────────────> suspending ────────────┘
//	   │                                                            │             it sleeps
//	   └────────────────────────────────────────────────────────────┘
//
//	any of them ──> failed: told fast until the pause is over, then asked again
//
// A machine that somebody else is changing is waited for: by a start if it is wanted, else as unknown. One that other processes use
// when it is to be put to sleep (see [Guarded]) is unknown, too, and it is tried again.
//
// # Invariants
//
//   - A machine has one owner in the process, and the owner has one call of its driver under way at a time: there is no
//     second start while one runs, and no suspend beside a start. Only a suspend that somebody has come for is cut short.
//   - Nothing happens to a machine that nobody has proved to need: what calls [Holder.Want] is a client whose address and
//     password are proven, or an operator. (To ask how it stands does nothing to it.)
//   - It sleeps only when every holder says that it is unused and has closed its connections.
//   - A machine whose last holder has given it up for good is put to sleep, or it is said at ERROR that it could not be. Who
//     holds it meanwhile gets a new owner, which waits for what the old one has under way and begins by asking.
//   - An epoch is one run of the machine at one address, as far as can be known: every start of ours, every sleep and
//     every other run that was seen begins another. Connections of an older epoch are lies, and whoever holds one drops it.
//   - Whoever wants it gets an answer, ready or failed: within the wake limit of the start, and the bounds of the single
//     calls before and after. A failure is remembered for a while, so that it is told fast and not repeated in a storm.
//   - Wakes are bounded: never more in any time than the budget's burst and what was refilled in that time.
package machines
