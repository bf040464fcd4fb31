// Statements with a name where transactions are pooled: as with a server of one's own.

package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/postern/postern/test/harness"
)

func describeStatement(name string) pgproto3.FrontendMessage {
	return &pgproto3.Describe{ObjectType: 'S', Name: name}
}
func closeStatement(name string) pgproto3.FrontendMessage {
	return &pgproto3.Close{ObjectType: 'S', Name: name}
}

// named are dialogues of one session after another, each with a table called scratch. Postgres itself is the oracle.
var named = []dialogue{
	{"made and used", says(parse("s", "select $1::text"), bind("s", "a"), execute(), syncUp(), describeStatement("s"), bind("s", "b"), execute(), syncUp()),
		"1 2 D:a C:SELECT_1 Z:I t T 2 D:b C:SELECT_1 Z:I", 2},
	{"unknown", says(bind("s"), execute(), syncUp(), describeStatement("s"), syncUp(), closeStatement("s"), syncUp()), "E:26000 Z:I E:26000 Z:I 3 Z:I", 3},
	{"taken", says(parse("s", "select 1"), syncUp(), parse("s", "select 2"), bind("s"), execute(), syncUp(), bind("s"), execute(), syncUp()),
		"1 Z:I E:42P05 Z:I 2 D:1 C:SELECT_1 Z:I", 3},
	{"taken in one round", says(parse("s", "select 1"), parse("s", "select 1"), syncUp(), bind("s"), execute(), syncUp()), "1 E:42P05 Z:I 2 D:1 C:SELECT_1 Z:I", 2},
	{"taken, and no SQL", says(parse("s", "select 1"), syncUp(), parse("s", "selekt"), syncUp()), "1 Z:I E:42601 Z:I", 2},
	{"taken in a failed transaction", says(parse("s", "select 1"), syncUp(), query("begin"), query("select 1/0"), parse("s", "select 2"), syncUp(),
		parse("s", "selekt"), syncUp(), query("rollback"), bind("s"), execute(), syncUp()),
		"1 Z:I C:BEGIN Z:T E:22012 Z:E E:25P02 Z:E E:42601 Z:E C:ROLLBACK Z:I 2 D:1 C:SELECT_1 Z:I", 7},
	{"a failed parse defines nothing", says(parse("s", "select nothing"), syncUp(), bind("s"), syncUp(), parse("s", "select 1"), bind("s"), execute(), syncUp()),
		"E:42703 Z:I E:26000 Z:I 1 2 D:1 C:SELECT_1 Z:I", 3},
	{"a skipped parse defines nothing", says(bind("none"), parse("s", "select 1"), syncUp(), bind("s"), syncUp()), "E:26000 Z:I E:26000 Z:I", 2},
	{"a skipped close closes nothing", says(parse("s", "select 1"), syncUp(), bind("none"), closeStatement("s"), syncUp(), bind("s"), execute(), syncUp()),
		"1 Z:I E:26000 Z:I 2 D:1 C:SELECT_1 Z:I", 3},
	{"closed and made anew", says(parse("s", "select 1"), closeStatement("s"), parse("s", "select 2"), bind("s"), execute(), closeStatement("s"), bind("s"), syncUp()),
		"1 3 1 2 D:2 C:SELECT_1 3 E:26000 Z:I", 1},
	{"a rollback keeps it", says(query("begin"), parse("s", "select 1"), syncUp(), query("rollback"), bind("s"), execute(), syncUp()),
		"C:BEGIN Z:T 1 Z:T C:ROLLBACK Z:I 2 D:1 C:SELECT_1 Z:I", 4},
	{"commit by a statement", says(parse("b", "begin"), parse("c", "commit"), parse("i", "insert into scratch values ($1)"), bind("b"), execute(), syncUp(),
		bind("i", "7"), execute(), bind("i", "x"), syncUp(), bind("i", "7"), syncUp(), bind("c"), execute(), syncUp(), query("select count(*) from scratch")),
		"1 1 1 2 C:BEGIN Z:T 2 C:INSERT_0_1 E:22P02 Z:E E:25P02 Z:E 2 C:ROLLBACK Z:I T D:0 C:SELECT_1 Z:I", 5},
	{"DEALLOCATE", says(parse("s", "select 1"), parse("S", "select 2"), syncUp(), query("deallocate S"), query("deallocate s"), bind("S"), execute(), syncUp(),
		query(`DEALLOCATE PREPARE "S" ; `), bind("S"), syncUp()),
		"1 1 Z:I C:DEALLOCATE Z:I E:26000 Z:I 2 D:2 C:SELECT_1 Z:I C:DEALLOCATE Z:I E:26000 Z:I", 6},
	{"DEALLOCATE, extended", says(parse("s", "select 1"), syncUp(), parse("", "deallocate s"), bind(""), describe(), execute(), bind("s"), syncUp(), bind("s"), syncUp()),
		"1 Z:I 1 2 n C:DEALLOCATE E:26000 Z:I E:26000 Z:I", 3},
	{"DEALLOCATE in a failed transaction", says(parse("s", "select 1"), syncUp(), query("begin"), query("select 1/0"), query("deallocate s"), query("rollback"),
		bind("s"), execute(), syncUp()), "1 Z:I C:BEGIN Z:T E:22012 Z:E E:25P02 Z:E C:ROLLBACK Z:I 2 D:1 C:SELECT_1 Z:I", 6},
	{"DEALLOCATE ALL", says(parse("s", "select 1"), parse("t", "select 2"), syncUp(), query("deallocate all"), bind("s"), syncUp(), parse("t", "select 3"), bind("t"), execute(), syncUp()),
		"1 1 Z:I C:DEALLOCATE_ALL Z:I E:26000 Z:I 1 2 D:3 C:SELECT_1 Z:I", 4},
	{"DEALLOCATE ALL, extended", says(parse("s", "select 1"), parse("", "deallocate all"), bind(""), execute(), parse("s", "select 2"), bind("s"), execute(), syncUp()),
		"1 1 2 C:DEALLOCATE_ALL 1 2 D:2 C:SELECT_1 Z:I", 1},
	{"DISCARD ALL", says(parse("s", "select 1"), syncUp(), query("discard all"), bind("s"), syncUp(), parse("s", "select 2"), bind("s"), execute(), syncUp()),
		"1 Z:I C:DISCARD_ALL Z:I E:26000 Z:I 1 2 D:2 C:SELECT_1 Z:I", 4},
	{"a row limit in a transaction", says(parse("s", "select generate_series(1,3)"), query("begin"), &pgproto3.Bind{PreparedStatement: "s", DestinationPortal: "p"},
		&pgproto3.Execute{Portal: "p", MaxRows: 2}, syncUp(), closeStatement("s"), &pgproto3.Execute{Portal: "p"}, syncUp(), query("commit")),
		"1 C:BEGIN Z:T 2 D:1 D:2 s Z:T 3 D:3 C:SELECT_1 Z:T C:COMMIT Z:I", 4},
	{"COPY", says(parse("s", "copy scratch from stdin"), bind("s"), execute(), copyData("1\n"), copyDone(), syncUp(), bind("s"), execute(), copyFail(), syncUp(),
		query("truncate scratch")), "1 2 G C:COPY_1 Z:I 2 G E:57014 Z:I C:TRUNCATE_TABLE Z:I", 3},
	{"errors among many rounds", says(parse("s", "select 6/$1::int"), syncUp(), bind("s", "1"), execute(), syncUp(), bind("s", "0"), execute(), syncUp(), bind("s", "x"), execute(), syncUp(),
		bind("s", "2"), execute(), bind("s"), execute(), syncUp(), bind("s", "3"), execute(), syncUp()),
		"1 Z:I 2 D:6 C:SELECT_1 Z:I E:22012 Z:I E:22P02 Z:I 2 D:3 C:SELECT_1 E:08P01 Z:I 2 D:2 C:SELECT_1 Z:I", 6},
	{"SQL's own by the protocol", says(query("begin"), query("prepare p as select 8"), bind("p"), execute(), describeStatement("p"), syncUp(), query("deallocate p"), query("commit")),
		"C:BEGIN Z:T C:PREPARE Z:T 2 D:8 C:SELECT_1 t T Z:T C:DEALLOCATE Z:T C:COMMIT Z:I", 5},
}

