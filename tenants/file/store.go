// The store: loads the file into the directory, again when asked or when a file changes.

package file

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/tenants"
)

// Store puts what a file says into a directory. Its methods may be called by any number of goroutines.
type Store struct {
	directory *tenants.Directory
	load      func() (*Snapshot, error)
	log       *slog.Logger
	revisions [32]byte // a secret, see revision

	reloading sync.Mutex // held for the whole of a reload

	mu    sync.Mutex // guards what follows; held briefly
	stats tenants.Stats
	files []string // that the tenants in force were read from
}

var errNothing = errors.New("BUG: the tenants' load function returned neither tenants nor an error")

// Open fills a directory, which must succeed. load is never called twice at a time: it is Load, with whatever else is to be
// asked of a Snapshot before it is in force.
func Open(d *tenants.Directory, load func() (*Snapshot, error), log *slog.Logger) (*Store, error) {
	s := &Store{directory: d, load: load, log: log}
	_, _ = rand.Read(s.revisions[:]) // never fails
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload loads again. A load that fails changes nothing: the last good tenants stay. Concurrent calls queue, because
// each caller wants what is on disk after its own call. When Reload returns, whoever is subscribed to the directory has been
// told.
func (s *Store) Reload() error {
	s.reloading.Lock()
	defer s.reloading.Unlock()

	fresh, err := s.load()
	if err == nil && fresh == nil {
		err = errNothing
	}
	if err == nil {
		err = s.directory.Replace(fresh.Tenants)
	}
	s.mu.Lock()
	// Counted and logged when it is in force everywhere: who sees the one or the other may rely on it.
	s.stats.LastOK = err == nil
	if err != nil {
		s.stats.Failed++
	} else {
		s.stats.LoadedAt = fresh.LoadedAt
		s.stats.OK++
		s.files = fresh.Files()
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Error("tenants not loaded, what was loaded before stays", "error", err)
		return err
	}
	s.log.Info("tenants loaded", "tenants", len(fresh.Tenants))
	return nil
}

// Stats returns how the loads went so far.
func (s *Store) Stats() tenants.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Watch reloads when one of paths changes, or one of the other files that the tenants in force were read from (password
// files, certificates). It reloads once at the start, so that no change since the first load is missed, and returns when
// ctx ends. A file that disappears is a failed reload, after which the last good tenants stay; when it comes back it is
// read again.
func (s *Store) Watch(ctx context.Context, paths ...string) { s.watch(ctx, 0, paths) }

func (s *Store) watch(ctx context.Context, rescan time.Duration, paths []string) {
	all := func() []string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Concat(paths, s.files)
	}
	files.Watch{What: "tenants", Paths: all, Changed: s.Reload, Log: s.log, Rescan: rescan}.Run(ctx)
}
