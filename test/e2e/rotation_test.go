// A password that only Postgres knows is changed there under load.

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern/postern/test/harness"
)

// TestRotationUnderLoad: whoever is connected with a role's old password goes on, while its servers are replaced; whoever comes with the
// new one is in at the second attempt at the latest, also where many come at once; and the old one is over.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	rotations, comers := 2, 4
	if harness.Long() {
		rotations, comers = 30, 8
	}
	g := startRoleGate(t, harness.OwnPostgres(t), gateConf{})
	fillFor(t, g.tenant)
	g.sql(`create role rotated login password 'pw-0'; grant select on all tables in schema public to rotated`)
	const home = "198.51.100.1" // of the role's owner
	first, err := g.as(t, home, "transaction", "rotated", "pw-0")
	if err != nil {
		t.Fatal(err)
	}
	dsn := strings.NewReplacer("user=app.acme", "user=rotated.acme", "password=pw-app", "password=pw-0").Replace(g.dsn("transaction", "dbname="+g.database))
	loads := []*load{startLoad(t, dsn), startLoad(t, strings.Replace(dsn, "port="+g.port("transaction"), "port="+g.port("session"), 1))}
	goOn := func() {
		t.Helper()
		for _, l := range loads {
			l.goesOn()
			l.check()
		}
	}
	goOn()
	for i := range rotations {
		old, now := fmt.Sprint("pw-", i), fmt.Sprint("pw-", i+1)
		g.sql("alter role rotated password '" + now + "'")
		if got := value(t, first, "select session_user"); got != "rotated" {
			t.Errorf("the first session is %s's", got)
		}
		var all sync.WaitGroup
		for range comers {
			all.Go(func() {
				for attempt := 1; ; attempt++ {
					began := time.Now()
					conn, err := g.as(t, home, "transaction", "rotated", now)
					if err == nil {
						if got, err := tryValue(t.Context(), conn, "select session_user"); got != "rotated" || err != nil {
							t.Errorf("the session is %s's, %v", got, err)
						}
						return
					}
					took := time.Since(began)
					// It may wait no longer than two seconds for a list. On a busy computer that may be too short.
					if sqlstate(err) != "28P01" || attempt > 1 && took < 2*time.Second || attempt == 20 {
						t.Errorf("attempt %d, after %v: %v", attempt, took, err)
						return
					}
				}
			})
		}
		all.Wait()
		_, err := g.as(t, home, "session", "rotated", old)
		wantState(t, err, "28P01")
		goOn()
	}
}
