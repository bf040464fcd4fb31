// Many writes in one system call, by io_uring.

package loop

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringSize is how many writes one system call takes at most.
const ringSize = 256

// ring is an io_uring that only ever sends, and only in ways that end before the system call does: MSG_DONTWAIT makes
// the kernel answer EAGAIN where it would otherwise go on by itself, with memory that is ours again by then. The loop's
// thread alone uses it. The layout of the shared memory is that of linux/io_uring.h.
type ring struct {
	fd          int
	shared, own []byte // mapped: the indices and completions, and the submissions

	sqTail, sqMask *uint32
	submissions    []submission
	cqHead, cqTail *uint32
	cqMask         uint32
	completions    []completion

	filled uint32 // submissions that the kernel has not been told of
}

type submission struct {
	opcode, flags  uint8
	priority       uint16
	fd             int32
	offset, addr   uint64
	len, sendFlags uint32
	tag            uint64
	_              [3]uint64
}

type completion struct {
	tag    uint64
	result int32 // bytes, or an errno below zero
	flags  uint32
}

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, workers uint32
	_                                                         [3]uint32
	sq                                                        struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, completions, flags, _ uint32
		_                                                          uint64
	}
}

const (
	opSend         = 26         // IORING_OP_SEND
	oneMapping     = 1 << 0     // IORING_FEAT_SINGLE_MMAP
	mapSubmissions = 0x10000000 // IORING_OFF_SQES
)

// newRing returns an error where the kernel is too old, was told not to (kernel.io_uring_disabled, seccomp), or does
// not keep the one promise that a ring is built on.
func newRing() (*ring, error) {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringSize, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &ring{fd: int(fd)}
	if err := r.mapMemory(&p); err != nil {
		r.close()
		return nil, err
	}
	if err := r.prove(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *ring) mapMemory(p *ringParams) (err error) {
	if p.features&oneMapping == 0 {
		return errors.New("io_uring: the kernel is older than 5.4")
	}
	const access, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	size := max(p.sq.array+4*p.sqEntries, p.cq.completions+p.cqEntries*uint32(unsafe.Sizeof(completion{})))
	if r.shared, err = unix.Mmap(r.fd, 0, int(size), access, kind); err != nil {
		return fmt.Errorf("io_uring: map: %w", err)
	}
	if r.own, err = unix.Mmap(r.fd, mapSubmissions, int(p.sqEntries)*int(unsafe.Sizeof(submission{})), access, kind); err != nil {
		return fmt.Errorf("io_uring: map: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.shared[offset])) }
	r.sqTail, r.sqMask = at(p.sq.tail), at(p.sq.mask)
	r.cqHead, r.cqTail, r.cqMask = at(p.cq.head), at(p.cq.tail), *at(p.cq.mask)
	r.submissions = unsafe.Slice((*submission)(unsafe.Pointer(&r.own[0])), p.sqEntries)
	r.completions = unsafe.Slice((*completion)(unsafe.Pointer(&r.shared[p.cq.completions])), p.cqEntries)
	for i := range p.sqEntries {
		*at(p.sq.array + 4*i) = i
	}
	return nil
}

// prove fills a socket, and sees that the next send ends with EAGAIN at once.
func (r *ring) prove() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("io_uring: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	piece := make([]byte, 4096)
	for err == nil {
		_, err = unix.Write(pair[0], piece)
	}
	var result [1]int32
	r.put(pair[0], piece)
	if r.submit(result[:]) != nil || result[0] != -int32(unix.EAGAIN) {
		return fmt.Errorf("io_uring: a send that would block answers %d instead of EAGAIN", result[0])
	}
	return nil
}

// put adds a send. There is room for ringSize of them between two calls of submit. The bytes must stay where they are
// until then.
func (r *ring) put(fd int, b []byte) {
	r.submissions[(*r.sqTail+r.filled)&*r.sqMask] = submission{opcode: opSend, fd: int32(fd), tag: uint64(r.filled),
		addr: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), len: uint32(len(b)), sendFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL}
	r.filled++
}

// submit does what was put, and fills results, of the same length and order, with bytes or negative errnos. After an
// error the ring must be closed; some results are then notSent or notKnown.
func (r *ring) submit(results []int32) error {
	atomic.StoreUint32(r.sqTail, *r.sqTail+r.filled)
	r.filled = 0
	taken, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(results)), 0, 0, 0, 0)
	if errno != 0 {
		taken = 0
	}
	for i := range results {
		results[i] = notKnown
		if i >= int(taken) {
			results[i] = notSent
		}
	}
	head, done := *r.cqHead, 0
	for tail := atomic.LoadUint32(r.cqTail); head != tail; head++ {
		c := &r.completions[head&r.cqMask]
		results[c.tag] = c.result
		done++
	}
	atomic.StoreUint32(r.cqHead, head)
	switch {
	case errno != 0:
		return fmt.Errorf("io_uring_enter: %w", errno)
	case done < len(results):
		return fmt.Errorf("io_uring: %d of %d sends have ended, %d were begun", done, len(results), taken)
	}
	return nil
}

func (r *ring) close() {
	if r.own != nil {
		_ = unix.Munmap(r.own)
	}
	if r.shared != nil {
		_ = unix.Munmap(r.shared)
	}
	_ = unix.Close(r.fd)
}
