// Tests of the directory: what a reload changes, and when the watch reloads.

package tenants

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const oneTenant = "tenants:\n- {id: %s, upstream: {host: h, tls: disable}}\n"

func fileDirectory(t *testing.T, path string) *Directory {
	t.Helper()
	d, err := NewDirectory(func() (*Snapshot, error) { return LoadFile(FileOptions{Path: path}) }, discard())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReloadIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "acme"))
	d := fileDirectory(t, path)
	first := d.Current()
	var told []string
	d.Subscribe(func(old, fresh *Snapshot) {
		if d.Current() != fresh {
			t.Error("told before the new tenants are current")
		}
		told = append(told, fmt.Sprintf("a: %d to %d", old.Len(), fresh.Len()))
	})
	d.Subscribe(func(_, _ *Snapshot) { told = append(told, "b") })

	good := fmt.Sprintf(oneTenant, "globex") + "- {id: initech, upstream: {host: h}, allow_list: null}\n"
	write(t, dir, "tenants.yaml", good)
	if err := d.Reload(); err == nil || d.Current() != first {
		t.Errorf("one bad tenant of two: error %v, replaced %v", err, d.Current() != first)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Reload(); err == nil || d.Current() != first {
		t.Errorf("no file: error %v", err)
	}
	if s := d.Stats(); s.LastOK || s.OK != 1 || s.Failed != 2 || !s.LoadedAt.Equal(first.LoadedAt) || len(told) != 0 {
		t.Errorf("stats %+v, told %v", s, told)
	}

	write(t, dir, "tenants.yaml", "tenants: []")
	if err := d.Reload(); err != nil || d.Current().Len() != 0 || first.Len() != 1 {
		t.Errorf("a good file: error %v, %d tenants", err, d.Current().Len())
	}
	if s := d.Stats(); !s.LastOK || s.OK != 2 || s.Failed != 2 || !s.LoadedAt.Equal(d.Current().LoadedAt) {
		t.Errorf("stats %+v", s)
	}
	if len(told) != 2 || told[0] != "a: 1 to 0" || told[1] != "b" {
		t.Errorf("told %v", told)
	}
}

// TestHalfWrittenFile: a file cut short anywhere changes nothing or, where the cut leaves valid YAML, still has tenants.
func TestHalfWrittenFile(t *testing.T) {
	dir := t.TempDir()
	whole := `tenants:
  - id: acme
    upstream: {host: h, port: 5433, tls: disable}
    users:
      - {name: app, verifier: v}
  - id: globex
    upstream: {host: h, port: 5434, tls: disable}
`
	path := write(t, dir, "tenants.yaml", whole)
	d := fileDirectory(t, path)
	for n := range len(whole) {
		write(t, dir, "tenants.yaml", whole[:n])
		before := d.Current()
		err := d.Reload()
		if err != nil && d.Current() != before {
			t.Fatalf("a failed reload replaced the tenants: %q", whole[:n])
		}
		if err == nil && d.Current().Len() == 0 {
			t.Fatalf("half a file means no tenants: %q", whole[:n])
		}
	}
}

func TestNewDirectoryNeedsAFirstLoad(t *testing.T) {
	broken := errors.New("broken")
	if d, err := NewDirectory(func() (*Snapshot, error) { return nil, broken }, discard()); d != nil || !errors.Is(err, broken) {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := NewDirectory(func() (*Snapshot, error) { return nil, nil }, discard()); err == nil {
		t.Error("a load of nothing succeeds")
	}
}

func TestReloadsAreSerialized(t *testing.T) {
	var running, loads, told atomic.Int32
	d, err := NewDirectory(func() (*Snapshot, error) {
		if running.Add(1) > 1 {
			t.Error("two loads at a time")
		}
		defer running.Add(-1)
		loads.Add(1)
		for range 100 {
			runtime.Gosched() // let another load begin, if it can
		}
		return NewSnapshot(when)
	}, discard())
	if err != nil {
		t.Fatal(err)
	}
	last := d.Current()
	d.Subscribe(func(old, fresh *Snapshot) { // no lock: the race detector would see two at a time
		if old != last {
			t.Error("told out of order")
		}
		last = fresh
		told.Add(1)
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := d.Reload(); err != nil {
				t.Error(err)
			}
			_ = d.Current().Len()
			_ = d.Stats()
		})
	}
	wg.Wait()
	if loads.Load() != 21 || told.Load() != 20 {
		t.Errorf("%d loads, %d told", loads.Load(), told.Load())
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
	}
}

