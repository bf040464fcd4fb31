// Noticing files that change.

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pulse ticks slower than watchFiles wants quiet, the first time at once, until stop is closed.
func pulse(stop <-chan struct{}) <-chan struct{} {
	ticks := make(chan struct{})
	go func() {
		defer close(ticks)
		tick := time.NewTicker(2 * watchQuiet)
		defer tick.Stop()
		for {
			select {
			case ticks <- struct{}{}:
			case <-stop:
				return
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return ticks
}

func TestWatchFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.crt")
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { ended <- watchFiles(ctx, []string{path}, func() { changed <- struct{}{} }) }()

	replaced := 0
	replace := func() { // as a deployment does: the file is new, under the same name
		if err := os.WriteFile(path+".new", []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		replaced++
	}
	wait := func() {
		t.Helper()
		stop := make(chan struct{})
		defer close(stop)
		again := pulse(stop)
		late := time.After(time.Minute)
		for {
			select {
			case <-again:
				replace()
			case <-changed:
				return
			case <-late:
				t.Fatal("nothing was noticed")
			}
		}
	}
	wait()
	wait() // not only the first time

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	// Many changes at a time are one: each replacement made two events at least.
	if calls := 2 + len(changed); calls > replaced {
		t.Errorf("%d calls for %d replacements", calls, replaced)
	}
}

func TestWatchFilesNeedsTheFolder(t *testing.T) {
	err := watchFiles(t.Context(), []string{filepath.Join(t.TempDir(), "none", "server.crt")}, func() {})
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("got %v", err)
	}
}
