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

// A setting that one row asks for is for whom it means, and no other row's process has it.
func TestInstances(t *testing.T) {
	for _, w := range allRows() {
		for _, name := range append(allTargets(), against) {
			want := instance{target: name}
			switch {
			case w.name == "simple-plain" && (name == postern || name == against):
				want.plain = true
			case w.name == "result5mb-wide" && name == pgbouncer:
				want.wide = true
			}
			if got := w.instance(name); got != want {
				t.Errorf("row %s, target %s: %+v, want %+v", w.name, name, got, want)
			}
		}
	}
}

func TestPreparesByDefault(t *testing.T) {
	for version, want := range map[string]bool{
		"PgBouncer 1.18.0": false, "PgBouncer 1.23.1": false, "PgBouncer 1.24.0": true, "PgBouncer 1.26.1": true, "PgBouncer 2.0": true,
		"unknown": false, "": false,
	} {
		if got := preparesByDefault(version); got != want {
			t.Errorf("%q: %v, want %v", version, got, want)
		}
	}
}
