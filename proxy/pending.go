// The memory that input takes which cannot be dealt with yet: unfinished messages, and those that wait for a server.

package proxy

import (
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/postern/postern/proxy/loop"
)

const (
	// pendingFrom is the largest buffer that does not count: small messages may
	// always wait.
	pendingFrom = 16 << 10
	// pendingShare is the part of it all that one tenant may have.
	pendingShare = 2
	// returnFrom is how much is freed before it is given back to the system, and
	// returnAfter for how long more of it is waited for.
	returnFrom  = 64 << 20
	returnAfter = 5 * time.Second
)

// pending counts the bytes of buffers over all tenants. Safe for concurrent use.
type pending struct {
	held      atomic.Int64
	freed     atomic.Int64 // to the heap, since it was last collected
	returning atomic.Bool
}

// charge counts what the client holds now. False: that is too much, and the
// session is over.
func (c *client) charge() bool {
	size := cap(c.in)
	if size <= pendingFrom {
		size = 0
	}
	if size == c.charged {
		return true
	}
	t, g := c.tenant, c.tenant.gate
	if c.charged > loop.ScratchSize {
		g.freed(c.charged)
	}
	by := int64(size - c.charged)
	c.charged = size
	t.pending += by
	held, most := g.pending.held.Add(by), int64(g.opts.Limits.Pending)
	if by < 0 || most == 0 || held <= most && t.pending <= most/pendingShare {
		return true
	}
	c.fail(errPending, "pending_memory")
	return false
}

// freed has large buffers given back to the system soon. The runtime would
// take minutes, if nothing else is going on.
func (g *Gate) freed(n int) {
	p := &g.pending
	if p.freed.Add(int64(n)) < returnFrom || !p.returning.CompareAndSwap(false, true) {
		return
	}
	g.spawn(func() {
		defer p.returning.Store(false)
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(returnAfter):
		}
		p.freed.Store(0)
		debug.FreeOSMemory()
	})
}
