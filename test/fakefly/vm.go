// What runs inside a machine: nothing, or a PostgreSQL cluster.

package fakefly

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/postern/postern/machines/local"
)

// VM is what a machine runs. The fake calls one method at a time, but for Addr.
type VM interface {
	Start(context.Context) error   // a boot
	Stop(context.Context) error    // also of a suspended one, whose memory is lost
	Suspend(context.Context) error // freeze it
	Resume(context.Context) error  // go on where it was
	Addr() string                  // host:port while it runs; "": it has no network
}

// Memory is a VM without a machine. It counts what was asked of it.
type Memory struct {
	mu sync.Mutex
	n  map[string]int
	on bool
}

// NewMemory returns a VM that is stopped.
func NewMemory() *Memory { return &Memory{n: map[string]int{}} }

func (m *Memory) count(what string, wasOn, on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n[what]++
	if m.on != wasOn {
		return fmt.Errorf("%s of a VM that is on: %v", what, m.on)
	}
	m.on = on
	return nil
}

// Start counts a boot.
func (m *Memory) Start(context.Context) error { return m.count("start", false, true) }

// Stop counts a stop.
func (m *Memory) Stop(context.Context) error { m.count("stop", true, false); return nil }

// Suspend counts a suspend.
func (m *Memory) Suspend(context.Context) error { return m.count("suspend", true, false) }

// Resume counts a resume.
func (m *Memory) Resume(context.Context) error { return m.count("resume", false, true) }

// Addr says that there is no network.
func (m *Memory) Addr() string { return "" }

// Count is how often start, stop, suspend or resume was called.
func (m *Memory) Count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n[what]
}

// postgres is a VM that is a PostgreSQL cluster.
type postgres struct{ cluster *local.Cluster }

// Postgres makes a VM of a cluster. It suspends by stopping every process of the server with a signal, which needs /proc
// and so Linux.
func Postgres(c *local.Cluster) VM { return postgres{c} }

func (p postgres) Start(ctx context.Context) error { return p.cluster.Start(ctx) }
func (p postgres) Addr() string                    { return p.cluster.Addr() }

// Stop ends the server as a power cut does: what Postgres would do on a shutdown takes longer and proves less.
func (p postgres) Stop(ctx context.Context) error {
	if err := p.Resume(ctx); err != nil { // a frozen process acts on no signal
		return err
	}
	return p.cluster.Stop(ctx, local.Immediate)
}

// Suspend freezes the postmaster first, so that nothing new is born, and then its children until no other is found: each
// of them is in a process group of its own.
func (p postgres) Suspend(context.Context) error {
	pid := p.cluster.PID()
	if pid == 0 {
		return errors.New("suspend: the server does not run")
	}
	frozen := map[int]bool{}
	for todo := []int{pid}; len(todo) > 0; {
		for _, pid := range todo {
			frozen[pid] = true
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("suspend: %w", err)
			}
		}
		family, err := descendants(pid)
		if err != nil {
			return err
		}
		todo = todo[:0]
		for _, pid := range family {
			if !frozen[pid] {
				todo = append(todo, pid)
			}
		}
	}
	return nil
}

// Resume thaws the children first. A server that is gone needs nothing.
func (p postgres) Resume(context.Context) error {
	pid := p.cluster.PID()
	if pid == 0 {
		return nil
	}
	family, err := descendants(pid)
	if err != nil {
		return err
	}
	for _, pid := range append(family, pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("resume: %w", err)
		}
	}
	return nil
}

// descendants lists the processes below one, by /proc.
func descendants(root int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ") // the name may hold anything
		fields := strings.Fields(rest)                                                    // state, parent, ...
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], pid)
	}
	var all []int
	for todo := children[root]; len(todo) > 0; todo = todo[1:] {
		all = append(all, todo[0])
		todo = append(todo, children[todo[0]]...)
	}
	return all, nil
}
