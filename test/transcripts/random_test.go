// Random conversations over a small vocabulary, with the same oracle.

package transcripts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgproto3/v2"
	"pgregory.net/rapid"
)

// A taste is what random clients talk about.
type taste struct {
	tables   string   // a Query that makes what the texts are about
	names    []string // of statements
	portals  []string
	texts    []string
	sessions string // who takes part
	copies   bool   // data of a COPY, also where there is none
	broken   bool   // messages that cannot be read
}

// plain are texts that leave nothing behind but a transaction. r@@ is a table of the run's own.
var plain = []string{
	"select 1", "select $1::int", "select $1::text, 2", "select $1", "select * from triple($1)", "insert into r@@ values ($1)", "insert into r@@ values (7)",
	"select count(*) from r@@", "selekt", "select 1/0", "select * from nowhere", "select 1/($1::int + (random() * 0)::int)", "",
	"begin", "commit", "rollback", "savepoint p", "rollback to p", "set local datestyle = 'German'", "show datestyle",
	"select say('notice', 'hear')", "declare c cursor for select * from fruit", "fetch 2 c", "move c", "close c",
}

// several are texts that only a Query may have.
var several = []string{"select 1; select 2", "begin; select 3", "select 4; commit", "begin; selekt", "begin; select 1/0; select 5", "insert into r@@ values (1); select 1/0",
	";", "select 1;; select 2", "begin; commit; select 6", "rollback; select 7"}

// copies are texts that begin a COPY.
var copies = []string{"copy r@@ from stdin", "copy r@@ from stdin; select 8", "copy (select * from fruit) to stdout", "copy r@@ (nothing) from stdin"}

// stateful are texts that leave something in the session.
var stateful = []string{"set datestyle = 'ISO, DMY'", "set my.own@@ = 'mine'", "show my.own@@", "reset my.own@@", "set session my.own@@ = 'other'", "select set_config('my.own@@', 'third', false)",
	"prepare s as select 9", "execute s", "deallocate s", "deallocate all", "discard all", "create temp table own@@(a int)", "select count(*) from own@@", "drop table own@@",
	"select pg_advisory_lock(hashtext('@@'))", "select pg_advisory_unlock(hashtext('@@'))", "set role clerk", "reset role", "select current_user", "declare h cursor with hold for select * from fruit", "fetch 1 h"}

// movable is stateful for clients who change servers, without what is written down as an accepted difference: SQL and the
// protocol do not share names, and whether a custom parameter is known belongs to the server.
func movable() []string {
	others := map[string]string{"prepare s as select 9": "prepare q as select 9", "execute s": "execute q", "deallocate s": "deallocate q",
		"show my.own@@": "select coalesce(current_setting('my.own@@', true), '')"}
	texts := slices.Clone(stateful)
	for i, text := range texts {
		if other, ok := others[text]; ok {
			texts[i] = other
		}
	}
	return texts
}

// drawing are texts about sequences: s@@ and the one of the column d@@.id.
var drawing = []string{"select 1", "begin", "commit", "rollback", "select 1/0", "select nextval('s@@')", "select nextval('s@@')", "select setval('s@@', 7)",
	"select currval('s@@')", "select currval('s@@')", "select lastval()", "select lastval()", "select nextval('s@@'), currval('s@@')",
	"insert into d@@ (a) values (1)", "insert into d@@ (a) select generate_series(1, 3)", "with x as (insert into d@@ (a) values (2) returning id) select id from x",
	"select currval('d@@_id_seq')", "select nextval('s@@') / 0", "discard sequences", "discard all"}

