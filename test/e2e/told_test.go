// What a client was told of a statement, while tables change and servers do: that is what runs, or it is told so, as by Postgres.

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// told is what happens to a client: the statements before a change, the change, and what it does afterwards, perhaps on a
// server that has not seen any of it.
type told struct {
	name   string
	before []pgproto3.FrontendMessage
	change string // by somebody else, past the gate
	after  []pgproto3.FrontendMessage
	want   string // what it hears afterwards, from Postgres as well
}

// bindBinary is a Bind of the unnamed portal to a statement with a binary parameter.
func bindBinary(statement string, value ...byte) pgproto3.FrontendMessage {
	return &pgproto3.Bind{PreparedStatement: statement, ParameterFormatCodes: []int16{1}, Parameters: [][]byte{value}}
}

const swap = "alter table items rename cents to x; alter table items rename stock to cents; alter table items rename x to stock"

// tellings are about a table items(id, cents, stock) with the row 7, 100, 3, and an empty table sink(a int).
var tellings = []told{
	{"a column is added", says(parse("s", "select * from items"), describeStatement("s"), syncUp()), "alter table items add more int default 9",
		says(bind("s"), execute(), syncUp(), bind("s"), execute(), syncUp(), closeStatement("s"), parse("s", "select * from items"), describeStatement("s"), syncUp(), bind("s"), execute(), syncUp()),
		"E:0A000 Z:I E:0A000 Z:I 3 1 t T Z:I 2 D:7,100,3,9 C:SELECT_1 Z:I"},
	{"two columns are swapped", says(parse("s", "select * from items"), describeStatement("s"), syncUp()), swap,
		says(bind("s"), execute(), syncUp()), "E:0A000 Z:I"},
	{"it was never described, but executed", says(parse("s", "select * from items"), bind("s"), execute(), syncUp()), swap,
		says(bind("s"), execute(), syncUp(), bind("s"), execute(), syncUp()), "E:0A000 Z:I E:0A000 Z:I"},
	{"described again", says(parse("s", "select * from items"), describeStatement("s"), syncUp()), swap,
		says(describeStatement("s"), syncUp()), "t E:0A000 Z:I"},
	{"in a transaction", says(parse("s", "select * from items"), describeStatement("s"), syncUp()), swap,
		says(query("begin"), bind("s"), execute(), syncUp(), query("select 1"), query("rollback"), bind("s"), syncUp()),
		"C:BEGIN Z:T E:0A000 Z:E E:25P02 Z:E C:ROLLBACK Z:I E:0A000 Z:I"},
	{"in a pipeline", says(parse("s", "select * from items"), parse("i", "insert into sink values ($1)"), describeStatement("s"), describeStatement("i"), syncUp()), swap,
		says(bind("i", "1"), execute(), bind("s"), execute(), bind("i", "2"), execute(), syncUp(), query("select count(*) from sink")),
		"2 C:INSERT_0_1 E:0A000 Z:I T D:0 C:SELECT_1 Z:I"},
	{"what is written is not", says(parse("s", "insert into items values (8, 0, 0) returning *"), describeStatement("s"), syncUp()), swap,
		says(bind("s"), execute(), syncUp(), query("select count(*) from items")), "E:0A000 Z:I T D:1 C:SELECT_1 Z:I"},
	{"a parameter is of another type now", says(parse("s", "select 'found' from items where cents = $1"), describeStatement("s"), syncUp()),
		"alter table items alter cents type bigint", says(bindBinary("s", 0, 0, 0, 100), execute(), syncUp()), "2 D:found C:SELECT_1 Z:I"},
	{"a parameter does not fit any more", says(parse("s", "select 'found' from items where cents = $1"), describeStatement("s"), syncUp()),
		"alter table items alter cents type text", says(bindBinary("s", 0, 0, 0, 100), execute(), syncUp()), "E:42883 Z:I"},
	{"a result is of another type now", says(parse("s", "select cents from items"), describeStatement("s"), syncUp()),
		"alter table items alter cents type bigint", says(bind("s"), execute(), syncUp()), "E:0A000 Z:I"},
	{"a function is overloaded", says(parse("s", "select twice($1)"), describeStatement("s"), syncUp()),
		"create function twice(date) returns date language sql as 'select $1'", says(bindBinary("s", 0, 0, 0, 4), execute(), syncUp()), "2 D:8 C:SELECT_1 Z:I"},
	{"nothing that was told", says(parse("s", "select id, cents from items where id = $1"), describeStatement("s"), syncUp()),
		"alter table items add more int; create table again as select * from items; drop table items; alter table again rename to items; grant all on items to public",
		says(bind("s", "7"), execute(), syncUp()), "2 D:7,100 C:SELECT_1 Z:I"},
	{"the unnamed statement", says(parse("", "select * from items"), describeStatement(""), syncUp()), swap,
		says(bind(""), execute(), syncUp()), "E:0A000 Z:I"},
	{"a parameter of the unnamed statement", says(parse("", "select 'found' from items where cents = $1"), describeStatement(""), syncUp()),
		"alter table items alter cents type bigint", says(bindBinary("", 0, 0, 0, 100), execute(), syncUp()), "2 D:found C:SELECT_1 Z:I"},
	{"the unnamed statement, not changed", says(parse("", "select cents from items where id = $1"), describeStatement(""), syncUp()),
		"alter table items add more int", says(bind("", "7"), execute(), syncUp(), describeStatement(""), bind("", "7"), execute(), syncUp()),
		"2 D:100 C:SELECT_1 Z:I t T 2 D:100 C:SELECT_1 Z:I"},
	{"the unnamed statement, anew", says(parse("", "select * from items"), describeStatement(""), syncUp()), swap,
		says(bind(""), execute(), syncUp(), parse("", "select * from items"), describeStatement(""), bind(""), execute(), syncUp()), "E:0A000 Z:I 1 t T 2 D:7,100,3 C:SELECT_1 Z:I"},
}

