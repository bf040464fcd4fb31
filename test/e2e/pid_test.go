// The process id that a client is told, and what programs do with it.

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/postern/postern/test/harness"
)

// maxPID is more than any process has on Linux.
const maxPID = 1 << 22

// TestProcessIDOfASession: in session mode it is the server's, in either version of the protocol, with a secret of Postern's
// own; the first client of a kind has it as the later ones do. In the other modes no process has it.
func TestProcessIDOfASession(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	for range 2 {
		for _, mode := range modes {
			for _, options := range [][]string{nil, {"max_protocol_version=3.2"}, {"application_name=another"}} {
				s := g.script(t, mode, options...)
				s.say(query("select pg_backend_pid()"))
				answer := s.hear(1)
				real := answer == fmt.Sprintf("T D:%d C:SELECT_1 Z:I", s.pid)
				if want := mode == harness.Session; real != want || !want && s.pid <= maxPID {
					t.Errorf("%s %v: told %d, the server says %s", mode, options, s.pid, answer)
				}
				s.conn.Close()
			}
		}
	}
}

// TestProcessIDOfReplication is the server's, too.
func TestProcessIDOfReplication(t *testing.T) {
	t.Parallel()
	g := startReplicating(t, gateConf{}, nil)
	s := g.replica(t, harness.Transaction)
	s.want(fmt.Sprintf("T D:%d C:SELECT_1 Z:I", s.pid), 1, query("select pg_backend_pid()"))
}

// TestProcessIDIsOfUse for what drivers and their users do with it in session mode: a program knows its own notifications, and
// finds and cancels its own query from another session.
func TestProcessIDIsOfUse(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{})
	conn, other := g.connect(t, harness.Session), g.connect(t, harness.Session)
	mine := conn.PgConn().PID()
	do(t, conn, "listen news")
	do(t, conn, "notify news, 'mine'")
	do(t, other, "notify news, 'theirs'")
	for _, want := range []struct {
		payload string
		pid     uint32
	}{{"mine", mine}, {"theirs", other.PgConn().PID()}} {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		n, err := conn.WaitForNotification(ctx)
		cancel()
		if err != nil || n.Payload != want.payload || n.PID != want.pid {
			t.Errorf("notification %+v (%v), want %+v", n, err, want)
		}
	}
	pid := strconv.FormatUint(uint64(mine), 10)
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(70)", pgx.QueryExecModeSimpleProtocol)
		ended <- err
	}()
	g.awaitRunning(t, "select pg_sleep(70)")
	if got := value(t, other, "select query from pg_stat_activity where pid = "+pid); got != "select pg_sleep(70)" {
		t.Errorf("its process runs %q", got)
	}
	if got := value(t, other, "select pg_cancel_backend("+pid+")"); got != "true" && got != "t" {
		t.Errorf("pg_cancel_backend: %s", got)
	}
	wantState(t, <-ended, "57014")
}

// TestAKeyIsOfItsSessionOnly: a later session on the same server has the same process id and another secret, and the first one's
// key is nobody's.
func TestAKeyIsOfItsSessionOnly(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	first := g.script(t, harness.Session)
	first.conn.Close()
	second := g.script(t, harness.Session) // which has waited for it
	if second.pid != first.pid || string(second.secret) == string(first.secret) {
		t.Fatalf("keys %d %x and %d %x", first.pid, first.secret, second.pid, second.secret)
	}
	second.say(query("select pg_sleep(2)"))
	g.awaitRunning(t, "select pg_sleep(2)")
	if err := g.sendCancel(harness.Session, first.pid, first.secret); err != nil {
		t.Error(err)
	}
	if got := second.hear(1); got != "T D: C:SELECT_1 Z:I" {
		t.Errorf("hit by the key of the one before: %s", got)
	}
	second.say(query("select pg_sleep(71)"))
	g.awaitRunning(t, "select pg_sleep(71)")
	if err := g.sendCancel(harness.Session, second.pid, second.secret); err != nil {
		t.Error(err)
	}
	if got := second.hear(1); got != "T E:57014 Z:I" {
		t.Errorf("not hit by its own: %s", got)
	}
	if n := g.metric("postern_cancels_total", "result", "unknown"); n != 1 {
		t.Errorf("%v cancels were unknown", n)
	}
}

// TestASessionHasItsServerFromTheStart: who is told a process id has the process, so the pool bounds the sessions.
func TestASessionHasItsServerFromTheStart(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1, Timeouts: harness.Map{"query_wait": "1s"}})
	g.script(t, harness.Transaction).conn.Close() // how the server greets is known now
	g.script(t, harness.Session)
	if _, err := connectBriefly(g, harness.Session); err == nil || !strings.Contains(err.Error(), "53300") {
		t.Errorf("a second one: %v", err)
	}
}
