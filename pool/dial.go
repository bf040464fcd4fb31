// Dialing: when a pool wants another server, and what a failure means for the next dial and for those who wait.

package pool

import "time"

// Failure says what a failed dial means for the next one.
type Failure uint8

// The kinds of failures.
const (
	// Passing: the server may be there a little later without anybody doing anything. Clients wait for it.
	Passing Failure = iota
	// Final: trying again is pointless. Nobody waits for it.
	Final
	// Answered: the server has said what it thinks of this login, and may think otherwise a moment later: a database is made, a
	// right is granted. Who has waited for the answer is told; whoever comes later is told only after it was asked again.
	Answered
)

// outage remembers a row of failed dials, so that a dead server is neither hammered nor waited for without end. Its
// zero value means that the last dial succeeded.
type outage struct {
	err   error         // the last failure; nil: none
	kind  Failure       // of the last failure
	since time.Time     // when the first failed dial began
	asked time.Time     // when the last failed dial began
	last  time.Time     // when the last dial failed
	pause time.Duration // after the last failure, before jitter
	until time.Time     // no dial before this
}

// WantDial says whether the pool wants to dial now: more clients wait than servers are being dialed, its size allows
// one more, or its reserve does and the client has waited for Settings.ReserveAfter, and it does not pause after a
// failure. After a failure it tries with one dial at a time. Whether its groups have room is not considered;
// [Tenant.NextDial] does.
func (p *Pool) WantDial(now time.Time) bool {
	dialing := p.servers[Dialing].n
	if p.waiters.n <= dialing || p.Servers() >= p.most() || p.frozen && p.live() > 0 || now.Before(p.reserveAt()) {
		return false
	}
	return p.outage.err == nil || dialing == 0 && !now.Before(p.outage.until)
}

// reserveAt returns when the first client without a dial has waited long enough for a server of the reserve; zero if a
// server need not be of the reserve. There must be such a client.
func (p *Pool) reserveAt() time.Time {
	if p.Servers() < p.Size() {
		return time.Time{}
	}
	return p.firstWithoutDial().since.Add(p.tenant.settings.ReserveAfter)
}

// firstWithoutDial returns the first waiter that is not covered by a dial under way. There is one if WantDial says so.
func (p *Pool) firstWithoutDial() *Client {
	n := p.waiters.head
	for range p.servers[Dialing].n {
		n = n.next
	}
	return n.item
}

// DialAfter returns when the pause after the last failed dial ends or ended; zero if the last dial did not fail.
func (p *Pool) DialAfter() time.Time { return p.outage.until }

// RetryAt returns when the pool begins to want a dial although nothing happens until then: a pause ends, or somebody
// has waited long enough for the reserve. It is zero or past if it does not.
func (p *Pool) RetryAt() time.Time {
	at := p.outage.until
	if p.waiters.n > p.servers[Dialing].n && p.Servers() < p.most() {
		if opens := p.reserveAt(); opens.After(at) {
			at = opens
		}
	}
	return at
}

// StartDial says that s, which was never used before, is being dialed for p. It counts against the limits from now on.
// The caller has asked NextDial; a dial that would break a limit panics. True: it may connect at once. Else some of its place is taken
// by a server that lingers, and it connects when [Tenant.NextConnect] returns it.
func (p *Pool) StartDial(s *Server, now time.Time) bool {
	switch {
	case p.tenant == nil:
		panic("BUG: pool: dial for a removed pool")
	case s.pool != nil:
		panic("BUG: pool: server was used before")
	case p.Servers() >= p.most() || !p.hasRoom(now):
		panic("BUG: pool: no room for another server")
	}
	for _, g := range p.groups {
		if g.kept == p {
			g.kept = nil
		}
	}
	// When nobody has tried for longer than the longest pause, the old failures say nothing about today.
	if p.outage.err != nil && now.Sub(p.outage.until) > p.tenant.settings.BackoffMax {
		p.outage = outage{}
	}
	s.pool = p
	s.dialStart = now
	s.jitter = p.tenant.random()
	free := p.hasPlace()
	p.set(s, Closed, Dialing, nil)
	if !free {
		p.tenant.park(s)
	}
	return free
}

// DialDone says that s is logged in and ready; it is then treated as by Release, and what failed before is forgotten.
// If s was taken out while it was dialed, the answer is to close it.
func (p *Pool) DialDone(s *Server, now time.Time) Next {
	if p.left(s) {
		return Next{Close: Removed}
	}
	p.expect(s, Dialing)
	s.expectConnected()
	p.outage = outage{}
	s.connectedAt = now
	return p.settle(s, Dialing, now)
}

// DialFailed says that the dial of s failed with err, takes s out, and makes the pool pause. The caller then asks Failing
// and NextDial. If s was taken out while it was dialed, nothing happens.
func (p *Pool) DialFailed(s *Server, err error, kind Failure, now time.Time) {
	if err == nil {
		panic("BUG: pool: dial failed without an error")
	}
	if p.left(s) {
		return
	}
	p.expect(s, Dialing)
	s.expectConnected()
	p.set(s, Dialing, Closed, nil)

	o, settings := &p.outage, &p.tenant.settings
	switch {
	case o.err == nil || o.kind == Answered || kind == Answered: // a server that answers is there
		o.since = s.dialStart
		o.pause = min(settings.BackoffMin, settings.BackoffMax)
	case s.dialStart.After(o.last):
		o.pause = min(2*o.pause, settings.BackoffMax)
	default:
		// Dials that ran side by side and failed together are one failure: the pause does not double for each.
	}
	o.err, o.kind, o.asked, o.last = err, kind, s.dialStart, now
	// Between half of the pause and all of it, so that the pools of a server that came back do not dial as one.
	o.until = now.Add(o.pause - time.Duration(float64(o.pause)/2*p.tenant.random()))
}

// Failing returns the last dial's error if it is pointless for a client to wait for a server that has waited since then
// (now: one that is about to): none is logged in, none is being dialed, the pool pauses, and the failure is final, or
// dials have failed for FailFor, or it is the answer that the client has waited for. It is then to be told so. Once the
// pause is over the next client may try again. Otherwise nil.
func (p *Pool) Failing(since, now time.Time) error {
	o := &p.outage
	if o.err == nil || p.Servers() > 0 || !now.Before(o.until) {
		return nil
	}
	failFor := p.tenant.settings.FailFor
	switch {
	case o.kind == Answered && !since.After(o.asked),
		o.kind == Final,
		o.kind == Passing && failFor > 0 && now.Sub(o.since) >= failFor:
		return o.err
	}
	return nil
}

// Outage returns the last dial's error if that is why nobody is served: no server is logged in. Else it returns nil.
func (p *Pool) Outage() error {
	if p.live() > 0 {
		return nil
	}
	return p.outage.err
}

// Connecting says whether the pool's first server is being dialed, so that whoever waits does not wait for others.
func (p *Pool) Connecting() bool { return p.live() == 0 && p.servers[Dialing].n > 0 }

// Forgive forgets all failed dials, because something has changed that makes the next ones worth trying at once.
func (t *Tenant) Forgive() {
	for p := range t.Pools() {
		p.outage = outage{}
	}
}

// random returns a number in [0, 1), or 0 if nothing is to be spread.
func (t *Tenant) random() float64 {
	if t.settings.Random == nil {
		return 0
	}
	return t.settings.Random()
}
