// The directory: the current Snapshot, and how it is replaced.

package tenants

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Directory holds the current Snapshot. Its methods may be called by any number of goroutines.
type Directory struct {
	load func() (*Snapshot, error)
	log  *slog.Logger

	current atomic.Pointer[Snapshot]

	reloading sync.Mutex // held for the whole of a reload, subscribers included

	mu          sync.Mutex // guards what follows; held briefly
	subscribers []func(old, new *Snapshot)
	stats       Stats
}

// Stats tells how the loads went.
type Stats struct {
	LastOK     bool      // whether the last one succeeded
	LoadedAt   time.Time // of the current Snapshot
	OK, Failed uint64    // loads so far, the first included
}

// NewDirectory loads the first Snapshot, which must succeed. load is never called twice at a time.
func NewDirectory(load func() (*Snapshot, error), log *slog.Logger) (*Directory, error) {
	d := &Directory{load: load, log: log}
	if err := d.Reload(); err != nil {
		return nil, err
	}
	return d, nil
}

// Current returns the current Snapshot, never nil. Take it once per decision: two calls may differ.
func (d *Directory) Current() *Snapshot { return d.current.Load() }

// Reload loads again. A load that fails changes nothing: the last good Snapshot stays. Concurrent calls queue, because
// each caller wants what is on disk after its own call. When Reload returns, the subscribers have been told.
func (d *Directory) Reload() error {
	d.reloading.Lock()
	defer d.reloading.Unlock()

	fresh, err := d.load()
	if err == nil && fresh == nil {
		err = errors.New("BUG: the tenants' load function returned neither tenants nor an error")
	}
	if err != nil {
		d.mu.Lock()
		d.stats.LastOK = false
		d.stats.Failed++
		d.mu.Unlock()
		d.log.Error("tenants not loaded, what was loaded before stays", "error", err)
		return err
	}

	old := d.current.Swap(fresh)
	d.mu.Lock()
	subscribers := slices.Clone(d.subscribers)
	d.mu.Unlock()
	for _, tell := range subscribers {
		tell(old, fresh)
	}
	// Counted and logged when it is in force everywhere: who sees the one or the other may rely on it.
	d.mu.Lock()
	d.stats.LastOK, d.stats.LoadedAt = true, fresh.LoadedAt
	d.stats.OK++
	d.mu.Unlock()
	d.log.Info("tenants loaded", "tenants", fresh.Len())
	return nil
}

// Subscribe has tell called after each successful Reload from now on, in the order of the Subscribe calls, by the
// goroutine that reloads. old is what Current returned before. tell must not call Reload. Who needs the present state,
// too, subscribes first and then takes Current.
func (d *Directory) Subscribe(tell func(old, new *Snapshot)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subscribers = append(d.subscribers, tell)
}

// Stats returns how the loads went so far.
func (d *Directory) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}
