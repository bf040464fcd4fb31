// Package transcripts compares Postern with PostgreSQL, message by message. A script says what clients send; it is played
// against a real server directly, which is the oracle, and through the real binary in each pool mode, and every reply must
// be the same, but for what no two sessions have in common.
//
// # Scripts
//
// A script is a text with one frontend message per line (testdata/scripts/<theme>/<name>.txt, and the families of scripts
// that tables in this package's tests make). Strings are Go's, and `"ab"*3` is "ababab":
//
//	# Comments and empty lines are free.
//	Parse "s1" "select $1::int" [23]      name, text, parameter types (may be left out)
//	Bind "" "s1" ["1"] [0] [1]            portal, statement, values or null, their formats, the results' formats (lists from the right may be left out)
//	Describe S "s1"                       S: a statement, P: a portal
//	Execute "" 0                          portal, most rows
//	Sync
//	wait
//	B Query "select 1"                    session B; without a letter it is A; up to D
//	B wait
//
// and Query, Flush, Close S "s1", CopyData "1\n", CopyDone, CopyFail "why", FunctionCall 1397 ["-5"] [0] 0 (function,
// arguments, their formats, the result's), Terminate. Raw "Q" "body" is a message of any type with a right length, Bytes "..."
// any bytes. Meanwhile "alter table t add b int" is done at once by another client, of the server itself on both sides.
// Connect application_name="x" options="-c geqo=off" logs in with startup parameters and shows what is reported; without it a
// session logs in when it is first heard of.
//
// Nothing is sent before the session's next wait, which then sends all of it in one write: pipelines are what stands between
// two waits. Each @@ becomes a text that is the same in no other run, so that tables, channels and lock keys can have a name
// of their own; it has six characters and stands as @@ in transcripts again.
//
// # wait
//
// Played directly, a wait ends when the server process has taken in every byte, waits for the client (or for a lock), and
// all that it has sent was read: this is asked of the kernel and of pg_stat_activity, in an order that leaves no gap, so
// that no clock is involved (see [Oracle]). `wait 2` first waits for two messages, for those that nobody asked for
// (notifications). Played through Postern, a wait reads as many messages as the oracle has given at that place; what is missing
// shows after some seconds, and what is too much shows further on, at the latest behind the epilogue which every session ends
// with.
//
// # Worlds
//
// Where there is one server that is near, much cannot go wrong. So the transaction mode is played in two more worlds:
//
// moved: a pool of three servers (two more than sessions, where there are several), and a client of the same pool that begins a
// transaction on the server which a session used last before the session begins its next: it gets another one each time. Which
// server that was is asked of PostgreSQL (see [harness.Mover]), and at the end so is whether they did move. Before each step a
// client of the server itself changes something on which all plans depend and which shows nowhere; so it does for the oracle.
//
// far: 50 ms to the server and back, for connections, too, by a relay. Many scripts are played at a time, for they wait.
//
// With POSTERN_TEST_LONG=1 every script is also played where its sessions are moved and nobody meddles, and from far away in
// every mode; random ones are moved in both suites.
//
// # Differences
//
// testdata/accepted/<mode>/<script>.txt holds a difference that is meant, and its reason; distance makes none. It fails when it is out of date, so
// that there can only be fewer.
//
// Random conversations have no such files: they do not say what is known to differ.
//
// The statement mode refuses transactions that last: there a script is compared up to the first reply in which the oracle
// says that it is in one, and the refusal must stand in its place.
package transcripts
