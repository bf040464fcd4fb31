// Cancel keys and cancel requests.

package proxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
)

// guessLimit bounds how fast one client address may try cancel keys. A driver
// that cancels too late uses an old key now and then; nobody has a hundred.
func guessLimit() netrestrict.ThrottleConfig {
	return netrestrict.ThrottleConfig{TenantFailures: 100, AddressFailures: 100, Window: 10 * time.Second, Block: 10 * time.Second}
}

// cancelKey is what a client proves its session with: a number that stands
// for a process id, sign bit clear, and a secret of 4 bytes in protocol 3.0 and
// 32 in 3.2. All of it is random.
type cancelKey struct {
	pid    uint32
	secret []byte
}

// newCancelKey makes a key; long is for protocol 3.2. taken says which numbers
// are those of sessions that are open.
func newCancelKey(long bool, taken func(pid uint32) bool) cancelKey {
	key := cancelKey{secret: make([]byte, 4)}
	if long {
		key.secret = make([]byte, 32)
	}
	_, _ = rand.Read(key.secret) // never fails
	for key.pid == 0 || taken(key.pid) {
		var b [4]byte
		_, _ = rand.Read(b[:])
		key.pid = binary.BigEndian.Uint32(b[:]) &^ (1 << 31)
	}
	return key
}

// is reports whether a cancel request has the key's secret.
func (k cancelKey) is(secret []byte) bool { return subtle.ConstantTimeCompare(k.secret, secret) == 1 }

// cancelKeys finds sessions by their key. Safe for concurrent use.
type cancelKeys struct {
	mu    sync.Mutex
	byPID map[uint32]*client
}

// add makes a key for a session, unique among those that are open.
func (k *cancelKeys) add(c *client, long bool) cancelKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID == nil {
		k.byPID = make(map[uint32]*client)
	}
	c.key = newCancelKey(long, func(pid uint32) bool { return k.byPID[pid] != nil })
	k.byPID[c.key.pid] = c
	return c.key
}

func (k *cancelKeys) remove(key cancelKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byPID, key.pid)
}

func (k *cancelKeys) find(pid uint32, secret []byte) *client {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.byPID[pid]
	if c == nil || !c.key.is(secret) {
		return nil
	}
	return c
}

// cancel deals with a CancelRequest. The client gets no answer, whatever comes
// of it; the allowlist of the session's tenant holds for it too.
func (h *handshake) cancel(body []byte) {
	g := h.gate
	count := func(result string) { g.metrics.cancels.WithLabelValues(result).Inc() }
	addr := h.peer.Client.Addr()
	var wait time.Duration
	g.guesses.with(func(t throttle) { wait = t.Wait(time.Now(), "", addr) })
	if wait > 0 {
		count("limit")
		return
	}
	pid, secret, ok := pgwire.CancelKey(body)
	var c *client
	if ok {
		c = g.keys.find(pid, secret)
	}
	if c == nil {
		count("unknown")
		g.guesses.with(func(t throttle) { t.Failed(time.Now(), "", addr) })
		return
	}
	conf, known := g.opts.Directory.Current().Tenant(c.tenant.id)
	if !known || !conf.Allow.Allows(addr) {
		count("refused")
		g.metrics.refusals.WithLabelValues(refusedAddress).Inc()
		return
	}
	c.tenant.post(func() { c.cancel(count) })
}

// cancel is a CancelRequest with the client's key.
func (c *client) cancel(count func(result string)) {
	s := c.server
	switch {
	case c.gone:
		count("idle")
	case s != nil && s.link.Outstanding() > 0 && !s.preparing && !s.punishing && !s.look.running:
		s.cancel(count)
	case c.books.Waiting() && !c.greeting:
		count("waiting")
		c.cancelWaiting()
	default:
		count("idle")
	}
}

// cancelWaiting answers a request that waits for a server as Postgres answers
// a running one. An extended request goes on being dropped up to its Sync.
func (c *client) cancelWaiting() {
	n, missing, done := 0, 0, false
	for !done {
		size, status := pgwire.ClientFrame(c.in[n:])
		if status != pgwire.FrameOK {
			return // not all of it is here yet; let it run
		}
		done = c.in[n] == pgwire.Query || c.in[n] == pgwire.Sync || c.in[n] == pgwire.FunctionCall
		if missing = n + size - len(c.in); missing > 0 {
			if !done {
				return // likewise
			}
			size -= missing // of one that is known to be the last; it is dropped when it comes
		}
		n += size
	}
	c.discard = max(0, missing)
	c.pool.books.Leave(&c.books)
	c.write(pgwire.AppendReady(errCancelled.Append(nil), 'I'))
	c.in = c.in[:copy(c.in, c.in[n:])]
	if len(c.in) == 0 {
		c.hold(nil)
	}
	c.resume()
}

// cancelled goes on with what waits for a cancel request to have arrived.
func (s *server) cancelled() {
	if s.rests() {
		s.rest(true)
	} else {
		s.clean()
	}
}

// cancel sends the server a cancel request, unless one is on its way already.
// Until that has arrived for certain, the server serves nobody else.
func (s *server) cancel(done func(result string)) {
	if done == nil {
		done = func(string) {}
	}
	g := s.tenant.gate
	switch {
	case s.cancels > 0:
		done("repeated")
		return
	case len(s.secret) == 0:
		done("failed")
		return
	}
	select {
	case g.cancelSlots <- struct{}{}:
	default:
		done("limit")
		return
	}
	s.cancels++
	if !g.spawn(func() {
		defer func() { <-g.cancelSlots }()
		ctx, stop := context.WithTimeout(g.ctx, g.opts.Timeouts.ServerConnect)
		defer stop()
		err := backend.Cancel(ctx, s.target, s.pid, s.secret)
		s.loop.Post(func() {
			s.cancels--
			if err != nil {
				// Whether it will hit, and when, is unknown: nobody else gets this server.
				s.failed = true
				done("failed")
				s.tenant.log.Warn("cancel request failed", "error", err)
			} else {
				done("sent")
			}
			if s.failed && s.client == nil && s.books.State() == pool.Cleaning {
				s.lost("cancel request failed")
				return
			}
			s.cancelled()
		})
	}) {
		<-g.cancelSlots
		s.cancels--
		done("failed")
	}
}