// message draws the next message of a session.
func (like taste) message(t *rapid.T) Action {
	name := func() string { return rapid.SampledFrom(like.names).Draw(t, "statement") }
	portal := func() string { return rapid.SampledFrom(like.portals).Draw(t, "portal") }
	text := func() string { return rapid.SampledFrom(like.texts).Draw(t, "text") }
	verbs := "QQQPPPBBBBBDdEEEEECSSSSSHF"
	if like.copies {
		verbs += "ccXx"
	}
	if like.broken {
		verbs += "!"
	}
	switch verb := verbs[rapid.IntRange(0, len(verbs)-1).Draw(t, "verb")]; verb {
	case 'Q':
		texts := append(slices.Clone(like.texts), several...)
		if like.copies {
			texts = append(texts, copies...)
		}
		return Say{&pgproto3.Query{String: rapid.SampledFrom(texts).Draw(t, "query")}}
	case 'P':
		m := &pgproto3.Parse{Name: name(), Query: text()}
		if rapid.IntRange(0, 3).Draw(t, "typed") == 0 {
			m.ParameterOIDs = []uint32{rapid.SampledFrom([]uint32{0, 23, 25, 1}).Draw(t, "type")}
		}
		if like.copies && rapid.IntRange(0, 4).Draw(t, "copy") == 0 {
			m.Query = rapid.SampledFrom(copies).Draw(t, "query")
		}
		return Say{m}
	case 'B':
		m := &pgproto3.Bind{DestinationPortal: portal(), PreparedStatement: name()}
		m.Parameters = rapid.SampledFrom([][][]byte{nil, nil, {[]byte("1")}, {[]byte("1")}, {[]byte("0")}, {nil}, {[]byte("x")}, {[]byte("1"), []byte("2")}}).Draw(t, "values")
		m.ResultFormatCodes = rapid.SampledFrom([][]int16{nil, nil, nil, {1}, {0, 1}}).Draw(t, "formats")
		return Say{m}
	case 'D':
		return Say{&pgproto3.Describe{ObjectType: 'S', Name: name()}}
	case 'd':
		return Say{&pgproto3.Describe{ObjectType: 'P', Name: portal()}}
	case 'E':
		return Say{&pgproto3.Execute{Portal: portal(), MaxRows: rapid.SampledFrom([]uint32{0, 0, 1, 2}).Draw(t, "rows")}}
	case 'C':
		if rapid.Bool().Draw(t, "close a portal") {
			return Say{&pgproto3.Close{ObjectType: 'P', Name: portal()}}
		}
		return Say{&pgproto3.Close{ObjectType: 'S', Name: name()}}
	case 'S':
		return Say{&pgproto3.Sync{}}
	case 'H':
		return Say{&pgproto3.Flush{}}
	case 'F':
		arg := rapid.SampledFrom([]string{"-5", "x"}).Draw(t, "argument")
		return Say{&pgproto3.FunctionCall{Function: 1397, Arguments: [][]byte{[]byte(arg)}, ArgFormatCodes: []uint16{0}}} // int4abs
	case 'c':
		return Say{&pgproto3.CopyData{Data: []byte(rapid.SampledFrom([]string{"1\n", "2\n", "x\n", "1\n\\.\n"}).Draw(t, "data"))}}
	case 'X':
		return Say{&pgproto3.CopyDone{}}
	case 'x':
		return Say{&pgproto3.CopyFail{Message: "enough"}}
	default:
		// No Parse or Query: what becomes of the unnamed statement is one of the accepted differences.
		return rapid.SampledFrom([]Action{Raw{'B', "\x00"}, Raw{'D', "X\x00"}, Raw{'C', "X\x00"}, Raw{'E', "\x00"}, Raw{'S', "x"},
			Raw{'B', "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00"}, Raw{'F', "\x00\x00"}}).Draw(t, "broken")
	}
}