const itemsTables = `drop table if exists items, sink; drop function if exists twice(date); create or replace function twice(int) returns int language sql as 'select 2 * $1';
	create table items(id int, cents int, stock int); insert into items values (7, 100, 3); create table sink(a int); grant all on items, sink to public`

// own makes the texts of statements somebody's own, so that nobody has prepared them.
func own(messages []pgproto3.FrontendMessage, who string) (out []pgproto3.FrontendMessage) {
	for _, m := range messages {
		if p, ok := m.(*pgproto3.Parse); ok {
			m = &pgproto3.Parse{Name: p.Name, Query: p.Query + " /* " + who + " */"}
		}
		out = append(out, m)
	}
	return out
}

// rounds is how many of the messages end a round.
func rounds(messages []pgproto3.FrontendMessage) (n int) {
	for _, m := range messages {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			n++
		}
	}
	return n
}

// TestWhatWasToldIsWhatRuns has each client told of a statement before a change, and use it afterwards: on its server, on
// one that has never had the statement, and on one where somebody else has prepared the text since.
func TestWhatWasToldIsWhatRuns(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	admin := g.direct(t)
	for _, mode := range []string{"direct", "session", "transaction here", "transaction elsewhere", "transaction anew", "statement elsewhere"} {
		listener, where, _ := strings.Cut(mode, " ")
		for _, c := range tellings {
			if listener == "statement" && strings.Contains(c.want, "BEGIN") {
				continue
			}
			do(t, admin, itemsTables)
			s := g.scriptDirect(t)
			if listener != "direct" { // Postgres is the oracle, also of this table
				s.conn.Close()
				s = g.script(t, listener)
			}
			before, after := own(c.before, mode+c.name), own(c.after, mode+c.name)
			s.say(before...)
			s.hear(rounds(before))
			var other *script
			switch where {
			case "elsewhere": // another client keeps the server used last
				other = g.script(t, "transaction")
				other.want("C:BEGIN Z:T", 1, query("begin"))
			case "anew":
				other = g.script(t, "transaction")
			}
			do(t, admin, c.change)
			if where == "anew" {
				p := *before[0].(*pgproto3.Parse)
				p.Name = "theirs"
				other.say(query("create temp table only_so_that_the_text_is_prepared(a int)"), query("drop table only_so_that_the_text_is_prepared"), &p, syncUp())
				other.hear(3)
			}
			want := c.want
			if where != "here" && where != "" {
				want = strings.ReplaceAll(want, "t E:", "E:") // the gate does not say what was told before it says that it holds no more
			}
			got, err := s.try(rounds(after), after...)
			if where != "here" && where != "" { // though its server may, if it still holds the one of before
				got = strings.ReplaceAll(got, "t E:", "E:")
			}
			if err != nil || got != want {
				t.Errorf("%s: %s:\ngot  %s (%v)\nwant %s", mode, c.name, got, err, want)
			}
			s.conn.Close()
			if other != nil {
				other.conn.Close()
			}
		}
	}
	if n := g.lost(); n != 0 {
		t.Errorf("%d server connections were given up", n)
	}
}

