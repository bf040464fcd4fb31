// The sockets of the gossip: memberlist's packets and streams, counted and bounded.

package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is one UDP and one TCP socket of the same port. Its counters are read by metrics.
type transport struct {
	log       *slog.Logger
	udp       *net.UDPConn
	tcp       *net.TCPListener
	advertise netip.AddrPort

	packets chan *memberlist.Packet
	streams chan net.Conn
	room    chan struct{}         // holds one for each stream that is open
	known   func(netip.Addr) bool // nodes' addresses: strangers leave them some room
	nodes   chan struct{}         // which is this
	closed  chan struct{}
	once    sync.Once
	reading sync.WaitGroup

	sent, received           atomic.Uint64 // packets
	sentBytes, receivedBytes atomic.Uint64 // of packets and streams
	refused                  atomic.Uint64 // streams that there was no room for, and packets that are too long, or not sealed as they should
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(tcp *net.TCPListener, udp *net.UDPConn, advertise netip.AddrPort, log *slog.Logger) *transport {
	return &transport{log: log, tcp: tcp, udp: udp, advertise: advertise,
		known:   func(netip.Addr) bool { return false },
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), room: make(chan struct{}, maxStreams), nodes: make(chan struct{}, maxOfNodes), closed: make(chan struct{})}
}

// start has the sockets read, until Shutdown.
func (t *transport) start() {
	t.reading.Go(t.readPackets)
	t.reading.Go(t.accept)
}

func (t *transport) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := t.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // of a packet that was sent before: port unreachable
		}
		at := time.Now()
		if n > maxPacket || !soundPacket(buf[:n]) {
			t.refused.Add(1)
			continue
		}
		t.received.Add(1)
		t.receivedBytes.Add(uint64(n))
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: net.UDPAddrFromAddrPort(from), Timestamp: at}
		select {
		case t.packets <- p:
		case <-t.closed:
			return
		}
	}
}

func (t *transport) accept() {
	for {
		conn, err := t.tcp.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !t.pause() {
				return
			}
			continue
		}
		room := t.enter(conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
		if room == nil {
			t.refused.Add(1)
			_ = conn.Close()
			continue
		}
		s := &stream{Conn: conn, t: t, left: maxStream, head: streamHead{skip: labelHeader}, leave: func() { <-room }}
		select {
		case t.streams <- s:
		case <-t.closed:
			_ = s.Close()
			return
		}
	}
}

// enter takes a place for a stream, and returns where; nil: there is none.
func (t *transport) enter(from netip.Addr) chan struct{} {
	select {
	case t.room <- struct{}{}:
		return t.room
	default:
	}
	if t.known(from) {
		select {
		case t.nodes <- struct{}{}:
			return t.nodes
		default:
		}
	}
	return nil
}

// pause waits before the next try to accept, and reports false if there will be none.
func (t *transport) pause() bool {
	timer := time.NewTimer(100 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.closed:
		return false
	}
}

// stream is a connection of which no more is read than a cluster has to tell.
type stream struct {
	net.Conn
	t     *transport
	left  int // of the reader
	head  streamHead
	leave func()
	once  sync.Once
}

var errLongStream = errors.New("the stream is longer than a cluster's state can be")

func (s *stream) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, errLongStream
	}
	n, err := s.Conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	s.t.receivedBytes.Add(uint64(n))
	if unsound := s.head.pass(p[:n]); unsound != nil {
		s.t.refused.Add(1)
		return 0, unsound
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.t.sentBytes.Add(uint64(n))
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(s.leave)
	return s.Conn.Close()
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.advertise.Addr().AsSlice()), int(t.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("where to send a packet: %w", err)
	}
	n, err := t.udp.WriteToUDPAddrPort(b, to)
	if err == nil {
		t.sent.Add(1)
		t.sentBytes.Add(uint64(n))
	}
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: timeout}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, t: t, left: maxStream, leave: func() {}}, nil
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		close(t.closed)
		err = errors.Join(t.tcp.Close(), t.udp.Close())
	})
	t.reading.Wait()
	return err
}