// TestNamedDialogues holds each dialogue in a session of its own, at once and message by message, while others do the same
// with the same names on the same servers.
func TestNamedDialogues(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	do(t, g.direct(t), "create table scratch(a int); grant all on scratch to public")
	for _, mode := range []string{"direct", "session", "transaction", "statement"} {
		for _, d := range named {
			if mode == "statement" && strings.Contains(d.hear, "BEGIN") {
				continue
			}
			log := func() *script {
				if mode == "direct" { // Postgres is the oracle, also of this table
					return g.scriptDirect(t)
				}
				return g.script(t, mode)
			}
			s := log()
			if got, err := s.try(d.n, d.say...); err != nil || got != d.hear {
				t.Errorf("%s: %s:\ngot  %s (%v)\nwant %s", mode, d.name, got, err, d.hear)
			}
			s.conn.Close()
			if mode == "direct" || mode == "session" || strings.Contains(d.name, "errors among") { // a first plan fails earlier than the sixth
				continue
			}
			s = log()
			other := g.script(t, "transaction")
			other.want("1 Z:I", 1, parse("s", "select 'theirs'"), syncUp())
			var got []string
			for from, to := 0, 1; to <= len(d.say); to++ {
				switch d.say[to-1].(type) {
				case *pgproto3.Sync, *pgproto3.Query:
				default:
					continue
				}
				answer, err := s.try(1, d.say[from:to]...)
				if err != nil {
					t.Fatalf("%s: %s: after %s %s: %v", mode, d.name, got, answer, err)
				}
				got = append(got, answer)
				from = to
				other.want("2 D:theirs C:SELECT_1 Z:I", 1, bind("s"), execute(), syncUp())
			}
			if got := strings.Join(got, " "); got != d.hear {
				t.Errorf("%s: %s, round by round:\ngot  %s\nwant %s", mode, d.name, got, d.hear)
			}
			s.conn.Close()
			other.conn.Close()
		}
	}
	if n := g.lost(); n != 0 {
		t.Errorf("%d server connections were given up", n)
	}
}