// TestChangedResultIsToldAsByPostgres compares the error with a server's, field by field; drivers look at some of them.
func TestChangedResultIsToldAsByPostgres(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	admin := g.direct(t)
	var want *pgproto3.ErrorResponse
	for _, mode := range []string{"direct", "transaction"} {
		do(t, admin, itemsTables)
		s, other := g.scriptDirect(t), g.script(t, "transaction")
		if mode != "direct" {
			s = g.script(t, mode)
		}
		s.want("1 t T Z:I", 1, parse("s", "select * from items"), describeStatement("s"), syncUp())
		other.want("C:BEGIN Z:T", 1, query("begin"))
		do(t, admin, swap)
		s.say(bind("s"), syncUp())
		m, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		e, ok := m.(*pgproto3.ErrorResponse)
		if !ok {
			t.Fatalf("%s: %+v", mode, m)
		}
		got := *e
		got.Line = 0 // differs from version to version
		if mode == "direct" {
			want = &got
		} else if d := cmp.Diff(want, &got); d != "" {
			t.Error(d)
		}
		s.conn.Close()
		other.conn.Close()
	}
}

// TestToldAtDifferentTimes has two clients share a text, told before and after a change, who take turns on two servers (the owner has the third):
// each gets its own truth.
func TestToldAtDifferentTimes(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 3})
	admin := g.direct(t)
	do(t, admin, itemsTables)
	old, young, other := g.script(t, "transaction"), g.script(t, "transaction"), g.script(t, "transaction")
	const byCents = "select id from items where cents = $1"
	old.want("1 1 t T t T Z:I", 1, parse("a", "select * from items"), parse("p", byCents), describeStatement("a"), describeStatement("p"), syncUp())
	do(t, admin, "alter table items add more int default 9; alter table items alter cents type bigint")
	owner := g.script(t, "session") // DDL that the gate sees: equal texts are prepared anew
	owner.want("C:CREATE_TABLE Z:I", 1, query("create temp table x()"))
	young.want("1 1 t T t T Z:I", 1, parse("a", "select * from items"), parse("p", byCents), describeStatement("a"), describeStatement("p"), syncUp())
	for i := range 6 {
		if i%2 == 1 {
			other.want("C:BEGIN Z:T", 1, query("begin"))
		}
		old.want("E:0A000 Z:I", 1, bind("a"), execute(), syncUp())
		young.want("2 D:7,100,3,9 C:SELECT_1 Z:I", 1, bind("a"), execute(), syncUp())
		old.want("2 D:7 C:SELECT_1 Z:I", 1, bindBinary("p", 0, 0, 0, 100), execute(), syncUp())
		young.want("2 D:7 C:SELECT_1 Z:I", 1, bindBinary("p", 0, 0, 0, 0, 0, 0, 0, 100), execute(), syncUp())
		if i%2 == 1 {
			other.want("C:COMMIT Z:I", 1, query("commit"))
		}
	}
}

// TestPgxReadsTheRightColumn has pgx, at its defaults, ask for a row while two columns are swapped, on two servers.
func TestPgxReadsTheRightColumn(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	admin := g.direct(t)
	do(t, admin, itemsTables)
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, g.dsn("transaction"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	other := g.script(t, "transaction")
	type item struct{ ID, Cents, Stock int }
	ask := func(round int) (item, error) {
		rows, err := conn.Query(ctx, fmt.Sprintf("select * from items where id = $1 /* %d */", round), 7)
		if err != nil {
			return item{}, err
		}
		return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[item])
	}
	right := item{7, 100, 3}
	for round := range 4 {
		if got, err := ask(round); err != nil || got != right {
			t.Fatalf("round %d: got %+v (%v), want %+v", round, got, err, right)
		}
		do(t, admin, "begin; "+swap+"; update items set cents = stock, stock = cents; commit")
		other.want("C:BEGIN Z:T", 1, query("begin")) // has the server used last
		if got, err := ask(round); sqlstate(err) != "0A000" {
			t.Errorf("round %d: got %+v (%v), want to be told", round, got, err)
		}
		if got, err := ask(round); err != nil || got != right { // pgx has forgotten the statement
			t.Errorf("round %d, asked again: got %+v (%v), want %+v", round, got, err, right)
		}
		other.want("C:COMMIT Z:I", 1, query("commit"))
	}
}

