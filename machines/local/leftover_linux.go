// Finding what an earlier process has left, and the proof that it is that: on Linux, in /proc.

package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern/postern/files"
)

const (
	// clockTicks is how often the kernel counts per second, to programs (USER_HZ).
	clockTicks = 100
	// startSlack is by how much a server's own idea of when it started may differ from the kernel's: it is slow to begin, and
	// clocks are set.
	startSlack = time.Minute
)

// Leftovers finds the servers below the folder. It must be called before any machine in it is woken, or after all were
// closed. A server is taken for one only if all of this is so: its process is a postgres that works in the data directory of
// a cluster of ours, that cluster's postmaster.pid names it, and it is as old as that file says; then its descendants are
// part of it. Of other processes in such a directory, those that are frozen are let run on, and none is touched besides:
// children of a server that was killed end by themselves when they see it.
func (f *Folder) Leftovers() ([]*Leftover, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	entries, err := f.dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	if _, err := f.dir.Seek(0, 0); err != nil { // the next look begins at the beginning
		return nil, err
	}
	type fileID struct{ dev, ino uint64 }
	id := func(path string) (fileID, bool) {
		var st syscall.Stat_t
		err := syscall.Stat(path, &st)
		return fileID{uint64(st.Dev), st.Ino}, err == nil
	}
	clusters := make(map[fileID]string)
	for _, e := range entries {
		dir := filepath.Join(f.path, e.Name())
		if at, ok := id(filepath.Join(dir, dataName)); ok {
			clusters[at] = dir
		}
	}
	inside := make(map[string][]procStat)
	for _, p := range all {
		if p.name != "postgres" || p.dead() {
			continue
		}
		if at, ok := id(filepath.Join("/proc", strconv.Itoa(p.pid), "cwd")); ok && clusters[at] != "" {
			inside[clusters[at]] = append(inside[clusters[at]], p)
		}
	}
	var found []*Leftover
	for dir, members := range inside {
		l := &Leftover{dir: dir, log: f.log}
		first, err := provenFirst(filepath.Join(dir, dataName), members, boot)
		if err != nil {
			f.log.Error("a process in the folder of a machine is not known to be a server of ours, and is left alone", "dir", dir, "error", err)
			continue
		}
		if first != nil {
			l.first = first.member
			members = family(all, first.pid)[1:]
		}
		for _, p := range members {
			if first != nil || p.stopped() {
				l.others = append(l.others, p.member)
			}
		}
		if first != nil || len(l.others) > 0 {
			found = append(found, l)
		}
	}
	return found, nil
}

// provenFirst returns the first process of the server of a data directory in which these work; nil: it has ended.
func provenFirst(data string, members []procStat, boot time.Time) (*procStat, error) {
	text, err := files.Read(filepath.Join(data, "postmaster.pid"), maxPIDFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 3 {
		return nil, nil // it is being written, or was not to its end
	}
	pid, err1 := strconv.Atoi(lines[0])
	started, err2 := strconv.ParseInt(lines[2], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("postmaster.pid: %w", err)
	}
	for i, p := range members {
		if p.pid != pid {
			continue
		}
		born := boot.Add(time.Duration(p.born) * (time.Second / clockTicks))
		if off := time.Unix(started, 0).Sub(born).Abs(); off > startSlack {
			return nil, fmt.Errorf("process %d was started at %v, but postmaster.pid is of %v", pid, born, time.Unix(started, 0))
		}
		return &members[i], nil
	}
	return nil, nil
}

// bootTime is when the system started, by the clock as it is set now.
func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			seconds, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not say when the system started")
}

// lives tells whether the process is there still, and has not ended.
func (m member) lives() bool {
	p, err := readStat(m.pid)
	return m.pid > 0 && err == nil && p.member == m && !p.dead()
}

// signal sends the process a signal, and no other that has got its pid meanwhile: the handle is of one process, whatever
// becomes of its number.
func (m member) signal(s syscall.Signal) {
	if m.pid <= 0 {
		return
	}
	p, err := os.FindProcess(m.pid)
	if err != nil {
		return
	}
	defer p.Release()
	if m.lives() {
		_ = p.Signal(s) // it may have ended this moment
	}
}
