// Freezing on Linux: the server's processes are found in /proc.

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// freezePause is between two looks at processes that were told to stop.
const freezePause = time.Millisecond

// procStat is what /proc/PID/stat says of a process. See proc_pid_stat(5).
type procStat struct {
	member
	name   string
	state  byte
	parent int
}

// still tells whether the process executes nothing: it is stopped, or traced, or dead.
func (p procStat) still() bool { return p.stopped() || p.dead() }

// dead tells whether the process has ended and waits to be buried: by its parent, which may be frozen.
func (p procStat) dead() bool { return bytes.IndexByte([]byte("ZXx"), p.state) >= 0 }

func (p procStat) stopped() bool { return p.state == 'T' || p.state == 't' }

var errBadStat = errors.New("not a line of /proc/PID/stat")

// parseStat reads the fields that matter. The name, in parentheses, may hold anything, parentheses and blanks too.
func parseStat(line []byte) (procStat, error) {
	opening, closing := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if opening < 1 || closing < opening {
		return procStat{}, errBadStat
	}
	rest := bytes.Fields(line[closing+1:]) // from the third field on
	if len(rest) < 20 || len(rest[0]) != 1 {
		return procStat{}, errBadStat
	}
	pid, err1 := strconv.Atoi(string(line[:opening-1]))
	parent, err2 := strconv.Atoi(string(rest[1]))
	born, err3 := strconv.ParseUint(string(rest[19]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return procStat{}, fmt.Errorf("%w: %w", errBadStat, err)
	}
	return procStat{member{pid, born}, string(line[opening+1 : closing]), rest[0][0], parent}, nil
}

func readStat(pid int) (procStat, error) {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(line)
}

// isGone tells whether an error of readStat means that there is no such process.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

func isStopped(pid int) bool {
	p, err := readStat(pid)
	return err == nil && p.stopped()
}

// processes lists all of the system's.
func processes() ([]procStat, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var all []procStat
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := readStat(pid)
		switch {
		case err == nil:
			all = append(all, p)
		case !isGone(err):
			return nil, err // a process that is overlooked is one that runs on
		}
	}
	return all, nil
}

// family is the process root and its descendants, parents before children; empty when root has ended.
func family(all []procStat, root int) []procStat {
	i := slices.IndexFunc(all, func(p procStat) bool { return p.pid == root })
	if i < 0 {
		return nil
	}
	found := []procStat{all[i]}
	for n := 0; n < len(found); n++ {
		for _, p := range all {
			if p.parent == found[n].pid && p.pid != root {
				found = append(found, p)
			}
		}
	}
	return found
}

// freeze stops the process root and its descendants and returns those that it has stopped, in this order, also with an
// error. Every child of PostgreSQL is a session of its own, so that no signal to a group reaches them all. The root stops
// first: from then on it makes no children. A descendant may still, until it stops itself, hence the rounds; and one that
// was born behind the back of a round is seen by the next, hence two rounds in a row that find nothing to stop.
func freeze(ctx context.Context, root int) (stopped []member, err error) {
	for calm := 0; calm < 2; {
		all, err := processes()
		if err != nil {
			return stopped, err
		}
		members := family(all, root)
		if len(members) == 0 || members[0].dead() {
			return stopped, errors.New("the server has ended")
		}
		calm++
		for _, p := range members {
			if p.still() {
				continue
			}
			calm = 0
			if !slices.Contains(stopped, p.member) {
				if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
					return stopped, fmt.Errorf("process %d: %w", p.pid, err)
				}
				stopped = append(stopped, p.member)
			}
			if p.pid == root {
				break // its children once it stands
			}
		}
		if calm > 0 {
			continue
		}
		if err := pause(ctx, freezePause); err != nil {
			return stopped, fmt.Errorf("a process does not stop: %w", err)
		}
	}
	return stopped, nil
}

// thaw lets run on what freeze has stopped, the last one first, and all else from root (0: there is none any more) on down.
// It does not ask who is stopped: who was told to may not have stopped yet, and SIGCONT takes that back, too.
func thaw(root int, stopped []member) {
	for _, m := range slices.Backward(stopped) {
		if p, err := readStat(m.pid); err == nil && p.member != m || isGone(err) {
			continue
		}
		_ = syscall.Kill(m.pid, syscall.SIGCONT) // it may have been killed this moment
	}
	if root == 0 {
		return
	}
	all, err := processes()
	if err != nil {
		return // nobody else has stopped anything, as a rule
	}
	for _, p := range slices.Backward(family(all, root)) {
		_ = syscall.Kill(p.pid, syscall.SIGCONT)
	}
}

// thawStrays lets run on what is left, frozen, of a server of this data directory whose owner was killed. The kernel
// itself thaws the first process then, being the stopped leader of a group that lost its parent, and has it shut down; but
// it waits for its children, which the kernel leaves as they are. They all work in the data directory. Where we may not
// see that (as root without CAP_SYS_PTRACE) they are not found.
func thawStrays(data string) {
	here, err := os.Stat(data)
	if err != nil {
		return
	}
	all, err := processes()
	if err != nil {
		return
	}
	for _, p := range slices.Backward(all) {
		if !p.stopped() || p.name != "postgres" {
			continue
		}
		there, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.pid), "cwd"))
		if err == nil && os.SameFile(here, there) {
			_ = syscall.Kill(p.pid, syscall.SIGCONT)
		}
	}
}
