// The unnamed statement over several leases, and what the statement mode refuses.

package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"
)

// TestUnnamedAcrossRounds parses in one round and binds in another, as lib/pq does, while others do the same on the same
// servers: nobody ever runs another's statement.
func TestUnnamedAcrossRounds(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2} {
		g := startGate(t, gateConf{PoolSize: size})
		const clients, rounds = 8, 150
		var all errgroup.Group
		for n := range clients {
			s := g.script(t, "transaction")
			all.Go(func() error {
				for i := range rounds {
					text := fmt.Sprintf("select 'client %d', %d, $1::text", n, i)
					if n%2 == 1 {
						text = fmt.Sprintf("select 'client %d', $1::text", n) // the same each time
					}
					row := fmt.Sprintf("client %d,%d,v", n, i)
					if n%2 == 1 {
						row = fmt.Sprintf("client %d,v", n)
					}
					for _, step := range []struct {
						say  []pgproto3.FrontendMessage
						hear string
					}{
						{says(parse("", text), &pgproto3.Describe{ObjectType: 'S'}, syncUp()), "1 t T Z:I"},
						{says(bind("", "v"), execute(), syncUp()), "2 D:" + row + " C:SELECT_1 Z:I"},
						{says(bind("", "v"), describe(), execute(), syncUp()), "2 T D:" + row + " C:SELECT_1 Z:I"},
					} {
						if got, err := s.try(1, step.say...); err != nil || got != step.hear {
							return fmt.Errorf("client %d, round %d: got %s (%v), want %s", n, i, got, err, step.hear)
						}
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnnamedRules are the cases in which a client has no unnamed statement, whatever the server still holds.
func TestUnnamedRules(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	other := g.script(t, "transaction")
	others := func() {
		other.want("1 2 D:theirs C:SELECT_1 Z:I", 1, parse("", "select 'theirs'"), bind(""), execute(), syncUp())
	}
	use := says(bind(""), execute(), syncUp())
	ours := says(parse("", "select 'ours'"), syncUp())
	s := g.script(t, "transaction")
	for _, c := range []struct {
		name string
		say  []pgproto3.FrontendMessage // after others()
		hear string
		n    int
	}{
		{"never parsed", use, "E:26000 Z:I", 1},
		{"parsed", ours, "1 Z:I", 1},
		{"used", use, "2 D:ours C:SELECT_1 Z:I", 1},
		{"parsed twice, the second wins", append(ours, parse("", "select 'newer'"), syncUp()), "1 Z:I 1 Z:I", 2},
		{"the second is used", use, "2 D:newer C:SELECT_1 Z:I", 1},
		{"a failed parse", says(parse("", "selekt"), syncUp()), "E:42601 Z:I", 1},
		{"leaves none", use, "E:26000 Z:I", 1},
		{"parsed again", ours, "1 Z:I", 1},
		{"closed", says(&pgproto3.Close{ObjectType: 'S'}, syncUp()), "3 Z:I", 1},
		{"closed is none", use, "E:26000 Z:I", 1},
		{"a query drops it", append(append(ours, query("select 1")), use...), "1 Z:I T D:1 C:SELECT_1 Z:I E:26000 Z:I", 3},
		{"a skipped parse defines nothing", append(says(parse("", "select 1/0"), bind(""), execute(), parse("", "select 'skipped'"), syncUp()), use...),
			"1 E:22012 Z:I E:22012 Z:I", 2},
		{"inside a transaction", append(append(says(query("begin")), ours...), append(use, query("commit"))...),
			"C:BEGIN Z:T 1 Z:T 2 D:ours C:SELECT_1 Z:T C:COMMIT Z:I", 4},
	} {
		others()
		if got, err := s.try(c.n, c.say...); err != nil || got != c.hear {
			t.Fatalf("%s:\ngot  %s (%v)\nwant %s", c.name, got, err, c.hear)
		}
	}
}

// TestPQ has lib/pq, which uses the unnamed statement over two rounds, on more clients than servers.
func TestPQ(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	connector, err := pq.NewConnector(g.dsn("transaction"))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	db.SetMaxOpenConns(10)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var all errgroup.Group
	for n := range 10 {
		all.Go(func() error {
			for i := range 100 {
				var got string
				if err := db.QueryRowContext(ctx, fmt.Sprintf("select 'worker %d ' || $1::text", n), fmt.Sprint(i)).Scan(&got); err != nil {
					return err
				}
				if want := fmt.Sprintf("worker %d %d", n, i); got != want {
					return fmt.Errorf("got %s, want %s", got, want)
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestStatementMode refuses what keeps a transaction open, also inside one query of several statements.
func TestStatementMode(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	s := g.script(t, "statement")
	s.want("C:CREATE_TABLE Z:I", 1, query("create table t(a int)"))
	s.want("C:BEGIN E:0A000 Z:I", 1, query("begin"))
	s.want("C:INSERT_0_1 C:BEGIN E:0A000 Z:I", 1, query("insert into t values (1); begin"))
	s.want("C:BEGIN C:INSERT_0_1 E:0A000 Z:I", 1, query("begin; insert into t values (2)"))
	s.want("1 2 C:BEGIN E:0A000 Z:I", 1, parse("", "begin"), bind(""), execute(), syncUp())
	s.want("T D:0 C:SELECT_1 Z:I", 1, query("select count(*) from t"))
	// A transaction that ends within its query is none that stays open.
	s.want("C:BEGIN C:INSERT_0_1 C:COMMIT Z:I", 1, query("begin; insert into t values (3); commit"))
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select count(*) from t"))
	// Pipelined behind a BEGIN: not inside of it.
	s.want("C:BEGIN E:0A000 Z:I C:INSERT_0_1 Z:I", 2, query("begin"), query("insert into t values (4)"))
	s.want("T D:2 C:SELECT_1 Z:I", 1, query("select count(*) from t"))
	g.script(t, "transaction").want("T D:2 C:SELECT_1 Z:I", 1, query("select count(*) from t"))
}
