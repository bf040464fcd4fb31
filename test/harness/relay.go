// A TCP relay that can break what passes through it.

package harness

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Faults say what happens to one direction of each new connection, by the number of bytes passed so far. The zero value is
// a relay that only relays.
type Faults struct {
	// First is sent to the target before anything else; nil: nothing.
	First func(client netip.AddrPort) []byte
	// ToTarget and ToClient are the two directions.
	ToTarget, ToClient Fault
}

// A Fault is what happens in one direction. Offsets count from the connection's first byte; 0 turns a fault off.
type Fault struct {
	CutAfter   int64 // then both sides are closed in order (FIN)
	ResetAfter int64 // then both sides are reset (RST)
	StallAfter int64 // then nothing passes any more, until Resume or the end of the test
	SliceUntil int64 // up to here each byte travels in a write of its own
	// Delay is how long each byte is on its way, and the end of the connection, too. A new connection takes both ways' first.
	Delay time.Duration
}

// A Relay stands in front of a target. Its methods may be called from any goroutine.
type Relay struct {
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	target []string // in turn
	losing int      // of a hundred packets; see Lose
	came   int
	faults Faults
	pairs  map[*pair]struct{}
	resume chan struct{} // closed by Resume, then replaced
	closed chan struct{}
}

type pair struct{ client, target *net.TCPConn }

// NewRelay starts a relay that ends with the test.
func NewRelay(t testing.TB, target string, f Faults) *Relay {
	t.Helper()
	return NewRelayAt(t, "127.0.0.1:0", target, f)
}

// NewRelayAt is NewRelay at an address.
func NewRelayAt(t testing.TB, address, target string, f Faults) *Relay {
	t.Helper()
	var conf net.ListenConfig
	conf.SetMultipathTCP(false) // whose sockets take no filters; see Lose
	l, err := conf.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{listener: l, target: []string{target}, faults: f, pairs: make(map[*pair]struct{}), resume: make(chan struct{}), closed: make(chan struct{})}
	r.work.Go(r.accept)
	t.Cleanup(func() {
		close(r.closed)
		l.Close()
		if r.losing > 0 { // or the other side would never hear of the end
			r.Lose(t, 0)
		}
		r.Cut()
		r.work.Wait()
	})
	return r
}

// Addr is where clients connect.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// SetFaults changes what happens to connections that come later.
func (r *Relay) SetFaults(f Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = f
}

// SetTarget has connections that come later go elsewhere, to several places in turn.
func (r *Relay) SetTarget(target ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Came counts the connections that have come to the relay; where it delays, the target does not know of the newest yet.
func (r *Relay) Came() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.came
}

// Cut closes all connections (FIN).
func (r *Relay) Cut() { r.each((*pair).close) }

// Reset resets all connections (RST).
func (r *Relay) Reset() { r.each((*pair).reset) }

// Resume lets the stalled directions go on, without a further stall.
func (r *Relay) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.resume)
	r.resume = make(chan struct{})
}

func (r *Relay) each(do func(*pair)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pairs {
		do(p)
	}
}

func (p *pair) close() {
	p.client.Close()
	p.target.Close()
}

func (p *pair) reset() {
	_ = p.client.SetLinger(0)
	_ = p.target.SetLinger(0)
	p.close()
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.work.Go(func() { r.serve(client.(*net.TCPConn)) })
	}
}

func (r *Relay) serve(client *net.TCPConn) {
	defer client.Close()
	r.mu.Lock()
	r.came++
	f, target, losing := r.faults, r.target[0], r.losing
	r.target = append(r.target[1:], target)
	r.mu.Unlock()
	if !r.pause(time.Now().Add(f.ToTarget.Delay + f.ToClient.Delay)) {
		return
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		if losing == 0 {
			return nil
		}
		return lose(raw, losing)
	}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-r.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	p := &pair{client, conn.(*net.TCPConn)}
	defer p.close()
	r.mu.Lock()
	select {
	case <-r.closed:
		r.mu.Unlock()
		return
	default:
	}
	r.pairs[p] = struct{}{}
	changed := r.losing != losing // meanwhile
	r.mu.Unlock()
	if changed {
		p.reset() // it came in the moment of the change; whoever connects again finds it done
		return
	}
	defer func() {
		r.mu.Lock()
		delete(r.pairs, p)
		r.mu.Unlock()
	}()
	if f.First != nil {
		if _, err := p.target.Write(f.First(client.RemoteAddr().(*net.TCPAddr).AddrPort())); err != nil {
			return
		}
	}
	var directions sync.WaitGroup
	directions.Go(func() { r.pump(p, p.target, p.client, f.ToTarget) })
	directions.Go(func() { r.pump(p, p.client, p.target, f.ToClient) })
	directions.Wait()
}

// pump copies one direction. The end of one direction is passed on as such, since COPY and drains use half-closed
// connections; an error ends both.
func (r *Relay) pump(p *pair, to, from *net.TCPConn, f Fault) {
	buf := make([]byte, 32<<10)
	source := io.Reader(from)
	if f.Delay > 0 {
		late := &delayed{relay: r, chunks: make(chan chunk, 1024), over: make(chan struct{})}
		r.work.Go(func() { late.read(from, f.Delay) })
		defer close(late.over)
		source = late
	}
	for passed := int64(0); ; {
		room := int64(len(buf))
		for _, at := range []int64{f.CutAfter, f.ResetAfter, f.StallAfter} {
			if at > passed {
				room = min(room, at-passed)
			}
		}
		if passed < f.SliceUntil {
			room = 1
		}
		n, err := source.Read(buf[:room])
		if _, err := to.Write(buf[:n]); err != nil {
			p.close()
			return
		}
		passed += int64(n)
		switch {
		case n == 0:
		case passed == f.CutAfter:
			p.close()
			return
		case passed == f.ResetAfter:
			p.reset()
			return
		case passed == f.StallAfter && !r.stall():
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) || to.CloseWrite() != nil {
				p.close()
			}
			return
		}
	}
}

// stall waits for Resume and says whether to go on.
func (r *Relay) stall() bool {
	r.mu.Lock()
	resume := r.resume
	r.mu.Unlock()
	select {
	case <-resume:
		return true
	case <-r.closed:
		return false
	}
}

// chunk is what was read at a time, and when it is to arrive.
type chunk struct {
	due  time.Time
	data []byte
	err  error
}

// delayed has what is read arrive later, however much is on its way.
type delayed struct {
	relay  *Relay
	chunks chan chunk
	over   chan struct{} // closed when nobody reads any more
	head   chunk
}

// read takes in what comes, until its end.
func (d *delayed) read(from io.Reader, delay time.Duration) {
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		select {
		case d.chunks <- chunk{time.Now().Add(delay), buf[:n], err}:
		case <-d.over:
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (d *delayed) Read(b []byte) (int, error) {
	if len(d.head.data) == 0 && d.head.err == nil {
		select {
		case d.head = <-d.chunks:
		case <-d.relay.closed:
			return 0, net.ErrClosed
		}
		if !d.relay.pause(d.head.due) {
			return 0, net.ErrClosed
		}
	}
	n := copy(b, d.head.data)
	d.head.data = d.head.data[n:]
	if len(d.head.data) > 0 {
		return n, nil
	}
	return n, d.head.err
}

// pause waits until a time and says whether to go on.
func (r *Relay) pause(until time.Time) bool {
	wait := time.Until(until)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.closed:
		return false
	}
}
