// Freezing: that no process is overlooked, and that none stays behind.

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern/postern/machines"
)

// TestTheDeadAreNotFrozen: a process that has ended and that nobody has buried yet stands still, but it does not come back. Who
// buries a server's is its first process, which cannot while it is frozen.
func TestTheDeadAreNotFrozen(t *testing.T) {
	c := create(t, Options{Dir: folder(t)})
	start(t, c)
	conn, err := c.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	dead := int(conn.PgConn().PID())
	is := func(pid int, state byte) bool {
		p, err := readStat(pid)
		return err == nil && p.state == state
	}
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stands", func() bool { return is(c.PID(), 'T') })
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	eventually(t, "its backend has ended", func() bool { return is(dead, 'Z') })
	if err := c.Freeze(t.Context()); err != nil || !c.Frozen() {
		t.Fatalf("Freeze: %v; frozen: %v", err, c.Frozen())
	}
	standStill(t, members(t, c))
	c.Thaw()
	eventually(t, "its backend is buried", func() bool { return !is(dead, 'Z') })
	if err := c.Exec(t.Context(), "postgres", "select 1"); err != nil {
		t.Error(err)
	}

	first := exec.CommandContext(t.Context(), "true")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has ended", func() bool { return is(first.Process.Pid, 'Z') })
	if _, err := freeze(t.Context(), first.Process.Pid); err == nil {
		t.Error("a server whose first process is dead was frozen")
	}
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
}

// standStill wants processes that execute nothing: frozen, or dead.
func standStill(t *testing.T, all []procStat) {
	t.Helper()
	for _, p := range all {
		if !p.still() {
			t.Errorf("%s (%d) is in state %c", p.name, p.pid, p.state)
		}
	}
	if len(all) == 0 || !all[0].stopped() {
		t.Errorf("the first process is not frozen: %+v", all)
	}
}

// members are the processes of a running or frozen server.
func members(t *testing.T, c *Cluster) []procStat {
	t.Helper()
	all, err := processes()
	if err != nil {
		t.Fatal(err)
	}
	return family(all, c.PID())
}

// alive are those of them that are there still, but for the dead whom nobody has buried.
func alive(of []procStat) (left []procStat) {
	for _, old := range of {
		if p, err := readStat(old.pid); err == nil && p.member == old.member && p.state != 'Z' {
			left = append(left, p)
		}
	}
	return left
}

func frozenMachine(t *testing.T) (*Machine, []procStat) {
	t.Helper()
	m := machine(t, MachineOptions{Sleep: SleepSuspend, Roles: []Role{{"app", "pw"}}})
	wake(t, m)
	suspend(t, m)
	all := members(t, m.Cluster())
	if len(all) < 5 {
		t.Fatalf("%d processes: PostgreSQL has more", len(all))
	}
	return m, all
}

