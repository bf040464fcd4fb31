// The net.Conn that survives the hand-over from a goroutine to a loop.

package loop

import "net"

// Swap is a net.Conn whose inner conn is replaced at hand-over: the goroutine
// starts a TLS session over a Swap around a *net.TCPConn, and the loop later
// puts its own non-blocking conn in its place without the TLS session noticing.
//
// Swap has no lock: the loop's thread replaces it, in Attach, after the goroutine
// has given the conn away and while no other call is running.
type Swap struct{ net.Conn }
