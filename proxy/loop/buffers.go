// Buffers that connections borrow while they have bytes to keep.

package loop

import "math/bits"

const (
	minBuffer  = 512
	maxPooled  = ScratchSize
	numClasses = 10      // 512 B .. 256 KiB
	keepBytes  = 1 << 20 // kept per class while nobody uses them
)

// buffers is a free list per power of two. Larger ones come from the heap and
// go back to it.
type buffers struct {
	free [numClasses][][]byte
}

func class(n int) int {
	if n <= minBuffer {
		return 0
	}
	return bits.Len(uint(n-1)) - bits.Len(uint(minBuffer-1))
}

// get returns an empty slice with room for at least n bytes.
func (b *buffers) get(n int) []byte {
	if n > maxPooled {
		return make([]byte, 0, n)
	}
	k := class(n)
	if f := b.free[k]; len(f) > 0 {
		buf := f[len(f)-1]
		f[len(f)-1] = nil
		b.free[k] = f[:len(f)-1]
		return buf[:0]
	}
	return make([]byte, 0, minBuffer<<k)
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	c := cap(buf)
	if c < minBuffer || c > maxPooled || c&(c-1) != 0 {
		return
	}
	if k := class(c); len(b.free[k])*c < keepBytes {
		b.free[k] = append(b.free[k], buf[:0])
	}
}

// Append appends p to a borrowed buffer, which may be nil, and returns the
// buffer that holds both; the old one must not be used again. Loop thread only.
func (l *Loop) Append(buf, p []byte) []byte {
	if len(p) == 0 {
		return buf
	}
	if need := len(buf) + len(p); need > cap(buf) {
		bigger := l.buffers.get(max(need, 2*cap(buf)))
		bigger = append(bigger, buf...)
		if buf != nil {
			l.buffers.put(buf)
		}
		buf = bigger
	}
	return append(buf, p...)
}

// Free gives a borrowed buffer back; nil is allowed. Loop thread only.
func (l *Loop) Free(buf []byte) {
	if buf != nil {
		l.buffers.put(buf)
	}
}
