// Statements with a name: every rule on its own, by what the client is answered.

package link

import (
	"slices"
	"strings"
	"testing"
)

func parseAs(name, text string) sent { return sent{typ: 'P', name: name, text: text} }
func bindTo(name string) sent        { return sent{typ: 'B', name: name} }
func describe(name string) sent      { return sent{typ: 'D', name: name} }
func closeOf(name string) sent       { return sent{typ: 'C', name: name} }

// elsewhere is a rig of two servers and a client that has prepared a and b on
// the first, which another client now holds in a transaction.
func elsewhere(t *testing.T) (*rig, *peer) {
	r := newRig(2, 2)
	c, other := r.clients[0], r.clients[1]
	if got := r.play(t, c, parseAs("a", "sel#1"), parseAs("b", "cmd"), sync); got != "11Z" {
		t.Fatal(got)
	}
	if got := r.play(t, other, query("begin")); got != "CZ" || other.server != r.servers[0] {
		t.Fatal(got)
	}
	return r, c
}

// Every dialogue is held where the statements were prepared and where they were
// not; the answers are those of a server of one's own.
func TestNamedFollowTheirClient(t *testing.T) {
	unread := parseAs("c", "sel#9")
	unread.bad = true
	use := []sent{bindTo("a"), execute, sync}
	for _, tc := range []struct {
		id   string
		play []sent
		want string
	}{
		{"used", use, "2D(sel#1)CZ"},
		{"described", []sent{describe("a"), describe("b"), sync}, "tTtnZ"},
		{"used twice", append(use, use...), "2D(sel#1)CZ2D(sel#1)CZ"},
		{"two at once", []sent{bindTo("a"), execute, bindTo("b"), execute, sync}, "2D(sel#1)C2CZ"},
		{"beside the unnamed one", []sent{parse("sel#2"), bindTo("a"), execute, bind, execute, sync}, "12D(sel#1)C2D(sel#2)CZ"},
		{"not dropped by a Query", append([]sent{query("cmd")}, use...), "CZ2D(sel#1)CZ"},
		{"taken", []sent{parseAs("a", "sel#2"), sync, bindTo("a"), execute, sync}, "EZ2D(sel#1)CZ"},
		{"taken, the same text", []sent{parseAs("a", "sel#1"), bindTo("a"), sync}, "EZ"},
		{"taken, and no SQL", []sent{parseAs("a", "syn"), sync, bindTo("a"), sync}, "EZ2Z"},
		{"taken in a failed transaction", []sent{query("begin"), query("err"), parseAs("a", "sel#1"), sync, query("commit"), bindTo("a"), sync}, "CZEZEZCZ2Z"},
		{"taken in a failed transaction, by what ends it", []sent{query("begin"), query("err"), parseAs("a", "commit"), sync, query("commit"), bindTo("a"), execute, sync},
			"CZEZEZCZ2D(sel#1)CZ"},
		{"taken in a failed transaction, by nothing", []sent{query("begin"), query("err"), parseAs("a", ""), bindTo("a"), sync, query("commit"), bindTo("a"), execute, sync},
			"CZEZEZCZ2D(sel#1)CZ"},
		{"taken twice in a failed transaction, by what ends it", []sent{query("begin"), query("err"), parseAs("a", "commit"), sync, parseAs("b", "commit"), sync,
			parseAs("c", "commit"), bindTo("c"), execute, sync, bindTo("c"), execute, sync}, "CZEZEZEZ12CZ2CZ"},
		{"used in a failed transaction", []sent{query("begin"), query("err"), bindTo("a"), sync, query("commit"), bindTo("a"), sync}, "CZEZEZCZ2Z"},
		{"made in a failed transaction", []sent{query("begin"), query("err"), parseAs("c", "sel#1"), sync, query("commit"), bindTo("c"), sync}, "CZEZEZCZEZ"},
		{"made behind an error in the pipeline", []sent{query("begin"), query("err"), parseAs("c", "sel#1"), sync, bindTo("c"), sync}, "CZEZEZEZ"},
		{"made in a transaction that is rolled back", []sent{query("begin"), parseAs("c", "sel#1"), sync, query("err"), query("commit"), bindTo("c"), execute, sync},
			"CZ1ZEZCZ2D(sel#1)CZ"},
		{"closed", []sent{closeOf("a"), sync, bindTo("a"), sync, bindTo("b"), sync}, "3ZEZ2Z"},
		{"closed and used in one round", []sent{closeOf("a"), bindTo("a"), sync}, "3EZ"},
		{"closed, skipped", []sent{bindTo("none"), closeOf("a"), sync, bindTo("a"), sync}, "EZ2Z"},
		{"closed and made anew", []sent{closeOf("a"), parseAs("a", "sel#2"), bindTo("a"), execute, sync}, "312D(sel#2)CZ"},
		{"closed and made anew, skipped", []sent{bindTo("none"), closeOf("a"), parseAs("a", "sel#2"), sync, bindTo("a"), execute, sync}, "EZ2D(sel#1)CZ"},
		{"made anew, closed and made anew, skipped", []sent{bindTo("none"), closeOf("a"), parseAs("a", "sel#2"), closeOf("a"), parseAs("a", "sel#3"), sync,
			bindTo("a"), execute, sync}, "EZ2D(sel#1)CZ"},
		{"made, then an error", []sent{parseAs("c", "err"), bindTo("c"), execute, sync, describe("c"), sync}, "12EZtnZ"},
		{"not made, because it fails", []sent{parseAs("c", "syn"), sync, bindTo("c"), sync}, "EZEZ"},
		{"not made, because it cannot be read", []sent{unread, sync, bindTo("c"), sync}, "EZEZ"},
		{"not made, because it is skipped", []sent{bindTo("none"), parseAs("c", "sel#2"), sync, bindTo("c"), sync, parseAs("c", "sel#3"), bindTo("c"), execute, sync},
			"EZEZ12D(sel#3)CZ"},
		{"of a name that is none", []sent{closeOf("none"), bindTo("none"), sync}, "3EZ"},
		{"of a name of ours", []sent{bindTo("postern_2"), sync, describe("postern_2"), sync, closeOf("postern_2"), sync, bindTo("a"), execute, sync}, "EZEZ3Z2D(sel#1)CZ"},
		{"dropped by SQL", []sent{query("dealloc#a"), bindTo("a"), sync, bindTo("b"), sync}, "CZEZ2Z"},
		{"dropped by SQL twice", []sent{query("dealloc#a"), query("dealloc#a")}, "CZEZ"},
		{"dropped by SQL, extended", []sent{parse("dealloc#a"), bind, execute, sync, bindTo("a"), sync}, "12CZEZ"},
		{"dropped by SQL and used in one round", []sent{parse("dealloc#a"), bind, execute, bindTo("a"), sync, bindTo("b"), sync}, "12CEZ2Z"},
		{"dropped by SQL twice, extended", []sent{parse("dealloc#a"), bind, execute, execute, sync}, "12CEZ"},
		{"dropped by SQL over two rounds", []sent{parse("dealloc#a"), sync, bind, execute, sync, bindTo("a"), sync}, "1Z2CZEZ"},
		{"dropped by a named statement", []sent{parseAs("d", "dealloc#a"), bindTo("d"), execute, sync, bindTo("a"), sync, bindTo("d"), execute, sync}, "12CZEZ2EZ"},
		{"not dropped in a failed transaction", []sent{query("begin"), query("err"), query("dealloc#a"), query("commit"), bindTo("a"), sync}, "CZEZEZCZ2Z"},
		{"not dropped in a failed transaction, extended", []sent{query("begin"), parse("dealloc#a"), bind, sync, query("err"), execute, sync, query("commit"), bindTo("a"), sync},
			"CZ12ZEZEZCZ2Z"},
		{"dropped in spite of an earlier try", []sent{query("begin"), parse("dealloc#a"), bind, sync, query("err"), execute, sync, query("commit"),
			parse("dealloc#b"), bind, execute, sync, bindTo("b"), sync}, "CZ12ZEZEZCZ12CZEZ"},
		{"all dropped", []sent{query("dealloc-all"), bindTo("a"), sync, parseAs("a", "sel#2"), bindTo("a"), execute, sync}, "CZEZ12D(sel#2)CZ"},
		{"all dropped, extended", []sent{parse("dealloc-all"), bind, execute, parseAs("a", "sel#2"), bindTo("a"), execute, sync}, "12C12D(sel#2)CZ"},
		{"one that SQL prepared", []sent{query("begin"), query("prepare#s"), bindTo("s"), sync, query("dealloc#s"), query("commit")}, "CZCZ2ZCZCZ"},
	} {
		t.Run(tc.id, func(t *testing.T) {
			for _, here := range []bool{true, false} {
				for _, apart := range []bool{false, true} { // each message answered before the next
					r, c := elsewhere(t)
					if here {
						r.play(t, r.clients[1], query("commit"))
					}
					var got string
					if apart {
						for _, m := range tc.play {
							got += r.play(t, c, m)
						}
					} else {
						got = r.play(t, c, tc.play...)
					}
					if got != tc.want {
						t.Errorf("here %v, apart %v: %s, want %s", here, apart, got, tc.want)
					}
					checkReferences(t, r)
				}
			}
		})
	}
}

