// Tests of what is read from Postern's log.

package main

import (
	"strings"
	"testing"
)

func TestParseIOUring(t *testing.T) {
	const began = `{"time":"2026-01-02T03:04:05Z","level":"INFO","msg":"listening","listener":"bench"}` + "\n"
	for name, tc := range map[string]struct{ log, want string }{
		"nothing said": {began, "yes"},
		"refused": {began + `{"level":"INFO","msg":"each write is a system call of its own","reason":"io_uring_setup: operation not permitted"}` + "\n",
			"no: io_uring_setup: operation not permitted"},
		"failed later": {began + `{"level":"ERROR","msg":"io_uring failed: sending without it","loop":0,"error":"io_uring_enter: bad address"}` + "\n",
			"no longer: io_uring_enter: bad address"},
		"no JSON":          {"panic: each write is a system call of its own\n", "yes"},
		"in another field": {`{"msg":"closed","reason":"each write is a system call of its own"}`, "yes"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseIOUring(tc.log); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// The footnote tells it, and nothing where no Postern ran.
func TestFootnoteTellsIOUring(t *testing.T) {
	r := sampleReport(t)
	if got := r.footnote(); strings.Contains(got, "io_uring") {
		t.Errorf("footnote %q", got)
	}
	r.Environment.IOUring = "no: told not to"
	if got := r.footnote(); !strings.Contains(got, "\nPostern has io_uring: no: told not to.\n") {
		t.Errorf("footnote %q", got)
	}
}

// Only Postern has an instance that may not use io_uring.
func TestInstances(t *testing.T) {
	for _, w := range allRows() {
		for _, name := range allTargets() {
			want := name
			if w.name == "simple-plain" && name == postern {
				want = posternPlain
			}
			if got := w.instance(name); got != want {
				t.Errorf("row %s, target %s: %s, want %s", w.name, name, got, want)
			}
		}
	}
}
