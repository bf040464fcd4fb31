//go:build !linux

// Socket options that only Linux has.

package proxy

import (
	"net"
	"time"
)

func setUserTimeout(*net.TCPConn, time.Duration) {}
