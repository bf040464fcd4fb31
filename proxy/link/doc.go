// Package link is the rule book of a lease: one client and one server in
// lock-step. It is pure: bytes are framed and moved elsewhere, this package
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
// Statements are shared by all clients of a tenant (Statements), a client's
// names for them are its own (Session), and each server holds some under names
// of Postern's (cache). Messages that define, use or drop a statement are
// planned (Plan): what is put in before them, what name stands in them, whether
// they wait. See named.go for the rules.
//
// Invariants: the queue never holds more than MaxOutstanding entries of the
// client's; Free is true only when the server provably waits for a new
// command outside a transaction with nothing owed; whatever cannot be
// explained is Broken, and a broken link's server is closed; nobody runs a
// statement that another client has defined, unless its own has the same text
// and was prepared under the same settings; every reference to a Stmt has one
// owner (a session, a cache, or an entry of the queue).
//
// Source: PostgreSQL documentation, "Message Flow".
package link
