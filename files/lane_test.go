// Tests of reading, of lanes with work that hangs, and of watching.

package files

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("file"), "content")
	for what, err := range map[string]error{
		"pipe":   syscall.Mkfifo(at("pipe"), 0o600),
		"folder": os.Mkdir(at("folder"), 0o700),
		"device": os.Symlink("/dev/zero", at("device")),
		"link":   os.Symlink("file", at("link")),
	} {
		if err != nil {
			t.Fatal(what, err)
		}
	}
	ln, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, c := range []struct {
		name, says string
		limit      int
	}{
		{"file", "", 7}, {"link", "", 100},
		{"file", "longer than 6 bytes", 6},
		{"pipe", "not a regular file", 7}, {"folder", "not a regular file", 7}, {"device", "not a regular file", 7},
		{"socket", "no such device", 7}, {"none", "no such file", 7},
	} {
		data, err := NewLane().Read(at(c.name), c.limit)
		switch {
		case c.says == "":
			if err != nil || string(data) != "content" {
				t.Errorf("%s: %q, %v", c.name, data, err)
			}
		case err == nil || data != nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), at(c.name)):
			t.Errorf("%s: %q, %v; want: %s", c.name, data, err, c.says)
		}
	}
	if _, err := Read(at("none"), 7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestLaneWaitsNotForEver: one piece of work hangs; whoever comes meanwhile is told at once, and afterwards it goes on.
func TestLaneWaitsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLane()
		hung := make(chan struct{})
		var began atomic.Int64
		do := func(f func() (int, error)) (int, error, time.Duration) {
			start := time.Now()
			v, err := Do(l, "reading /a/file", f)
			return v, err, time.Since(start)
		}
		hang := func() (int, error) {
			began.Add(1)
			<-hung
			return 1, nil
		}
		if v, err, took := do(hang); v != 0 || !errors.Is(err, ErrSlow) || !strings.Contains(err.Error(), "/a/file") || took != patience {
			t.Errorf("%d, %v after %v", v, err, took)
		}
		for range 3 {
			if v, err, took := do(hang); v != 0 || !errors.Is(err, ErrSlow) || took != 0 {
				t.Errorf("while it hangs: %d, %v after %v", v, err, took)
			}
		}
		if n := began.Load(); n != 1 {
			t.Errorf("%d pieces of work hang", n)
		}
		close(hung)
		synctest.Wait()
		if v, err, took := do(func() (int, error) { return 2, fs.ErrExist }); v != 2 || !errors.Is(err, fs.ErrExist) || took != 0 {
			t.Errorf("afterwards: %d, %v after %v", v, err, took)
		}
	})
}

// TestLaneIsOneAfterTheOther: who comes while somebody works waits for it, and as long at most.
func TestLaneIsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLane()
		ended := make(chan string, 3)
		do := func(name string, took time.Duration) {
			_, err := Do(l, name, func() (struct{}, error) {
				time.Sleep(took)
				return struct{}{}, nil
			})
			if err != nil {
				name += " slow"
			}
			ended <- name
		}
		start := time.Now()
		go do("first", patience-time.Second)
		synctest.Wait()
		go do("second", time.Second/2)
		synctest.Wait()
		time.Sleep(time.Second)
		go do("third", 2*patience)
		for i, want := range []string{"first", "second", "third slow"} {
			if got := <-ended; got != want {
				t.Errorf("%d: %s, want %s", i, got, want)
			}
		}
		if took := time.Since(start); took != patience+time.Second {
			t.Errorf("took %v", took)
		}
		time.Sleep(3 * patience) // the third ends
	})
}

// watched runs a Watch until the test ends. reads gets a word for each read.
func watched(t *testing.T, rescan time.Duration, changed func() error, paths ...string) (reads chan struct{}) {
	t.Helper()
	reads = make(chan struct{}, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	w := Watch{What: "test files", Paths: func() []string { return paths }, Log: slog.New(slog.DiscardHandler), Rescan: rescan, Changed: func() error {
		err := changed()
		reads <- struct{}{}
		return err
	}}
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	await(t, reads, "the read at the start")
	return reads
}

func await(t *testing.T, reads <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-reads:
	case <-time.After(time.Minute):
		t.Fatalf("not in a minute: %s", what)
	}
}

func fine() error { return nil }

// TestWatchSeesEveryReplacement, by event alone, as a deployment does it: the file is new, under the same name.
func TestWatchSeesEveryReplacement(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.crt")
	write(t, path, "0")
	reads := watched(t, time.Hour, fine, path)
	for range 3 {
		write(t, path+".new", "x")
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		await(t, reads, "the new file")
	}
}

// TestWatchInABusyFolder: something in it changes before there ever is quiet.
func TestWatchInABusyFolder(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.crt")
	write(t, path, "0")
	reads := watched(t, time.Hour, fine, path)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(watchQuiet / 5)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				_ = os.WriteFile(filepath.Join(dir, "busy.log"), []byte("x"), 0o600)
			}
		}
	}()
	write(t, path, "another")
	await(t, reads, "the changed file")
	close(stop)
	<-stopped
}

// TestWatchTriesAgainAfterAFailure when anything in the folder happens: it may be the cure.
func TestWatchTriesAgainAfterAFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	reads := watched(t, time.Hour, func() error {
		_, err := os.Stat(filepath.Join(dir, "cure"))
		return err
	}, path)
	write(t, filepath.Join(dir, "cure"), "x")
	await(t, reads, "another try")
}

// TestWatchSeesOnlyItsFiles: what looks the same to most eyes, and what does not concern it.
func TestWatchSeesOnlyItsFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write(t, path, "content")
	w := &watching{Watch: Watch{Paths: func() []string { return []string{path} }, Changed: fine}, lane: NewLane()}
	w.read()
	write(t, filepath.Join(dir, "unrelated"), "x")
	if w.changed() {
		t.Error("another file is a change")
	}
	write(t, path, "longer content")
	if !w.changed() {
		t.Error("the file's change is none")
	}
	w.read()
	if w.changed() {
		t.Error("still changed after a read")
	}

	// Another file in its place, of the same size and time, as deployment tools make them.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	write(t, other, "LONGER CONTENT")
	if err := errors.Join(os.Chtimes(other, info.ModTime(), info.ModTime()), os.Rename(other, path)); err != nil {
		t.Fatal(err)
	}
	if !w.changed() {
		t.Error("a replaced file is no change")
	}
}

// TestWatchFindsAFolderThatComesLater, by looking now and then: there is nothing to watch yet.
func TestWatchFindsAFolderThatComesLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	path := filepath.Join(dir, "file")
	reads := watched(t, 10*time.Millisecond, fine, path)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path, "content")
	await(t, reads, "the new folder")
}

// TestWatchTellsOfAFileSystemThatHangs: that is a change, which whoever reads finds out to be a failure.
func TestWatchTellsOfAFileSystemThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		write(t, path, "content")
		w := &watching{Watch: Watch{What: "test files", Paths: func() []string { return []string{path} }, Changed: fine}, lane: NewLane()}
		w.read()
		hung := make(chan struct{})
		_, err := Do(w.lane, "looking", func() (struct{}, error) {
			<-hung
			return struct{}{}, nil
		})
		if !errors.Is(err, ErrSlow) || !w.changed() {
			t.Errorf("no change: %v", err)
		}
		w.read()
		if !w.changed() {
			t.Error("no change after a read that saw nothing")
		}
		close(hung)
		synctest.Wait()
		if !w.changed() {
			t.Error("no change when it is back")
		}
		w.read()
		if w.changed() {
			t.Error("still changed")
		}
	})
}
