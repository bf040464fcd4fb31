// Package drivers is the driver matrix: real drivers of other languages (and Go's own two) against the real binary in front
// of real PostgreSQL, where sessions and where transactions are pooled, in plaintext and over TLS. It has no code of its own
// beside its test and the programs below it.
//
// # Programs
//
// A program drives one driver. It reads its target as one JSON object on stdin (type target in drivers_test.go), makes its
// checks one after the other, each with connections of its own, and prints a line for each:
//
//	{"check": "cancel", "ok": false, "detail": "what was wrong"}
//
// Each language has one file of what its programs share, called checks, and one file per driver. A check is written as the
// driver's users would write it; its name means the same everywhere:
//
//	connect             logs in as the role app, to the right database
//	tls, tls_stranger   TLS is in use; the certificate of an authority that is not ours is refused (targets with TLS only)
//	fresh               a new session has no statements of others
//	prepared            a named statement, executed while another client holds the server that was used last: where transactions
//	                    are pooled it must have been executed on several servers, elsewhere on one
//	prepared_equal      two clients with the same statement
//	prepared_different  two clients with different statements, of the same name where the driver makes up names
//	prepared_closed     the driver closes or deallocates a statement, and prepares it again
//	prepared_error      statements that cannot be parsed, and executions that fail, between ones that succeed
//	prepared_sql        PREPARE and EXECUTE of SQL, for drivers with nothing else
//	transaction         commit, rollback, savepoint
//	error               SQLSTATE and fields arrive, in and outside of transactions, and the session goes on
//	copy_in, copy_out   COPY from and to the client
//	cancel              a running query is cancelled (57014) and the session goes on
//	notice              RAISE NOTICE arrives
//	large               results of 5 MB in rows and of 8 MB in one value, a parameter of 4 MB
//	parameters          NULL, every byte, text of several alphabets, numbers, arrays
//	cursor              a result in portions: row-limited Execute of a named portal, or DECLARE and FETCH
//	pipeline            several requests before the first answer
//
// and more where a driver does more.
//
// # Worlds
//
// Where one client after the other gets the same server, and that is near, much cannot go wrong. So there are two more worlds
// where transactions are pooled. moved: between the program and the gate is a relay that sees when a transaction is over. Before
// the next one begins another client of the pool takes the server that was used last, and somebody changes something on which
// all plans depend. That clients did move is asked of PostgreSQL (see [harness.Mover]). far: the server is 50 ms away, there and
// back, for connections, too. In the short suite a program of each language is run there; with POSTERN_TEST_LONG=1 all are, and
// far also over TLS and where sessions are pooled.
//
// # Verdict
//
// The oracle is the same program's run with the server directly: there every check must succeed, or the check is wrong. What
// succeeds there must succeed through the gate. What is known to fail because it is not built yet stands in notYet, and
// fails the test as well once it succeeds, so that the list can only shrink.
package drivers