// script draws a conversation.
func (like taste) script(t *rapid.T) Script {
	steps := []Step{{'A', Say{&pgproto3.Query{String: like.tables}}}, {'A', Wait(0)}}
	portals := make(map[byte]*unnamedPortal)
	for _, who := range "ABCD" {
		portals[byte(who)] = &unnamedPortal{}
	}
	for range rapid.IntRange(1, 8).Draw(t, "turns") {
		who := like.sessions[rapid.IntRange(0, len(like.sessions)-1).Draw(t, "session")]
		for range rapid.IntRange(1, 7).Draw(t, "messages") {
			if m := like.message(t); !portals[who].deadly(m) {
				steps = append(steps, Step{who, m})
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "to the end") > 0 {
			sync := Say{&pgproto3.Sync{}}
			portals[who].deadly(sync)
			steps = append(steps, Step{who, sync})
		}
		steps = append(steps, Step{who, Wait(0)})
	}
	return Script{"random", Write(steps)}
}

// An unnamedPortal knows when PostgreSQL must not be asked to execute it. A Query that fails in a transaction leaves its portal
// behind, and the text's plan is gone: an Execute of that, in the failed transaction, looks into freed memory, and the whole
// cluster may crash (seen with version 15.20).
type unnamedPortal struct {
	begun bool // a transaction may be open
	bound bool // by a Bind whose failure would have the Execute skipped
}

// deadly takes note of a session's next message, and tells whether it had better not be sent.
func (p *unnamedPortal) deadly(a Action) bool {
	say, ok := a.(Say)
	if !ok {
		return false
	}
	switch m := say.Message.(type) {
	case *pgproto3.Query:
		p.begun, p.bound = p.begun || strings.Contains(m.String, "begin"), false
	case *pgproto3.Parse:
		p.begun = p.begun || strings.Contains(m.Query, "begin")
	case *pgproto3.Bind:
		p.bound = p.bound || m.DestinationPortal == ""
	case *pgproto3.Sync:
		p.bound = false
	case *pgproto3.Execute:
		return m.Portal == "" && p.begun && !p.bound
	}
	return false
}

// A chance is a kind of random conversation in one mode.
type chance struct {
	name string
	mode string
	like taste
}

func chances() []chance {
	unnamed := taste{tables: "create table r@@(a int)", names: []string{""}, portals: []string{"", "", "p"}, texts: plain, sessions: "A"}
	named := unnamed
	named.names = []string{"", "s", "t"}
	both, state, moving, sequences, copying, broken := named, named, named, named, unnamed, unnamed
	both.sessions = "AAB"
	state.texts = slices.Concat(plain, stateful)
	moving.texts = slices.Concat(plain, movable())
	sequences.tables = "create table r@@(a int); create sequence s@@; create table d@@(id serial, a int)"
	sequences.texts, sequences.sessions = drawing, "AAB"
	copying.copies = true
	broken.broken = true
	namedBroken := named
	namedBroken.broken, namedBroken.copies, namedBroken.sessions = true, true, "AAB"
	return []chance{
		{"session/named", session, both},
		{"session/state", session, state},
		{"session/copy and broken", session, namedBroken},
		{"transaction/unnamed", transaction, unnamed},
		{"transaction/copy", transaction, copying},
		{"transaction/broken", transaction, broken},
		{"transaction/named", transaction, both},
		{"transaction/named, copy and broken", transaction, namedBroken},
		{"shuffle/unnamed", shuffle, unnamed},
		{"shuffle/copy", shuffle, copying},
		{"shuffle/named", shuffle, both},
		{"shuffle/state", shuffle, moving},
		{"session/sequence", session, sequences},
		{"pinned/sequence", pinned, sequences},
		{"statement/unnamed", statement, unnamed},
		{"statement/named", statement, named},
	}
}

func testRandom(t *testing.T, w *world) {
	for _, c := range chances() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w.on(func(l *lane) {
				first := "" // which may be one that does not come again, and is not shrunk
				defer func() {
					if first != "" {
						t.Logf("the first one that differed: %s", first)
					}
				}()
				rapid.Check(t, func(rt *rapid.T) {
					s := c.like.script(rt)
					if problem := try(t, l, c.mode, s); problem != "" {
						if first == "" {
							first = problem + "\n\n" + s.Text
						}
						rt.Logf("%s\n\nthe script, for testdata/scripts/random:\n\n%s", problem, s.Text)
						rt.Fatal("differs") // always the same word, or it would not be shrunk
					}
				})
			})
		})
	}
}

