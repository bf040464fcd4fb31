// pgbench as a client of the matrix.

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// initPgbench fills pgbench's tables, past the gate.
func initPgbench(t *testing.T, g *gate) {
	t.Helper()
	dsn := strings.Join([]string{"host=127.0.0.1", fmt.Sprint("port=", g.cluster.Port()), "user=" + harness.App, "password=" + harness.AppPassword, "dbname=" + g.database}, " ")
	if out, err := exec.CommandContext(t.Context(), harness.Program(t, "pgbench"), "-i", "-q", "-s", "1", dsn).CombinedOutput(); err != nil {
		t.Fatalf("pgbench -i: %v: %s", err, out)
	}
}

// visitPgbench runs selects on more clients than the pool has servers. env may choose another libpq.
func visitPgbench(t *testing.T, v visit, protocol string, env []string) {
	clients, each := 10, 20
	if v.mode == "session" {
		clients = 4 // each keeps its server
	}
	args := []string{"-n", "-S", "-M", protocol, "-c", fmt.Sprint(clients), "-j", "2", "-t", fmt.Sprint(each), v.dsn()}
	cmd := exec.CommandContext(t.Context(), harness.Program(t, "pgbench"), args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pgbench: %v\n%s", err, out)
	}
	text := string(out)
	if !strings.Contains(text, "number of failed transactions: 0 (") {
		t.Errorf("failures:\n%s", text)
	}
	want := fmt.Sprintf("number of transactions actually processed: %[1]d/%[1]d", clients*each)
	if !strings.Contains(text, want) {
		t.Errorf("want %q in:\n%s", want, text)
	}
}
