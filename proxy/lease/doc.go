// Package lease is the rule of a lease: a client has a server for a transaction, and nobody after it may see what it has
// left there. The package is pure. It is told what happens and says what follows; package proxy moves the bytes and does
// what it is told.
//
// # Phases
//
// A server connection is in one of eleven phases, and [Next] is the whole rule: from a phase, an event and the facts of
// the moment to the next phase and what is to be done.
//
//	                   Lent, and it has not     Ready, and it
//	                   the client's settings    has them
//	          ┌──────────────────────> Preparing ───────┐
//	          │                                         v  Ready, in a block     Ready: the block is over
//	        Idle ───────────────────────────────────> Serving ──────────────> Punishing ──> Serving
//	        ^  ^           Lent                       │ ^ │ │                    ^
//	        │  │       rested, clean,                 │ │ │ └──> Condemned ──────┘
//	        │  └──────  and not kept ─────────────────┘ │ │  the same, but a    Moved: that is over
//	        │                                           │ │  message or a cancel
//	        │                                           │ │  request is under way
//	        │                                           │ │
//	        │                                           │ │ rested, and something may have been left
//	        │                                           │ v
//	        │              Ready: it is as the client   ├─ Inspecting ──┐ Ready: what the client came with
//	        │              wants it                     │ <┘ again, if  v was reset
//	        │                                           │ it fails      Restoring
//	        │                                           └───────────────┘ Ready: it is there again
//	        │
//	        │                       Left, while it is lent; rested, not kept and not clean; Ready, and it has
//	        │                       ┌────────────────────── refused the settings and is as it was before them
//	        │   Moved, and          v
//	        └── nothing is ── Finishing ──> Undoing ──> Resetting      each if it is needed, when
//	            left                ^          │            │          nothing is owed any more
//	                                └──────────┴────────────┘
//
//	any of them ──> Closed: Lost; what failed; what nothing takes out again; a client that left in the middle of its message;
//	                settings that cannot be taken back from an earlier client; more than the answer to the settings; an
//	                answer that will never come
//
// It has rested when it waits for a command outside of a transaction, its client is greeted, and no message is half said on
// either side. A client that keeps its server (session mode, a pin) has it in Serving until it leaves. While it is Preparing,
// Inspecting, Restoring or Punishing, it owes an answer to something of Postern's own, for which the client's next message
// waits: it could not be told whose answer is whose.
//
// # What a lease leaves
//
// The text of each statement (package sqltext) and its tag say what it may leave: [Traces]. What the server can be asked
// about, it is asked between two transactions ([Question], [Inspection]), so that what was rolled back does not count.
// What it cannot be asked about is taken for left unless its transaction failed. By the tenant's [Policies] it is then
// tracked (set again on the next server), pinned (the client keeps this one), reset, or was refused before.
//
// # Invariants, which the tests hold against random schedules
//
//   - A server is given to somebody else only with nothing owed, outside of a transaction, with no cancel request on its way
//     to it, nothing received behind its last answer, and nothing on it that the next one must not see.
//   - What Postern asks for itself is sent only between two transactions, or when nobody has the server, but for the ROLLBACK
//     of a block that statement mode does not allow.
//   - A cancel request never meets a question of Postern's own: that waits until it has arrived.
//   - Every phase but Idle, Serving and Closed ends when what is under way ends: answers, a message, a cancel request.
package lease
