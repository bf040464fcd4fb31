// Package params knows the run-time parameters of sessions: what a client has
// set, what a server is set to, what makes the one of the other, and what a
// RESET puts back. It is pure: it sends nothing and asks nobody.
//
//	var sets params.Sets // of one pool
//	came := sets.Intern(startup)                     // TimeZone=UTC
//	now := sets.With(came, "work_mem", "64MB")       // TimeZone=UTC work_mem=64MB
//	now == sets.With(came, "WORK_MEM", "64MB")       // true: one content, one pointer
//	params.Changes(now, came)                        // work_mem: back to the default
//
// # The life of a SET
//
// A client sends SET app.user = 'alice' through a shared server:
//
//  1. sqltext.Scan reads the text, and lease.Holder.Leave notes on the server's
//     lease.Traces that a parameter may have been set.
//  2. pg_settings shows nothing with a dot in its name, so the Holder keeps the
//     name: Names.Add, Resets.Mention.
//  3. The answer: lease.Traces.Completed reads the tag, SET; Resets.Completed looks
//     for RESET and DISCARD ALL. A ParameterStatus counts at once: Sets.With.
//  4. The transaction is over: lease.Next says Inspect, the server is asked what is
//     set, and lease.Inspection takes the rows, less what is AsNotSet.
//  5. Sets.Intern makes a set of them: that is what the server has.
//  6. Resets.Wanted puts what the client came with in the place of what was
//     reset: that is what the client has. If it is another set, the server gets
//     it now, as a server of the client's own would have it.
//  7. The server goes on to others. The client keeps the pointer.
//  8. At its next lease client.lent (package proxy) compares it with the server's.
//     Equal pointers: nothing is sent.
//  9. Others: lease.Next says Prepare, and lease.Question.Change sends Changes, one
//     set_config each, in a transaction of their own, before the client's first
//     message.
//  10. A server that refuses is not the client's fault if it refuses to let go
//     of another's: lease.Replay.
//
// # What clients are told
//
// A server reports some parameters by itself (ParameterStatus). Reports is such a
// list: what a server shows, what a client was told last, and, by Set.Told, what
// the next client with the same set may be greeted with, without a server.
//
// # Concurrency
//
// Set and Reports never change and may be read by anybody, but for Told, which
// is the loop thread's. Sets, ReportSets, Resets and Names are the loop
// thread's only. Sizes are in bytes.
//
// # Invariants
//
//   - Two sets of one Sets are the same pointer if they are equal, until maxSets
//     or maxSetBytes is exceeded; Same holds even then. See
//     TestOnePointerPerContent.
//   - Changes(a, b) makes b of a, in an order that Postgres takes. See
//     TestChangesMakeOneSetOfAnother.
//   - Whatever is reset is what the client came with, as on a server of its
//     own. See TestResetsGoBackToTheStartupPacket. What is set to what a reset
//     leaves (an empty text, no role) may be taken for one, if there was one.
//   - Comparing two sets and noting a tag allocate nothing.
//
// # Files, by subject
//
//	set.go         sets, and what shares them
//	changes.go     what makes one set of another
//	resets.go      what resets put back; names that must be asked for
//	names.go       parameters that are not like the others
//	startup.go     what of a startup packet can be given to a server later
//	clientaddr.go  the client's address as a parameter
//	reports.go     what servers report
//	told.go        what clients with some set are greeted with
package params
