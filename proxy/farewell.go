// The last words to a client that a goroutine serves: they reach it before its connection closes. See loop.Conn.Linger for the others.

package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"time"
)

// socket is a connection with a descriptor: a client's, or the inner end of one that another node has passed on.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// lingerBytes bounds what is read and dropped from a client that goes on sending.
const lingerBytes = 64 << 10

// farewell has say write the last words to a client, over tcp or, unless it is
// nil, over tls, and tells it that no more comes. The client has lingerFor to
// take them, and to read them in linger.
func farewell(tcp socket, tls *tls.Conn, say func() error) error {
	_ = tcp.SetDeadline(time.Now().Add(lingerFor))
	if err := say(); err != nil {
		return err
	}
	if tls != nil {
		_ = tls.CloseWrite()
	}
	_ = tcp.CloseWrite()
	return nil
}

// linger waits, after farewell, until the client hangs up. To close while
// something of it is unread would take away what it has not read itself.
func linger(tcp socket) { _, _ = io.CopyN(io.Discard, tcp, lingerBytes) }
