// Package loop is the event loop that owns every connection after its login:
// one OS thread, one poller, non-blocking sockets, and buffers that are
// borrowed only while there are bytes in them.
//
// It knows nothing of Postgres. What is attached to a loop (a Conn, a Timer,
// the state behind a Handler) is touched by that loop's thread alone, so
// there are no locks on the hot path; everybody else calls Post.
//
// Life of a connection: a goroutine does the slow things on a net.Conn
// (handshakes), then Detach takes the descriptor out of the Go runtime's
// poller and Loop.Attach gives it to a loop. For TLS the session was started
// over a Swap, whose inner conn Attach replaces with a non-blocking one.
//
// Readiness is edge-triggered: a Conn remembers that it may be read, a handler
// that does not want more bytes simply does not read, and no epoll_ctl is
// needed per request. Backpressure is "do not read the peer", never "wait".
//
// A turn is: timers, connections that asked for one, send, wait, posted
// functions, events. What is written in a turn is sent at its end, by one
// system call for all connections where the kernel has io_uring: a thread that
// makes one call per peer is often preempted by each peer that it wakes. Reads
// and readiness are epoll's, so nothing but the sends depends on it.
//
// Invariants:
//   - A Handler is called only from the loop's thread, and Ready never after Close.
//   - No buffer is held by a Conn with nothing to hold.
//   - The loop never waits while there is output that the socket has not refused.
//   - The loop blocks in a raw system call for a millisecond at most, because
//     the garbage collector cannot stop a thread there; a loop that has been
//     idle for some milliseconds blocks in an ordinary one.
//   - A panic in a handler closes that handler's conn, not the process.
package loop
