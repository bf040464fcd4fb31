// Unnamed statements: whose a server holds, when it must be defined again, and that none is leaked.

package link

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern/postern/proxy/sqltext"
)

// play plays one client's rounds on a rig and returns what it was sent.
func (r *rig) play(t *testing.T, c *peer, ms ...sent) string {
	t.Helper()
	c.got = nil
	for _, m := range ms {
		r.send(c, m)
	}
	r.settle(t)
	var b strings.Builder
	for _, a := range c.got {
		fmt.Fprintf(&b, "%c", a.typ)
		if a.typ == 'D' {
			fmt.Fprintf(&b, "(%s)", a.detail)
		}
	}
	return b.String()
}

var (
	sync    = sent{typ: 'S'}
	bind    = sent{typ: 'B'}
	execute = sent{typ: 'E'}
)

func parse(text string) sent { return sent{typ: 'P', text: text} }
func query(text string) sent { return sent{typ: 'Q', text: text} }

// moved returns a rig of two servers and a client that has defined sel#1 on
// the first, which another client now holds in a transaction.
func moved(t *testing.T) (r *rig, c, other *peer) {
	r = newRig(2, 2)
	c, other = r.clients[0], r.clients[1]
	if got := r.play(t, c, parse("sel#1"), sync); got != "1Z" {
		t.Fatal(got)
	}
	if got := r.play(t, other, query("begin")); got != "CZ" || other.server != r.servers[0] {
		t.Fatal(got)
	}
	return r, c, other
}

func TestUnnamedFollowsItsClient(t *testing.T) {
	unread := parse("sel#9")
	unread.bad = true
	for _, tc := range []struct {
		id   string
		play []sent
		want string
	}{
		{"bound elsewhere", []sent{bind, execute, sync}, "2D(sel#1)CZ"},
		{"described elsewhere", []sent{{typ: 'D'}, sync}, "tTZ"},
		{"twice", []sent{bind, execute, sync, bind, execute, sync}, "2D(sel#1)CZ2D(sel#1)CZ"},
		{"defined anew", []sent{parse("sel#2"), bind, execute, sync}, "12D(sel#2)CZ"},
		{"defined anew in the middle", []sent{bind, execute, parse("sel#2"), bind, execute, sync}, "2D(sel#1)C12D(sel#2)CZ"},
		{"dropped by a Query", []sent{query("cmd"), bind, execute, sync}, "CZEZ"},
		{"dropped by an empty Query", []sent{query(""), bind, sync}, "IZEZ"},
		{"dropped by a Query that fails", []sent{query("err"), bind, sync}, "EZEZ"},
		{"dropped by a Query that is no SQL", []sent{query("syn"), bind, sync}, "EZEZ"},
		{"dropped by a Close", []sent{{typ: 'C'}, bind, sync}, "3EZ"},
		{"not by another's Close", []sent{{typ: 'C', name: "none"}, bind, sync}, "32Z"},
		{"dropped by a Parse that fails", []sent{parse("syn"), sync, bind, sync}, "EZEZ"},
		{"and by one that cannot be read", []sent{unread, sync, bind, sync}, "EZEZ"},
		{"not by a Parse that is skipped", []sent{{typ: 'B', name: "none"}, parse("sel#2"), sync, bind, execute, sync}, "EZ2D(sel#1)CZ"},
		{"not by a Query that is skipped", []sent{{typ: 'B', name: "none"}, query("cmd"), sync, bind, execute, sync}, "EZ2D(sel#1)CZ"},
		{"not by a function call", []sent{{typ: 'F'}, bind, execute, sync}, "VZ2D(sel#1)CZ"},
		{"skipped with its Bind", []sent{{typ: 'B', name: "none"}, bind, execute, sync, bind, execute, sync}, "EZ2D(sel#1)CZ"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			r, c, _ := moved(t)
			if got := r.play(t, c, tc.play...); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			checkReferences(t, r)
		})
	}
}

