// Timeouts of sessions: queries and transactions that take too long, and clients that do nothing.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/lease"
)

// sessionTimeouts bound what a logged-in client may do; 0 is no bound. They
// are looked at twice a second.
type sessionTimeouts struct {
	query           time.Duration // a request, until the server has answered all of it
	transaction     time.Duration // from its first request to its end
	idleTransaction time.Duration // between two requests inside a transaction
	clientIdle      time.Duration // between two transactions
	queryWait       time.Duration // for a server
}

// timeoutsKey is who shares timeouts.
type timeoutsKey struct {
	user     string
	listener *Listener
}

// timeoutsOf returns what holds for a client: of its user, the tenant, its
// listener and the process, the first that says something.
func (t *tenant) timeoutsOf(c *client) *sessionTimeouts {
	key := timeoutsKey{c.place.user, c.listener}
	if known, ok := t.timeouts[key]; ok {
		return known
	}
	o := c.listener.Timeouts.Over(t.gate.opts.Session)
	if t.conf != nil {
		o = t.user(key.user).Timeouts.Over(t.conf.Timeouts).Over(o)
	}
	s := &sessionTimeouts{query: orZero(o.Query), transaction: orZero(o.Transaction), idleTransaction: orZero(o.IdleTransaction),
		clientIdle: orZero(o.ClientIdle), queryWait: orZero(o.QueryWait)}
	t.timeouts[key] = s
	t.timed = t.timed || s.query+s.transaction+s.idleTransaction+s.clientIdle > 0
	return s
}

// renewTimeouts follows a new configuration. As with a setting of Postgres's,
// it counts from each client's next request on.
func (t *tenant) renewTimeouts() {
	clear(t.timeouts)
	for _, c := range t.clients {
		c.due = t.timeoutsOf(c)
	}
}

func orZero(d *time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return *d
}

// clocks are a server's, for its client's timeouts. A zero is: not running.
type clocks struct {
	asked    time.Time // since when it owes answers
	began    time.Time // since when its client is in a transaction
	answered time.Time // since when its client may send the next request of it
	late     bool      // its query was cancelled for taking too long
	own      time.Time // when Postern has last asked it something for itself; see questions.go
}

// asks starts the clocks when a request goes to the server. A query's starts
// with the end of its message: before that nothing runs, and a cancel would be
// ignored.
func (s *server) asks() {
	k := &s.clocks
	if !k.asked.IsZero() {
		return
	}
	s.client.timeouts = s.client.due
	if k.began.IsZero() {
		k.began = s.loop.Now()
	}
	if s.client.partial == 0 {
		k.asked = s.loop.Now()
	}
}

// pauses stops a query's where nothing more is owed, though no ReadyForQuery
// has come: a client that asked for what there is by a Flush may think as long
// as it likes.
func (s *server) pauses() {
	if s.link.Outstanding() == 0 {
		s.clocks.asked, s.clocks.late = time.Time{}, false
		if !s.upcoming.held {
			s.dropUpcoming()
		}
	}
}

// answers stops them at a ReadyForQuery.
func (s *server) answers() {
	k := &s.clocks
	now := s.loop.Now()
	k.asked, k.late = time.Time{}, false
	s.dropUpcoming()
	k.answered, s.client.quiet, s.heardAt = now, now, now
	if s.link.Status() == 'I' {
		k.began = time.Time{}
	}
	if s.link.Outstanding() > 0 {
		s.asks() // the next request is running already
	}
}

// sweepTimeouts ends what takes too long.
func (t *tenant) sweepTimeouts(now time.Time) {
	if !t.timed {
		return
	}
	over := func(since time.Time, limit time.Duration) bool {
		return limit > 0 && !since.IsZero() && now.Sub(since) >= limit
	}
	var late []func()
	for s := range t.servers {
		c, k := s.client, &s.clocks
		if c == nil || c.greeting() || s.phase == lease.Preparing || s.phase == lease.Restoring {
			continue
		}
		switch {
		case over(k.began, c.timeouts.transaction):
			late = append(late, func() { c.revoke(errTransactionTimeout, "transaction_timeout") })
		case s.link.Quiet() && s.cancels == 0 && !k.began.IsZero() && over(k.answered, c.timeouts.idleTransaction):
			late = append(late, func() { c.revoke(errIdleTransaction, "idle_transaction_timeout") })
		case over(k.asked, c.timeouts.query) && !k.late:
			k.late = true
			late = append(late, func() {
				s.cancel(func(result string) {
					if result == "limit" { // it was not sent, and is tried again
						k.late = false
					}
				})
			})
		}
	}
	for _, c := range t.clients {
		if c.idle() && over(c.quiet, c.timeouts.clientIdle) {
			late = append(late, func() { c.fail(errClientIdle, "client_idle_timeout") })
		}
	}
	for _, end := range late { // each of which may change both lists
		end()
	}
}

// idle reports whether nothing of the client's runs, waits or is open. The
// beginning of a message is nothing yet, as for Postgres.
func (c *client) idle() bool {
	if c.gone() || c.greeting() || c.books.Waiting() {
		return false
	}
	s := c.server
	if s == nil {
		return true
	}
	begun := c.partial > 0 && s.link.Outstanding() == 1 && s.link.Status() == 'I' && !s.link.NeedsSync() && !s.link.CopyIn() // and nothing before it
	return (begun || s.link.Free()) && s.cancels == 0
}
