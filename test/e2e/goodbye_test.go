// Goodbyes: a client that leaves takes nothing with it, whatever it has left open.

package e2e

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestGoodbyesFreeTheServer at once, of which there is only one.
func TestGoodbyesFreeTheServer(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), "create table left_open(a int); grant all on left_open to app")
	exchange := func(text string) []pgproto3.FrontendMessage { return says(parse("", text), bind(""), execute()) }
	for name, said := range map[string][]pgproto3.FrontendMessage{
		"an exchange behind a query":          append(says(query("select 1")), exchange("insert into left_open values (1)")...),
		"the same, flushed":                   append(append(says(query("select 1")), exchange("insert into left_open values (1)")...), flush()),
		"a transaction and an exchange in it": append(says(query("begin")), exchange("insert into left_open values (1)")...),
		"a copy, with its sync":               append(exchange("copy left_open from stdin"), syncUp()),
		"a copy":                              says(query("copy left_open from stdin")),
	} {
		s := g.script(t, "transaction")
		s.say(append(said, &pgproto3.Terminate{})...)
		_ = s.conn.Close()
		start := time.Now()
		other := g.script(t, "transaction")
		other.want("T D:0 C:SELECT_1 Z:I", 1, query("select count(*) from left_open"))
		if took := time.Since(start); took > farewell/2 {
			t.Errorf("%s: the server was free after %v", name, took)
		}
		_ = other.conn.Close()
	}
}

// farewell is how long what was asked for before a goodbye may take.
const farewell = time.Minute