func TestASuspendedMachineStandsStillAndGoesOn(t *testing.T) {
	m := machine(t, MachineOptions{Sleep: SleepSuspend, Roles: []Role{{"app", "pw"}}, Databases: []string{"app"}})
	first := wake(t, m)
	conn, err := logIn(t, m, "app", "pw", "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "create temporary table mine as select 7 as n"); err != nil {
		t.Fatal(err)
	}
	busy := make(chan error, 1) // a backend with a child of its own
	go func() {
		busy <- m.Cluster().Exec(t.Context(), "postgres", "copy (select 1) to program 'exec sleep 1000'")
	}()
	child := func() (pid int) {
		for _, p := range members(t, m.Cluster()) {
			if p.name == "sleep" {
				pid = p.pid
			}
		}
		return pid
	}
	eventually(t, "the backend's child", func() bool { return child() != 0 })

	suspend(t, m)
	frozen := members(t, m.Cluster())
	standStill(t, frozen)
	if len(frozen) < 8 || child() == 0 {
		t.Errorf("%d processes", len(frozen))
	}
	suspend(t, m) // nothing to do

	answer := make(chan error, 1) // asked while it is frozen, answered after
	go func() {
		var n int
		err := conn.QueryRow(t.Context(), "select n from mine").Scan(&n)
		if err == nil && n != 7 {
			err = fmt.Errorf("n = %d", n)
		}
		answer <- err
	}()
	second := wake(t, m)
	if second.Generation.Same(first.Generation) || second.Generation.Instance != first.Generation.Instance {
		t.Errorf("thawed: %v became %v", first, second)
	}
	for _, p := range alive(frozen) {
		if p.stopped() {
			t.Errorf("%s (%d) is left in state %c", p.name, p.pid, p.state)
		}
	}
	if err := <-answer; err != nil {
		t.Errorf("the old connection: %v", err)
	}
	if err := syscall.Kill(child(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	<-busy
}

func TestAMachineThatSomebodyElseFrozeWakes(t *testing.T) {
	m := machine(t, MachineOptions{})
	wake(t, m)
	for _, p := range members(t, m.Cluster()) {
		if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) { // some do not live long
			t.Fatal(err)
		}
	}
	eventually(t, "it is seen", func() bool { return state(t, m).Power == machines.Asleep })
	wake(t, m)
	if err := m.Cluster().Exec(t.Context(), "postgres", "select 1"); err != nil {
		t.Error(err)
	}
}

func TestNothingStaysBehindFrozen(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, m *Machine){
		"closed": func(t *testing.T, m *Machine) {
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"closed in a hurry": func(t *testing.T, m *Machine) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := m.Close(ctx); err != nil {
				t.Error(err)
			}
		},
		"killed, then closed": func(t *testing.T, m *Machine) {
			killFrozen(t, m)
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"killed, then woken": func(t *testing.T, m *Machine) {
			killFrozen(t, m)
			wake(t, m)
			if _, err := logIn(t, m, "app", "pw", "postgres"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, all := frozenMachine(t)
			end(t, m)
			// Children of a server that was killed end when they see it.
			eventually(t, "all have ended", func() bool { return len(alive(all)) == 0 })
		})
	}
}

func TestAFrozenClusterStartsAndStops(t *testing.T) {
	c := create(t, Options{Dir: folder(t)})
	freeze := func() {
		t.Helper()
		for range 2 { // the second has nothing to do
			if err := c.Freeze(t.Context()); err != nil || !c.Running() || c.Frozen() == (c.PID() == 0) {
				t.Fatalf("Freeze: %v; frozen: %v", err, c.Frozen())
			}
		}
	}
	if err := c.Freeze(t.Context()); err != nil || c.Frozen() {
		t.Errorf("freezing what does not run: %v", err)
	}
	c.Thaw()
	start(t, c)
	freeze()
	start(t, c)
	if err := c.Exec(t.Context(), "postgres", "select 1"); err != nil {
		t.Error(err)
	}
	freeze()
	c.Thaw()
	if err := c.Exec(t.Context(), "postgres", "select 1"); err != nil {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Freeze(ended); !errors.Is(err, context.Canceled) || c.Frozen() {
		t.Errorf("freezing without any time: %v; frozen: %v", err, c.Frozen())
	}
	freeze()
	all := members(t, c)
	if err := c.Stop(ended, Fast); err != nil { // killed if it were frozen still
		t.Error(err)
	}
	if left := alive(all); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
}

func killFrozen(t *testing.T, m *Machine) {
	t.Helper()
	if err := syscall.Kill(m.Cluster().PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its death is noticed", func() bool { return !m.Cluster().Running() })
}

func TestASuspendThatIsCutShortIsWaitedFor(t *testing.T) {
	m := machine(t, MachineOptions{})
	wake(t, m)
	var slow procStat
	eventually(t, "the checkpointer has said that it is one", func() bool {
		all := members(t, m.Cluster())
		at := slices.IndexFunc(all, func(p procStat) bool {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			return strings.Contains(string(line), "checkpointer")
		})
		if at >= 0 {
			slow = all[at]
		}
		return at >= 0
	})
	if err := syscall.Kill(slow.pid, syscall.SIGSTOP); err != nil { // a stop cannot end without it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Suspend: %v", err)
	}
	wantPower(t, m, machines.Changing)
	hasty, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Wake(hasty); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wake meanwhile: %v", err)
	}
	woken := make(chan error, 1)
	go func() {
		_, err := m.Wake(t.Context())
		woken <- err
	}()
	if err := syscall.Kill(slow.pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-woken; err != nil {
		t.Fatal(err)
	}
	wantPower(t, m, machines.Running)
	said, err := os.ReadFile(m.Cluster().LogPath())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(said), "immediate shutdown") || strings.Contains(string(said), "not properly shut down") {
		t.Error("the stop was hurried")
	}
}

// ownerEnv has this test's program own a frozen machine in a folder until it is killed.
const ownerEnv = "POSTERN_TEST_FROZEN_IN"

func TestOwnerOfAFrozenMachine(t *testing.T) {
	dir := os.Getenv(ownerEnv)
	if dir == "" {
		return // there is nothing to do but for TestAFrozenMachineOutlivesItsOwnerInOrder
	}
	m := NewMachine(MachineOptions{Options: Options{Dir: dir, Disposable: true}, Sleep: SleepSuspend})
	wake(t, m)
	suspend(t, m)
	fmt.Printf("frozen %d\n", m.Cluster().PID())
	select {}
}

func TestAFrozenMachineOutlivesItsOwnerInOrder(t *testing.T) {
	dir := filepath.Join(folder(t), "machine")
	left := leaveFrozen(t, dir)
	m := machine(t, MachineOptions{Options: Options{Dir: dir}})
	wake(t, m)
	eventually(t, "all have ended", func() bool { return len(alive(left)) == 0 })
	said, err := os.ReadFile(m.Cluster().LogPath())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(said), "not properly shut down") {
		t.Error("the server could not shut down in order")
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 7 7 7 0 -1 4194304 118 0 0 0 0 0 0 0 20 0 1 0 1229904 3133440 412"
	for line, want := range map[string]procStat{
		"42 (postgres) T" + rest:       {member{42, 1229904}, "postgres", 'T', 7},
		"42 (a) S 1 (b) (c)) t" + rest: {member{42, 1229904}, "a) S 1 (b) (c)", 't', 7},
		"42 () Z" + rest + " 1 2 3\n":  {member{42, 1229904}, "", 'Z', 7},
	} {
		if got, err := parseStat([]byte(line)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{"", "42", "42 (x", "(x) T" + rest, "42 (x) T 1 2 3", "42 (x) TT" + rest, "x (x) T" + rest, "42 )x( T" + rest} {
		if got, err := parseStat([]byte(line)); !errors.Is(err, errBadStat) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}
