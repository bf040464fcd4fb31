//go:build !linux

// Listening on other systems than Linux, with the socket options that package net sets.

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
