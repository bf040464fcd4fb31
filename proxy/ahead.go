// Reading ahead from a client that is kept waiting, so that its end is noticed when it leaves.

package proxy

import "github.com/postern/postern/proxy/loop"

const (
	// aheadMost is how much is read ahead of a client: what two kernels hold by
	// default between it and Postern, for that stands before its end.
	aheadMost = 8 << 20
	// aheadShare is the part of the memory for pending input that may be taken
	// when more is read ahead.
	aheadShare = 4
)

// sweepBlocked looks for clients whose input was not read since the last time,
// twice a second. One that has left may have bytes of its own in front of its
// end, even in its own kernel.
func (t *tenant) sweepBlocked() {
	for s := range t.servers {
		if s.client != nil {
			s.client.attend()
		}
	}
	for p := range t.books.Pools() {
		for w := p.FirstWaiter(); w != nil; w = p.NextWaiter(w) {
			w.Owner.(*client).attend()
		}
	}
}

// attend has the client's input read if it is blocked and was so the last time.
func (c *client) attend() {
	if c.intake == flowing || c.intake == goodbye || c.leaving() {
		return
	}
	if c.received == c.seen {
		c.intake = ahead
		c.conn.Again()
	}
	c.seen = c.received
}

// readAhead reads what is there, as far as memory allows that others need, too.
func (c *client) readAhead() {
	for len(c.in) < aheadMost && c.mayReadAhead() {
		if more, err := c.readOn(); !more || err != nil {
			return // with an end, an event comes of its own
		}
	}
}

func (c *client) mayReadAhead() bool {
	g := c.tenant.gate
	most := int64(g.opts.Limits.Pending)
	return most == 0 || g.pending.held.Load() < most/aheadShare && c.tenant.pending < most/pendingShare/aheadShare
}

// readOn reads input that cannot be dealt with yet. False: the session is over,
// or nothing more can be read in this turn.
func (c *client) readOn() (more bool, err error) {
	buf := c.tenant.loop.Scratch()
	n, err := c.conn.Read(buf)
	c.arrived(n)
	c.in = c.tenant.loop.Append(c.in, buf[:n])
	return c.charge() && err != loop.ErrWouldBlock, err
}
