//go:build !linux

// Socket options where there is no TCP_USER_TIMEOUT.

package proxy

import (
	"context"
	"net"
	"time"
)

func (g *Gate) listen(network, address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: g.keepAlive()}
	return c.Listen(context.Background(), network, address)
}

func setUserTimeout(int, time.Duration) {}
