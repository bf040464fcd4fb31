//go:build !linux

// What other systems say of what a TCP connection has sent: nothing.

package loop

func outgoingOf(int) (outgoing, bool) { return outgoing{}, false }
