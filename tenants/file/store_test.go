// Tests of the store: what a reload changes, and when the watch reloads.

package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern/postern/tenants"
	"github.com/postern/postern/test/harness"
)

const oneTenant = "tenants:\n- {id: %s, upstream: {host: h, tls: disable}}\n"

// open makes a store of a file.
func open(t *testing.T, path string) *Store {
	t.Helper()
	return openWith(t, func() (*Snapshot, error) { return Load(Options{Path: path}) })
}

func openWith(t *testing.T, load func() (*Snapshot, error)) *Store {
	t.Helper()
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(d, load, discard())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ids are those of the tenants in force, in order.
func ids(s *Store) (out []string) {
	for _, t := range s.directory.All() {
		out = append(out, t.ID)
	}
	slices.Sort(out)
	return out
}

func TestReloadIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "acme"))
	s := open(t, path)
	first := s.Stats().LoadedAt
	var told []string
	s.directory.Subscribe(func(changes []tenants.Change) {
		for _, c := range changes {
			told = append(told, fmt.Sprintf("%s: %v", c.ID(), c.New != nil))
		}
	})

	good := fmt.Sprintf(oneTenant, "globex") + "- {id: initech, upstream: {host: h}, allow_list: null}\n"
	write(t, dir, "tenants.yaml", good)
	if err := s.Reload(); err == nil || !slices.Equal(ids(s), []string{"acme"}) {
		t.Errorf("one bad tenant of two: error %v, tenants %v", err, ids(s))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err == nil || !slices.Equal(ids(s), []string{"acme"}) {
		t.Errorf("no file: error %v, tenants %v", err, ids(s))
	}
	if s := s.Stats(); s.LastOK || s.OK != 1 || s.Failed != 2 || !s.LoadedAt.Equal(first) || len(told) != 1 {
		t.Errorf("stats %+v, told %v", s, told)
	}

	write(t, dir, "tenants.yaml", "tenants: []")
	if err := s.Reload(); err != nil || len(ids(s)) != 0 {
		t.Errorf("a good file: error %v, tenants %v", err, ids(s))
	}
	if s := s.Stats(); !s.LastOK || s.OK != 2 || s.Failed != 2 || s.LoadedAt.Equal(first) {
		t.Errorf("stats %+v", s)
	}
	if !slices.Equal(told, []string{"acme: true", "acme: false"}) {
		t.Errorf("told %v", told)
	}
}

// TestReloadOfTheSame tells nobody: files are touched, copied and mounted again.
func TestReloadOfTheSame(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "web.pw", "secret")
	ca, _ := harness.SelfSigned(t)
	write(t, dir, "ca.pem", ca)
	s := open(t, write(t, dir, "tenants.yaml", `tenants:
- id: a
  upstream: {host: h, ca: ca.pem}
  databases: [postgres]
  users: [{name: u, password_file: web.pw, timeouts: {query: 1s}}]
  allow_list: [10.0.0.0/8]
- {id: b, machine: {provider: local, name: b}, databases: [], users: [], allow_list: []}
`))
	told := 0
	s.directory.Subscribe(func([]tenants.Change) { told++ })
	for range 2 {
		if err := s.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "web.pw", "another")
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if told != 2 || s.Stats().OK != 4 {
		t.Errorf("told %d times, stats %+v; want once at first, and of the new password", told, s.Stats())
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
	s := open(t, path)
	for n := range len(whole) {
		write(t, dir, "tenants.yaml", whole[:n])
		before := s.directory.All()
		err := s.Reload()
		if now := s.directory.All(); err != nil && !slices.Equal(ordered(before), ordered(now)) {
			t.Fatalf("a failed reload replaced the tenants: %q", whole[:n])
		} else if err == nil && len(now) == 0 {
			t.Fatalf("half a file means no tenants: %q", whole[:n])
		}
	}
}