// What one client has defined, no other client runs: not by asking for a
// statement that it has not defined, and not behind a message that the server
// cannot even read, which leaves the old statement in place.
func TestNobodyRunsAnothers(t *testing.T) {
	badParse, badQuery := parse("sel#2"), query("sel#2")
	badParse.bad, badQuery.bad = true, true
	for _, tc := range []struct {
		id   string
		play []sent
		want string
	}{
		{"nothing defined", []sent{bind, execute, sync}, "EZ"},
		{"nothing defined, described", []sent{{typ: 'D'}, sync}, "EZ"},
		{"a Parse that fails", []sent{parse("syn"), sync, bind, execute, sync}, "EZEZ"},
		{"an unreadable Parse", []sent{badParse, sync, bind, execute, sync}, "EZEZ"},
		{"an unreadable Query", []sent{badQuery, bind, execute, sync}, "EZEZ"},
		{"an unreadable Query, then a Sync", []sent{badQuery, sync, bind, execute, sync}, "EZZEZ"},
		{"an unreadable Query among others", []sent{query("cmd"), badQuery, query("cmd"), bind, execute, sync}, "CZEZCZEZ"},
		{"a skipped Query", []sent{{typ: 'B', name: "none"}, query("cmd"), sync, bind, execute, sync}, "EZEZ"},
		{"a skipped Parse", []sent{{typ: 'B', name: "none"}, parse("sel#2"), sync, bind, execute, sync}, "EZEZ"},
		{"a skipped Close", []sent{{typ: 'B', name: "none"}, {typ: 'C'}, sync, bind, execute, sync}, "EZEZ"},
		{"a Bind that is skipped itself", []sent{{typ: 'B', name: "none"}, bind, sync, bind, execute, sync}, "EZEZ"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			for _, apart := range []bool{false, true} { // each message answered before the next
				r := newRig(2, 1)
				a, b := r.clients[0], r.clients[1]
				if got := r.play(t, a, parse("sel#secret"), sync); got != "1Z" {
					t.Fatal(got)
				}
				var got string
				if apart {
					for _, m := range tc.play {
						got += r.play(t, b, m)
					}
				} else {
					got = r.play(t, b, tc.play...)
				}
				if got != tc.want {
					t.Errorf("apart %v: %s, want %s", apart, got, tc.want)
				}
				if got := r.play(t, a, bind, execute, sync); got != "2D(sel#secret)CZ" {
					t.Errorf("its owner: %s", got)
				}
				checkReferences(t, r)
			}
		})
	}
}

// Two clients take turns on one server; each parses once.
func TestTurns(t *testing.T) {
	r := newRig(2, 1)
	a, b := r.clients[0], r.clients[1]
	r.play(t, a, parse("sel#a"), sync)
	r.play(t, b, parse("sel#b"), sync)
	for range 3 {
		if got := r.play(t, a, bind, execute, sync); got != "2D(sel#a)CZ" {
			t.Error(got)
		}
		if got := r.play(t, b, bind, execute, sync); got != "2D(sel#b)CZ" {
			t.Error(got)
		}
	}
}

// A server that holds what the client expects is not asked to parse again.
func TestRestoreOnlyWhenNeeded(t *testing.T) {
	var stmts Statements
	var s, other Session
	l := New(&stmts)
	l.Begin(&s)
	if _, needed := l.missing(); !needed {
		t.Error("a fresh server holds nothing")
	}
	st := stmts.Intern([]byte("\x00x\x00\x00\x00"))
	l.Sent(Entry{Kind: Parse, Stmt: st})
	if _, needed := l.missing(); needed {
		t.Error("behind its Parse")
	}
	l.Sent(Entry{Kind: Sync})
	if !l.undecided() {
		t.Error("a Parse that may have failed, and a Sync: nothing is sure")
	}
	l.Received('1', 0)
	l.Received('Z', 'I')
	if l.undecided() {
		t.Error("everything is answered")
	}
	l.End()
	l.Begin(&s)
	if _, needed := l.missing(); needed {
		t.Error("same client, same server")
	}
	l.End()
	l.Begin(&other)
	if st, needed := l.missing(); !needed || st != nil {
		t.Error("another's must go")
	}
	l.End()
	l.Begin(&s)
	l.Forget()
	if got, needed := l.missing(); !needed || got != st {
		t.Error("Postern used it meanwhile")
	}
	l.End()
}

// A client that leaves with answers outstanding leaves nothing behind: no
// reference, and no memory of a definition in flight that would make the next
// client wait.
func TestEndInTheMiddle(t *testing.T) {
	for _, tc := range []struct {
		id      string
		entries []Entry
		answers string
	}{
		{"a Parse", []Entry{{Kind: Parse}, {Kind: Sync}}, "1Z"},
		{"two", []Entry{{Kind: Parse}, {Kind: Parse}, {Kind: Sync}}, "11Z"},
		{"one that fails", []Entry{{Kind: Parse}, {Kind: Sync}}, "EZ"},
		{"a Query", []Entry{{Kind: Query}}, "CZ"},
		{"a Close", []Entry{{Kind: Close, name: Unnamed}, {Kind: Sync}}, "3Z"},
		{"a Parse put in", []Entry{{Kind: Parse, Mode: Quiet}, {Kind: Bind}, {Kind: Sync}}, "12Z"},
		{"a Close put in", []Entry{{Kind: Close, Mode: Quiet, name: Unnamed}, {Kind: Bind}, {Kind: Sync}}, "32Z"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			var stmts Statements
			var leaver, next Session
			l := New(&stmts)
			l.Begin(&leaver)
			for i, e := range tc.entries {
				if e.Kind == Parse {
					e.Stmt = stmts.Intern(fmt.Appendf(nil, "\x00%d\x00", i))
				}
				l.Sent(e)
			}
			l.End()
			for _, c := range tc.answers {
				if v := l.Received(byte(c), 'I'); v != Swallow {
					t.Errorf("%c: verdict %d for nobody", c, v)
				}
			}
			if !l.Free() || stmts.unused != stmts.Len() {
				t.Errorf("free %v, %d of %d unused", l.Free(), stmts.unused, stmts.Len())
			}
			// The next client parses in one round and binds in the next, like lib/pq.
			l.Begin(&next)
			if _, needed := l.missing(); !needed {
				t.Error("what the leaver did is taken for the next client's")
			}
			l.known = false
			l.Sent(Entry{Kind: Parse, Stmt: stmts.Intern([]byte("\x00next\x00"))})
			l.Sent(Entry{Kind: Sync})
			l.Received('1', 0)
			l.Received('Z', 'I')
			if l.undecided() {
				t.Error("waits for an answer that the leaver was owed")
			}
			if _, needed := l.missing(); needed {
				t.Error("its own Parse is not known")
			}
			l.End()
			stmts.Drop(next.Unnamed)
			if stmts.unused != stmts.Len() {
				t.Errorf("%d of %d unused", stmts.unused, stmts.Len())
			}
		})
	}
}

