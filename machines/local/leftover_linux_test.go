// What an earlier process has left: that it is found and stopped in order, and that nothing else is touched.

package local

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// leaveFrozen has another process own a frozen machine in a directory, and kills it. It returns what that has left.
func leaveFrozen(t *testing.T, dir string) []procStat {
	t.Helper()
	owner := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOwnerOfAFrozenMachine$")
	owner.Env = append(os.Environ(), ownerEnv+"="+dir)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "frozen %d", &pid)
	}
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	left := family(all, pid)
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	if len(left) < 5 {
		t.Fatalf("%d processes of a frozen machine", len(left))
	}
	return left
}

func claim(t *testing.T, dir string) (*Folder, *journal) {
	t.Helper()
	var said journal
	f, err := Claim(dir, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Release)
	return f, &said
}

func leftovers(t *testing.T, f *Folder) []*Leftover {
	t.Helper()
	found, err := f.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLeftoversAreStoppedInOrder(t *testing.T) {
	dir := folder(t)
	f, said := claim(t, dir)
	if found := leftovers(t, f); len(found) != 0 {
		t.Fatalf("found %v in an empty folder", found)
	}
	left := leaveFrozen(t, filepath.Join(dir, "machine"))
	found := leftovers(t, f)
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	if err := found[0].Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := alive(left); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if !strings.Contains(said.String(), "how=fast") {
		t.Errorf("told: %s", said)
	}
	log, err := os.ReadFile(filepath.Join(dir, "machine", logName))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(log)), "database system is shut down") {
		t.Errorf("not in order: %v %s", err, log)
	}
	if found := leftovers(t, f); len(found) != 0 {
		t.Errorf("found again: %v", found)
	}
}

// TestLeftoversOfAKilledServer are its children, frozen: they end when they run on.
func TestLeftoversOfAKilledServer(t *testing.T) {
	dir := folder(t)
	left := leaveFrozen(t, filepath.Join(dir, "machine"))
	if err := syscall.Kill(left[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its death", func() bool { return !left[0].lives() })
	if len(alive(left)) == 0 {
		t.Fatal("its children have ended by themselves: there is nothing to test")
	}
	f, _ := claim(t, dir)
	for _, l := range leftovers(t, f) {
		if err := l.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all have ended", func() bool { return len(alive(left)) == 0 })
}

// TestWhatIsNotProvenIsLeftAlone: neither a pid in a file nor a place nor a name is enough.
func TestWhatIsNotProvenIsLeftAlone(t *testing.T) {
	dir := folder(t)
	c := create(t, Options{Dir: filepath.Join(dir, "machine")})
	start(t, c)
	f, said := claim(t, dir)
	pidfile := filepath.Join(dir, "machine", dataName, "postmaster.pid")
	text, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	with := func(line int, value string) string {
		changed := append([]string(nil), lines...)
		changed[line] = value
		return strings.Join(changed, "\n")
	}
	elsewhere := create(t, Options{Dir: folder(t)})
	start(t, elsewhere)
	for name, content := range map[string]string{
		"it is older than the file says": with(2, "1"),
		"another server's pid":           with(0, fmt.Sprint(elsewhere.PID())),
		"the pid of this process":        with(0, fmt.Sprint(os.Getpid())),
		"half a file":                    lines[0],
		"garbage":                        "a\nb\nc\n",
	} {
		if err := os.WriteFile(pidfile, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := leftovers(t, f); len(found) != 0 {
			t.Errorf("%s: found %+v", name, found)
		}
	}
	if !strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("nobody is told: %s", said)
	}
	if err := os.WriteFile(pidfile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Cluster{c, elsewhere} {
		if err := c.Exec(t.Context(), "postgres", "select 1"); err != nil {
			t.Error(err)
		}
	}
	if found := leftovers(t, f); len(found) != 1 { // as it is, it is one
		t.Errorf("found %v", found)
	}
}

// TestAFolderIsOnes, and again somebody's when its owner is gone.
func TestAFolderIsOnes(t *testing.T) {
	dir := filepath.Join(folder(t), "deep", "machines")
	log := slog.New(slog.DiscardHandler)
	first, err := Claim(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Claim(dir, log); !errors.Is(err, ErrClaimed) {
		t.Errorf("a second claim: %v", err)
	}
	first.Release()
	second, err := Claim(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	second.Release()
}
