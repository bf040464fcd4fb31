// A network that loses packets, without privileges: a filter on the relay's own sockets drops what arrives there, before TCP
// sees it. Whoever sent it hears nothing, not even an acknowledgement.

package harness

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// random is the offset at which a packet filter reads a random number.
const random = 0xfffff000 + 56

// dropping is a filter that drops so many of a hundred packets at random.
func dropping(percent int) []unix.SockFilter {
	const all = 1<<32 - 1
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(all / 100 * uint64(percent)), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: all},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
}

// lose puts the filter on a socket, or takes it away for 0.
func lose(conn syscall.RawConn, percent int) error {
	var failed error
	err := conn.Control(func(fd uintptr) {
		if percent == 0 {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			return
		}
		filter := dropping(percent)
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return err
	}
	return failed
}

// Delivered reports whether the relay's clients have acknowledged all that they were sent. What they have not is sent again, also after Lose(100),
// which stops only what comes: to them the server seems to live then.
func (r *Relay) Delivered() bool {
	all := true
	r.each(func(p *pair) {
		raw, err := p.client.SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
			all = all && err == nil && n == 0
		})
	})
	return all
}

// Lose has the network lose so many of a hundred packets that are sent to the relay, from both sides, on connections that are
// there and on those that come. With 100 it is as if a cable had been pulled: each side hears nothing more of the other, and
// nobody can connect. 0 ends it.
func (r *Relay) Lose(t testing.TB, percent int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.losing
	r.losing = percent
	if was == percent {
		return
	}
	sockets := []syscall.Conn{r.listener.(*net.TCPListener)} // whose connections inherit it
	for p := range r.pairs {
		sockets = append(sockets, p.client, p.target)
	}
	for _, s := range sockets {
		raw, err := s.SyscallConn()
		if err == nil {
			err = lose(raw, percent)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatalf("a packet filter: %v", err)
		}
	}
}
