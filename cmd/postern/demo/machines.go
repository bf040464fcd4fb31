// What the demo shows of its machines: the visit's steps about sleep, and a line for each wake and each sleep.

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
)

const (
	// sleepGrace is how much later than suspend_after a machine may be asleep.
	sleepGrace = 5 * time.Second
	// lookPace is between two looks at the machines.
	lookPace = 100 * time.Millisecond
)

// postmaster is the process id of a machine's server, 0 if it has none. PostgreSQL keeps it in a file while it runs, and
// leaves that behind when it is killed.
func (s *scene) postmaster(tenant string) (int, error) {
	text, err := os.ReadFile(filepath.Join(s.machines, tenant, "data", "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return 0, err
	}
	return pid, nil
}

// frozen reports whether a process was told to stop, where the system shows that. See proc_pid_stat(5).
func frozen(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "T")
}

// visitAsleep finds both machines asleep, and without a process.
func (s *scene) visitAsleep(ctx context.Context) (string, error) {
	for _, t := range bothTenants() {
		if err := s.untilAsleep(ctx, t.id); err != nil { // the gate is still asking how they stand
			return "", err
		}
		if pid, err := s.postmaster(t.id); pid != 0 || err != nil {
			return "", fmt.Errorf("%s has process %d: %v", t.id, pid, err) // which may be none
		}
	}
	return "acme and globex have no postgres process", nil
}

// visitStillAsleep is after strangers came, and nobody else.
func (s *scene) visitStillAsleep(ctx context.Context) (string, error) {
	for _, t := range bothTenants() {
		m, err := s.machine(ctx, t.id)
		if err != nil {
			return "", err
		}
		if m.State != "asleep" || m.LastWake != nil {
			return "", fmt.Errorf("%s is %s, last woken: %+v", t.id, m.State, m.LastWake)
		}
	}
	return s.visitAsleep(ctx)
}

func (s *scene) untilAsleep(ctx context.Context, tenant string) error {
	last := "not known"
	err := until(ctx, func() (bool, error) {
		m, err := s.machine(ctx, tenant)
		last = m.State
		return m.State == "asleep", err
	})
	if err != nil {
		return fmt.Errorf("%s's machine is %s: %w", tenant, last, err)
	}
	return nil
}

// visitSleep stays connected while a machine goes to sleep, and asks again.
func (s *scene) visitSleep(ctx context.Context, tenant string, sleep tenants.Sleep) (string, error) {
	v, err := enter(ctx, s.uri(s.listeners[listenerTransaction], tenant))
	if err != nil {
		return "", err
	}
	defer v.leave(ctx)
	if err := v.wants(ctx, "show cluster_name", tenant); err != nil {
		return "", err
	}
	began := time.Now()
	inTime, cancel := context.WithTimeout(ctx, s.suspendAfter+sleepGrace)
	defer cancel()
	if err := s.untilAsleep(inTime, tenant); err != nil {
		return "", err
	}
	asleep := time.Since(began)
	pid, err := s.postmaster(tenant)
	left := "no process is left"
	switch {
	case err != nil:
		return "", err
	case pid != 0 && (sleep != tenants.SleepSuspend || !frozen(pid)):
		return "", fmt.Errorf("process %d runs on", pid)
	case pid != 0:
		left = "its processes are frozen"
	}
	began = time.Now()
	if err := v.wants(ctx, "show cluster_name", tenant); err != nil {
		return "", fmt.Errorf("the client noticed: %w", err)
	}
	return fmt.Sprintf("asleep %.1f s after its query, %s; the client's next one was answered in %.2f s",
		asleep.Seconds(), left, time.Since(began).Seconds()), nil
}

// told is what was told of a machine.
type told struct{ wake, sleep machines.Outcome }

// tellMachines prints a line for every wake and every sleep until ctx ends. It looks more often than machines change by
// themselves.
func tellMachines(ctx context.Context, look func(tenant string) (machines.View, error), w io.Writer) {
	all := make(map[string]told)
	tick := time.NewTicker(lookPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, t := range bothTenants() {
			view, err := look(t.id)
			if err != nil {
				continue // somebody took it out of the tenants file
			}
			now := told{view.LastWake, view.LastSleep}
			for _, line := range all[t.id].news(now) {
				fmt.Fprintf(w, "%s  %s %s\n", time.Now().Format(time.TimeOnly), t.id, line)
			}
			all[t.id] = now
		}
	}
}

// news is what is to be told, in the order in which it happened.
func (old told) news(now told) []string {
	var lines []string
	if now.wake != old.wake {
		line := fmt.Sprintf("woke up in %.2f s (%s)", now.wake.Took.Seconds(), now.wake.Reason)
		if now.wake.Result != "ok" {
			line = fmt.Sprintf("did not wake up: %s after %.2f s (%s)", now.wake.Result, now.wake.Took.Seconds(), now.wake.Reason)
		}
		lines = append(lines, line)
	}
	if now.sleep != old.sleep {
		line := fmt.Sprintf("went to sleep (%s)", now.sleep.Reason)
		if now.sleep.Result != "ok" {
			line = fmt.Sprintf("did not go to sleep: %s (%s)", now.sleep.Result, now.sleep.Reason)
		}
		lines = append(lines, line)
		if len(lines) == 2 && now.sleep.At.Before(now.wake.At) {
			lines[0], lines[1] = lines[1], lines[0]
		}
	}
	return lines
}
