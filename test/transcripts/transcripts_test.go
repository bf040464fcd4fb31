// Every script, played directly and through the gate in each mode.

package transcripts

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

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
	t.Run("scripts", func(t *testing.T) {
		seen := map[string]bool{}
		for _, s := range slices.Concat(scripts(t), families()) {
			if seen[s.Name] {
				t.Fatalf("two scripts are called %s", s.Name)
			}
			seen[s.Name] = true
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				w.on(func(l *lane) { compare(t, l, s) })
			})
		}
		checkAccepted(t, seen)
	})
	t.Run("random", func(t *testing.T) { testRandom(t, w) })
	t.Run("shuffle", func(t *testing.T) { w.on(func(l *lane) { testShuffle(t, l) }) })
	t.Run("difference", func(t *testing.T) { w.on(func(l *lane) { testDifferenceIsSeen(t, l) }) })
}

// compare plays one script in every mode.
func compare(t *testing.T, l *lane, s Script) {
	truth := l.direct(t, s)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			accepted, err := ReadAccepted(filepath.Join("testdata", "accepted"), mode, s.Name)
			if err != nil {
				t.Fatal(err)
			}
			if problem := judge(mode, s.Name, truth, l.gated(t, mode, s, truth), accepted); problem != "" {
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

// checkAccepted fails for an accepted difference of a script, or a mode, that does not exist.
func checkAccepted(t *testing.T, exist map[string]bool) {
	t.Helper()
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
