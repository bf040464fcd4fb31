// The programs that are measured and those that measure: where they are, and which versions they say they are.

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// programs are the paths of what the rig runs.
type programs struct {
	pgbench string
	postern string // empty unless it is a target
	against string // likewise

	pgbouncerVersion string // as it says; "unknown" or "" if it does not
}

// findPrograms finds everything that the options need before anything is started, and builds Postern if no binary was
// given.
func (r *rig) findPrograms(ctx context.Context) error {
	var err error
	if r.programs.pgbench, err = findPgbench(); err != nil {
		return err
	}
	if slices.Contains(r.opts.targets, pgbouncer) {
		if _, err := os.Stat(r.opts.pgbouncer); err != nil {
			return fmt.Errorf("PgBouncer (package pgbouncer, or -pgbouncer PATH): %w", err)
		}
		r.programs.pgbouncerVersion = firstLine(ctx, r.opts.pgbouncer, "--version")
	}
	if r.opts.against != "" {
		if r.programs.against, err = findBinary(r.opts.against); err != nil {
			return err
		}
	}
	if !slices.Contains(r.opts.targets, postern) {
		return nil
	}
	if r.opts.postern != "" {
		r.programs.postern, err = findBinary(r.opts.postern)
		return err
	}
	r.programs.postern = filepath.Join(r.dir, "postern")
	_, err = run(ctx, append(os.Environ(), "CGO_ENABLED=0"), "go", "build", "-trimpath", "-o", r.programs.postern, "github.com/postern/postern/cmd/postern")
	return err
}

// findBinary returns the whole path of a file that the command line names.
func findBinary(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	_, err = os.Stat(path)
	return path, err
}

// findPgbench looks on the PATH and then where Debian keeps the server programs, the newest version first.
func findPgbench() (string, error) {
	if path, err := exec.LookPath("pgbench"); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", errors.New("pgbench is neither on the PATH nor below /usr/lib/postgresql (package postgresql)")
	}
	return slices.Max(found), nil
}

// An environment says what the figures were measured on.
type environment struct {
	Time       time.Time         `json:"time"`
	Uname      string            `json:"uname"`
	CPU        string            `json:"cpu"`
	Cores      int               `json:"cores"`
	LoadBefore string            `json:"load_before"`
	LoadAfter  string            `json:"load_after"`
	CPUFrom    string            `json:"cpu_from"`           // schedstat or ticks
	IOUring    string            `json:"io_uring,omitempty"` // whether Postern has it: "yes", or why not
	Versions   map[string]string `json:"versions"`
}

// environment looks around. What cannot be found out is "unknown"; that is no reason to measure nothing.
func (r *rig) environment(ctx context.Context) environment {
	e := environment{
		Time: time.Now().UTC().Truncate(time.Second), CPU: cpuModel(), Cores: runtime.NumCPU(), LoadBefore: r.loadBefore, CPUFrom: r.cpuFrom,
		Uname:    firstLine(ctx, "uname", "-srm"),
		Versions: map[string]string{"PostgreSQL": "PostgreSQL " + r.pg.version, "pgbench": firstLine(ctx, r.programs.pgbench, "--version")},
	}
	for _, name := range r.opts.targets {
		switch name {
		case pgbouncer:
			e.Versions["PgBouncer"] = r.programs.pgbouncerVersion
		case postern:
			e.Versions["Postern"] = firstLine(ctx, r.programs.postern, "version")
		case against:
			e.Versions["against"] = "against " + r.opts.against + ": " + firstLine(ctx, r.programs.against, "version")
		}
	}
	return e
}

// firstLine returns the first line that a command prints, or "unknown".
func firstLine(ctx context.Context, bin string, args ...string) string {
	out, err := run(ctx, os.Environ(), bin, args...)
	line, _, _ := strings.Cut(out, "\n")
	if err != nil || line == "" {
		return "unknown"
	}
	return strings.TrimSpace(line)
}

// cpuModel returns the processor's name.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimLeft(name, " \t:")
		}
	}
	return "unknown"
}
