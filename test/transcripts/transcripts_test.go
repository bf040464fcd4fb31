// Every script, played directly and through the gate in each mode.

package transcripts

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
		t.Cleanup(func() { w.checkMoves(t) }) // when all have been played
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
	t.Run("far", func(t *testing.T) { playFar(t, w) })
	t.Run("random", func(t *testing.T) { testRandom(t, w) })
	t.Run("moves", func(t *testing.T) { w.on(func(l *lane) { testMoves(t, l) }) })
	t.Run("difference", func(t *testing.T) { w.on(func(l *lane) { testDifferenceIsSeen(t, l) }) })
}

// compare plays one script in every mode.
func compare(t *testing.T, l *lane, s Script) {
	quiet := l.truth(t, transaction, s)
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			truth := quiet
			if mode == moved {
				truth = l.truth(t, moved, s)
			}
			compareIn(t, l, mode, s, truth)
		})
	}
}

// compareIn plays one script in one mode.
func compareIn(t *testing.T, l *lane, mode string, s Script, truth Transcript) {
	acceptedMode := mode
	if mode == shuffle {
		acceptedMode = moved // meddling makes no difference
	}
	accepted, err := ReadAccepted(filepath.Join("testdata", "accepted"), acceptedMode, s.Name)
	if err != nil {
		t.Fatal(err)
	}
	if problem := judge(mode, s.Name, truth, l.gated(t, mode, s, truth), accepted); problem != "" {
		t.Error(problem)
	}
}

// playFar plays every script with the server far away; what is right is known. It waits rather than works, so that many are
// played at a time, however few tests may be.
func playFar(t *testing.T, w *world) {
	var work sync.WaitGroup
	queue := make(chan Script)
	for range farLanes {
		work.Go(func() {
			for s := range queue {
				t.Run(s.Name, func(t *testing.T) {
					l := <-w.far
					defer func() { w.far <- l }()
					truth, ok := w.truths.Load(s.Name)
					if !ok { // only this one is played
						truth = l.truth(t, transaction, s)
					}
					for _, mode := range farModes() {
						t.Run(mode, func(t *testing.T) { compareIn(t, l, mode, s, truth.(Transcript)) })
					}
				})
			}
		})
	}
	for _, s := range slices.Concat(scripts(t), families()) {
		queue <- s
	}
	close(queue)
	work.Wait()
}

// checkMoves proves that clients were moved. Not held is a server that its client keeps, for a transaction has left state there;
// few scripts are about that.
func (w *world) checkMoves(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.moves
	t.Logf("of %d transactions %d could be moved; %d were", m.All, m.Held, m.Moved)
	if all := m.All > 1000; all && (m.Held < m.All*3/4 || m.Moved < m.All*3/4 || m.Moved < m.Held*9/10) {
		t.Error("too few")
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
		if name := parts[3] + "/" + strings.TrimSuffix(parts[4], ".txt"); !exist[name] || !slices.Contains(modes(), parts[2]) {
			t.Errorf("%s is about nothing", path)
		}
	}
}
