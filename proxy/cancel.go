// CancelRequests: what each is aimed at, and when it is sent to the server.

package proxy

import (
	"context"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/pgwire"
)

const (
	// maxCancels bounds the cancel requests on their way to servers.
	maxCancels = 256
	// maxTenantCancels bounds those of a tenant's pools, because its server may take
	// as long as it likes. Each server has at most one: what is more waits in line.
	maxTenantCancels = 16
)

// guessLimit bounds how fast one client address may try cancel keys. A driver
// that cancels too late uses an old key now and then; nobody has a hundred.
func guessLimit() netrestrict.ThrottleConfig {
	return netrestrict.ThrottleConfig{TenantFailures: 100, AddressFailures: 100, Window: 10 * time.Second, Block: 10 * time.Second}
}

// cancelUnknown is what comes of a request with a key that nobody has.
const cancelUnknown = "unknown"

// cancelRequest is a CancelRequest that came here or, told by another node, there.
type cancelRequest struct {
	pid    uint32
	secret []byte
	who    netrestrict.Who // has sent it
	came   time.Time
	// dropped reports whether it is too late for it; nil: it is not, and does not get old.
	dropped func() bool
}

func (r *cancelRequest) late() bool { return r.dropped != nil && r.dropped() }

// cancel deals with a CancelRequest. The client gets no answer, whatever comes
// of it; the allowlist of the session's tenant holds for it too. As with
// Postgres, the end of its connection says that the request has arrived: a
// client that waits for that, as libpq does, may then ask for something else.
func (h *handshake) cancel(body []byte) {
	g := h.gate
	count := func(result string) { g.metrics.cancels.WithLabelValues(result).Inc() }
	r := cancelRequest{who: whoIs(&h.peer), came: time.Now()}
	var wait time.Duration
	g.guesses.with(func(t throttle) { wait = t.Wait(r.came, "", r.who.Address) })
	if wait > 0 {
		count("limit")
		return
	}
	var ok bool
	if r.pid, r.secret, ok = pgwire.CancelKey(body); ok && g.cancel(r) != cancelUnknown {
		return
	}
	result := cancelUnknown
	if ok {
		result = g.forward(r)
	}
	count(result)
	if result == cancelUnknown {
		g.guesses.with(func(t throttle) { t.Failed(time.Now(), "", r.who.Address) })
		if g.opts.Cluster != nil {
			g.opts.Cluster.Guessed(r.who.Address)
		}
	}
}

// cancel deals with a request whose key is of a session that is here, and counts what has come of it when that is known, as it
// mostly is when it returns. Else it is cancelUnknown, which is not counted yet.
func (g *Gate) cancel(r cancelRequest) (result string) {
	count := func(result string) string {
		g.metrics.cancels.WithLabelValues(result).Inc()
		return result
	}
	if result, ok := g.consoles.cancel(r); ok {
		return count(result)
	}
	found := g.keys.find(r.pid, r.secret)
	if found.session == nil {
		return cancelUnknown
	}
	conf, known := g.opts.Directory.Tenant(found.tenant.id)
	now := time.Now()
	if !known || conf.Refuses(now, r.who) {
		g.count(denyAddress, found.tenant.id)
		g.list(denyAddress, found.tenant.id, r.who.Address, "")
		return count("refused")
	}
	g.observe(conf, now, r.who, "")
	c, ok := found.session.(*client)
	if !ok {
		if r.late() {
			return count("late")
		}
		return count(found.session.(*replica).cancel())
	}
	over := make(chan string, 1)
	done := func(result string) { over <- count(result) }
	if !c.tenant.post(func() {
		if r.late() {
			done("late")
			return
		}
		c.cancel(done)
	}) {
		return ""
	}
	limit := time.NewTimer(g.opts.Timeouts.ServerConnect)
	defer limit.Stop()
	select {
	case result = <-over:
	case <-limit.C:
	case <-g.ctx.Done():
	}
	return result
}

// aim is what a cancel request is meant for: what there is when it comes.
type aim uint8

const (
	aimNothing aim = iota // nothing of the client's runs or waits
	aimRunning            // what its server runs
	aimHeld               // what it has sent, and waits for an earlier cancel request to arrive
	aimQueued             // what waits for a server
)

func (c *client) aim() aim {
	s := c.server
	switch {
	case c.gone() || c.greeting():
		return aimNothing
	case c.books.Waiting():
		return aimQueued
	case s == nil || s.phase != lease.Serving: // that is Postern's own
		return aimNothing
	case s.link.Outstanding() > 0:
		return aimRunning
	case s.cancels > 0 && c.blocked() && len(c.in) > 0 && c.begun() == 0:
		return aimHeld
	}
	return aimNothing
}

