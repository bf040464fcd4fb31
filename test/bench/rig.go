// The rig: one PostgreSQL and one process per pooler, set up once, asked for one cell at a time.

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

const (
	benchDatabase = "bench"
	benchRole     = "app"
	benchTenant   = "acme"
	poolSize      = 16   // server connections of each pooler
	maxClients    = 5000 // that each pooler is told to take
	serverSlots   = 200  // PostgreSQL's max_connections
	loopback      = "127.0.0.1"
	warmUpSeconds = 2 // on a busy computer a second is over before 32 clients have logged in over TLS
)

// A rig owns every process, file and directory of a run. Its methods are for the main goroutine.
type rig struct {
	opts       options
	progress   io.Writer
	as         account
	dir        string // for everything; removed at the end
	loadBefore string // the load before we made any
	nextDir    int
	programs   programs
	scripts    map[string]string // paths by name
	password   string
	cert       keyPair
	pg         *postgres
	targets    map[instance]*target // those that live as long as the run
	cpuFrom    string               // where CPU times come from: bySchedstat or byTicks
	doubts     []string             // about CPU times
}

// setUp starts what opts need. The rig is never nil and must be torn down, also after an error.
func setUp(ctx context.Context, opts options, progress io.Writer) (*rig, error) {
	r := &rig{opts: opts, progress: progress, loadBefore: loadAverage(), password: rand.Text(), scripts: map[string]string{}, targets: map[instance]*target{}}
	var err error
	if r.as, err = unprivileged(); err != nil {
		return r, err
	}
	if r.dir, err = os.MkdirTemp("", "postern-bench-"); err != nil {
		return r, err
	}
	if err := os.Chmod(r.dir, 0o755); err != nil { // the account must get through to its own folders
		return r, err
	}
	if err := r.findPrograms(ctx); err != nil {
		return r, err
	}
	for name, text := range scripts {
		r.scripts[name] = filepath.Join(r.dir, name+".sql")
		if err := os.WriteFile(r.scripts[name], []byte(text), 0o644); err != nil {
			return r, err
		}
	}
	if r.cert, err = newKeyPair(); err != nil {
		return r, err
	}
	if err := r.startPostgres(ctx); err != nil {
		return r, err
	}
	if r.cpuFrom = cpuSource(); r.cpuFrom != bySchedstat {
		fmt.Fprintln(progress, "WARNING: this kernel has no /proc/PID/task/TID/schedstat: CPU times are counted in clock ticks of", clockTick)
	}
	return r, r.startTargets(ctx)
}

// startTargets starts what the steady rows need; the other rows start poolers of their own.
func (r *rig) startTargets(ctx context.Context) (err error) {
	for _, w := range r.opts.rows {
		for _, name := range r.opts.targets {
			i := w.instance(name)
			if !w.steady() || !w.runsOn(name) || r.targets[i] != nil {
				continue
			}
			if r.targets[i], err = r.startTarget(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// tearDown ends every process and removes every file.
func (r *rig) tearDown() {
	for _, t := range r.targets {
		t.stop()
	}
	r.stopPostgres()
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}

// warmUp runs every cell of the throughput rows shortly and unmeasured: pools fill, caches warm, mistakes show early.
func (r *rig) warmUp(ctx context.Context) error {
	saved := r.opts.seconds
	defer func() { r.opts.seconds = saved }()
	r.opts.seconds = warmUpSeconds
	for _, w := range r.opts.rows {
		for _, name := range r.opts.targets {
			if !w.steady() || !w.runsOn(name) {
				continue
			}
			if _, err := r.cell(ctx, w, name); err != nil {
				return fmt.Errorf("warm-up, row %s, target %s: %w", w.name, name, err)
			}
		}
	}
	return nil
}

// cell runs one cell and returns its figures.
func (r *rig) cell(ctx context.Context, w row, name string) (figures, error) {
	switch {
	case w.idle:
		return r.idleCell(ctx, w, name)
	case w.wake > 0:
		return r.wakeCell(ctx, w.wake)
	case w.store:
		return r.storeCell(ctx)
	case w.own != nil:
		return w.own.run(ctx, r)
	case w.tracks != "":
		return trackingCell(ctx, w.tracks)
	}
	return r.loadCell(ctx, w, r.targets[w.instance(name)])
}

// loadCell runs pgbench and sets its transactions against the CPU time that the target's process used meanwhile.
func (r *rig) loadCell(ctx context.Context, w row, t *target) (figures, error) {
	var before cpuReading
	var err error
	if t.proc != nil {
		if before, err = readCPU(os.DirFS("/proc"), t.proc.pid(), r.cpuFrom); err != nil {
			return nil, errors.Join(err, t.alive())
		}
	}
	bench, err := r.pgbench(ctx, t, w)
	if err != nil {
		if died := t.alive(); died != nil {
			return nil, errors.Join(err, died)
		}
		return nil, fmt.Errorf("%w%s", err, t.logTail())
	}
	f := figures{tps: bench.TPS, latency: bench.LatencyMS, transactions: float64(bench.Transactions)}
	if t.proc != nil {
		after, err := readCPU(os.DirFS("/proc"), t.proc.pid(), r.cpuFrom)
		if err != nil {
			return nil, errors.Join(err, t.alive())
		}
		used, doubt := after.since(before)
		if doubt != "" {
			doubt = fmt.Sprintf("row %s, target %s: %s", w.name, t.name, doubt)
			fmt.Fprintln(r.progress, "WARNING:", doubt)
			r.doubts = append(r.doubts, doubt)
		}
		f[cpu] = float64(used.Microseconds()) / float64(bench.Transactions)
	}
	return f, t.alive()
}

// instanceDir makes a fresh directory for one process of the account.
func (r *rig) instanceDir(name string) (string, error) {
	r.nextDir++
	dir := filepath.Join(r.dir, name+"-"+strconv.Itoa(r.nextDir))
	return dir, r.as.mkdir(dir)
}

// freePort asks the kernel for a port that nobody listens on. Somebody else could take it before we do; then the
// process that wanted it ends, and the run says so.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", loopback+":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
