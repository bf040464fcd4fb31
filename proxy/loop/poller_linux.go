// The poller on Linux: epoll, edge-triggered, woken by an eventfd.

package loop

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type events struct{ readable, writable, halfClosed, hangup bool }

const maxEvents = 256

type poller struct {
	epfd, wakefd int
	buf          *[maxEvents]unix.EpollEvent
}

func newPoller() (poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return poller{}, err
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epfd)
		return poller{}, err
	}
	p := poller{epfd: epfd, wakefd: wakefd, buf: new([maxEvents]unix.EpollEvent)}
	if err := p.add(wakefd); err != nil {
		p.close()
		return poller{}, err
	}
	return p, nil
}

func (p *poller) add(fd int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
	return unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, fd, &e)
}

// wake ends a wait from another thread. An eventfd that was written and not
// read gives a new edge per write, so nobody needs to read it.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wakefd, one[:])
}

// poll waits without telling the scheduler: for a very short time only.
func (p *poller) poll(d time.Duration) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), uintptr(unsafe.Pointer(p.buf)), maxEvents, millis(d), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// block waits as any Go code does, so that the thread's processor is free meanwhile.
func (p *poller) block(d time.Duration) int {
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), uintptr(unsafe.Pointer(p.buf)), maxEvents, millis(d), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// millis rounds up, so that a timer is due when the wait ends.
func millis(d time.Duration) uintptr { return uintptr((d + time.Millisecond - 1) / time.Millisecond) }

func (p *poller) event(i int) (fd int, e events) {
	ev := &p.buf[i]
	return int(ev.Fd), events{
		readable:   ev.Events&unix.EPOLLIN != 0,
		writable:   ev.Events&unix.EPOLLOUT != 0,
		halfClosed: ev.Events&unix.EPOLLRDHUP != 0,
		hangup:     ev.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0,
	}
}

func (p *poller) close() {
	unix.Close(p.wakefd)
	unix.Close(p.epfd)
}

// recvFD and sendFD are raw system calls: on a non-blocking descriptor they
// return at once, and the scheduler need not know.
func recvFD(fd int, p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, errAgain
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

func sendFD(fd int, p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			return 0, errAgain
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
