// A password that is changed while its user is connected.

package e2e

import (
	"strings"
	"testing"

	"github.com/postern/postern/test/harness"
)

// TestChangedPassword: sessions with the old one go on as long as a server of before is there, then they are told to connect again; and
// however many of them ask, who comes with the new one is served at once.
func TestChangedPassword(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 3})
	watch := g.direct(t)
	const role = "changes_password"
	do(t, watch, "drop role if exists "+role+"; create role "+role+" login password 'old'") // roles are the cluster's
	users := g.tenant["users"].([]harness.Map)
	withUser := func() harness.Map {
		user := harness.Map{"name": role, "verifier": harness.Verifier(t, g.cluster, role)}
		return g.changed("users", append([]harness.Map{user}, users...))
	}
	dsn := func(password string) string {
		return strings.NewReplacer("user=app", "user="+role, "pw-app", password).Replace(g.dsn("transaction"))
	}
	g.reload(withUser())
	var old []*script
	for range 12 {
		old = append(old, scriptAs(t, dsn("old")))
	}
	old[0].want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))

	do(t, watch, "alter role "+role+" password 'new'")
	g.reload(withUser())
	for _, s := range old {
		s.want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	}
	do(t, watch, "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+role+"'")
	for _, s := range old {
		s.say(query("select 1"))
		// Who has one of the servers just before that hears of its end, or its last words.
		if got, err := s.tryNext(); !strings.Contains(got, "08006") && !strings.Contains(got, "57P01") {
			t.Errorf("an old session got %s (%v)", got, err)
		}
	}
	scriptAs(t, dsn("new")).want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
	for _, s := range []string{"session", "statement"} {
		scriptAs(t, strings.Replace(dsn("new"), "port="+g.port("transaction"), "port="+g.port(s), 1)).want("T D:2 C:SELECT_1 Z:I", 1, query("select 2"))
	}
}