func ordered(all []*tenants.Tenant) []*tenants.Tenant {
	slices.SortFunc(all, func(a, b *tenants.Tenant) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func TestOpenNeedsAFirstLoad(t *testing.T) {
	broken := errors.New("broken")
	d, err := tenants.NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Open(d, func() (*Snapshot, error) { return nil, broken }, discard()); s != nil || !errors.Is(err, broken) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := Open(d, func() (*Snapshot, error) { return nil, nil }, discard()); err == nil {
		t.Error("a load of nothing succeeds")
	}
}

func TestReloadsAreSerialized(t *testing.T) {
	var running, loads atomic.Int32
	s := openWith(t, func() (*Snapshot, error) {
		if running.Add(1) > 1 {
			t.Error("two loads at a time")
		}
		defer running.Add(-1)
		loads.Add(1)
		for range 100 {
			runtime.Gosched() // let another load begin, if it can
		}
		return newSnapshot(when, nil), nil
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Reload(); err != nil {
				t.Error(err)
			}
			_ = s.directory.Len()
			_ = s.Stats()
		})
	}
	wg.Wait()
	if loads.Load() != 21 {
		t.Errorf("%d loads", loads.Load())
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

func has(s *Store, id string) func() bool {
	return func() bool { _, ok := s.directory.Tenant(id); return ok }
}

// startWatch watches until the test ends, which it must then do promptly. It returns once the watch is on.
func startWatch(t *testing.T, s *Store, rescan time.Duration, paths ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	before := s.Stats().OK
	go func() {
		defer close(ended)
		s.watch(ctx, rescan, paths)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	eventually(t, "the reload at the start", func() bool { return s.Stats().OK > before })
}

func TestWatch(t *testing.T) {
	const never = time.Hour // no rescans: events must do it
	dir := t.TempDir()
	path := write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "a0"))
	s := open(t, path)
	startWatch(t, s, never, path)

	// Of another size, because file systems tell times a few milliseconds apart for the same.
	write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "another"))
	eventually(t, "written in place", has(s, "another"))

	if err := os.Rename(write(t, dir, ".new", fmt.Sprintf(oneTenant, "a2")), path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "renamed over", has(s, "a2"))

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure of a missing file", func() bool { return !s.Stats().LastOK })
	if !has(s, "a2")() {
		t.Error("the last good tenants are gone")
	}
	write(t, dir, "tenants.yaml", fmt.Sprintf(oneTenant, "a3"))
	eventually(t, "back again", has(s, "a3"))

	write(t, dir, "tenants.yaml", "tenants: [{id: a4, upstream: {host: h, tls: disable}, users: [{name: u, password_file: late.pw}]}]")
	eventually(t, "the failure of a missing password", func() bool { return !s.Stats().LastOK })
	write(t, dir, "late.pw", "one")
	eventually(t, "a file that no good load named", has(s, "a4"))

	write(t, dir, "late.pw", "another")
	eventually(t, "a new password", func() bool {
		tenant, _ := s.directory.Tenant("a4")
		return tenant.Users["u"].Password.Reveal() == "another"
	})
}

// TestWatchFileThatChangesWhenFirstRead: nobody had looked at it before, and what is seen after it was read is not what was read.
func TestWatchFileThatChangesWhenFirstRead(t *testing.T) {
	dir := t.TempDir()
	path := write(t, dir, "tenants.yaml", "tenants: []")
	s := openWith(t, func() (*Snapshot, error) {
		s, err := Load(Options{Path: path})
		if err == nil && len(s.Tenants) > 0 && s.Tenants[0].Users["u"].Password.Reveal() == "one" {
			write(t, dir, "new.pw", "another")
		}
		return s, err
	})
	startWatch(t, s, time.Hour, path)
	write(t, dir, "new.pw", "one")
	write(t, dir, "tenants.yaml", "tenants: [{id: a, upstream: {host: h, tls: disable}, users: [{name: u, password_file: new.pw}]}]")
	eventually(t, "the password as it is now", func() bool {
		tenant, ok := s.directory.Tenant("a")
		return ok && tenant.Users["u"].Password.Reveal() == "another"
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
	s := open(t, path)
	startWatch(t, s, time.Hour, path)

	version("v2", "a2")
	link("v2", "..tmp")
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the swapped link", has(s, "a2"))

	write(t, filepath.Join(dir, "v2"), "tenants.yaml", fmt.Sprintf(oneTenant, "a3"))
	eventually(t, "written behind the link", has(s, "a3"))
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
	s := open(t, path)
	startWatch(t, s, 20*time.Millisecond, path)
	for _, id := range []string{"a1", "a2"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the failure of a missing folder", func() bool { return !s.Stats().LastOK })
		put(id)
		eventually(t, "the new folder", has(s, id))
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
