// What fails here, told to the other nodes of a cluster in batches, so that whoever guesses has no more guesses at several nodes than at one.

package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/proxy"
)

const (
	askFailures = "failures"
	// failuresPause is between two batches: a node tells of 1024 addresses in a second. What nobody is told of counts here alone.
	failuresPause  = 250 * time.Millisecond
	failuresWithin = 2 * time.Second // for a node to hear one; so there are eight on their way to one that is frozen
	maxFailures    = 256 << 10       // bytes of one; names of strangers are short, but may be all escapes
)

// failures are those that were not told yet.
type failures struct {
	mu      sync.Mutex // guards what follows; held briefly
	logins  netrestrict.Untold
	guesses netrestrict.Untold
	poke    chan struct{} // holds one if there are some
}

func newFailures() *failures { return &failures{poke: make(chan struct{}, 1)} }

// add takes one in.
func (f *failures) add(to *netrestrict.Untold, one netrestrict.Failures) {
	f.mu.Lock()
	to.Add(one)
	f.mu.Unlock()
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// take takes out what is to be told next, and reports whether there is anything.
func (f *failures) take() (some proxy.Failures, news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	some = proxy.Failures{Logins: f.logins.Take(), Guesses: f.guesses.Take()}
	return some, len(some.Logins)+len(some.Guesses) > 0
}

// Failed implements proxy.Cluster.
func (p *peers) Failed(f netrestrict.Failures) { p.failures.add(&p.failures.logins, f) }

// Guessed implements proxy.Cluster.
func (p *peers) Guessed(from netip.Addr) {
	p.failures.add(&p.failures.guesses, netrestrict.Failures{Address: from, Count: 1})
}

// start tells others what fails here until end is called.
func (p *peers) start() (end func()) {
	if p == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.run(ctx) })
	return sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
}

// run tells others what fails here, until ctx ends. The first is told at once. A node that does not hear it counts less, and keeps
// nobody else from hearing it.
func (p *peers) run(ctx context.Context) {
	var telling sync.WaitGroup
	defer telling.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.failures.poke:
		}
		for some, news := p.failures.take(); news; some, news = p.failures.take() {
			for _, n := range p.others() {
				if n.Silent {
					continue
				}
				telling.Go(func() {
					within, stop := context.WithTimeout(ctx, failuresWithin)
					defer stop()
					_, _ = askOne[struct{}](within, p.nodes, n.Name, askFailures, some)
				})
			}
			pause := time.NewTimer(failuresPause)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
		}
	}
}

// heard answers a node that tells what has failed there.
func (p *peers) heard(_ context.Context, f proxy.Failures) (struct{}, error) {
	p.gate().Heard(f)
	return struct{}{}, nil
}