// cancel is a CancelRequest with the client's key. done hears, once, what has
// come of it.
func (c *client) cancel(done func(result string)) {
	s := c.server
	switch c.aim() {
	case aimRunning:
		s.cancel(done)
		return
	case aimHeld:
		if !s.link.Free() { // in a transaction, which is to fail
			s.cancelLater(upcoming{done: done, held: true})
			return
		}
		if c.cancelUnsent() {
			done("waiting")
			return
		}
	case aimQueued:
		if c.cancelUnsent() {
			done("waiting")
			return
		}
	}
	done("idle")
}

// cancelUnsent answers a request that no server has been sent as Postgres
// answers a running one. An extended request goes on being dropped up to its
// Sync. False: not all of it is here yet; it is to run.
func (c *client) cancelUnsent() bool {
	n, missing, done := 0, 0, false
	for !done {
		size, status := pgwire.ClientFrame(c.in[n:])
		if status != pgwire.FrameOK {
			return false
		}
		done = c.in[n] == pgwire.Query || c.in[n] == pgwire.Sync || c.in[n] == pgwire.FunctionCall
		if missing = n + size - len(c.in); missing > 0 {
			if !done {
				return false
			}
			size -= missing // of one that is known to be the last; it is dropped when it comes
		}
		n += size
	}
	c.discard = max(0, missing)
	if c.books.Waiting() {
		c.pool.books.Leave(&c.books)
	}
	c.write(pgwire.AppendReady(errCancelled.Append(nil), 'I'))
	c.in = c.in[:copy(c.in, c.in[n:])]
	if len(c.in) == 0 {
		c.keep(nil)
	}
	c.resume()
	return true
}

// upcoming is a cancel request that is still to be sent.
type upcoming struct {
	done func(result string) // nil: there is none
	held bool                // it is for what the server has not been sent yet
}

// cancel sends the server a cancel request for what it runs. While one is on
// its way, or the tenant has as many as it may, another one waits: for as long
// as what it is meant for runs. Until they have arrived for certain, the server
// is sent nothing else that they could hit, and serves nobody else.
func (s *server) cancel(done func(result string)) {
	if done == nil {
		done = func(string) {}
	}
	switch {
	case len(s.secret) == 0:
		done("failed")
	case s.cancels > 0 || s.tenant.cancels >= maxTenantCancels:
		s.cancelLater(upcoming{done: done})
	default:
		s.sendCancel(done)
	}
}

// cancelLater has a request sent when it may be. One is enough: what it is for
// is the same, or newer.
func (s *server) cancelLater(u upcoming) {
	if s.upcoming.done != nil {
		u.done("repeated")
		return
	}
	s.upcoming = u
}

// dropUpcoming gives up a request that is meant for what has ended.
func (s *server) dropUpcoming() {
	if done := s.upcoming.done; done != nil {
		s.upcoming = upcoming{}
		done("idle")
	}
}

// sendUpcoming sends the request that waits, if what it is for runs.
func (s *server) sendUpcoming() {
	done := s.upcoming.done
	if done == nil {
		return
	}
	if c := s.client; s.link.Outstanding() == 0 || c != nil && c.aim() != aimRunning {
		s.dropUpcoming()
		return
	}
	s.upcoming = upcoming{}
	s.sendCancel(done)
}

// sendCancel sends a request, and waits for the end in a goroutine.
func (s *server) sendCancel(done func(result string)) {
	t, g := s.tenant, s.tenant.gate
	select {
	case g.cancelSlots <- struct{}{}:
	default:
		done("limit")
		return
	}
	s.cancels++
	t.cancels++
	if !g.spawn(func() {
		defer func() { <-g.cancelSlots }()
		ctx, stop := context.WithTimeout(g.ctx, g.opts.Timeouts.ServerConnect)
		defer stop()
		err := backend.Cancel(ctx, s.target, s.pid, s.secret)
		t.post(func() { s.cancelEnded(err, done) })
	}) {
		<-g.cancelSlots
		s.cancels--
		t.cancels--
		done("failed")
	}
}

// cancelEnded is when a request has arrived, or it is not known whether it has:
// then it may still hit, some time, and nobody but its client gets this server.
func (s *server) cancelEnded(err error, done func(result string)) {
	t := s.tenant
	s.cancels--
	t.cancels--
	if err != nil {
		s.traces.Fail()
		done("failed")
		t.log.Warn("cancel request failed", "error", err)
	} else {
		done("sent")
	}
	switch {
	case s.closing():
	case s.traces.Failed() && s.phase.Cleaning():
		s.lost("cancel request failed")
	default:
		s.cancelled()
	}
	for other := range t.servers { // that wait in line
		if t.cancels >= maxTenantCancels {
			break
		}
		if other.cancels == 0 {
			other.sendUpcoming()
		}
	}
}

// cancelled goes on with what waits for a cancel request to have arrived.
func (s *server) cancelled() {
	if !s.upcoming.held {
		if s.sendUpcoming(); s.cancels > 0 {
			return
		}
	}
	s.moved()
	if c := s.client; c != nil {
		c.resume()
	}
	s.sendUpcoming() // for what its client was held with
}
