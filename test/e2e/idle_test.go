// Many clients that do nothing cost next to nothing.

package e2e

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

// TestIdleClients has 2,000 of them, and no goroutine for any.
func TestIdleClients(t *testing.T) {
	t.Parallel()
	const many = 2000
	g := startGate(t, gateConf{Tenant: func(m harness.Map) { m["pool"] = harness.Map{"size": 4, "max_clients": many + 10} }})
	probe := g.script(t, "transaction")
	probe.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	goroutines := g.Goroutines(t)

	clients := make([]*script, many)
	var all errgroup.Group
	all.SetLimit(16)
	for i := range clients {
		all.Go(func() error {
			s, err := hijack(t.Context(), g.dsn("transaction"))
			if err != nil {
				return err
			}
			s.t = t
			clients[i] = s
			got, err := s.try(1, query("select 2"))
			if err == nil && got != "T D:2 C:SELECT_1 Z:I" {
				t.Errorf("client %d: %s", i, got)
			}
			return err
		})
	}
	err := all.Wait()
	defer func() {
		for _, s := range clients {
			if s != nil {
				s.conn.Close()
			}
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, harness.Patience, "all are counted", func() bool { return g.metric("postern_client_connections", "tenant", "acme") == many+1 })
	harness.Eventually(t, harness.Patience, fmt.Sprintf("no goroutine for any, at most 20 more than %d", goroutines), func() bool { // logins end a little later
		return g.Goroutines(t) <= goroutines+20
	})
	for _, i := range []int{0, many / 2, many - 1} {
		clients[i].want("T D:3 C:SELECT_1 Z:I", 1, query("select 3"))
	}
}
