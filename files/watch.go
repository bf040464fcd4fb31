// Noticing that files have changed.

package files

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How patient a Watch is.
const (
	watchQuiet   = 250 * time.Millisecond // read after this long without an event: writers write in pieces, and files that belong together change one by one
	watchLongest = 2 * time.Second        // but no later than this after the first, however busy the folder
	watchRetry   = 2 * time.Second        // after a failure, no sooner than this for the sake of another file
	watchRescan  = 30 * time.Second       // look without an event: folders get replaced, network file systems tell nothing
)

// Watch has files read again when one of them changes.
//
// It watches folders, not files: editors and deployments replace a file by renaming or by moving a symbolic link. A file
// that disappears has changed, and when it comes back it has again. Where the system cannot watch, it looks now and then.
type Watch struct {
	What    string          // for the log, such as "the certificates"
	Paths   func() []string // the files, as of now
	Changed func() error    // reads them, and logs and counts itself how that went
	Log     *slog.Logger
	Rescan  time.Duration // 0: watchRescan
}

// Run reads the files once, so that no change since an earlier read is missed, and then whenever they have changed, until ctx
// ends. It does not wait for a file system that hangs: that is a change, and whoever reads finds out.
func (w Watch) Run(ctx context.Context) {
	if w.Rescan == 0 {
		w.Rescan = watchRescan
	}
	s := &watching{Watch: w, lane: NewLane()}
	var happened chan fsnotify.Event
	var missed chan error
	if notify, err := fsnotify.NewWatcher(); err == nil {
		s.notify, happened, missed = notify, notify.Events, notify.Errors
		defer func() { _, _ = Do(s.lane, "closing", func() (struct{}, error) { return struct{}{}, notify.Close() }) }()
	} else {
		w.Log.Warn("files cannot be watched, looking now and then instead", "files", w.What, "error", err)
	}
	s.read()

	var quiet <-chan time.Time // nil: nothing happened
	var deadline time.Time
	tick := time.NewTicker(w.Rescan)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-happened:
			if quiet == nil {
				deadline = time.Now().Add(watchLongest)
			}
			quiet = time.After(min(watchQuiet, time.Until(deadline)))
		case err := <-missed:
			// Such as an overflow of the queue. The next rescan finds what was missed.
			w.Log.Warn("events of files were missed", "files", w.What, "error", err)
		case <-quiet:
			quiet = nil
			// After a failure anything may be the cure, such as a password file that is new and that nothing names yet.
			// But not everything: a log that grows in the same folder must not make us try, and log, all the time.
			if wait := watchRetry - time.Since(s.tried); s.changed() || s.failed && wait <= 0 {
				s.read()
			} else if s.failed {
				quiet = time.After(wait)
			}
		case <-tick.C:
			if quiet == nil && s.changed() {
				s.read()
			}
		}
	}
}

// watching is the state of one Watch, used by its goroutine alone.
type watching struct {
	Watch
	lane   *Lane
	notify *fsnotify.Watcher // nil: cannot watch
	last   sight             // as of the last read; nil: unknown
	tried  time.Time         // when the last read began
	failed bool
	warned bool // that a folder cannot be watched
}

// sight is how files look from outside.
type sight map[string]fingerprint

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

// look returns how the files look, and watches their folders and those of what they link to: a folder that was replaced must be
// watched anew even if the file in it is the same. Watching one twice does nothing; one that cannot be watched is left to the
// rescans, which try again as well. nil: the file system hangs.
func (w *watching) look() sight {
	paths, notify := w.Paths(), w.notify
	type result struct {
		seen    sight
		folder  string // that cannot be watched
		problem error
	}
	r, err := Do(w.lane, "looking at "+w.What, func() (r result, _ error) {
		r.seen = make(sight)
		folders := make(map[string]bool)
		for _, path := range paths {
			var f fingerprint
			if target, err := filepath.EvalSymlinks(path); err == nil {
				if info, err := os.Stat(target); err == nil {
					f = fingerprint{target, info}
					folders[filepath.Dir(target)] = true
				}
			}
			r.seen[path] = f
			folders[filepath.Dir(path)] = true
		}
		for folder := range folders {
			if notify == nil {
				break
			}
			if err := notify.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.folder, r.problem = folder, err
			}
		}
		return r, nil
	})
	if err != nil {
		return nil
	}
	if r.problem != nil && !w.warned {
		w.warned = true
		w.Log.Warn("a folder cannot be watched, looking now and then instead", "files", w.What, "folder", r.folder, "error", r.problem)
	}
	return r.seen
}

// changed reports whether a file differs from what the last read saw.
func (w *watching) changed() bool {
	now := w.look()
	return now == nil || w.last == nil || !maps.EqualFunc(now, w.last, fingerprint.same)
}

func (w *watching) read() {
	w.tried = time.Now()
	before := w.look()
	w.failed = w.Changed() != nil
	w.last = w.look()
	for path := range w.last {
		// What was read is what was there before, so that a change in between is found by the next look. Of a file that was named
		// only by what was read, nobody knows how it looked then: to the next look it is new.
		if f, ok := before[path]; ok {
			w.last[path] = f
		} else {
			delete(w.last, path)
		}
	}
}