// TestResultTypesAsInEveryVersion settles what makes Postgres itself say that a result has changed, in all versions, and has
// a client of the gate told the same.
func TestResultTypesAsInEveryVersion(t *testing.T) {
	t.Parallel()
	majors := []int{15, 18}
	if harness.Long() {
		majors = []int{15, 16, 17, 18}
	}
	for _, major := range majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			conf := gateConf{PoolSize: 2}
			if major > 15 {
				conf.Cluster = harness.PostgresOf(t, major)
			}
			g := startGate(t, conf)
			admin := g.direct(t)
			for _, c := range []struct{ change, want string }{
				{"alter table items rename stock to rest", "E:0A000 Z:I"},
				{"alter table items alter stock type bigint", "E:0A000 Z:I"},
				{"alter table items alter label type varchar(20)", "E:0A000 Z:I"},
				{"alter table items drop stock", "E:0A000 Z:I"},
				{"alter table items add more int", "E:0A000 Z:I"},
				{"alter table items alter stock set not null; alter table items alter stock set default 1; alter table items alter label set storage external", "2 Z:I"},
				{"create table again (like items including all); drop table items; alter table again rename to items; grant all on items to public", "2 Z:I"},
				{"alter table items drop label; alter table items add label varchar(10)", "2 Z:I"},
			} {
				for _, mode := range []string{"direct", "transaction"} {
					do(t, admin, "drop table if exists items; create table items(id int, stock int, label varchar(10)); grant all on items to public")
					s, other := g.scriptDirect(t), g.script(t, "transaction")
					if mode != "direct" {
						s = g.script(t, mode)
					}
					s.want("1 t T Z:I", 1, parse("s", fmt.Sprintf("select * from items /* %s %s */", mode, c.change)), describeStatement("s"), syncUp())
					other.want("C:BEGIN Z:T", 1, query("begin"))
					do(t, admin, c.change)
					if got, err := s.try(1, bind("s"), syncUp()); err != nil || got != c.want {
						t.Errorf("%s: %s: got %s (%v), want %s", mode, c.change, got, err, c.want)
					}
					s.conn.Close()
					other.conn.Close()
				}
			}
		})
	}
}

// TestWhatIsNotPlannedHasNoShape: which columns FETCH and EXECUTE bring depends on what is behind a name then. Postgres does not
// hold them to what it said of them before.
func TestWhatIsNotPlannedHasNoShape(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	for _, mode := range []string{"direct", "session", "transaction"} {
		s := g.scriptDirect(t)
		if mode != "direct" {
			s = g.script(t, mode)
		}
		other := g.script(t, "transaction")
		s.want("1 t n Z:I 1 t n Z:I", 2, parse("f", "/* the next */ fetch 1 from c"), describeStatement("f"), syncUp(), parse("e", "execute p"), describeStatement("e"), syncUp())
		other.want("C:BEGIN Z:T", 1, query("begin")) // has that server
		for _, c := range []struct{ query, rows string }{{"select 1", "D:1"}, {"select 1, 2", "D:1,2"}, {"select 'a'::text", "D:a"}} {
			s.want("C:BEGIN Z:T C:DECLARE_CURSOR Z:T 2 T "+c.rows+" C:FETCH_1 Z:T C:COMMIT Z:I", 4,
				query("begin"), query("declare c cursor for "+c.query), bind("f"), describe(), execute(), syncUp(), query("commit"))
			s.want("C:PREPARE Z:I 2 T "+c.rows+" C:SELECT_1 Z:I C:DEALLOCATE Z:I", 3,
				query("prepare p as "+c.query), bind("e"), describe(), execute(), syncUp(), query("deallocate p"))
		}
		s.conn.Close()
		other.conn.Close()
	}
}
