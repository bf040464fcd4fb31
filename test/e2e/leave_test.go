// Clients that leave while they wait for a server: with a goodbye or without.

package e2e

import (
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// TestLeavingWhileItWaits: what was asked for before a Terminate is done, though it had to wait for a server. Who only closes
// is dropped.
func TestLeavingWhileItWaits(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	watch := g.direct(t)
	do(t, watch, "create table asked (by text primary key); grant all on asked to app")
	insert := func(who string) pgproto3.FrontendMessage { return query("insert into asked values ('" + who + "')") }
	for who, tc := range map[string]struct {
		leaves func(*script)
		done   string
	}{
		"says goodbye": {func(s *script) {
			s.say(insert("says goodbye"), &pgproto3.Terminate{})
			s.conn.Close()
		}, "1"},
		"says it later": {func(s *script) {
			s.say(insert("says it later"))
			harness.Eventually(t, 5*time.Second, "it waits", g.waiting(1))
			s.say(&pgproto3.Terminate{})
			s.conn.Close()
		}, "1"},
		"by the extended protocol": {func(s *script) {
			s.say(&pgproto3.Parse{Query: "insert into asked values ('by the extended protocol')"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{},
				&pgproto3.Terminate{})
			s.conn.Close()
		}, "1"},
		"does not sync": {func(s *script) {
			s.say(&pgproto3.Parse{Query: "insert into asked values ('does not sync')"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Terminate{})
			s.conn.Close()
		}, "0"},
		"just closes": {func(s *script) {
			s.say(insert("just closes"))
			harness.Eventually(t, 5*time.Second, "it waits", g.waiting(1))
			s.conn.Close()
			harness.Eventually(t, 5*time.Second, "it is dropped", g.waiting(0))
		}, "0"},
		"closes at once": {func(s *script) {
			s.say(insert("closes at once"))
			s.conn.Close()
		}, "0"},
		"resets": {func(s *script) {
			s.say(insert("resets"))
			harness.Eventually(t, 5*time.Second, "it waits", g.waiting(1))
			s.say(&pgproto3.Terminate{})
			if err := s.conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
			s.conn.Close()
		}, "1"},
	} {
		held := g.holders(t, 1)[0]
		s := g.script(t, "transaction")
		tc.leaves(s)
		if tc.done == "0" && who != "does not sync" {
			harness.Eventually(t, 5*time.Second, who+": it is dropped", g.waiting(0))
		} else {
			harness.Eventually(t, 5*time.Second, who+": it waits", g.waiting(1))
		}
		held.want("C:COMMIT Z:I", 1, query("commit"))
		held.conn.Close()
		harness.Eventually(t, 10*time.Second, who+": both have left, and nothing runs", func() bool {
			return g.metric("postern_client_connections", "tenant", "acme")+g.metric("postern_server_connections", "tenant", "acme", "state", "active")+
				g.metric("postern_server_connections", "tenant", "acme", "state", "cleaning") == 0
		})
		if got := value(t, watch, "select count(*) from asked where by = '"+who+"'"); got != tc.done {
			t.Errorf("%s: %s rows, want %s", who, got, tc.done)
		}
	}
}
