// Large messages, from psql and through sockets that take little at a time.

package e2e

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// TestLargeStatements: what PostgreSQL takes in half a second gets through in every mode, with psql's own startup parameters.
func TestLargeStatements(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	file := filepath.Join(t.TempDir(), "large.sql")
	const size = 15 << 20
	if err := os.WriteFile(file, []byte("select length('"+strings.Repeat("x", size)+"');\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{harness.Session, harness.Transaction, harness.Statement} {
		ctx, stop := context.WithTimeout(t.Context(), harness.Patience)
		cmd := exec.CommandContext(ctx, harness.Program(t, "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", g.dsn(mode), "-f", file)
		out, err := cmd.CombinedOutput()
		stop()
		if got := strings.TrimSpace(string(out)); err != nil || got != "15728640" {
			t.Errorf("%s mode: %q, %v", mode, got[:min(len(got), 200)], err)
		}
	}
	harness.Eventually(t, harness.Patience, "nobody has a server", func() bool {
		return g.metric("postern_server_connections", "tenant", "acme", "state", "active") == 0
	})
}

// TestLargeFunctionCall in each mode: length(text) of 15 MB.
func TestLargeFunctionCall(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	large := []byte(strings.Repeat("y", 15<<20))
	for _, mode := range []string{harness.Session, harness.Transaction, harness.Statement} {
		s := g.script(t, mode)
		_ = s.conn.SetDeadline(time.Now().Add(harness.Patience))
		s.say(&pgproto3.FunctionCall{Function: 1317, ArgFormatCodes: []uint16{1}, Arguments: [][]byte{large}, ResultFormatCode: 1})
		for {
			m, err := s.Receive()
			if err != nil {
				t.Fatalf("%s mode: %v", mode, err)
			}
			if r, ok := m.(*pgproto3.FunctionCallResponse); ok && binary.BigEndian.Uint32(r.Result) != 15<<20 {
				t.Errorf("%s mode: %x", mode, r.Result)
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				t.Errorf("%s mode: %s", mode, e.Message)
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
		_ = s.conn.Close()
	}
}
