//go:build !linux

// Where the kernel is not asked.

package loop

func outgoingOf(int) (outgoing, bool) { return outgoing{}, false }