func has(d *Directory, id string) func() bool {
	return func() bool { _, ok := d.Current().Tenant(id); return ok }
}

// startWatch watches until the test ends, which it must then do promptly. It returns once the watch is on.
func startWatch(t *testing.T, d *Directory, rescan time.Duration, paths ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	before := d.Stats().OK
	go func() {
		defer close(ended)
		d.watch(ctx, rescan, paths)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	eventually(t, "the reload at the start", func() bool { return d.Stats().OK > before })
}

func TestWatch(t *testing.T) {
	const never = time.Hour // no rescans: events must do it
	dir := t.TempDir()
	path := write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "a0"))
	d := fileDirectory(t, path)
	startWatch(t, d, never, path)

	// Of another size, because file systems tell times a few milliseconds apart for the same.
	write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "another"))
	eventually(t, "written in place", has(d, "another"))

	if err := os.Rename(write(t, dir, ".new", fmt.Sprintf(oneTenant, "a2")), path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "renamed over", has(d, "a2"))

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure of a missing file", func() bool { return !d.Stats().LastOK })
	if !has(d, "a2")() {
		t.Error("the last good tenants are gone")
	}
	write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "a3"))
	eventually(t, "back again", has(d, "a3"))

	write(t, dir, "tenants.yaml", "tenants: [{id: a4, upstream: {host: h, tls: disable}, users: [{name: u, password_file: late.pw}]}]")
	eventually(t, "the failure of a missing password", func() bool { return !d.Stats().LastOK })
	write(t, dir, "late.pw", "one")
	eventually(t, "a file that no good load named", has(d, "a4"))

	write(t, dir, "late.pw", "another")
	eventually(t, "a new password", func() bool {
		tenant, _ := d.Current().Tenant("a4")
		return tenant.Users["u"].Password.Reveal() == "another"
	})
}

// TestWatchSymlinkSwap is how Kubernetes mounts a secret: the file links into ..data, which links to a dated folder.
func TestWatchSymlinkSwap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, id string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), "tenants.yaml", fmt.Sprintf(oneTenant, id))
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	version("v1", "a1")
	link("v1", "..data")
	link("..data/tenants.yaml", "tenants.yaml")
	path := filepath.Join(dir, "tenants.yaml")
	d := fileDirectory(t, path)
	startWatch(t, d, time.Hour, path)

	version("v2", "a2")
	link("v2", "..tmp")
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the swapped link", has(d, "a2"))

	write(t, filepath.Join(dir, "v2"), "tenants.yaml", fmt.Sprintf(oneTenant, "a3"))
	eventually(t, "written behind the link", has(d, "a3"))
}

// TestWatchReplacedFolder: no event tells of a folder that came back; the rescan finds it.
func TestWatchReplacedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf")
	put := func(id string) string {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		return write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, id))
	}
	path := put("a0")
	d := fileDirectory(t, path)
	startWatch(t, d, 20*time.Millisecond, path)
	for _, id := range []string{"a1", "a2"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the failure of a missing folder", func() bool { return !d.Stats().LastOK })
		put(id)
		eventually(t, "the new folder", has(d, id))
	}
}

// BenchmarkLoad is a reload of ten thousand tenants.
func BenchmarkLoad(b *testing.B) {
	text := []byte("tenants:\n")
	for i := range 10_000 {
		text = fmt.Appendf(text, "- {id: t%d, upstream: {host: h, tls: disable}, users: [{name: u, verifier: v}], allow_list: [10.0.0.0/8]}\n", i)
	}
	for b.Loop() {
		if _, err := (&loader{}).load(text, when); err != nil {
			b.Fatal(err)
		}
	}
}
