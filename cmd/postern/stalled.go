// The end of a process that stands still: what all its goroutines do, and out, so that a supervisor starts another.

package main

import (
	"io"
	"log/slog"
	"runtime"
	"time"
)

const (
	maxStacks = 16 << 20
	// stacksFor bounds the writing: whoever reads it may stand still, too.
	stacksFor = 5 * time.Second
)

// standsStill tells what does, and ends the process by exit with status 1. Sessions end with it: they were not served any more.
func standsStill(what string, log *slog.Logger, out io.Writer, exit func(code int)) {
	log.Error("the gate stands still: ending", "what", what)
	written := make(chan struct{})
	go func() {
		defer close(written)
		stacks := make([]byte, maxStacks)
		_, _ = out.Write(stacks[:runtime.Stack(stacks, true)])
	}()
	select {
	case <-written:
	case <-time.After(stacksFor):
	}
	exit(1)
}
