// Machines that move, and machines that cannot be had.

package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.yaml.in/yaml/v3"

	"github.com/postern/postern/test/harness"
)

// TestMovedMachine: a tenant that gets another machine takes its clients along, between their transactions.
func TestMovedMachine(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, harness.Map{"suspend_after": "30s"}, nil)
	client, inside := g.script(t, "transaction"), g.holders(t, 1)[0]
	where := func() pgproto3.FrontendMessage { return query("show cluster_name") }
	client.want("T D:acme C:SHOW Z:I", 1, where())
	g.reload(onMachine(t, "second", harness.Map{"suspend_after": "30s"}))
	client.want("T D:second C:SHOW Z:I", 1, where())
	inside.want("T D:acme C:SHOW Z:T C:COMMIT Z:I", 2, where(), query("commit"))
	inside.want("T D:second C:SHOW Z:I", 1, where())
}

// TestMachineThatCannotStart is told fast, and not tried again by everybody.
func TestMachineThatCannotStart(t *testing.T) {
	t.Parallel()
	g := startMachineGate(t, nil, nil)
	first := g.script(t, "transaction")
	first.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	g.awaitMachine(t, "asleep")
	found, err := filepath.Glob(filepath.Join(g.machinesDir(t), "acme", "data", "global", "pg_control"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if err := os.Rename(found[0], found[0]+".away"); err != nil {
		t.Fatal(err)
	}
	before := g.logged("machine wake ended")
	for i := range 5 {
		began := time.Now()
		conn, err := connectBriefly(g, "transaction")
		if err == nil {
			_, err = conn.Exec(t.Context(), "select 1").ReadAll()
		}
		wantState(t, err, "57P03")
		if took := time.Since(began); i > 0 && took > 20*time.Second {
			t.Errorf("told after %v", took)
		}
	}
	if n := g.logged("machine wake ended") - before; n > 4 {
		t.Errorf("%d tries for 5 clients", n)
	}
	if err := os.Rename(found[0]+".away", found[0]); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "it is served again", func() bool {
		conn, err := connectBriefly(g, "session")
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	})
}

// machinesOf is the part of a configuration file that says where machines are.
func machinesOf(t *testing.T, conf []byte) harness.Map {
	t.Helper()
	var file harness.Map
	if err := yaml.Unmarshal(conf, &file); err != nil {
		t.Fatal(err)
	}
	return harness.Map{"machines": file["machines"]}
}

// machinesDir is the folder of the machines on this computer.
func (g *gate) machinesDir(t *testing.T) string {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join(g.Dir, "postern.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return machinesOf(t, conf)["machines"].(harness.Map)["local"].(harness.Map)["dir"].(string)
}