// A name that is taken is the last thing that Postgres looks at, also where
// nothing can be prepared any more and where that is not known yet.
func TestTakenInAFailedTransaction(t *testing.T) {
	for text, error := range map[string]string{"syn": "syntax", "sel#1": "aborted", "commit": "exists "} {
		for _, apart := range []bool{false, true} {
			r, c := elsewhere(t)
			var got []answer
			for _, m := range []sent{query("begin"), query("err"), parseAs("a", text), sync} {
				if apart {
					r.play(t, c, m)
					got = append(got, c.got...)
				} else {
					r.send(c, m)
				}
			}
			if !apart {
				r.settle(t)
				got = c.got[1+1:] // the definitions' answers are from before
			}
			if !slices.ContainsFunc(got, func(a answer) bool { return a.typ == 'E' && strings.HasPrefix(a.detail, error) }) {
				t.Errorf("%s, apart %v: %v, want %s", text, apart, got, error)
			}
		}
	}
}

// Names are the client's own, statements are shared: the server is asked to
// parse once.
func TestNamesAreOnesOwn(t *testing.T) {
	r := newRig(3, 1)
	r.clients[1].env, r.clients[2].env = 0, 0
	a, b, c := r.clients[0], r.clients[1], r.clients[2]
	r.play(t, a, parseAs("s", "sel#1"), sync)
	r.play(t, b, parseAs("s", "sel#2"), sync)
	r.play(t, c, parseAs("other", "sel#1"), sync)
	for _, who := range []struct {
		*peer
		name, want string
	}{{a, "s", "2D(sel#1)CZ"}, {b, "s", "2D(sel#2)CZ"}, {c, "other", "2D(sel#1)CZ"}, {c, "s", "EZ"}, {a, "other", "EZ"}} {
		if got := r.play(t, who.peer, bindTo(who.name), execute, sync); got != who.want {
			t.Errorf("%s: %s, want %s", who.name, got, who.want)
		}
	}
	if n := len(r.servers[0].named); n != 2 {
		t.Errorf("the server holds %d statements", n)
	}
}

// TestWhatPosternDropsIsItsOwn: the client's names are its own still, and are made again on the server.
func TestWhatPosternDropsIsItsOwn(t *testing.T) {
	for _, tag := range []string{"DISCARD ALL", "DEALLOCATE ALL"} {
		w := newWorld(t)
		env := new(int)
		w.wants("parse", w.Parse(env, []byte("a"), text("q")), "as2")
		w.sync()
		w.answer("1Z", "")
		w.Sent(Entry{Kind: Query, Mode: Internal})
		w.answer("CZ", tag)
		if w.Held() != 0 {
			t.Errorf("%s: the server is taken to hold %d", tag, w.Held())
		}
		w.wants("bind after Postern's "+tag, w.Bind(env, nil, []byte("a")), "p3 d3 as3")
		w.sync()
		w.answer("1tT2Z", "")
		w.Sent(Entry{Kind: Query})
		w.answer("CZ", tag)
		if n := w.s.Len(); n != 0 {
			t.Errorf("after the client's own %s it has %d", tag, n)
		}
	}
}
