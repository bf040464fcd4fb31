// Streams: connections between nodes that each carry the bytes of one client, in TLS of the same kind as calls, but without HTTP in it.

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/postern/postern/tenants"
)

// Protocols inside the nodes' TLS (ALPN).
const (
	callProtocol   = "h2"
	streamProtocol = "postern-stream/1"
)

// ErrBusy means that there are as many streams as there may be.
var ErrBusy = errors.New("too many streams between these nodes")

// Stream is a connection to another node, which has shown its key. It ends at once when the node's row is gone.
type Stream struct {
	*tls.Conn
	node string // of its row
	key  string // of its certificate
	in   bool   // the other node has opened it
	list *streams
	tcp  *net.TCPConn
	left chan struct{}
	once sync.Once

	opened func() // ours: the other node has let it in, or will not any more
}

// Node is the name of the node at the other end.
func (s *Stream) Node() string { return s.node }

// Left is closed when the other node says that it drains.
func (s *Stream) Left() <-chan struct{} { return s.left }

// Abort ends it so that the other node reads an error, and not an end.
func (s *Stream) Abort() {
	s.cut()
	s.list.remove(s)
}

// Read implements net.Conn. In TLS 1.3 who opens a connection does not know that it was let in before it reads something.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.opened()
	return n, err
}

func (s *Stream) cut() {
	s.opened()
	_ = s.tcp.SetLinger(0)
	_ = s.tcp.Close()
}

// Close ends it. That all was said is said by CloseWrite.
func (s *Stream) Close() error {
	s.opened()
	s.list.remove(s)
	return s.tcp.Close()
}

// SyscallConn is that of the TCP connection.
func (s *Stream) SyscallConn() (syscall.RawConn, error) { return s.tcp.SyscallConn() }

// streams are those that are open. Safe for concurrent use.
type streams struct {
	mu    sync.Mutex
	all   map[*Stream]struct{}
	of    map[streamsOf]int        // how many of a kind there are
	slots map[string]chan struct{} // for dials, by boot of the node
	ended bool                     // there will be no more
}

type streamsOf struct {
	key string // of a node; "": of all
	in  bool
}

func newStreams() *streams {
	return &streams{all: make(map[*Stream]struct{}), of: make(map[streamsOf]int), slots: make(map[string]chan struct{})}
}

