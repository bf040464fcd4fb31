// Cancel requests of a replication session, kept in order with what its client sends, so that they hit nothing newer.

package proxy

import (
	"context"
	"sync"

	"github.com/postern/postern/proxy/backend"
)

// crossing is where a session's bytes meet its cancel requests, which go to the
// server on another way and must not arrive behind what is sent after them.
// Safe for concurrent use.
type crossing struct {
	mu      sync.Mutex
	onWay   chan struct{} // a request is on its way; closed when that is over
	held    chan struct{} // bytes wait for that; closed when the server has them
	another bool          // a request waits for both
}

// yield waits while a request is on its way, and returns what is to be called
// when the server has the bytes.
func (x *crossing) yield(ctx context.Context) (passed func()) {
	x.mu.Lock()
	onWay := x.onWay
	if onWay == nil {
		x.mu.Unlock()
		return func() {}
	}
	held := make(chan struct{})
	x.held = held
	x.mu.Unlock()
	select {
	case <-onWay:
	case <-ctx.Done():
	}
	return func() {
		x.mu.Lock()
		x.held = nil
		x.mu.Unlock()
		close(held)
	}
}

// enter begins a request. False: there is one, and nothing newer for another.
func (x *crossing) enter(ctx context.Context) (over func(), ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if onWay, held := x.onWay, x.held; onWay != nil {
		if held == nil || x.another {
			return nil, false
		}
		x.another = true
		x.mu.Unlock()
		for _, c := range []chan struct{}{onWay, held} {
			select {
			case <-c:
			case <-ctx.Done():
			}
		}
		x.mu.Lock()
		x.another = false
		if x.onWay != nil || ctx.Err() != nil {
			return nil, false
		}
	}
	onWay := make(chan struct{})
	x.onWay = onWay
	return func() {
		x.mu.Lock()
		x.onWay = nil
		x.mu.Unlock()
		close(onWay)
	}, true
}

// cancelServer sends the server a cancel request, unless one is on its way,
// and says what became of it.
func (r *replica) cancelServer() (result string) {
	g := r.gate
	ctx, stop := context.WithTimeout(g.ctx, g.opts.Timeouts.ServerConnect)
	defer stop()
	over, ok := r.cancels.enter(ctx)
	if !ok {
		return "repeated"
	}
	defer over()
	select {
	case g.cancelSlots <- struct{}{}:
		defer func() { <-g.cancelSlots }()
	default:
		return "limit"
	}
	if err := backend.Cancel(ctx, r.target, r.server.PID, r.server.Secret); err != nil {
		r.tenant.log.Warn("cancel request failed", "error", err)
		return "failed"
	}
	return "sent"
}
