//go:build !linux

// Socket options elsewhere.

package proxy

import (
	"context"
	"net"
)

func (g *Gate) listen(network, address string) (net.Listener, error) {
	c := net.ListenConfig{KeepAliveConfig: g.keepAlive()}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), network, address)
}
