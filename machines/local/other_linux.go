// Finding the server of another process: on Linux, in /proc.

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/postern/postern/files"
)

// findOther returns the server that runs in a data directory, whoever has started it; nil: none does. It is proven as that of a Leftover is.
func findOther(data string) (*other, error) {
	text, err := files.Read(filepath.Join(data, "postmaster.pid"), maxPIDFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 8 {
		return nil, nil // it is being written
	}
	pid, err1 := strconv.Atoi(lines[0])
	started, err2 := strconv.ParseInt(lines[2], 10, 64)
	port, err3 := strconv.Atoi(lines[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("postmaster.pid: %w", err)
	}
	p, err := readStat(pid)
	if err != nil || p.name != "postgres" || p.dead() {
		return nil, nil // it has ended
	}
	here, err1 := os.Stat(data)
	there, err2 := os.Stat(filepath.Join("/proc", lines[0], "cwd"))
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(here, there) {
		return nil, err
	}
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	first, err := provenFirst(data, []procStat{p}, boot)
	if err != nil || first == nil {
		return nil, err
	}
	return &other{first: first.member, started: started, port: port, ready: strings.TrimSpace(lines[7]) == "ready", frozen: p.stopped()}, nil
}
