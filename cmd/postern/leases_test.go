package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/postern/postern/cluster"
	"github.com/postern/postern/machines"
	"github.com/postern/postern/tenants"
)

// TestHeldErrors: what a store says of a lease is what a machine's rules are told.
func TestHeldErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		want  error
		kind  machines.Kind
		after time.Duration
	}{
		{&tenants.HeldError{Owner: "b", For: 3 * time.Second}, machines.ErrHeld, machines.Busy, 3 * time.Second},
		{tenants.ErrUnannounced, machines.ErrHeld, machines.Busy, againAfter},
		{cluster.ErrLeaseOver, machines.ErrHeld, machines.Busy, againAfter},
		{cluster.ErrClockJumped, machines.ErrHeld, machines.Busy, againAfter},
		{tenants.ErrAbandoned, machines.ErrAbandoned, machines.Busy, 0},
		{&tenants.UsedError{Nodes: []string{"b"}}, machines.ErrInUse, machines.Busy, 0},
		{tenants.ErrUnsettled, machines.ErrInUse, machines.Busy, 0},
		{tenants.ErrAway, machines.ErrUnguarded, machines.Transient, 0},
		{context.DeadlineExceeded, machines.ErrUnguarded, machines.Transient, 0},
	} {
		err := heldError(machines.Start, fmt.Errorf("the store: %w", c.err))
		var e *machines.Error
		if !errors.As(err, &e) || !errors.Is(err, c.want) || !errors.Is(err, c.err) || e.Kind != c.kind || e.After != c.after {
			t.Errorf("%v is %+v", c.err, err)
		}
	}
}
