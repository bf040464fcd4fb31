// The login throttle and mistakes in the tenants file: what an operator has repaired works at once.

package e2e

import (
	"maps"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern/postern/test/harness"
)

// tries connects to a tenant so often, and returns the SQLSTATEs that came of it.
func (g *gate) tries(t *testing.T, tenant string, times int, options ...string) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for range times {
		conn, err := pgconn.Connect(t.Context(), strings.Replace(g.dsn("transaction", options...), "app.acme", "app."+tenant, 1))
		if err == nil {
			_ = conn.Close(t.Context())
		}
		got[sqlstate(err)]++
	}
	return got
}

// TestThrottleForgetsMistakes: who had the right password all the time is not throttled when the file is right again, at
// that tenant and at others.
func TestThrottleForgetsMistakes(t *testing.T) {
	t.Parallel()
	named := func(g *gate, id string) harness.Map { return g.changed("id", id) }
	served := func(t *testing.T, g *gate, tenant string) {
		t.Helper()
		if got := g.tries(t, tenant, 1); got["ok"] != 1 {
			t.Errorf("%s: %v, want a session", tenant, got)
		}
	}
	t.Run("a tenant that was removed", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{})
		g.reload(named(g, "stays"))
		if got := g.tries(t, "acme", 10); got["28P01"] != 10 {
			t.Errorf("%v, want 10 refusals as for any unknown tenant", got)
		}
		if got := g.tries(t, "acme", 1); got["53400"] != 1 {
			t.Errorf("%v, want a throttle as for any unknown tenant", got)
		}
		g.reload(named(g, "acme"), named(g, "stays"))
		served(t, g, "acme")
	})
	t.Run("many that were removed", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{})
		gone := []string{"t1", "t2", "t3", "t4", "t5"}
		all := []harness.Map{named(g, "stays")}
		for _, id := range gone {
			all = append(all, named(g, id))
		}
		g.reload(all...)
		g.reload(all[0])
		for _, id := range gone {
			g.tries(t, id, 10)
		}
		served(t, g, "stays")
	})
	t.Run("a verifier that was wrong", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{})
		users := g.tenant["users"].([]harness.Map)
		wrong := maps.Clone(users[0])
		wrong["verifier"] = users[1]["verifier"]
		g.reload(g.changed("users", []harness.Map{wrong}))
		if got := g.tries(t, "acme", 11); got["28P01"] != 10 || got["53400"] != 1 {
			t.Errorf("%v, want 10 refusals and a throttle", got)
		}
		g.reload(g.tenant)
		served(t, g, "acme")
	})
	t.Run("a tenant that came late", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, gateConf{})
		g.tries(t, "late", 11)
		for _, id := range []string{"u1", "u2", "u3", "u4"} {
			g.tries(t, id, 10)
		}
		if got := g.tries(t, "acme", 1); got["53400"] != 1 {
			t.Errorf("%v, want the address throttled at all tenants: it has failed 50 times at unknown ones", got)
		}
		g.reload(g.tenant, named(g, "late"))
		served(t, g, "late")
		served(t, g, "acme")
	})
}
