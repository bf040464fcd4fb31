// Reloading when files change.

package tenants

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How patient Watch is.
const (
	watchQuiet   = 250 * time.Millisecond // reload after this long without an event: writers write in pieces
	watchLongest = 2 * time.Second        // but no later than this after the first, however busy the folder
	watchRetry   = 2 * time.Second        // after a failure, no sooner than this for the sake of another file
	watchRescan  = 30 * time.Second       // look without an event: folders get replaced, network file systems tell nothing
)

// Watch reloads when one of paths changes, or one of the other files that the current Snapshot was read from (password
// files, certificates). It reloads once at the start, so that no change since the first load is missed, and returns when
// ctx ends. The only other end is an error at the start, when the system cannot watch at all.
//
// It watches folders, not files: editors and deployments replace a file by renaming or by moving a symbolic link. A file
// that disappears is a failed reload, after which the last good Snapshot stays; when it comes back it is read again.
func (d *Directory) Watch(ctx context.Context, paths ...string) error {
	return d.watch(ctx, watchRescan, paths)
}

func (d *Directory) watch(ctx context.Context, rescan time.Duration, paths []string) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the tenants' files: %w", err)
	}
	defer func() { _ = notify.Close() }()
	w := &fileWatch{directory: d, notify: notify, paths: paths}
	w.reload()

	var quiet <-chan time.Time // nil: nothing happened
	var deadline time.Time
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-notify.Events:
			if !ok {
				return nil
			}
			if quiet == nil {
				deadline = time.Now().Add(watchLongest)
			}
			quiet = time.After(min(watchQuiet, time.Until(deadline)))
		case err, ok := <-notify.Errors:
			if !ok {
				return nil
			}
			// Such as an overflow of the queue. The next rescan finds what was missed.
			d.log.Warn("watching the tenants' files", "error", err)
		case <-quiet:
			quiet = nil
			// After a failure anything may be the cure, such as a password file that is new and that no Snapshot names.
			// But not everything: a log that grows in the same folder must not make us try, and log, all the time.
			if wait := watchRetry - time.Since(w.tried); w.changed() || !d.Stats().LastOK && wait <= 0 {
				w.reload()
			} else if !d.Stats().LastOK {
				quiet = time.After(wait)
			}
		case <-tick.C:
			if quiet == nil && w.changed() {
				w.reload()
			}
		}
	}
}

// fileWatch is the state of one Watch, used by its goroutine alone.
type fileWatch struct {
	directory *Directory
	notify    *fsnotify.Watcher
	paths     []string
	last      map[string]fingerprint // of the files as of the last reload
	tried     time.Time              // when the last reload began
	warned    bool                   // that a folder cannot be watched
}

// fingerprint tells one content of a path from another, without reading it.
type fingerprint struct {
	target string      // where symbolic links lead; "": nowhere
	info   fs.FileInfo // nil: no such file
}

func (f fingerprint) same(o fingerprint) bool {
	if f.info == nil || o.info == nil {
		return f.info == nil && o.info == nil
	}
	return f.target == o.target && os.SameFile(f.info, o.info) && f.info.Size() == o.info.Size() && f.info.ModTime().Equal(o.info.ModTime())
}

func (w *fileWatch) look() map[string]fingerprint {
	seen := make(map[string]fingerprint)
	for _, path := range slices.Concat(w.paths, w.directory.Current().files) {
		var f fingerprint
		if target, err := filepath.EvalSymlinks(path); err == nil {
			if info, err := os.Stat(target); err == nil {
				f = fingerprint{target, info}
			}
		}
		seen[path] = f
	}
	return seen
}

// changed reports whether a file differs from what the last reload saw.
func (w *fileWatch) changed() bool {
	now := w.look()
	w.follow(now) // a folder that was replaced must be watched anew even if the file in it is the same
	return !maps.EqualFunc(now, w.last, fingerprint.same)
}

func (w *fileWatch) reload() {
	w.tried = time.Now()
	before := w.look()
	w.follow(before)
	_ = w.directory.Reload() // it logs and counts its failures itself
	w.last = w.look()
	for path := range w.last {
		// What the load saw is what was there before it, so that a change in between is found by the next look.
		if f, ok := before[path]; ok {
			w.last[path] = f
		}
	}
	w.follow(w.last)
}

// follow watches the folder of every file and of what it links to. Watching a folder twice does nothing; one that cannot
// be watched is left to the rescans, which try again as well.
func (w *fileWatch) follow(files map[string]fingerprint) {
	folders := make(map[string]bool)
	for path, f := range files {
		folders[filepath.Dir(path)] = true
		if f.target != "" {
			folders[filepath.Dir(f.target)] = true
		}
	}
	for folder := range folders {
		err := w.notify.Add(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !w.warned {
			w.warned = true
			w.directory.log.Warn("cannot watch a folder of the tenants' files, looking now and then instead", "folder", folder, "error", err)
		}
	}
}
