// The console's statistics: counters now, and as they were a while ago.

package proxy

import (
	"time"

	"github.com/postern/postern/proxy/console"
)

// statsPeriod is over how long averages are made, PgBouncer's stats_period.
const statsPeriod = time.Minute

// sample is what all tenants' counters were at one time.
type sample struct {
	at time.Time
	of map[string]console.Counters
}

// samples are the last two. Averages are made since the older one, so that
// they are over one period at least, once there was one.
type samples struct{ older, newer sample }

func (s *samples) add(now sample) { s.older, s.newer = s.newer, now }

// sampleStats takes a sample once in a period, from the start to the end.
func (g *Gate) sampleStats() {
	take := func() {
		now := sample{at: time.Now(), of: g.countersNow()}
		g.consoles.mu.Lock()
		defer g.consoles.mu.Unlock()
		if g.consoles.samples.newer.at.IsZero() {
			g.consoles.samples.newer = now
		}
		g.consoles.samples.add(now)
	}
	take()
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
			take()
		}
	}
}

// countersNow are the counters of the tenants in use.
func (g *Gate) countersNow() map[string]console.Counters {
	out := make(map[string]console.Counters)
	g.eachTenant(func(t *tenant) {
		c := &t.counters
		out[t.id] = console.Counters{Assignments: t.machine.leases, Transactions: c.transactions.Load(), Queries: c.queries.Load(),
			Received: c.bytesIn.Load(), Sent: c.bytesOut.Load()}
	})
	return out
}

// Stats implements console.Gate: a row for each tenant in use.
func (v *consoleGate) Stats() (out []console.Stats) {
	now, counters := time.Now(), v.gate.countersNow()
	v.gate.consoles.mu.Lock()
	old := v.gate.consoles.samples.older
	v.gate.consoles.mu.Unlock()
	for id, c := range counters {
		s := console.Stats{Name: id, Now: c, Old: old.of[id]}
		if !old.at.IsZero() {
			s.Period = now.Sub(old.at)
		}
		out = append(out, s)
	}
	return sorted(out, func(s *console.Stats) string { return s.Name })
}
