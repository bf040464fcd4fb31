// What functions of PostgreSQL's own extensions leave in a session: it is their client's, and nobody else's.

package e2e

import (
	"fmt"
	"testing"

	"github.com/postern/postern/test/harness"
)

func TestExtensionsThatLeaveSomething(t *testing.T) {
	t.Parallel()
	startGate(t, gateConf{PoolSize: 2}).visitExtensions(t)
}

// visitExtensions wants a pool of two.
func (g *gate) visitExtensions(t *testing.T) {
	t.Helper()
	watch := g.direct(t)
	self := fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=%s password=%s", g.cluster.Port(), g.database, harness.App, harness.AppPassword)
	for _, tc := range []struct{ extension, leave, seen, mine, clean string }{
		{"pg_trgm", "select set_limit(0.77)", "select show_limit()", "0.77", "0.3"},
		{"isn", "select isn_weak(true)", "select isn_weak()", "t", "f"},
		{"dblink", "select dblink_connect('mine', '" + self + "')", "select dblink_get_connections()", "{mine}", ""},
		{"dblink", "select dblink_connect_u('mine', '" + self + "')", "select dblink_get_connections()", "{mine}", ""},
	} {
		do(t, watch, "create extension if not exists "+tc.extension)
		if tc.extension == "dblink" {
			do(t, watch, "grant execute on function dblink_connect_u(text, text) to "+harness.App)
		}
		sees := func(s *script, who, want string) {
			t.Helper()
			if got := s.ask(t, tc.seen); got != "T D:"+want+" C:SELECT_1 Z:I" {
				t.Errorf("after %.40s %s sees %s, not %s", tc.leave, who, got, want)
			}
		}
		p := newPair(t, g)
		if got := p.a.ask(t, tc.leave); !endsIdle(got) {
			t.Fatalf("%.40s: %s", tc.leave, got)
		}
		sees(p.b, "another client", tc.clean)
		sees(p.a, "its client", tc.mine)
		p.shuffle(func() { sees(p.a, "its client, on another server,", tc.mine) })
		for _, s := range []*script{p.a, p.b, p.c} {
			s.conn.Close()
		}
		s := g.script(t, "session")
		if got := s.ask(t, tc.leave); !endsIdle(got) {
			t.Fatalf("%.40s: %s", tc.leave, got)
		}
		sees(s, "its client in session mode", tc.mine)
		s.conn.Close()
		p = newPair(t, g)
		for range 2 { // servers
			sees(p.b, "who comes after a session", tc.clean)
			p.shuffle(func() { sees(p.b, "who comes after a session", tc.clean) })
		}
		for _, s := range []*script{p.a, p.b, p.c} {
			s.conn.Close()
		}
	}
}
