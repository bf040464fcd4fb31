// Watching files that are not the tenants': certificates.

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watchQuiet is how long nothing must have happened before files are read:
// writers write in pieces, and a certificate and its key change one after the other.
const watchQuiet = 500 * time.Millisecond

// watchFiles calls changed some time after one of the files did. It watches
// their folders, which is where editors and deployments put new ones. It returns
// when ctx ends, or at once if the system cannot watch.
func watchFiles(ctx context.Context, files []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer w.Close()
	folders := make(map[string]bool)
	for _, f := range files {
		folders[filepath.Dir(f)] = true
	}
	for folder := range folders {
		if err := w.Add(folder); err != nil {
			return fmt.Errorf("watch %s: %w", folder, err)
		}
	}
	last := fingerprints(files)
	var quiet <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if e.Op != fsnotify.Chmod {
				quiet = time.After(watchQuiet)
			}
		case <-w.Errors:
			quiet = time.After(watchQuiet) // something may have been missed
		case <-quiet:
			quiet = nil
			if now := fingerprints(files); now != last { // other files of the folder change too
				last = now
				changed()
			}
		}
	}
}

// fingerprints tells one state of the files from another.
func fingerprints(files []string) string {
	var b strings.Builder
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintln(&b, f, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}
