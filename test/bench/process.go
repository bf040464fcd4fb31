// Processes that the benchmark starts: one per role, in their own group, with their output in a file, gone when we are.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopGrace is how long a process may take over SIGTERM before its group is killed.
const stopGrace = 10 * time.Second

// An account is the unprivileged user of the operating system that servers run as; its zero value is ourselves.
type account struct {
	name     string
	uid, gid int
	set      bool
}

// unprivileged picks the account for servers: PostgreSQL and PgBouncer refuse to run as root, and Postern runs as they
// do, so that nobody is measured under other limits.
func unprivileged() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{name: name, uid: uid, gid: gid, set: true}, nil
	}
	return account{}, errors.New("running as root, and neither user postgres nor nobody exists to run the servers")
}

// own hands path to the account; for ourselves there is nothing to do.
func (a account) own(path string) error {
	if !a.set {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// mkdir makes a directory that only the account can enter.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.own(path)
}

// write makes a file that only the account can read.
func (a account) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return a.own(path)
}

// tidyEnvironment removes from our own environment, and so from every child's, what would steer libpq and pgx, and sets
// the language that the parsers read.
func tidyEnvironment() {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "PG") || strings.HasPrefix(name, "POSTERN_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("LC_ALL", "C")
}

// raiseFileLimit lets us and our children open as many files as the system lets us: thousands of idle clients are
// two descriptors each. What it cannot raise shows later as a refused client.
func raiseFileLimit() {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return
	}
	lim.Cur = lim.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
}

// A process is a started server. Its methods are for the main goroutine; done may be waited on from anywhere.
type process struct {
	name string
	log  string // path of its output
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is set before
	err  error
}

// start runs bin as the account with its output in log. The caller owns the process and must stop it.
func start(name, log string, as account, bin string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own copy
	cmd := exec.Command(bin, args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr(as)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive returns an error with the end of the log if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended by itself (%v); the end of its log:\n%s", p.name, p.err, tail(p.log, 20))
	default:
		return nil
	}
}

// stop sends sig, waits, and kills the group if that takes longer than stopGrace. It may be called again, and on nil.
func (p *process) stop(sig syscall.Signal) {
	if p == nil || p.alive() != nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.done
	}
}

// run runs a command to its end and returns its standard output. A non-zero exit is an error that carries the
// end of its standard error. A cancelled ctx interrupts it. It runs as ourselves.
func run(ctx context.Context, env []string, bin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = env
	cmd.SysProcAttr = childAttr(account{})
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = stopGrace
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s", bin, err, lastLines(stderr.String(), 20))
	}
	return stdout.String(), nil
}

// tail returns the last n lines of a file, or why it cannot.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), n)
}

// lastLines returns the last n lines of s.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