// try compares one script in one mode. Where clients may change servers, up to the point at which theirs lacks a statement and
// cannot prepare it, because the transaction has failed: the accepted difference named/wrong-bind-in-a-failed-block.
func try(t *testing.T, l *lane, mode string, s Script) string {
	truth := l.truth(t, mode, s)
	got := l.gated(t, mode, s, truth)
	if mode != session {
		if n := unprepared(truth, got); n >= 0 {
			truth, got = truth[:n], got[:n]
		}
	}
	return judge(mode, s.Name, truth, got, nil)
}

// unprepared returns the first turn that differs, if it does so by an error of failed transactions that answers to a Bind or
// Describe in one, and else -1.
func unprepared(want, got Transcript) int {
	failed := make(map[byte]bool) // sessions whose transaction has
	for i := range min(len(want), len(got)) {
		w, g := want[i], got[i]
		for j, line := range g.Heard {
			if j >= len(w.Heard) || w.Heard[j] != line {
				uses := slices.ContainsFunc(g.Said, func(s string) bool { return strings.HasPrefix(s, "Bind ") || strings.HasPrefix(s, "Describe S") })
				if failed[g.Session] && uses && strings.Contains(line, `C="25P02"`) {
					return i
				}
				return -1
			}
			if status, ok := strings.CutPrefix(line, ready); ok {
				failed[g.Session] = status == "E"
			}
		}
	}
	return -1
}

// testMoves proves that clients are moved as the modes say, or they would prove nothing.
func testMoves(t *testing.T, l *lane) {
	ask := func(session string) string {
		return session + " Query \"select pg_backend_pid()\"\n" + session + " wait\n"
	}
	for _, sessions := range []string{"AAAAAA", "ABABABAB", "ABBAABBA", "ABCDDCBAABCD"} {
		var text strings.Builder
		for _, who := range sessions {
			text.WriteString(ask(string(who)))
		}
		s := Script{"moves", text.String()}
		for _, mode := range []string{shuffle, moved} {
			before := make(map[byte]string)
			for i, turn := range l.gated(t, mode, s, l.truth(t, mode, s))[:len(sessions)] {
				row := turn.Heard[1]
				if row == before[turn.Session] {
					t.Errorf("%s: %s: transaction %d of %c ran on the server of its last one: %s", mode, sessions, i+1, turn.Session, row)
				}
				before[turn.Session] = row
			}
		}
	}
}

// testDifferenceIsSeen proves that replies which differ are told apart, at every place of a script.
func testDifferenceIsSeen(t *testing.T, l *lane) {
	text := func(v int) Script {
		return Script{"value", fmt.Sprintf("Query \"select 0\"\nwait\nQuery \"select %d\"\nQuery \"select 2\"\nwait\nB Query \"select 3\"\n", v)}
	}
	truth := l.truth(t, session, text(1))
	if p := judge(session, "value", truth, l.gated(t, session, text(1), truth), nil); p != "" {
		t.Error(p)
	}
	if p := judge(session, "value", truth, l.gated(t, session, text(7), truth), nil); !strings.Contains(p, "- DataRow \"1\"\n+ DataRow \"7\"") {
		t.Errorf("not seen: %q", p)
	}
	more := Script{"value", strings.Replace(text(1).Text, "B Query", "Query \"select 'more'\"\nB Query", 1)}
	if p := judge(session, "value", truth, l.gated(t, session, more, truth), nil); p == "" {
		t.Error("replies in excess were not seen")
	}
	less := Script{"value", strings.Replace(text(1).Text, "Query \"select 2\"\n", "", 1)}
	if p := judge(session, "value", truth, l.gated(t, session, less, truth), nil); !strings.Contains(p, "(nothing more)") {
		t.Errorf("replies that are missing were not seen: %q", p)
	}
}
