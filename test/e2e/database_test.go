// Databases: which one a client means, and those that are made, renamed and dropped while the gate knows them.

package e2e

import (
	"fmt"
	"testing"

	"github.com/postern/postern/test/harness"
)

// TestDatabaseNamedAsTheUser: libpq fills in the user's name where no database is said, so that one nobody has listed counts as
// none; one that is listed is meant.
func TestDatabaseNamedAsTheUser(t *testing.T) {
	t.Parallel()
	cluster := harness.Postgres(t)
	name := harness.Unique("same")
	for _, sql := range []string{fmt.Sprintf("create role %s login password 'pw'", name), fmt.Sprintf("create database %s owner %s", name, name)} {
		if err := cluster.Exec(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	users := []harness.Map{{"name": name, "verifier": harness.Verifier(t, cluster, name)}}
	for _, listed := range []bool{true, false} {
		g := startGate(t, gateConf{Cluster: cluster, Tenant: func(m harness.Map) {
			m["users"] = users
			if listed {
				m["databases"] = []any{m["database"], name}
			}
		}})
		want := map[bool]string{true: name, false: g.database}[listed]
		for _, mode := range modes {
			dsn := fmt.Sprintf("host=127.0.0.1 port=%s user=%s password=pw dbname=%s sslmode=disable connect_timeout=60 options=reference=acme", g.port(mode), name, name)
			if got := value(t, connectConfig(t, configOf(t, dsn)), "select current_database()"); got != want {
				t.Errorf("%s, listed %v: in database %s, want %s", mode, listed, got, want)
			}
			dsn = fmt.Sprintf("host=127.0.0.1 port=%s user=%s.acme password=pw dbname=%s.acme sslmode=disable connect_timeout=60", g.port(mode), name, name)
			if got := value(t, connectConfig(t, configOf(t, dsn)), "select current_database()"); got != g.database {
				t.Errorf("%s, listed %v: as libpq fills it in: in database %s, want %s", mode, listed, got, g.database)
			}
		}
	}
}
