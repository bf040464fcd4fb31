// The watchdog: it notices a loop that does not come back, and a lock that nobody gives back. Nobody is served then, and a
// supervisor that asks for a port sees nothing of it; so the process has to end by itself.

package proxy

import (
	"sync"
	"time"
)

const (
	// watchPeriod is how often the gate is asked whether it goes on.
	watchPeriod = time.Second
	// watchPatience is how many answers in a row may be missing. They are counted rather than timed, so that a computer that was
	// frozen, or has no time for anybody, is not taken for a gate that stands still.
	watchPatience = 30
)

// vital is something that must answer: it calls done when it has.
type vital struct {
	name string
	ask  func(done func())
	busy chan struct{} // full while an answer is awaited
	late int           // how often in a row it has been
}

// vitals are the gate's loops, and its locks.
func (g *Gate) vitals() []*vital {
	var all []*vital
	for i, l := range g.loops {
		all = append(all, &vital{name: "loop " + loopName(i), ask: func(done func()) {
			if !l.Post(done) {
				done() // it has stopped, as it was told to
			}
		}})
	}
	for name, mu := range map[string]*sync.Mutex{"tenants": &g.mu, "cancel keys": &g.keys.mu, "throttle": &g.throttle.mu, "guesses": &g.guesses.mu,
		"handshakes by address": &g.perClient.mu, "rates": &g.rates.mu, "goroutines": &g.spawning} {
		all = append(all, &vital{name: "the lock of " + name, ask: func(done func()) {
			go func() { // which ends with the process, if it gets stuck
				mu.Lock()
				defer mu.Unlock()
				done()
			}()
		}})
	}
	for _, v := range all {
		v.busy = make(chan struct{}, 1)
	}
	return all
}

// watch asks all that is vital until the gate closes, and calls stalled with what has not answered for too long.
func (g *Gate) watch() {
	if g.opts.Stalled == nil {
		return
	}
	all := g.vitals()
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-tick.C:
		}
		for _, v := range all {
			if v.check() {
				g.opts.Stalled(v.name)
				return
			}
		}
	}
}

// check asks again if the last answer has come, and reports whether too many are missing.
func (v *vital) check() (stalled bool) {
	select {
	case v.busy <- struct{}{}:
		v.late = 0
		v.ask(func() { <-v.busy })
	default:
		v.late++
	}
	return v.late >= watchPatience
}
