//go:build darwin || freebsd

// The poller on macOS and FreeBSD: kqueue behind the same interface, so that the project
// builds there. It is neither tuned nor tested.

package loop

import (
	"time"

	"golang.org/x/sys/unix"
)

type events struct{ readable, writable, halfClosed, hangup bool }

const maxEvents = 256

type poller struct {
	kq           int
	wakeR, wakeW int
	buf          []unix.Kevent_t
}

func newPoller() (poller, error) {
	kq, err := unix.Kqueue()
	if err != nil {
		return poller{}, err
	}
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		unix.Close(kq)
		return poller{}, err
	}
	p := poller{kq: kq, wakeR: pipe[0], wakeW: pipe[1], buf: make([]unix.Kevent_t, maxEvents)}
	for _, fd := range pipe {
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
	}
	unix.CloseOnExec(kq)
	if err := p.add(p.wakeR); err != nil {
		p.close()
		return poller{}, err
	}
	return p, nil
}

func (p *poller) add(fd int) error {
	var ev [2]unix.Kevent_t
	unix.SetKevent(&ev[0], fd, unix.EVFILT_READ, unix.EV_ADD|unix.EV_CLEAR)
	n := 1
	if fd != p.wakeR {
		unix.SetKevent(&ev[1], fd, unix.EVFILT_WRITE, unix.EV_ADD|unix.EV_CLEAR)
		n = 2
	}
	_, err := unix.Kevent(p.kq, ev[:n], nil, nil)
	return err
}

func (p *poller) wake() { _, _ = unix.Write(p.wakeW, []byte{1}) }

func (p *poller) poll(d time.Duration) int {
	ts := unix.NsecToTimespec(int64(d))
	n, err := unix.Kevent(p.kq, nil, p.buf, &ts)
	if err != nil {
		return 0
	}
	var sink [64]byte
	for i := range n {
		if int(p.buf[i].Ident) == p.wakeR {
			_, _ = unix.Read(p.wakeR, sink[:])
		}
	}
	return n
}

func (p *poller) block(d time.Duration) int { return p.poll(d) }

func (p *poller) event(i int) (fd int, e events) {
	ev := &p.buf[i]
	return int(ev.Ident), events{
		readable:   ev.Filter == unix.EVFILT_READ,
		writable:   ev.Filter == unix.EVFILT_WRITE,
		halfClosed: ev.Filter == unix.EVFILT_READ && ev.Flags&unix.EV_EOF != 0,
		hangup:     ev.Flags&unix.EV_ERROR != 0 || (ev.Filter == unix.EVFILT_WRITE && ev.Flags&unix.EV_EOF != 0),
	}
}

func (p *poller) close() {
	unix.Close(p.wakeR)
	unix.Close(p.wakeW)
	unix.Close(p.kq)
}

func recvFD(fd int, p []byte) (int, error) {
	return retry(func() (int, error) { return unix.Read(fd, p) })
}
func sendFD(fd int, p []byte) (int, error) {
	return retry(func() (int, error) { return unix.Write(fd, p) })
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		switch err {
		case nil:
			return n, nil
		case unix.EAGAIN:
			return 0, errAgain
		case unix.EINTR:
			continue
		}
		return 0, err
	}
}
