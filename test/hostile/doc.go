// Package hostile throws every bad PROXY header, startup packet, TLS handshake and login of the catalogue at the real
// binary, over real sockets, with a real PostgreSQL behind it. Each row goes by its catalogue id (P: PROXY header, S:
// startup and TLS, A and B: authentication) and says what the gate must answer and which counter must move.
//
// Rows come in groups, and around each group the rules hold that no input may break:
//
//	R1  the process lives, and postern_panics_total stays 0
//	R2  another tenant's session, which asks all the while, gets every answer, and hardly later than a session that asks
//	    the same server without the gate
//	R3  a good login works right after
//	R4  server connections are back where they were, or, where rows log in, idle, and gone after server_idle
//	R5  goroutines and descriptors are back where they were, but for the descriptors of those idle connections
//	R6  exactly the counters move that the row names, by one
//	R7  the log is JSON without control characters and without a secret
//	R8  memory grows by a bounded amount; by how much for each connection is weighed in places where they can stand
//	R9  nothing was dialed that the rows did not have to ask for, and no machine was woken
//
// Bytes, times and ten thousand connections are measured with a binary without the race detector. With POSTERN_TEST_LONG
// set, some rows use larger numbers.
//
// The tests are the package; there is nothing to import.
package hostile
