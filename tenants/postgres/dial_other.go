//go:build !linux

// Other systems than Linux try to reach the other side for as long as they do.

package postgres

import "syscall"

var endUnanswered func(network, address string, raw syscall.RawConn) error // nil: nothing is set
