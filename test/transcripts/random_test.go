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
	steps := []Step{{'A', Say{&pgproto3.Query{String: "create table r@@(a int)"}}}, {'A', Wait(0)}}
	for range rapid.IntRange(1, 8).Draw(t, "turns") {
		who := like.sessions[rapid.IntRange(0, len(like.sessions)-1).Draw(t, "session")]
		for range rapid.IntRange(1, 7).Draw(t, "messages") {
			steps = append(steps, Step{who, like.message(t)})
		}
		if rapid.IntRange(0, 3).Draw(t, "to the end") > 0 {
			steps = append(steps, Step{who, Say{&pgproto3.Sync{}}})
		}
		steps = append(steps, Step{who, Wait(0)})
	}
	return Script{"random", Write(steps)}
}

// A chance is a kind of random conversation in one mode.
type chance struct {
	name string
	mode string
	like taste
	// notYet says that it fails because of what is not built yet.
	notYet bool
}

func chances() []chance {
	unnamed := taste{names: []string{""}, portals: []string{"", "", "p"}, texts: plain, sessions: "A"}
	named := taste{names: []string{"", "s", "t"}, portals: []string{"", "", "p"}, texts: plain, sessions: "A"}
	both, state, copying, broken := named, named, unnamed, unnamed
	both.sessions = "AAB"
	state.texts = slices.Concat(plain, stateful)
	copying.copies = true
	broken.broken = true
	namedBroken := named
	namedBroken.broken, namedBroken.copies, namedBroken.sessions = true, true, "AAB"
	return []chance{
		{"session/named", session, both, false},
		{"session/state", session, state, false},
		{"session/copy and broken", session, namedBroken, false},
		{"transaction/unnamed", transaction, unnamed, false},
		{"transaction/copy", transaction, copying, false},
		{"transaction/broken", transaction, broken, false},
		{"transaction/named", transaction, both, false},
		{"transaction/named, copy and broken", transaction, namedBroken, false},
		{"shuffle/unnamed", shuffle, unnamed, false},
		{"shuffle/copy", shuffle, copying, false},
		{"shuffle/named", shuffle, both, false},
		{"shuffle/state", shuffle, state, true},
		{"statement/unnamed", statement, unnamed, false},
		{"statement/named", statement, named, false},
	}
}

// enough is how many examples show that something still fails.
const enough = 60

func testRandom(t *testing.T, w *world) {
	for _, c := range chances() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w.on(func(l *lane) {
				if c.notYet {
					stillFails(t, l, c)
					return
				}
				rapid.Check(t, func(rt *rapid.T) {
					s := c.like.script(rt)
					if problem := try(t, l, c.mode, s); problem != "" {
						rt.Logf("%s\n\nthe script, for testdata/scripts/random:\n\n%s", problem, s.Text)
						rt.Fatal("differs") // always the same word, or it would not be shrunk
					}
				})
			})
		})
	}
}

// try compares one script in one mode.
func try(t *testing.T, l *lane, mode string, s Script) string {
	truth := l.direct(t, s)
	return judge(mode, s.Name, truth, l.gated(t, mode, s, truth, false), nil)
}

// stillFails looks for an example that fails. When there is none, the feature is there.
func stillFails(t *testing.T, l *lane, c chance) {
	all := rapid.Custom(c.like.script)
	for seed := range enough {
		if try(t, l, c.mode, all.Example(seed)) != "" {
			return
		}
	}
	t.Errorf("%d random scripts are as they should be: it is not to be called not yet any more", enough)
}

// testShuffle proves that the shuffle mode does what it says, or it would prove nothing.
func testShuffle(t *testing.T, l *lane) {
	s := Script{"shuffle", strings.Repeat("Query \"select pg_backend_pid()\"\nwait\n", 6)}
	truth := l.direct(t, s)
	before := ""
	for i, turn := range l.gated(t, shuffle, s, truth, false)[:6] {
		row := turn.Heard[1]
		if row == before {
			t.Errorf("transaction %d ran on the server of the one before it: %s", i+1, row)
		}
		before = row
	}
}

// testDifferenceIsSeen proves that replies which differ are told apart, at every place of a script.
func testDifferenceIsSeen(t *testing.T, l *lane) {
	text := func(v int) Script {
		return Script{"value", fmt.Sprintf("Query \"select 0\"\nwait\nQuery \"select %d\"\nQuery \"select 2\"\nwait\nB Query \"select 3\"\n", v)}
	}
	truth := l.direct(t, text(1))
	if p := judge(session, "value", truth, l.gated(t, session, text(1), truth, false), nil); p != "" {
		t.Error(p)
	}
	if p := judge(session, "value", truth, l.gated(t, session, text(7), truth, false), nil); !strings.Contains(p, "- DataRow \"1\"\n+ DataRow \"7\"") {
		t.Errorf("not seen: %q", p)
	}
	more := Script{"value", strings.Replace(text(1).Text, "B Query", "Query \"select 'more'\"\nB Query", 1)}
	if p := judge(session, "value", truth, l.gated(t, session, more, truth, false), nil); p == "" {
		t.Error("replies in excess were not seen")
	}
	less := Script{"value", strings.Replace(text(1).Text, "Query \"select 2\"\n", "", 1)}
	if p := judge(session, "value", truth, l.gated(t, session, less, truth, false), nil); !strings.Contains(p, "(nothing more)") {
		t.Errorf("replies that are missing were not seen: %q", p)
	}
}