// dials waits until a node may be dialed, which turns away whoever comes with too many handshakes at a time. opened is called when that one is over.
func (s *streams) dials(ctx context.Context, boot string) (opened func(), err error) {
	s.mu.Lock()
	slots := s.slots[boot]
	if slots == nil {
		slots = make(chan struct{}, maxStreamDials)
		s.slots[boot] = slots
	}
	s.mu.Unlock()
	select {
	case slots <- struct{}{}:
		return sync.OnceFunc(func() { <-slots }), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// add counts one more, if it may be there.
func (s *streams) add(x *Stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, all := streamsOf{x.key, x.in}, streamsOf{"", x.in}
	if s.ended || s.of[one] >= maxStreamsOfOne || s.of[all] >= maxStreamsOfAll {
		return ErrBusy
	}
	s.of[one]++
	s.of[all]++
	s.all[x] = struct{}{}
	return nil
}

func (s *streams) remove(x *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.all[x]; !ok {
		return
	}
	delete(s.all, x)
	for _, of := range []streamsOf{{x.key, x.in}, {"", x.in}} {
		if s.of[of]--; s.of[of] == 0 {
			delete(s.of, of)
		}
	}
}

// open counts those of one direction.
func (s *streams) open(in bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[streamsOf{"", in}]
}

// keep ends those whose node has no row any more, and tells the others whether their node drains.
func (s *streams) keep(all []tenants.Node) {
	leaving, boots := make(map[string]bool, len(all)), make(map[string]bool, len(all)) // by key
	for _, n := range all {
		leaving[n.Fingerprint], boots[n.Boot] = n.Leaving, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.slots, func(boot string, _ chan struct{}) bool { return !boots[boot] })
	for x := range s.all {
		leaves, there := leaving[x.key]
		switch {
		case !there:
			x.cut()
		case leaves:
			x.leaves()
		}
	}
}

func (s *Stream) leaves() { s.once.Do(func() { close(s.left) }) }

// leave has the nodes that serve clients of this one send them away. They read it in the store as well, if that is not away.
func (c *Cluster) leave(ctx context.Context) {
	nodes := make(map[string]bool)
	c.streams.mu.Lock()
	for x := range c.streams.all {
		if !x.in {
			nodes[x.node] = true
		}
	}
	c.streams.mu.Unlock()
	var all sync.WaitGroup
	for node := range nodes {
		all.Go(func() {
			if _, err := c.Call(ctx, node, leaving, nil); err != nil {
				c.log.Debug("another node was not told that this one drains", "node", node, "error", err)
			}
		})
	}
	all.Wait()
}

// leaving is the call of a node that drains.
const leaving = "leaving"

func (c *Cluster) hearLeaving(_ context.Context, from string, _ []byte) ([]byte, error) {
	c.streams.mu.Lock()
	defer c.streams.mu.Unlock()
	for x := range c.streams.all {
		if x.in && x.node == from {
			x.leaves()
		}
	}
	return nil, nil
}

// end ends all of them, for good.
func (s *streams) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for x := range s.all {
		x.cut()
	}
}

// HandleStreams has serve deal with every stream that another node opens, each on a goroutine of its own, until ctx ends. It need not close
// it. To be called before Run; without it none is let in.
func (c *Cluster) HandleStreams(serve func(ctx context.Context, s *Stream)) { c.serveStream = serve }

// OpenStream opens a stream to another node, which the caller closes. Nothing is tried twice: another node may do as well.
func (c *Cluster) OpenStream(ctx context.Context, node string) (*Stream, error) {
	row, ok := c.callable(node)
	if !ok {
		return nil, fmt.Errorf("%s: %w", node, ErrNoNode)
	}
	if !c.speaks(row.Protocol) {
		c.refusedProtocol(row.Name, row.Protocol)
		return nil, fmt.Errorf("%s: %w", node, ErrProtocol)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	opened, err := c.streams.dials(ctx, row.Boot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", node, ErrBusy, err)
	}
	dialer := net.Dialer{KeepAliveConfig: streamAlive()}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", row.Address.String())
	if err != nil {
		opened()
		return nil, c.failure(ctx, row, err)
	}
	s := &Stream{node: row.Name, key: row.Fingerprint, list: c.streams, tcp: conn.(*net.TCPConn), left: make(chan struct{}), opened: opened}
	s.Conn = tls.Client(conn, tlsConfig(c.own, judgeOnly(row.Fingerprint), streamProtocol))
	if err = s.HandshakeContext(ctx); err != nil {
		_ = s.Close()
		return nil, c.failure(ctx, row, err)
	}
	if err = c.streams.add(s); err != nil {
		s.Abort()
		return nil, fmt.Errorf("%s: %w", node, err)
	}
	return s, nil
}

// streamAlive finds out that the other computer is gone while nobody says anything.
func streamAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// carry serves a stream whose node has shown its key.
func (c *Cluster) carry(ctx context.Context, conn *tls.Conn) {
	key := fingerprint(conn.ConnectionState().PeerCertificates[0])
	row, pinned := c.rows.pinned(key)
	s := &Stream{Conn: conn, node: row.Name, key: key, in: true, list: c.streams, tcp: conn.NetConn().(*net.TCPConn), left: make(chan struct{}), opened: func() {}}
	if err := c.streams.add(s); err != nil {
		c.counts.turnedAway("busy")
		s.Abort()
		return
	}
	defer s.Close()
	_, still := c.rows.pinned(key) // from here on keep ends it
	switch {
	case !pinned || !still:
		c.counts.turnedAway("stranger")
		return
	case !c.speaks(row.Protocol):
		c.counts.turnedAway("protocol")
		c.refusedProtocol(row.Name, row.Protocol)
		return
	}
	_ = s.tcp.SetKeepAliveConfig(streamAlive())
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("BUG: a stream of another node has panicked", "node", s.node, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			s.Abort()
		}
	}()
	c.serveStream(ctx, s)
}
