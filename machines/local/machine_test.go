// The local driver over real clusters: first wakes, sleeps, deaths, and calls that are cut short.

package local

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern/postern/machines"
)

func TestTheFirstWakeMakesEverything(t *testing.T) {
	const odd, oddPassword, oddDatabase = `o'Brien; "drop" \`, `pa'ss\ "word" $1 €`, `it's "a" \ database`
	secret := verifier(t, "pw-app")
	m := machine(t, MachineOptions{
		Roles:     []Role{{"app", secret}, {odd, oddPassword}, {"nobody", ""}},
		Databases: []string{"app", oddDatabase, "app", "postgres"},
	})
	if _, err := os.Stat(m.opts.Dir); err == nil {
		t.Error("NewMachine made a folder")
	}
	wantPower(t, m, machines.Asleep)
	if _, err := m.Endpoint(t.Context()); err == nil {
		t.Error("a port before there was one")
	}
	suspend(t, m) // nothing to do
	first := wake(t, m)
	if again := wake(t, m); again != first {
		t.Errorf("waking a running machine: %v became %v", first, again)
	}
	if got := storedSecret(t, m, "app"); got != secret {
		t.Errorf("stored %q", got)
	}
	for _, login := range [][3]string{{"app", "pw-app", "app"}, {odd, oddPassword, oddDatabase}, {"app", "pw-app", "postgres"}} {
		if _, err := logIn(t, m, login[0], login[1], login[2]); err != nil {
			t.Errorf("login as %s: %v", login[0], err)
		}
	}
	for _, login := range [][2]string{{"app", "wrong"}, {"app", secret}, {"nobody", "x"}} {
		if _, err := logIn(t, m, login[0], login[1], "app"); err == nil || !strings.Contains(err.Error(), "28P01") {
			t.Errorf("login as %s with a wrong password: %v", login[0], err)
		}
	}
	if got := ask(t, m, "postgres", "select datdba::regrole::text from pg_database where datname = $1", oddDatabase); got != "app" {
		t.Errorf("the database belongs to %s", got)
	}
	conn, err := logIn(t, m, "app", "pw-app", "app")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "create schema mine; create table mine.kept as select 'kept' as what"); err != nil {
		t.Fatal(err)
	}

	suspend(t, m)
	suspend(t, m)
	if conn, err := net.Dial("tcp", m.Cluster().Addr()); err == nil {
		conn.Close()
		t.Error("something listens while it sleeps")
	}
	second := wake(t, m)
	if second.Generation.Same(first.Generation) || second.Generation.Instance == first.Generation.Instance {
		t.Errorf("two starts, one generation: %v", second)
	}
	if got := ask(t, m, "app", "select what from mine.kept"); got != "kept" {
		t.Errorf("kept %q", got)
	}
}

// statements counts what the server was told, by its log, but for the question whether it is ready.
func statements(t *testing.T, m *Machine) (n int) {
	t.Helper()
	text, err := os.ReadFile(m.Cluster().LogPath())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if (strings.Contains(line, "statement: ") || strings.Contains(line, "execute ")) && !strings.HasSuffix(line, ": select 1\n") {
			n++
		}
	}
	return n
}

func TestOnlyWhatHasChangedIsMadeAgain(t *testing.T) {
	m := machine(t, MachineOptions{Options: Options{Settings: map[string]string{"log_statement": "all"}},
		Roles: []Role{{"app", "one"}, {"other", "two"}}, Databases: []string{"app"}})
	wake(t, m)
	if statements(t, m) == 0 {
		t.Fatal("the count is wrong")
	}
	before := storedSecret(t, m, "app")
	quiet := func(why string, do func()) {
		t.Helper()
		n := statements(t, m)
		if do(); statements(t, m) != n {
			t.Errorf("%s: the server was told something", why)
		}
	}
	quiet("an ordinary wake", func() { suspend(t, m); wake(t, m) })
	quiet("another owner", func() {
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		m = machine(t, MachineOptions{Options: m.opts.Options, Roles: m.want.roles, Databases: m.want.databases})
		wake(t, m)
	})
	quiet("the same again, and less", func() {
		for _, roles := range [][]Role{{{"app", "one"}, {"other", "two"}}, {{"app", "one"}}} {
			if err := m.Reconfigure(t.Context(), roles, []string{"app"}); err != nil {
				t.Error(err)
			}
		}
	})

	if err := m.Reconfigure(t.Context(), []Role{{"app", "one"}, {"other", "three"}}, []string{"app", "more"}); err != nil {
		t.Fatal(err)
	}
	if _, err := logIn(t, m, "other", "three", "more"); err != nil {
		t.Errorf("changed while it ran: %v", err)
	}
	suspend(t, m)
	if err := m.Reconfigure(t.Context(), []Role{{"app", "one"}, {"other", "four"}}, []string{"app"}); err != nil {
		t.Fatal(err)
	}
	wantPower(t, m, machines.Asleep)
	wake(t, m)
	if _, err := logIn(t, m, "other", "four", "app"); err != nil {
		t.Errorf("changed while it slept: %v", err)
	}
	if storedSecret(t, m, "app") != before {
		t.Error("a role that has not changed has another verifier")
	}
}

func TestNoLogHoldsASecret(t *testing.T) {
	var log journal
	m := machine(t, MachineOptions{
		Options: Options{
			Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Settings: map[string]string{"log_statement": "all", "log_min_messages": "debug5", "log_min_error_statement": "debug5",
				"log_min_duration_statement": "0", "log_duration": "on", "debug_print_parse": "on", "debug_print_plan": "on"},
		},
		Roles: []Role{{"app", "hunter2"}, {"pg_reserved", "hunter3"}},
	})
	_, err := m.Wake(t.Context())
	if err == nil || !strings.Contains(err.Error(), "reserved") || strings.Contains(err.Error(), "hunter") {
		t.Fatalf("a role that PostgreSQL refuses: %v", err)
	}
	if machines.KindOf(err) != machines.Transient || m.Cluster().Running() {
		t.Errorf("after a wake that failed: %v, runs: %v", machines.KindOf(err), m.Cluster().Running())
	}
	wantPower(t, m, machines.Asleep)
	if err := m.Reconfigure(t.Context(), []Role{{"app", "hunter2"}, {"other", verifier(t, "hunter4")}}, nil); err != nil {
		t.Fatal(err)
	}
	wake(t, m)
	slog.New(slog.NewTextHandler(&log, nil)).Info("all of it", "machine", m, "options", MachineOptions{Roles: m.want.roles}, "want", m.want.roles)
	server, err := os.ReadFile(m.Cluster().LogPath())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(server, []byte("statement: SET log_statement")) {
		t.Error("the server's log has no statements at all")
	}
	for _, secret := range []string{"hunter", "SCRAM-SHA-256$", m.Cluster().password} {
		if bytes.Contains(server, []byte(secret)) {
			t.Errorf("the server's log has %q", secret)
		}
		if strings.Contains(log.String(), secret) {
			t.Errorf("our log has %q", secret)
		}
	}
}

func TestAServerThatDiedIsAsleepAndWakes(t *testing.T) {
	m := machine(t, MachineOptions{Roles: []Role{{"app", "pw"}}})
	first := wake(t, m)
	if err := syscall.Kill(m.Cluster().PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server's death is noticed", func() bool { return state(t, m).Power == machines.Asleep })
	suspend(t, m)
	if second := wake(t, m); second.Generation.Same(first.Generation) {
		t.Error("the same generation after a crash")
	}
	// The kill came at once after the first wake: what was made must have been on its way to the disk.
	if _, err := logIn(t, m, "app", "pw", "postgres"); err != nil {
		t.Error(err)
	}
}

func TestStateDoesNotWaitForAWake(t *testing.T) {
	m := machine(t, MachineOptions{})
	var seen []machines.Power
	done := make(chan error, 1)
	go func() {
		_, err := m.Wake(t.Context())
		done <- err
	}()
	for {
		s := state(t, m)
		if len(seen) == 0 || seen[len(seen)-1] != s.Power {
			seen = append(seen, s.Power)
		}
		if s.Power == machines.Running {
			break
		}
		select {
		case err := <-done:
			if wantPower(t, m, machines.Running); err != nil {
				t.Fatal(err)
			}
			done <- nil
		default:
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if seen[0] == machines.Asleep { // it was asked before the wake began
		seen = seen[1:]
	}
	if len(seen) != 2 || seen[0] != machines.Changing {
		t.Errorf("seen %v, then running", seen)
	}
}

func TestAWakeThatIsCutShortLeavesNothing(t *testing.T) {
	m := machine(t, MachineOptions{Roles: []Role{{"app", "pw"}}})
	// cut says whether it was in time: on a busy computer the wake may be over before somebody looks.
	cut := func(when string, now func() bool) bool {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := m.Wake(ctx)
			done <- err
		}()
		eventually(t, when, now)
		cancel()
		err := <-done
		if err == nil {
			suspend(t, m)
			return false
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", when, err)
		}
		wantPower(t, m, machines.Asleep)
		if c := m.Cluster(); c != nil && c.Running() {
			t.Errorf("%s: a process is left", when)
		}
		return true
	}
	unfinished := filepath.Join(m.opts.Dir, "data.new")
	if !cut("while initdb runs", func() bool { _, err := os.Stat(unfinished); return err == nil }) {
		t.Error("initdb was not cut short")
	}
	wake(t, m)
	suspend(t, m)
	for try := 0; !cut("while the server starts", func() bool { return m.Cluster().Running() }); try++ {
		if try == 20 {
			t.Fatal("no start was cut short")
		}
	}
	wake(t, m)
}

func TestCloseGivesAWakeUp(t *testing.T) {
	m := machine(t, MachineOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := m.Wake(t.Context())
		done <- err
	}()
	eventually(t, "the wake has begun", func() bool { return state(t, m).Power == machines.Changing })
	if err := m.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; machines.KindOf(err) != machines.Gone {
		t.Errorf("the wake: %v", err)
	}
	wantPower(t, m, machines.Asleep)
	if _, err := m.Wake(t.Context()); machines.KindOf(err) != machines.Gone {
		t.Errorf("another wake: %v", err)
	}
	if err := m.Suspend(t.Context()); machines.KindOf(err) != machines.Gone {
		t.Errorf("a suspend: %v", err)
	}
}

func TestFailuresHaveTheirKind(t *testing.T) {
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "closed"), 0o600); err != nil { // for root's servers as for anybody else
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o    MachineOptions
		want machines.Kind
		says string
	}{
		"no programs": {MachineOptions{Options: Options{BinDir: dir}}, machines.Unreachable, "no PostgreSQL server programs"},
		"no way":      {MachineOptions{Options: Options{Dir: filepath.Join(dir, "closed", "m")}}, machines.Auth, "closed"},
		"no folder":   {MachineOptions{Options: Options{Dir: filepath.Join(dir, "file", "m")}}, machines.Transient, "not a directory"},
		"a mistake":   {MachineOptions{Roles: []Role{{"postgres", "x"}}}, machines.Transient, "superuser"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.o.Dir == "" {
				tt.o.Dir = filepath.Join(dir, name)
			}
			m := machine(t, tt.o)
			_, err := m.Wake(t.Context())
			var e *machines.Error
			if !errors.As(err, &e) || e.Kind != tt.want || e.Op != "wake" || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Wake: %v", err)
			}
			wantPower(t, m, machines.Asleep)
		})
	}
}
