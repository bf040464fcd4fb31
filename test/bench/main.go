// The program's entry: options, the rounds, and leaving nothing behind.

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	// Children die with the thread that started them (process_linux.go), so they are all started from this one.
	runtime.LockOSThread()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := realMain(ctx, os.Args[1:], os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

// realMain returns the exit code: 0 done, 1 failed, 2 wrong use.
func realMain(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	tidyEnvironment()
	raiseFileLimit()
	result, err := measure(ctx, opts, stderr)
	if err == nil {
		err = result.print(stdout, opts.output)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

// measure sets everything up, runs the rounds, and takes everything down again, whatever happens between.
// What it is doing goes to progress, one line a cell.
func measure(ctx context.Context, opts options, progress io.Writer) (*report, error) {
	r, err := setUp(ctx, opts, progress)
	defer r.tearDown()
	if err != nil {
		return nil, err
	}
	if err := r.warmUp(ctx); err != nil {
		return nil, err
	}
	result := &report{Environment: r.environment(ctx), Options: publicOptions(opts)}
	for round := range opts.rounds {
		for _, w := range opts.rows {
			for _, name := range rotate(opts.targets, round) {
				if !w.runsOn(name) {
					continue
				}
				figures, err := r.cell(ctx, w, name)
				if err != nil {
					return nil, fmt.Errorf("round %d, row %s, target %s: %w", round+1, w.name, name, err)
				}
				c := cell{Round: round + 1, Row: w.name, Target: name, Figures: figures}
				result.Cells = append(result.Cells, c)
				fmt.Fprintln(progress, c)
			}
		}
	}
	result.Environment.LoadAfter = loadAverage()
	result.Environment.IOUring = r.ioUring()
	result.Doubts = r.doubts
	result.summarize(opts)
	return result, nil
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
