// The CPU time of a process: the run time of its threads as the scheduler counts it, checked against the clock ticks.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"
)

// Where the CPU time of a cell comes from.
const (
	bySchedstat = "schedstat" // /proc/PID/task/TID/schedstat
	byTicks     = "ticks"     // /proc/PID/stat, for kernels without the other
)

// A cpuReading is the CPU time of a process at one moment, without its children's.
type cpuReading struct {
	threads map[string]time.Duration // by thread id; nil where the kernel does not tell
	ticks   time.Duration            // of the whole process, its ended threads among them, in steps of clockTick
}

// cpuSource finds out which way this computer can tell. A kernel may lack the files, or have them say nothing but zero.
func cpuSource() string {
	now, err := readCPU(os.DirFS("/proc"), os.Getpid(), bySchedstat)
	if err != nil {
		return byTicks
	}
	for _, used := range now.threads {
		if used > 0 {
			return bySchedstat
		}
	}
	return byTicks
}

// readCPU reads what the process has used. proc is /proc.
func readCPU(proc fs.FS, pid int, source string) (cpuReading, error) {
	dir := strconv.Itoa(pid)
	stat, err := fs.ReadFile(proc, path.Join(dir, "stat"))
	if err != nil {
		return cpuReading{}, err
	}
	var r cpuReading
	if r.ticks, err = parseStatCPU(string(stat)); err != nil || source == byTicks {
		return r, err
	}
	tasks, err := fs.ReadDir(proc, path.Join(dir, "task"))
	if err != nil {
		return cpuReading{}, err
	}
	r.threads = map[string]time.Duration{}
	for _, task := range tasks {
		line, err := fs.ReadFile(proc, path.Join(dir, "task", task.Name(), "schedstat"))
		if err != nil {
			if _, gone := fs.Stat(proc, path.Join(dir, "task", task.Name())); gone != nil {
				continue // it ended after the folder was read; since says what is missing
			}
			return cpuReading{}, err
		}
		if r.threads[task.Name()], err = parseSchedstat(string(line)); err != nil {
			return cpuReading{}, err
		}
	}
	return r, nil
}

// parseSchedstat returns the time that a thread ran, the first of schedstat's three numbers, in nanoseconds.
func parseSchedstat(line string) (time.Duration, error) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return 0, fmt.Errorf("schedstat: %d fields", len(f))
	}
	ns, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || ns < 0 {
		return 0, errors.New("schedstat: run time " + strconv.Quote(f[0]))
	}
	return time.Duration(ns), nil
}

// since returns what the process used between two readings. doubt, if any, says why that may be wrong: the time of a
// thread that ended in between is only in the ticks, so the two then differ by more than steps of ticks explain.
func (r cpuReading) since(before cpuReading) (used time.Duration, doubt string) {
	ticks := r.ticks - before.ticks
	if r.threads == nil {
		return ticks, ""
	}
	for id, now := range r.threads {
		then := before.threads[id]
		if now < then { // another thread that was given the id of one that ended
			then = 0
		}
		used += now - then
	}
	ended := 0
	for id := range before.threads {
		if _, ok := r.threads[id]; !ok {
			ended++
		}
	}
	if gap := (used - ticks).Abs(); gap > 5*clockTick+max(used, ticks)/10 {
		return used, fmt.Sprintf("the threads ran for %v, by clock ticks the process for %v; %d threads ended meanwhile",
			used.Round(time.Millisecond), ticks, ended)
	}
	return used, ""
}
