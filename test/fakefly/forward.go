// The private network: a listener per running machine that leads to its VM.

package fakefly

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const forwardDial = 5 * time.Second

// forwarder is one private address. It listens while it is open.
type forwarder struct {
	mu       sync.Mutex // guards what follows
	listener net.Listener
	pairs    map[*pair]bool
	wg       sync.WaitGroup
}

// pair is one connection through the forwarder.
type pair struct {
	near, far net.Conn
	frozen    bool // guarded by forwarder.mu
}

// newAddress picks an address of 127/8 that is nobody's, most likely.
func newAddress() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + rand.N(254)), byte(1 + rand.N(254)), byte(1 + rand.N(254))})
}

// freePort finds a port that nothing listens on, on any address.
func freePort() (uint16, error) {
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

// open listens on at and forwards to where target says. It does nothing if it is open.
func (f *forwarder) open(at netip.AddrPort, target func() string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp4", at.String())
	if err != nil {
		return err
	}
	f.listener = l
	if f.pairs == nil { // otherwise frozen ones are in it
		f.pairs = map[*pair]bool{}
	}
	f.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(l, near, target()) })
		}
	})
	return nil
}

func (f *forwarder) serve(l net.Listener, near net.Conn, target string) {
	far, err := net.DialTimeout("tcp", target, forwardDial)
	if err != nil {
		near.Close()
		return
	}
	p := &pair{near: near, far: far}
	f.mu.Lock()
	if f.listener != l { // frozen or closed meanwhile
		f.mu.Unlock()
		near.Close()
		far.Close()
		return
	}
	f.pairs[p] = true
	f.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { f.copy(p, far, near) })
	both.Go(func() { f.copy(p, near, far) })
	both.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !p.frozen {
		delete(f.pairs, p)
		near.Close()
		far.Close()
	}
}

// copy moves bytes one way and hands the end on, but the end that a freeze makes.
func (f *forwarder) copy(p *pair, to, from net.Conn) {
	_, err := io.Copy(to, from)
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.frozen {
		return
	}
	if c, ok := to.(*net.TCPConn); ok && err == nil {
		_ = c.CloseWrite()
		return
	}
	p.near.Close() // an error in one direction is the end of both
	p.far.Close()
}

// freeze stops listening and moves no more bytes, without a word to either side.
func (f *forwarder) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hush()
	for p := range f.pairs {
		p.frozen = true
		_ = p.near.SetDeadline(time.Unix(1, 0))
		_ = p.far.SetDeadline(time.Unix(1, 0))
	}
}

// hush is called with mu held.
func (f *forwarder) hush() {
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
}

// close ends everything, frozen connections too, and returns when nothing runs.
func (f *forwarder) close() {
	f.mu.Lock()
	f.hush()
	for p := range f.pairs {
		p.near.Close()
		p.far.Close()
	}
	f.pairs = nil
	f.mu.Unlock()
	f.wg.Wait()
}
