// Pipelines, COPY, function calls and Flush, message by message, against what Postgres itself answers.

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/postern/postern/test/harness"
)

// A dialogue is what a client says and what it must hear. It is held in session and transaction mode, with the same
// answers, and with a second client in between where the server is free.
type dialogue struct {
	name string
	say  []pgproto3.FrontendMessage
	hear string
	n    int // ReadyForQuery messages
}

func describe() pgproto3.FrontendMessage { return &pgproto3.Describe{ObjectType: 'P'} }
func flush() pgproto3.FrontendMessage    { return &pgproto3.Flush{} }
func copyData(s string) pgproto3.FrontendMessage {
	return &pgproto3.CopyData{Data: []byte(s)}
}
func copyDone() pgproto3.FrontendMessage { return &pgproto3.CopyDone{} }
func copyFail() pgproto3.FrontendMessage { return &pgproto3.CopyFail{Message: "no more"} }

var dialogues = []dialogue{
	{"simple", says(query("select 1")), "T D:1 C:SELECT_1 Z:I", 1},
	{"multi-statement", says(query("select 1; select 2")), "T D:1 C:SELECT_1 T D:2 C:SELECT_1 Z:I", 1},
	{"empty query", says(query("")), "I Z:I", 1},
	{"sync alone", says(syncUp(), syncUp()), "Z:I Z:I", 2},
	{"extended", says(parse("", "select $1::text"), bind("", "a"), describe(), execute(), syncUp()), "1 2 T D:a C:SELECT_1 Z:I", 1},
	{"two rounds in one write", says(parse("", "select 1"), bind(""), execute(), syncUp(), parse("", "select 2"), bind(""), execute(), syncUp()),
		"1 2 D:1 C:SELECT_1 Z:I 1 2 D:2 C:SELECT_1 Z:I", 2},
	{"one parse, many binds", says(parse("", "select $1::int"), bind("", "1"), execute(), bind("", "2"), execute(), bind("", "3"), execute(), syncUp()),
		"1 2 D:1 C:SELECT_1 2 D:2 C:SELECT_1 2 D:3 C:SELECT_1 Z:I", 1},
	{"error skips to sync", says(parse("", "select 1/0"), bind(""), execute(), parse("", "select 2"), bind(""), execute(), syncUp(),
		parse("", "select 3"), bind(""), execute(), syncUp()), "1 E:22012 Z:I 1 2 D:3 C:SELECT_1 Z:I", 2},
	{"parse error", says(parse("", "selekt"), bind(""), execute(), syncUp()), "E:42601 Z:I", 1},
	{"query in a pipeline", says(parse("", "select 1"), bind(""), execute(), syncUp(), query("select 2"), parse("", "select 3"), bind(""), execute(), syncUp()),
		"1 2 D:1 C:SELECT_1 Z:I T D:2 C:SELECT_1 Z:I 1 2 D:3 C:SELECT_1 Z:I", 3},
	{"transaction over rounds", says(query("begin"), query("select 1/0"), query("select 1"), query("rollback")),
		"C:BEGIN Z:T E:22012 Z:E E:25P02 Z:E C:ROLLBACK Z:I", 4},
	{"row limit", says(query("begin"), parse("", "select generate_series(1,3)"), bind(""), &pgproto3.Execute{MaxRows: 2}, &pgproto3.Execute{MaxRows: 2}, syncUp(), query("commit")),
		"C:BEGIN Z:T 1 2 D:1 D:2 s D:3 C:SELECT_1 Z:T C:COMMIT Z:I", 3},
	{"copy in", says(query("copy scratch from stdin"), copyData("1\n"), copyData("2\n"), copyDone()), "G C:COPY_2 Z:I", 1},
	{"copy fail", says(query("copy scratch from stdin"), copyData("1\n"), copyFail()), "G E:57014 Z:I", 1},
	{"copy in fails mid-way", says(query("copy scratch from stdin"), copyData("1\n"), copyData("x\n"), copyData("3\n"), copyDone()), "G E:22P02 Z:I", 1},
	{"copy done too late", says(query("select 1"), copyData("1\n"), copyDone(), query("select 2")), "T D:1 C:SELECT_1 Z:I T D:2 C:SELECT_1 Z:I", 2},
	{"copy out", says(query("copy (select generate_series(1,2)) to stdout")), "H d:1 d:2 c C:COPY_2 Z:I", 1},
	{"copy in, extended", says(parse("", "copy scratch from stdin"), bind(""), execute(), copyData("1\n"), copyDone(), syncUp()), "1 2 G C:COPY_1 Z:I", 1},
	{"copy in, extended, with libpq's sync before the data", says(parse("", "copy scratch from stdin"), bind(""), execute(), syncUp(), copyData("1\n"), copyDone(), syncUp()),
		"1 2 G C:COPY_1 Z:I", 1},
	{"copy in, extended, fails", says(parse("", "copy scratch from stdin"), bind(""), execute(), copyData("x\n"), copyDone(), syncUp()), "1 2 G E:22P02 Z:I", 1},
	{"copy in and more", says(query("copy scratch from stdin; select 7"), copyData("1\n"), copyDone()), "G C:COPY_1 T D:7 C:SELECT_1 Z:I", 1},
	{"function call", says(&pgproto3.FunctionCall{Function: 1397, ArgFormatCodes: []uint16{0}, Arguments: [][]byte{[]byte("-5")}, ResultFormatCode: 0}), "V:5 Z:I", 1}, // int4abs
	{"function call fails", says(&pgproto3.FunctionCall{Function: 1, ResultFormatCode: 0}), "E:42883 Z:I", 1},
	{"close what is not there", says(&pgproto3.Close{ObjectType: 'S'}, &pgproto3.Close{ObjectType: 'P'}, syncUp()), "3 3 Z:I", 1},
}

