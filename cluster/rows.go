// What the store says about nodes, as it was read last: where each is reached, and which key is its own.

package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/tenants"
)

// rows are the nodes' rows. While the store is away those that were read last stay.
type rows struct {
	read    func(ctx context.Context) ([]tenants.Node, error)
	changed func([]tenants.Node) // is told of what was read, by the goroutine that reads
	tried   func()               // is told by it that it has tried to
	log     *slog.Logger

	mu     sync.Mutex // guards what follows; held briefly
	all    []tenants.Node
	turn   chan struct{} // closed when the reading that is asked for has ended
	wanted chan struct{} // holds one if somebody asks for a reading
}

func newRows(read func(ctx context.Context) ([]tenants.Node, error), log *slog.Logger) *rows {
	return &rows{read: read, log: log, changed: func([]tenants.Node) {}, tried: func() {}, turn: make(chan struct{}), wanted: make(chan struct{}, 1)}
}

// run reads the rows every second, and when somebody asks, until ctx ends.
func (r *rows) run(ctx context.Context) {
	tick := time.NewTicker(rowsEvery)
	defer tick.Stop()
	for {
		r.refresh(ctx)
		r.tried()
		pause := time.NewTimer(rowsPause) // whoever asks all the time is a stranger
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wanted:
		}
	}
}

func (r *rows) refresh(ctx context.Context) {
	r.mu.Lock()
	turn := r.turn
	r.turn = make(chan struct{}) // who asks from now on waits for the next reading
	r.mu.Unlock()
	defer close(turn)

	bound, cancel := context.WithTimeout(ctx, rowsPatience)
	defer cancel()
	all, err := r.read(bound)
	if err != nil {
		r.log.Debug("the rows of the nodes were not read: those of before hold", "error", err)
		return
	}
	r.mu.Lock()
	r.all = all
	r.mu.Unlock()
	r.changed(all)
}

// again has the rows read, and waits for it, or for ctx.
func (r *rows) again(ctx context.Context) {
	r.mu.Lock()
	turn := r.turn
	r.mu.Unlock()
	select {
	case r.wanted <- struct{}{}:
	default:
	}
	select {
	case <-turn:
	case <-ctx.Done():
	}
}

func (r *rows) list() []tenants.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

func (r *rows) find(is func(n *tenants.Node) bool) (tenants.Node, bool) {
	all := r.list()
	i := slices.IndexFunc(all, func(n tenants.Node) bool { return is(&n) })
	if i < 0 {
		return tenants.Node{}, false
	}
	return all[i], true
}

func (r *rows) named(name string) (tenants.Node, bool) {
	return r.find(func(n *tenants.Node) bool { return n.Name == name })
}

func (r *rows) booted(boot string) (tenants.Node, bool) {
	return r.find(func(n *tenants.Node) bool { return n.Boot == boot })
}

// at reports whether a node says that it is at an address.
func (r *rows) at(addr netip.Addr) bool {
	_, ok := r.find(func(n *tenants.Node) bool { return n.Address.IsValid() && n.Address.Addr().Unmap() == addr })
	return ok
}

// pinned finds whose key it is. A node that the store has not heard of for long counts: it may just be cut off from the store, and its key
// is nobody else's. One that was forgotten does not.
func (r *rows) pinned(fingerprint string) (tenants.Node, bool) {
	if fingerprint == "" {
		return tenants.Node{}, false
	}
	return r.find(func(n *tenants.Node) bool { return n.Fingerprint == fingerprint })
}
