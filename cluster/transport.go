// The sockets of the gossip: memberlist's packets and streams, counted and bounded.

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is one UDP and one TCP socket of the same port. Its counters are read by metrics.
type transport struct {
	warn      func(kind string, args ...any)
	udp       *net.UDPConn
	tcp       *net.TCPListener
	advertise netip.AddrPort
	ring      *memberlist.Keyring

	packets chan *memberlist.Packet
	streams chan net.Conn
	room    chan struct{}         // holds one for each stream that is open
	known   func(netip.Addr) bool // nodes' addresses: strangers leave them some room
	nodes   chan struct{}         // which is this
	from    map[netip.Addr]int    // streams that strangers have open; mu guards it
	mu      sync.Mutex
	closed  chan struct{}
	once    sync.Once
	reading sync.WaitGroup

	sent, received           atomic.Uint64 // packets
	sentBytes, receivedBytes atomic.Uint64 // of packets and streams
	refused                  atomic.Uint64 // streams that there was no room for, and packets that are too long, or not what nodes say
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(tcp *net.TCPListener, udp *net.UDPConn, advertise netip.AddrPort, ring *memberlist.Keyring, warn func(string, ...any)) *transport {
	return &transport{warn: warn, tcp: tcp, udp: udp, advertise: advertise, ring: ring,
		known: func(netip.Addr) bool { return false }, from: make(map[netip.Addr]int),
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
		if n > maxPacket {
			err = errLong
		} else {
			err = judgePacket(buf[:n], t.ring)
		}
		if err != nil {
			t.refuse(err, net.UDPAddrFromAddrPort(from))
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

// refuse is what becomes of a packet or a stream that memberlist does not see.
func (t *transport) refuse(why error, from net.Addr) {
	t.refused.Add(1)
	t.warn("gossip is refused: it is "+why.Error(), "from", from.String())
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
		leave := t.enter(conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
		if leave == nil {
			t.refused.Add(1)
			_ = conn.Close()
			continue
		}
		s := &stream{Conn: conn, t: t, labelled: true, leave: leave}
		select {
		case t.streams <- s:
		case <-t.closed:
			_ = s.Close()
			return
		}
	}
}

// enter takes a place for a stream, and returns how to give it back; nil: there is none.
func (t *transport) enter(from netip.Addr) (leave func()) {
	known := t.known(from)
	if !known && !t.mayEnter(from) {
		return nil
	}
	left := func() {
		if !known {
			t.left(from)
		}
	}
	select {
	case t.room <- struct{}{}:
		return func() { <-t.room; left() }
	default:
	}
	if known {
		select {
		case t.nodes <- struct{}{}:
			return func() { <-t.nodes }
		default:
		}
	}
	left()
	return nil
}

// mayEnter reports whether a stranger's address has less streams than it may have, and counts one more.
func (t *transport) mayEnter(from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from[from] >= maxFromOne {
		return false
	}
	t.from[from]++
	return true
}

func (t *transport) left(from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from[from]--; t.from[from] == 0 {
		delete(t.from, from)
	}
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

// stream is a connection of which memberlist reads one message, when all of it has come and was looked at.
type stream struct {
	net.Conn
	t        *transport
	labelled bool // of its reader: the label comes first
	read     bool
	message  []byte // what of it was not read yet
	leave    func()
	once     sync.Once
}

func (s *stream) Read(p []byte) (n int, err error) {
	if !s.read {
		s.read = true
		s.message, err = readSealed(counting{s}, s.labelled, s.t.ring)
		if why := fault(""); errors.As(err, &why) {
			s.t.refuse(why, s.RemoteAddr())
		}
		if err != nil {
			return 0, err
		}
	}
	if len(s.message) == 0 {
		return 0, io.EOF
	}
	n = copy(p, s.message)
	s.message = s.message[n:]
	return n, nil
}

// counting reads what comes, and counts it.
type counting struct{ s *stream }

func (c counting) Read(p []byte) (int, error) {
	n, err := c.s.Conn.Read(p)
	c.s.t.receivedBytes.Add(uint64(n))
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
	conn, err := (&net.Dialer{Timeout: min(timeout, gossipDial)}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, t: t, leave: func() {}}, nil
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
