//go:build !linux

// A network that loses packets is there on Linux alone.

package harness

import (
	"errors"
	"syscall"
	"testing"
)

func lose(syscall.RawConn, int) error { return errors.ErrUnsupported }

// Delivered needs Linux.
func (r *Relay) Delivered() bool { return true }

// Lose needs Linux.
func (r *Relay) Lose(t testing.TB, _ int) {
	t.Helper()
	t.Fatal("packets are lost on Linux only")
}
