// Batching: what connections write in a turn is sent at its end, by one system call for all.

package loop

import (
	"math"

	"golang.org/x/sys/unix"
)

// batchMost is how much output of one connection waits for the end of the turn. More is sent at once: copying it
// would cost more than the system call.
const batchMost = 16 << 10

// Results of a ring that has failed; no errno is as low.
const (
	notSent  = math.MinInt32     // not begun
	notKnown = math.MinInt32 + 1 // begun, and perhaps not ended
)

// batch is the connections with output of this turn. Waking many peers in one system call is what makes it worth
// while: between two calls of its own the loop's thread is often preempted by the peer that it has just woken.
type batch struct {
	conns   []*Conn
	ring    *ring // nil: each connection sends for itself
	sending [ringSize]*Conn
	results [ringSize]int32
}

// BatchWrites has the loop send by io_uring, one system call for all connections that write in a turn, from its first
// turn on. The error says why this system cannot; the loop works without, too. Call it before Run.
func (l *Loop) BatchWrites() (err error) {
	l.batch.ring, err = newRing()
	return err
}

// sendLater has the output sent at the end of the turn, or at once if there is much of it.
func (c *Conn) sendLater() {
	switch {
	case c.stuck || c.unsent() == 0:
	case c.unsent() > batchMost:
		c.flush()
	case !c.batched:
		c.batched = true
		c.loop.batch.conns = append(c.loop.batch.conns, c)
	}
}

// sendBatch sends what the turn has left to be sent.
func (l *Loop) sendBatch() {
	b := &l.batch
	n := 0
	for i, c := range b.conns {
		b.conns[i] = nil
		c.batched = false
		if c.closed || c.stuck || c.outErr != nil || c.unsent() == 0 {
			continue
		}
		b.sending[n] = c
		if n++; n == ringSize {
			l.send(n)
			n = 0
		}
	}
	b.conns = b.conns[:0]
	l.send(n)
}

// send sends the output of the first n connections of the batch.
func (l *Loop) send(n int) {
	b := &l.batch
	conns, results := b.sending[:n], b.results[:n]
	if b.ring == nil || n <= 1 {
		for i, c := range conns {
			conns[i] = nil
			c.flush()
		}
		return
	}
	for _, c := range conns {
		b.ring.put(c.fd, c.out[c.outFrom:])
	}
	err := b.ring.submit(results)
	for i, c := range conns {
		conns[i] = nil
		switch n := results[i]; {
		case n >= 0:
			c.sent(int(n))
		case n == -int32(unix.EAGAIN):
			c.stuck = true
		case n == -int32(unix.EINTR), n == notSent:
			c.flush()
		case n == notKnown:
			c.out = nil // the kernel may still read it, so nobody else gets it
			c.fail(err)
		default:
			c.fail(unix.Errno(-n))
		}
	}
	if err != nil {
		l.log.Error("io_uring failed: sending without it", "loop", l.index, "error", err)
		b.ring.close()
		b.ring = nil
	}
}