func says(m ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return m }

func TestDialogues(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 3})
	do(t, g.connect(t, "session"), "create table scratch(a int)")
	for _, mode := range []string{"direct", "session", "transaction", "statement"} {
		var s, other *script
		if mode == "direct" { // Postgres is the oracle, also of this table
			s = g.scriptDirect(t)
			other = s
		} else {
			s, other = g.script(t, mode), g.script(t, "transaction")
		}
		for _, d := range dialogues {
			if mode == "statement" && strings.Contains(d.hear, "BEGIN") {
				continue
			}
			s.say(d.say...)
			if got := s.hear(d.n); got != d.hear {
				t.Errorf("%s: %s:\ngot  %s\nwant %s", mode, d.name, got, d.hear)
				s = nil
				break
			}
			other.want("T D:between C:SELECT_1 Z:I", 1, query("select 'between'"))
		}
		if mode != "direct" && s != nil {
			s.want("T D:after C:SELECT_1 Z:I", 1, query("select 'after'"))
		}
	}
	if n := g.lost(); n != 0 {
		t.Errorf("%d server connections were given up", n)
	}
}

// TestDialoguesInPieces sends each dialogue byte by byte, so that no boundary of a read is one of a message.
func TestDialoguesInPieces(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	s := g.script(t, "transaction")
	s.want("C:CREATE_TABLE Z:I", 1, query("create table scratch(a int)"))
	for _, d := range dialogues {
		var all []byte
		for _, m := range d.say {
			var err error
			if all, err = m.Encode(all); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range all {
			if _, err := s.conn.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if got := s.hear(d.n); got != d.hear {
			t.Fatalf("%s:\ngot  %s\nwant %s", d.name, got, d.hear)
		}
	}
}

// TestFlush gets answers without a Sync, and only the Sync ends the lease.
func TestFlush(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	s, other := g.script(t, "transaction"), g.script(t, "transaction")
	s.say(parse("", "select 5"), bind(""), execute(), flush())
	for _, want := range []string{"1", "2", "D:5", "C:SELECT_1"} {
		if got := s.next(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	other.say(query("select 'mine'"))
	harness.Eventually(t, harness.Patience, "the other client waits", func() bool {
		return g.metric("postern_waiting_clients", "tenant", "acme") == 1
	})
	s.want("2 D:5 C:SELECT_1 Z:I", 1, bind(""), execute(), syncUp()) // still the same server and statement
	if got := other.hear(1); got != "T D:mine C:SELECT_1 Z:I" {
		t.Fatal(got)
	}
	s.say(parse("", "selekt"), flush())
	if got := s.next(); got != "E:42601" {
		t.Fatal(got)
	}
	s.want("Z:I", 1, execute(), syncUp()) // skipped
	other.want("T D:mine C:SELECT_1 Z:I", 1, query("select 'mine'"))
}

// A step says something and hears words up to that, of which only the last need be a ReadyForQuery.
type step struct {
	say  []pgproto3.FrontendMessage
	hear string
}

// conversations are dialogues that depend on who speaks when.
var conversations = []struct {
	name  string
	steps []step
}{
	{"sync and flush within COPY are ignored", []step{
		{says(parse("", "copy scratch from stdin"), bind(""), execute(), flush()), "1 2 G"},
		{says(syncUp(), flush(), copyData("1\n"), syncUp()), ""},
		{says(copyDone(), syncUp()), "C:COPY_1 Z:I"},
	}},
	{"the same in the simple protocol", []step{
		{says(query("copy scratch from stdin")), "G"},
		{says(copyData("1\n"), syncUp(), flush(), copyData("2\n")), ""},
		{says(copyDone()), "C:COPY_2 Z:I"},
	}},
	{"data that comes too late", []step{
		{says(query("copy scratch from stdin")), "G"},
		{says(copyData("x\n"), copyDone()), "E:22P02 Z:I"},
		{says(copyData("3\n"), copyDone(), copyFail()), ""},
		{says(query("select 4")), "T D:4 C:SELECT_1 Z:I"},
	}},
	{"an extended COPY that fails skips to sync", []step{
		{says(parse("", "copy scratch from stdin"), bind(""), execute(), flush()), "1 2 G"},
		{says(copyData("x\n"), copyDone(), flush()), "E:22P02"},
		{says(copyData("4\n"), copyDone(), parse("", "select 1"), bind("")), ""},
		{says(syncUp()), "Z:I"},
		{says(parse("", "select 5"), bind(""), execute(), syncUp()), "1 2 D:5 C:SELECT_1 Z:I"},
	}},
	{"after an error all is skipped, whatever it is", []step{
		{says(parse("", "selekt"), flush()), "E:42601"},
		{says(parse("", "select 1"), bind(""), describe(), execute(), &pgproto3.Close{ObjectType: 'S'}), ""},
		{says(query("select 'not run either'"), syncUp()), "Z:I"},
		{says(query("select 6")), "T D:6 C:SELECT_1 Z:I"},
	}},
	{"COPY fails within a transaction", []step{
		{says(query("begin")), "C:BEGIN Z:T"},
		{says(query("copy scratch from stdin")), "G"},
		{says(copyData("1\n"), copyFail()), "E:57014 Z:E"},
		{says(query("commit")), "C:ROLLBACK Z:I"},
	}},
}

// TestConversations waits for each answer before it goes on.
func TestConversations(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	creator := g.script(t, "transaction")
	creator.want("C:CREATE_TABLE Z:I", 1, query("create table scratch(a int)"))
	for _, mode := range []string{"direct", "transaction", "session"} {
		var s *script
		if mode == "direct" {
			s = g.scriptDirect(t)
		} else {
			s = g.script(t, mode)
		}
		for _, c := range conversations {
			for i, step := range c.steps {
				s.say(step.say...)
				var heard []string
				for range strings.Fields(step.hear) {
					heard = append(heard, s.next())
				}
				if got := strings.Join(heard, " "); got != step.hear {
					t.Fatalf("%s, %s, step %d: got %s, want %s", mode, c.name, i, got, step.hear)
				}
			}
			if mode == "transaction" {
				creator.want("T D:between C:SELECT_1 Z:I", 1, query("select 'between'"))
			}
		}
	}
	if n := g.lost(); n != 0 {
		t.Errorf("%d server connections were given up", n)
	}
}

// TestLongPipeline sends more rounds than the gate lets a server owe, and more bytes than all buffers hold, before it reads.
func TestLongPipeline(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	for _, mode := range []string{"session", "transaction"} {
		const rounds = 6000
		s := g.script(t, mode)
		sent := make(chan error, 1)
		go func() {
			for i := range rounds {
				s.Send(parse("", "select $1::int, repeat('y', 500)"))
				s.Send(bind("", fmt.Sprint(i)))
				if i%10 == 3 {
					s.Send(bind("", "not a number")) // what follows is skipped
				}
				s.Send(execute())
				s.Send(syncUp())
				if i%100 == 99 {
					if err := s.Frontend.Flush(); err != nil {
						sent <- err
						return
					}
				}
			}
			sent <- nil
		}()
		for i := range rounds {
			want := fmt.Sprintf("1 2 D:%d,%s+460 C:SELECT_1 Z:I", i, strings.Repeat("y", 40))
			if i%10 == 3 {
				want = "1 2 E:22P02 Z:I"
			}
			if got := s.hear(1); got != want {
				t.Fatalf("%s: round %d: got %s, want %s", mode, i, got, want)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}

// TestPgxPipeline is the same with a driver's own pipeline mode.
func TestPgxPipeline(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 2})
	for _, mode := range modes {
		conn := g.connect(t, mode)
		p := conn.PgConn().StartPipeline(t.Context())
		for i := range 500 {
			sql := "select $1::int"
			if i%7 == 5 {
				sql = "select 1/($1::int - $1::int)"
			}
			p.SendQueryParams(sql, [][]byte{[]byte(fmt.Sprint(i))}, nil, nil, nil)
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 500 {
			result, err := p.GetResults()
			if i%7 == 5 {
				if err == nil {
					err = result.(*pgconn.ResultReader).Read().Err
				}
				wantState(t, err, "22012")
			} else if err != nil {
				t.Fatal(err)
			} else if r := result.(*pgconn.ResultReader).Read(); r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint(i) {
				t.Fatalf("%s: round %d: %q %v", mode, i, r.Rows, r.Err)
			}
			if end, err := p.GetResults(); err != nil {
				t.Fatal(err)
			} else if _, ok := end.(*pgconn.PipelineSync); !ok {
				t.Fatalf("round %d does not end: %T", i, end)
			}
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCopyAbandoned leaves in the middle of a COPY: nothing of it may stay, and the server is used again.
func TestCopyAbandoned(t *testing.T) {
	t.Parallel()
	g := startGate(t, gateConf{PoolSize: 1})
	for _, mode := range []string{"session", "transaction"} {
		s := g.script(t, mode)
		s.want("C:CREATE_TABLE Z:I", 1, query("create table left_"+mode+"(a int)"))
		s.say(query("copy left_"+mode+" from stdin"), copyData("1\n"))
		if got := s.next(); got != "G" {
			t.Fatal(got)
		}
		s.conn.Close()
		next := g.script(t, mode)
		next.want("T D:0 C:SELECT_1 Z:I", 1, query("select count(*) from left_"+mode))
		next.conn.Close()
	}
	// Out: gone while the server is still sending.
	s := g.script(t, "transaction")
	s.say(query("copy (select repeat('x', 10000) from generate_series(1, 10000)) to stdout"))
	if got := s.next(); got != "H" {
		t.Fatal(got)
	}
	s.conn.Close()
	g.script(t, "transaction").want("T D:1 C:SELECT_1 Z:I", 1, query("select 1"))
}
