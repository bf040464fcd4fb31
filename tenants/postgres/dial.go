// How the store is reached: nothing that has begun while a network was cut is waited for when it is whole again.

package postgres

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	dialTimeout  = 2 * time.Second  // of TCP, for each address: it sends a second packet after a second, and the third would come after 3
	unanswered   = 5 * time.Second  // what was sent and not acknowledged for as long ends a connection; TCP would try for a quarter of an hour, less and less often
	namePatience = time.Second      // for a name to be found, if it was before: a question that is lost is asked again after 5 s
	nameWithin   = 10 * time.Second // who does not wait asks on so long
)

// dialer connects within the time that the connection string has, and knows soon of a connection whether anybody is there.
func dialer(within time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: min(dialTimeout, within), Control: endUnanswered,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 3}}
}

// pauseBefore is how long to wait before a store is tried again: not all processes at once.
func pauseBefore(pause time.Duration) time.Duration { return pause - rand.N(pause/2) }

// names are the hosts of the store, with their addresses as they were found last.
type names struct {
	resolve pgconn.LookupFunc

	mu    sync.Mutex // guards found
	found map[string][]string
}

func newNames(resolve pgconn.LookupFunc) *names {
	return &names{resolve: resolve, found: make(map[string][]string)}
}

// lookup finds a host. While nobody answers, it is where it was.
func (n *names) lookup(ctx context.Context, host string) ([]string, error) {
	type answer struct {
		at  []string
		err error
	}
	was := n.last(host)
	if was == nil {
		at, err := n.resolve(ctx, host)
		n.keep(host, at, err)
		return at, err
	}
	bound, cancel := context.WithTimeout(ctx, namePatience)
	defer cancel()
	answered := make(chan answer, 1)
	go func() { // the answer may be for who comes next
		on, cancel := context.WithTimeout(context.WithoutCancel(ctx), nameWithin)
		defer cancel()
		at, err := n.resolve(on, host)
		n.keep(host, at, err)
		answered <- answer{at, err}
	}()
	select {
	case a := <-answered:
		var dns *net.DNSError
		if errors.As(a.err, &dns) && !dns.IsNotFound {
			return was, nil
		}
		return a.at, a.err
	case <-bound.Done():
		return was, ctx.Err()
	}
}

func (n *names) last(host string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.found[host])
}

func (n *names) keep(host string, at []string, err error) {
	if err != nil || len(at) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.found[host] = slices.Clone(at)
}
