// A process that stands still ends, and says what its goroutines did.

package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
)

// TestStandsStill: the stacks are told and the process ends, also where nobody reads them.
func TestStandsStill(t *testing.T) {
	var log, out bytes.Buffer
	code := -1
	standsStill("loop 0", slog.New(slog.NewTextHandler(&log, nil)), &out, func(c int) { code = c })
	if code != 1 || !strings.Contains(log.String(), "what=\"loop 0\"") || !strings.Contains(out.String(), "TestStandsStill") {
		t.Errorf("exit code %d, log %q, stacks %q", code, &log, &out)
	}
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		defer reader.Close()
		code = -1
		standsStill("loop 0", slog.New(slog.DiscardHandler), writer, func(c int) { code = c })
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
	})
}
