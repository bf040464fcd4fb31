// Every script, played directly and through the gate in each mode.

package transcripts

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern/postern/test/harness"
)

// rewrite makes testdata/not_yet_*.txt anew from what fails. What it lists must be reviewed.
var rewrite = flag.Bool("rewrite", false, "write the lists of scripts that fail")

// Defaults of flags that are not ours: on a small machine most of a script's time is waiting, and a random script costs
// some milliseconds; what fails is printed as a script, so that rapid need not keep it.
var defaults = map[string]string{"test.parallel": "4", "rapid.checks": "25", "rapid.nofailfile": "true"}

func TestMain(m *testing.M) {
	for name, value := range defaults {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(harness.Main(m))
}

// lanesWanted is how many scripts are played at a time.
func lanesWanted() int { return flag.Lookup("test.parallel").Value.(flag.Getter).Get().(int) }

// TestTranscripts holds everything that needs servers.
func TestTranscripts(t *testing.T) {
	w := newWorld(t)
	lists := readLists(t)
	t.Run("scripts", func(t *testing.T) {
		seen := map[string]bool{}
		for _, s := range slices.Concat(scripts(t), families()) {
			if seen[s.Name] {
				t.Fatalf("two scripts are called %s", s.Name)
			}
			seen[s.Name] = true
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				w.on(func(l *lane) { compare(t, l, s, lists) })
			})
		}
		lists.checkNames(t, seen)
	})
	if *rewrite {
		lists.write(t)
	}
	t.Run("random", func(t *testing.T) { testRandom(t, w) })
	t.Run("shuffle", func(t *testing.T) { w.on(func(l *lane) { testShuffle(t, l) }) })
	t.Run("difference", func(t *testing.T) { w.on(func(l *lane) { testDifferenceIsSeen(t, l) }) })
}

// compare plays one script in every mode.
func compare(t *testing.T, l *lane, s Script, lists *lists) {
	truth := l.direct(t, s)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			accepted, err := ReadAccepted(filepath.Join("testdata", "accepted"), mode, s.Name)
			if err != nil {
				t.Fatal(err)
			}
			notYet := lists.has(mode, s.Name)
			got := l.gated(t, mode, s, truth, notYet && accepted == nil)
			problem := judge(mode, s.Name, truth, got, accepted)
			lists.record(mode, s.Name, problem != "")
			switch {
			case *rewrite:
			case notYet && problem == "":
				t.Errorf("is as it should be: take it off testdata/not_yet_%s.txt", mode)
			case !notYet && problem != "":
				t.Error(problem)
			}
		})
	}
}

// judge says what is wrong with a transcript, "" for nothing.
func judge(mode, name string, truth, got Transcript, accepted *Accepted) string {
	want, rest := truth, got
	if mode == statement {
		var block, refused bool
		if want, rest, block, refused = untilBlock(truth, got); block && !refused {
			return "a transaction that lasts was not refused with 0A000:\n" + inFull(got)
		}
	}
	diff := Diff(want, rest)
	switch {
	case accepted == nil && len(diff) == 0:
		return ""
	case accepted == nil:
		return fmt.Sprintf("differs from PostgreSQL (- is right, + is ours); if that is meant, testdata/accepted/%s/%s.txt must give the reason and\n\n%s\n\nin full, as played:\n%s",
			mode, name, strings.Join(diff, "\n"), inFull(got))
	case len(diff) == 0:
		return fmt.Sprintf("differs no more: delete testdata/accepted/%s/%s.txt", mode, name)
	case !slices.Equal(diff, accepted.Diff):
		return fmt.Sprintf("differs otherwise than testdata/accepted/%s/%s.txt says:\n\n%s\n\n", mode, name, strings.Join(diff, "\n"))
	}
	return ""
}

func inFull(t Transcript) string { return strings.Join(t.Lines(), "\n") }

// lists are the scripts that fail because of what is not built yet, by mode.
type lists struct {
	mu     sync.Mutex
	known  map[string]map[string]bool
	failed map[string]map[string]bool
}

func listPath(mode string) string { return filepath.Join("testdata", "not_yet_"+mode+".txt") }

func readLists(t *testing.T) *lists {
	t.Helper()
	ls := &lists{known: map[string]map[string]bool{}, failed: map[string]map[string]bool{}}
	for _, mode := range modes {
		names, err := ReadList(listPath(mode))
		if err != nil {
			t.Fatal(err)
		}
		ls.known[mode], ls.failed[mode] = names, map[string]bool{}
	}
	return ls
}

func (ls *lists) has(mode, script string) bool { return ls.known[mode][script] }

// checkNames fails for a list, or an accepted difference, of a script that does not exist.
func (ls *lists) checkNames(t *testing.T, exist map[string]bool) {
	t.Helper()
	for mode, names := range ls.known {
		for name := range names {
			if !exist[name] {
				t.Errorf("%s names %s, which does not exist", listPath(mode), name)
			}
		}
	}
	paths, err := filepath.Glob(filepath.Join("testdata", "accepted", "*", "*", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		parts := strings.Split(filepath.ToSlash(path), "/")
		if name := parts[3] + "/" + strings.TrimSuffix(parts[4], ".txt"); !exist[name] || !slices.Contains(modes, parts[2]) {
			t.Errorf("%s is about nothing", path)
		}
	}
}

func (ls *lists) record(mode, script string, failed bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if failed {
		ls.failed[mode][script] = true
	}
}

// write keeps the lines, and the comments, of what still fails, and adds what is new at the end.
func (ls *lists) write(t *testing.T) {
	t.Helper()
	for _, mode := range modes {
		old, err := os.ReadFile(listPath(mode))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		var text strings.Builder
		for l := range strings.Lines(string(old)) {
			if name := entry(l); name == "" || ls.failed[mode][name] {
				text.WriteString(l)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(ls.failed[mode])) {
			if !ls.known[mode][name] {
				text.WriteString(name + "\n")
			}
		}
		if err := os.WriteFile(listPath(mode), []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
