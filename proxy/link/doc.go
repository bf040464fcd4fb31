// Package link is the rule book of a server connection and of its leases: one
// client and one server in lock-step. It is pure: bytes are framed and moved elsewhere, this package
// is told which message went which way and answers what that means.
//
// A Link belongs to a server connection and holds the queue of answers that
// the server still owes. Every entry says what kind of answer is due, who
// gets it (the client, or nobody because Postern asked), and what of it is
// replaced. From that follow the release rule and the order in which Postern
// may put in answers of its own.
//
//	Sent(kind)      a frontend message went to the server     queue grows
//	Received(type)  a backend message came from it            queue shrinks
//
// What makes the order hard, and is handled here:
//   - after an ERROR in the extended protocol the server skips everything up
//     to the next Sync (state skip);
//   - in COPY IN the server ignores Flush and Sync, so a Sync that was
//     pipelined behind the Execute gets no answer (state copyIn), unless the
//     COPY failed before it was read (slack, see copy.go);
//   - a CopyDone or CopyFail outside COPY is ignored by the server;
//   - Flush makes answers come without a Sync, so an empty queue alone does
//     not mean that the server is free (state open).
//
// How the three states change; Quiet needs all of them to be false:
//
//	                               open            skip              copyIn
//	Parse, Bind, ... Execute       true                              false, in doubt
//	Sync                           false           false             ignored there
//	Query, FunctionCall            false                             false, in doubt
//	Flush                          true                              ignored there
//	CopyDone, CopyFail                                               false
//	ErrorResponse                                                    false
//	  to an extended message                       true, unless a
//	                                               Sync was sent
//	CopyInResponse                 true behind an                    true, unless its
//	                               Execute alone                     end was sent
//
// Statements are shared by all clients of a tenant (Statements), a client's
// names for them are its own (Session), and each server holds some under names
// of Postern's (cache). Messages that define, use or drop a statement are
// planned (Plan): what is put in before them, what name stands in them, whether
// they wait. See named.go for the rules, and told.go for how nobody gets anything
// else than it was told of. What the texts of statements say, package sqltext
// reads; here stands what follows for those who share them.
//
// The life of a Bind: a client has parsed "stmt" on one server, and binds it on
// another that has never heard of it.
//
//  1. client.judgeBind (package proxy) finds the two names in the message and asks
//     Link.Bind for a plan.
//  2. Session.find: the client's name stands for a Stmt, one for all clients of the
//     tenant whose text and types are equal.
//  3. Link.bind notes what the text may leave for the Execute, which says no name.
//  4. Link.agreed looks for what this server holds of it (cache.find), parsed under
//     the same settings and in the shape that the client was told of.
//  5. It holds nothing: Link.prepare makes room in the cache, gives it a name of
//     Postern's and puts in a Parse, and a Describe if the client was told of a shape.
//  6. The Plan says Rename. client.carryOut sends what was put in, then the Bind with
//     Postern's name in the place of the client's.
//  7. Link.Received: the ParseComplete answers nobody and is swallowed; Link.Heed reads
//     the description.
//  8. It is another shape than the client was told of: the Bind has waited for that,
//     and fails with 0A000. The driver parses anew.
//  9. The BindComplete goes to the client. What it was told now is kept: Link.tell.
//  10. An error instead: Entry by entry, the latest first, Link.undo takes the books
//     back to what the server has.
//
// Files, by subject:
//
//	link.go entry.go copy.go       the queue, the release rule, COPY
//	outcome.go undo.go             what tags and errors say; changes made final or taken back
//	stmt.go session.go cache.go    statements: shared, by a client's names, on a server
//	unnamed.go named.go portal.go  plans for the messages that define, use and run them
//	told.go                        what clients were told of them, and what servers hold
//	meaning.go                     when the same SQL must be parsed again, and what is one client's alone
//	deallocate.go sequence.go      DEALLOCATE of them; DISCARD SEQUENCES in front of a message
//
// Invariants: the queue never holds more than MaxOutstanding entries of the
// client's; Free is true only when the server provably waits for a new
// command outside a transaction with nothing owed; whatever cannot be
// explained is Broken, and a broken link's server is closed; nobody runs a
// statement that another client has defined, unless its own has the same text
// and was prepared under the same settings; nobody runs a statement of another
// shape than it was told of; every reference to a Stmt has one
// owner (a session, a cache, or an entry of the queue).
//
// Source: PostgreSQL documentation, "Message Flow".
package link
