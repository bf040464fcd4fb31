// Package sqltext tells what the text of a statement says: what it may leave in
// the session, whether it may put back what was set, what it may change of what
// later texts mean, and which parameters, prepared statements and databases it
// names. It is pure, knows nothing of clients, servers and messages, and
// imports nothing of ours.
//
//	Scan(text)            what it may leave or read (State), and what else (Note)
//	TagState(tag, note)   what it has left, once its command tag has come
//	Refusable(text)       the same guessed beforehand, for those who do not allow it
//	ParameterNames(text)  the parameters that it sets and that no server lists
//	ParameterName(value)  the same of a name that comes with a Bind
//	Vacates(text)         the databases that it wants for itself
//	Deallocated(text)     the prepared statement that it drops, if it does nothing else
//	Escapes(text)         whether settings decide where its literals end
//	Shapeless(text)       whether its columns are another's, by a name
//	FunctionState(oid)    what a function may leave that is called without a text
//
// A text is what came: that of a Query, or the body of a Parse from the NUL that
// ends the name on, with NULs and the types of its parameters. Any bytes will do.
//
// # What a scanner may decide
//
// No text is understood. Where its words and literals end hangs on settings, what
// its names mean on the search_path, and what its functions do stands in
// other texts that nobody sees. So words are compared wherever they stand, also
// in literals and comments, and the answer is a suspicion. It may decide
//
//   - what the server is asked after the transaction. The server's answer
//     counts, and a suspicion that was wrong costs a question;
//   - what waits until an answer has come, what is parsed once more, and what
//     one client has to itself. Wrong, it costs time;
//   - what a client gets an error for, where its tenant does not allow such
//     state. What gets past is found by its tag, or with the server.
//
// It may not decide who may do what: whoever wants to hide something from it
// can, in the body of a function. Nor is its silence an acquittal: a command
// tag counts whatever the text said. What takes a suspicion or a tag back
// (SetHarmless, a set_config that is local, a function called without
// arguments, a body in dollar quotes) must be certain, and a comment, an escape
// or a quote in the way makes it doubtful. The same goes for a text that is
// replaced (Deallocated): it must be understood to the end. What cannot be read
// has flags of its own (SetsHidden, HidesNames, BodyHides, Unseen, StateNameUnknown,
// StateHidden), so that the caller can assume the worst.
//
// # Invariants
//
//   - Scan, TagState, Refusable and FunctionState, which meet every statement,
//     allocate nothing.
//   - Time is in proportion to the length of a text, whatever stands in it, and
//     the names that it may have are bounded. See TestScanIsLinear.
//   - Upper and lower case are the same, and more text behind a text hides
//     nothing. See FuzzScan.
//   - A word is looked at if it has the first letter and the length of one of
//     known: whatever else the code compares with would go unnoticed. See
//     TestKnownWordsAreAll.
//   - Nothing panics on any input; see the fuzz targets.
//
// # Files, by subject
//
//	scan.go          Scan and its notes, how a text is read, words
//	state.go         the kinds of session state, from words, tags and beginnings
//	meaning.go       which texts make the same SQL mean something else later
//	parameter.go     names of run-time parameters
//	extension.go     functions of PostgreSQL's contrib modules
//	function.go      functions that are called by their oids
//	deallocate.go    DEALLOCATE of one statement
//	database.go      DROP, ALTER and CREATE DATABASE
package sqltext