// A client that leaves while its predecessor's statement is being dropped: the
// predecessor must not be taken to have it still.
func TestEndWhileAnothersIsDropped(t *testing.T) {
	var stmts Statements
	var a, b Session
	l := New(&stmts)
	l.Begin(&a)
	l.Sent(Entry{Kind: Parse, Stmt: stmts.Intern([]byte("\x00a\x00"))})
	l.Sent(Entry{Kind: Sync})
	l.Received('1', 0)
	l.Received('Z', 'I')
	l.End()
	l.Begin(&b)
	if st, needed := l.missing(); !needed || st != nil {
		t.Fatal("another's must go")
	}
	l.Sent(Entry{Kind: Close, Mode: Quiet, name: Unnamed})
	l.Sent(Entry{Kind: Bind})
	l.Sent(Entry{Kind: Sync})
	l.End()
	for _, c := range "3EZ" {
		l.Received(byte(c), 'I')
	}
	l.Begin(&a)
	if st, needed := l.missing(); !needed || st != a.Unnamed {
		t.Error("dropped, and taken to be there")
	}
}

// What is skipped restores nothing.
func TestRestoreWhileSkipping(t *testing.T) {
	l := New(&Statements{})
	l.Begin(&Session{})
	l.Sent(Entry{Kind: Bind})
	l.Received('E', 0)
	if _, needed := l.missing(); needed {
		t.Error("put in where the server ignores it")
	}
	l.Sent(Entry{Kind: Bind})
	l.Sent(Entry{Kind: Sync})
	if _, needed := l.missing(); !needed {
		t.Error("forgotten afterwards")
	}
}

// A Bind does not wait behind a COPY: that would be for ever.
func TestUnsureDuringCopy(t *testing.T) {
	l := New(&Statements{})
	l.Begin(&Session{})
	l.Sent(Entry{Kind: Query})
	if !l.undecided() {
		t.Error("a Query that may be unreadable")
	}
	l.Received('G', 0)
	if l.undecided() {
		t.Error("waits for an answer that the server gives only after more data")
	}
}

func TestStatements(t *testing.T) {
	var s Statements
	a, b := s.Intern([]byte("a")), s.Intern([]byte("a"))
	if a != b || a.refs != 2 || s.Len() != 1 {
		t.Errorf("not shared: %+v %+v", a, b)
	}
	if s.Keep(nil) != nil {
		t.Error("nil is not nil")
	}
	s.Drop(nil)
	s.Drop(a)
	s.Drop(a)
	if s.Len() != 1 || s.unused != 1 {
		t.Errorf("%d definitions, %d unused", s.Len(), s.unused)
	}
	if again := s.Intern([]byte("a")); again != a || s.unused != 0 {
		t.Error("not found again")
	}
	s.Drop(a)
	defer func() {
		if recover() == nil {
			t.Error("dropped too often, unnoticed")
		}
	}()
	s.Drop(a)
}

func TestStatementsAreBounded(t *testing.T) {
	var s Statements
	used := s.Intern([]byte("\x00in use\x00"))
	for i := range 20 * maxUnused {
		s.Drop(s.Intern(fmt.Appendf(nil, "\x00select %d\x00", i)))
		if s.Len() > maxUnused+1 {
			t.Fatalf("%d definitions", s.Len())
		}
	}
	if s.Intern([]byte("\x00in use\x00")) != used {
		t.Error("one in use was forgotten")
	}
	n := s.Len()
	long := s.Intern(make([]byte, maxUnusedBody+1))
	if s.Len() != n+1 {
		t.Error("a long one is not kept while in use")
	}
	if s.Drop(long); s.Len() != n {
		t.Error("a long one is kept without a user")
	}
}

func TestStmtNote(t *testing.T) {
	var s Statements
	st := s.Intern([]byte("\x00create temp table x()\x00\x00\x00"))
	if st.Note != sqltext.Alters || st.Body != "\x00create temp table x()\x00\x00\x00" {
		t.Errorf("%+v", st)
	}
}