// TestErrorsNameWhatTheClientSaid reads the texts of errors: the client's names, as Postgres quotes them.
func TestErrorsNameWhatTheClientSaid(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	for _, mode := range []string{"direct", "transaction"} {
		s := g.scriptDirect(t)
		if mode != "direct" {
			s = g.script(t, mode)
		}
		s.want("1 Z:I", 1, parse("my statement", "select $1::int"), syncUp())
		for _, c := range []struct {
			say  pgproto3.FrontendMessage
			want string
		}{
			{parse("my statement", "select 2"), `prepared statement "my statement" already exists`},
			{bind("my statement"), `bind message supplies 0 parameters, but prepared statement "my statement" requires 1`},
			{bind("yours"), `prepared statement "yours" does not exist`},
			{describeStatement("postern_2"), `prepared statement "postern_2" does not exist`},
			{query("deallocate yours"), `prepared statement "yours" does not exist`},
		} {
			s.say(c.say, syncUp())
			m, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := m.(*pgproto3.ErrorResponse); !ok || e.Message != c.want {
				t.Errorf("%s: got %+v, want %s", mode, m, c.want)
			}
			if _, ok := c.say.(*pgproto3.Query); ok {
				s.hear(1)
			}
			s.hear(1)
		}
	}
}

// TestSameNameOtherText has clients call different statements by one name, and the same by many.
func TestSameNameOtherText(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3} {
		g := startGate(t, gateConf{PoolSize: size})
		const clients, rounds = 8, 100
		var all errgroup.Group
		for n := range clients {
			s := g.script(t, "transaction")
			all.Go(func() error {
				own := fmt.Sprintf("select 'client %d ' || $1::text", n)
				shared := fmt.Sprint("shared by ", n)
				if got, err := s.try(1, parse("mine", own), parse(shared, "select $1::text"), syncUp()); err != nil || got != "1 1 Z:I" {
					return fmt.Errorf("got %s (%v)", got, err)
				}
				for i := range rounds {
					v := fmt.Sprint(i)
					want := fmt.Sprintf("2 D:client %d %s C:SELECT_1 2 D:%s C:SELECT_1 Z:I", n, v, v)
					if got, err := s.try(1, bind("mine", v), execute(), bind(shared, v), execute(), syncUp()); err != nil || got != want {
						return fmt.Errorf("client %d, round %d: got %s (%v), want %s", n, i, got, err, want)
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		direct := g.direct(t)
		if n := value(t, direct, "select count(*) from pg_stat_activity where usename = 'app' and datname = current_database()"); n > fmt.Sprint(size) {
			t.Errorf("%s servers", n)
		}
	}
}

// held counts the statements of the protocol that a pool's only server has.
func held(t *testing.T, g *gate) int {
	t.Helper()
	s := g.script(t, "transaction")
	defer s.conn.Close()
	var n int
	got, err := s.try(1, query("select count(*) from pg_prepared_statements where not from_sql"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(got, "T D:%d C:SELECT_1 Z:I", &n); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	return n
}

// TestStatementsAreEvicted prepares more statements than a server may hold. All of them work, again and again.
func TestStatementsAreEvicted(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	const many = 450
	a, b := g.script(t, "transaction"), g.script(t, "transaction")
	for _, s := range []*script{a, b} {
		for i := range many {
			s.want("1 Z:I", 1, parse(fmt.Sprint("s", i), fmt.Sprintf("select %d + $1::int", i)), syncUp())
		}
	}
	if n := held(t, g); n != 200 {
		t.Errorf("the server holds %d statements, want 200", n)
	}
	for round := range 2 {
		for i := range many {
			s := []*script{a, b}[i%2]
			s.want(fmt.Sprintf("2 D:%d C:SELECT_1 Z:I", i+round), 1, bind(fmt.Sprint("s", i), fmt.Sprint(round)), execute(), syncUp())
		}
	}
	// In one go, in a transaction, with a portal of one that has to go.
	a.want("C:BEGIN Z:T 1 2 D:0 s Z:T", 2, query("begin"), parse("rows", "select generate_series(0, 2)"), &pgproto3.Bind{PreparedStatement: "rows", DestinationPortal: "p"},
		&pgproto3.Execute{Portal: "p", MaxRows: 1}, syncUp())
	var messages []pgproto3.FrontendMessage
	var want []string
	for i := range many {
		messages = append(messages, bind(fmt.Sprint("s", i), "0"), execute())
		want = append(want, fmt.Sprintf("2 D:%d C:SELECT_1", i))
	}
	a.want(strings.Join(want, " ")+" D:1 D:2 C:SELECT_2 Z:T C:COMMIT Z:I", 2, append(messages, &pgproto3.Execute{Portal: "p"}, syncUp(), query("commit"))...)
	if n := held(t, g); n != 200 {
		t.Errorf("the server holds %d statements, want 200", n)
	}
}

// TestCachedPlan changes a table below statements: who has used them is told, as by Postgres, until they are prepared anew; and
// a statement that is prepared afterwards never has the error, on no server.
func TestCachedPlan(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	direct := g.direct(t)
	do(t, direct, "create table plans(a int); insert into plans values (1); grant select on plans to public")
	a, b := g.script(t, "transaction"), g.script(t, "transaction")
	use := says(bind("s"), execute(), syncUp())
	const sel = "select * from plans"
	// Both servers hold it.
	a.want("1 Z:I C:BEGIN Z:T 2 D:1 C:SELECT_1 Z:T", 3, append(says(parse("s", sel), syncUp(), query("begin")), use...)...)
	b.want("1 2 D:1 C:SELECT_1 Z:I", 1, append(says(parse("s", sel)), use...)...)
	a.want("C:COMMIT Z:I", 1, query("commit"))
	do(t, direct, "alter table plans add b int default 2")
	for range 2 {
		// On one server and on the other.
		a.want("C:BEGIN Z:T E:0A000 Z:E", 2, append(says(query("begin")), use...)...)
		b.want("E:0A000 Z:I", 1, use...)
		a.want("C:ROLLBACK Z:I", 1, query("rollback"))
	}
	for _, s := range []*script{a, b} {
		s.want("3 1 Z:I", 1, closeStatement("s"), parse("s", sel), syncUp())
	}
	for range 4 {
		// On one server and on the other.
		a.want("C:BEGIN Z:T 2 D:1,2 C:SELECT_1 Z:T", 2, append(says(query("begin")), use...)...)
		b.want("2 D:1,2 C:SELECT_1 Z:I", 1, use...)
		a.want("C:COMMIT Z:I", 1, query("commit"))
	}
	// Changed through the gate: a client that prepares it now has nothing to be told.
	owner := g.script(t, "session")
	owner.want("C:CREATE_TABLE Z:I C:INSERT_0_1 Z:I", 2, query("create table mine(a int)"), query("insert into mine values (1)"))
	a.want("1 2 D:1 C:SELECT_1 Z:I", 1, parse("m", "select * from mine"), bind("m"), execute(), syncUp())
	owner.want("C:ALTER_TABLE Z:I", 1, query("alter table mine add b int"))
	c := g.script(t, "transaction")
	c.want("1 t T 2 D:1, C:SELECT_1 Z:I", 1, parse("m", "select * from mine"), describeStatement("m"), bind("m"), execute(), syncUp())
	owner.want("C:DROP_TABLE Z:I", 1, query("drop table mine"))
	c.want("E:42P01 Z:I", 1, parse("m2", "select * from mine"), syncUp())
}

// TestSettingsKeepStatementsApart has clients with equal texts that mean something else to each.
func TestSettingsKeepStatementsApart(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), `create schema one; create schema two; create table one.t as select 1 as a; create table two.t as select 'x'::text as a, 'y'::text as b;
		grant usage on schema one, two to public; grant select on one.t, two.t to public`)
	type who struct {
		*script
		row string
	}
	var all []who
	for schema, row := range map[string]string{"one": "1", "two": "x,y"} {
		for style, date := range map[string]string{"ISO, DMY": "2020-02-01", "ISO, MDY": "2020-01-02"} {
			s := g.script(t, "transaction", fmt.Sprintf("options='-c search_path=%s'", schema), fmt.Sprintf("datestyle='%s'", style))
			all = append(all, who{s, row + "," + date})
		}
	}
	const text = "select *, date '01/02/2020' from t"
	for range 3 {
		for i, w := range all {
			name := fmt.Sprint("s", i)
			w.want("1 2 D:"+w.row+" C:SELECT_1 3 Z:I", 1, parse(name, text), bind(name), execute(), closeStatement(name), syncUp())
		}
	}
	for _, w := range all {
		w.want("1 Z:I", 1, parse("s", text), syncUp())
	}
	for range 3 {
		for _, w := range all {
			w.want("2 D:"+w.row+" C:SELECT_1 Z:I", 1, bind("s"), execute(), syncUp())
		}
	}
}

// TestDroppedBehindTheBack has a function drop the statements of a server: each is missed once at most.
func TestDroppedBehindTheBack(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	do(t, g.direct(t), "create function drop_all() returns int language plpgsql as $$begin execute 'deallocate all'; return 1; end$$")
	s := g.script(t, "transaction")
	use := says(bind("s"), execute(), syncUp())
	s.want("1 2 D:1 C:SELECT_1 Z:I", 1, append(says(parse("s", "select 1")), use...)...)
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select drop_all()"))
	s.want("E:26000 Z:I", 1, use...)
	s.want("2 D:1 C:SELECT_1 Z:I", 1, use...)
	s.want("T D:1 C:SELECT_1 Z:I", 1, query("select drop_all()"))
	s.want("1 Z:I 2 D:2 C:SELECT_1 Z:I", 2, append(says(parse("s", "select 2"), syncUp()), use...)...) // as with Postgres, which has dropped it
	g.script(t, "transaction").want("1 2 D:1 C:SELECT_1 Z:I", 1, append(says(parse("s", "select 1")), use...)...)
}

// TestPgbenchPrepared runs pgbench with prepared statements on more clients than servers.
func TestPgbenchPrepared(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 3})
	initPgbench(t, g)
	for _, args := range [][]string{{"-S"}, {}} {
		// It prepares without looking at its other clients, so that each needs a thread.
		args = append([]string{"-n", "-M", "prepared", "-c", "12", "-j", "12", "-t", "60"}, append(args, g.dsn("transaction"))...)
		out, err := exec.CommandContext(t.Context(), harness.Program(t, "pgbench"), args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "transactions actually processed: 720/720") {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	if n := g.lost(); n != 0 {
		t.Errorf("%d server connections were given up", n)
	}
}

// TestDriversPrepare has pgx as it comes, which prepares every statement, and lib/pq with statements of its own, both on more
// connections than servers.
func TestDriversPrepare(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"transaction", "statement"} {
		g := startGate(t, gateConf{PoolSize: 2})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var all errgroup.Group
		var failed atomic.Int64
		for n := range 6 {
			conf, err := pgx.ParseConfig(g.dsn(mode))
			if err != nil {
				t.Fatal(err)
			}
			conf.StatementCacheCapacity = 5
			conn := connectConfig(t, conf)
			all.Go(func() error {
				for i := range 120 {
					var got string
					text := fmt.Sprintf("select 'worker %d ' || $1::text || ' of %d'", n%3, i%8) // more than are cached
					if err := conn.QueryRow(ctx, text, fmt.Sprint(i)).Scan(&got); err != nil {
						return fmt.Errorf("pgx: %w", err)
					}
					if want := fmt.Sprintf("worker %d %d of %d", n%3, i, i%8); got != want {
						return fmt.Errorf("pgx: got %s, want %s", got, want)
					}
					if i%10 == 9 {
						if err := conn.QueryRow(ctx, "select 1/$1::int", 0).Scan(&got); sqlstate(err) != "22012" {
							return fmt.Errorf("pgx: got %v", err)
						}
						failed.Add(1)
					}
				}
				return nil
			})
		}
		connector, err := pq.NewConnector(g.dsn(mode))
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		db.SetMaxOpenConns(6)
		shared, err := db.PrepareContext(ctx, "select $1::text || ' by pq'")
		if err != nil {
			t.Fatal(err)
		}
		for n := range 6 {
			all.Go(func() error {
				for i := range 60 {
					var got string
					if err := shared.QueryRowContext(ctx, fmt.Sprint(n, "-", i)).Scan(&got); err != nil {
						return fmt.Errorf("pq: %w", err)
					}
					if want := fmt.Sprint(n, "-", i, " by pq"); got != want {
						return fmt.Errorf("pq: got %s, want %s", got, want)
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if failed.Load() != 72 {
			t.Errorf("%d errors", failed.Load())
		}
	}
}

// TestLimitsOfStatements refuses what one session may not have, and goes on.
func TestLimitsOfStatements(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	s := g.script(t, "transaction")
	long := "select '" + strings.Repeat("x", 17<<20) + "'"
	s.want("E:54000 Z:I", 1, parse("long", long), bind("long"), syncUp())
	for i := range 50 {
		messages := []pgproto3.FrontendMessage{}
		for j := range 100 {
			messages = append(messages, parse(fmt.Sprintf("s%d.%d", i, j), "select 1"))
		}
		s.want(strings.Repeat("1 ", 100)+"Z:I", 1, append(messages, syncUp())...)
	}
	s.want("E:54000 Z:I", 1, parse("more", "select 1"), syncUp())
	s.want("3 1 2 D:1 C:SELECT_1 Z:I", 1, closeStatement("s0.0"), parse("more", "select 1"), bind("more"), execute(), syncUp())
	if n := held(t, g); n > 3 {
		t.Errorf("the server holds %d statements for one text", n)
	}
}
