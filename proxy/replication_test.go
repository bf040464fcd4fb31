// What ends replication sessions together, who may cancel them, and what a failed login is to their clients.

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/postern/postern/proxy/backend"
	"github.com/postern/postern/proxy/pgwire"
)

// newReplica is a session without connections.
func newReplica(t *tenant, epoch uint64, seated bool) *replica {
	r := &replica{gate: t.gate, tenant: t, epoch: epoch, seated: seated, changed: make(chan struct{}, 1)}
	r.ctx, r.over = context.WithCancelCause(context.Background())
	t.gate.replicas.add(r)
	return r
}

// TestOlderReplicasEnd: a server of an earlier run of the machine is a lie; who only waits for one has none.
func TestOlderReplicasEnd(t *testing.T) {
	g := &Gate{}
	mine, other := &tenant{gate: g}, &tenant{gate: g}
	old, now, waiting, stranger := newReplica(mine, 1, true), newReplica(mine, 2, true), newReplica(mine, 1, false), newReplica(other, 1, true)
	ended := func() (out []bool) {
		for _, r := range []*replica{old, now, waiting, stranger} {
			out = append(out, r.ctx.Err() != nil)
		}
		return out
	}
	epoch := uint64(2)
	mine.unseatReplicas(&epoch, &ending{"server_lost", nil})
	if got := ended(); !slices.Equal(got, []bool{true, false, false, false}) {
		t.Errorf("a new epoch ended %v", got)
	}
	mine.unseatReplicas(nil, &ending{"paused", nil})
	if got := ended(); !slices.Equal(got, []bool{true, true, false, false}) {
		t.Errorf("a pause ended %v", got)
	}
	mine.alertReplicas()
	mine.alertReplicas() // nobody has asked in between
	if len(waiting.changed) != 1 || len(stranger.changed) != 0 {
		t.Error("the wrong ones are told to ask again")
	}
	mine.endReplicas(&ending{"drain", nil})
	if got := ended(); !slices.Equal(got, []bool{true, true, true, false}) {
		t.Errorf("the drain ended %v", got)
	}
	for r, want := range map[*replica]string{old: "server_lost", now: "paused", waiting: "drain"} { // the first counts
		if got := r.why().reason; got != want {
			t.Errorf("ended by %s, want %s", got, want)
		}
	}
}

// TestSeatIsLost: what was dialed is not used if the tenant has gone in the meantime.
func TestSeatIsLost(t *testing.T) {
	mine := &tenant{gate: &Gate{}}
	r := newReplica(mine, 0, false)
	if mine.keepSeat(r, seat{}) || r.seated {
		t.Error("a session without a tenant has a seat")
	}
}

func TestReplicaDialErrors(t *testing.T) {
	said := func(code string, proven bool) error {
		return fmt.Errorf("backend: login: %w", &backend.ServerError{Response: &pgwire.Error{Severity: "FATAL", Code: code, Message: "words from 10.0.0.1"}, Proven: proven})
	}
	for _, tc := range []struct {
		err  error
		code string
		own  bool // the server's own words
	}{
		{said("42501", true), "42501", true},
		{said("28000", true), "28000", true},
		{said("53300", true), "53300", true},
		{said("", true), "57P03", false},
		{said("28000", false), "28000", false},
		{said("28P01", false), "08006", false},
		{said("53300", false), "53300", false},
		{said("57P03", false), "57P03", false},
		{said("42501", false), "57P03", false},
		{io.EOF, "57P03", false},
		{errNoCredentials, "08006", false},
		{errors.New("x"), "57P03", false},
	} {
		got := errReplicaDial(tc.err)
		if got.Code != tc.code || got.Severity != pgwire.Fatal || (got.Message == "words from 10.0.0.1") != tc.own {
			t.Errorf("%v: %v, want %s", tc.err, got, tc.code)
		}
	}
}
