// The queue of outstanding answers: every kind of exchange, message by message.

package link

import (
	"strings"
	"testing"

	"github.com/postern/postern/proxy/sqltext"
)

// play runs a script of messages in protocol letters: those before a | go to
// the server, those behind it come from there, and so on in turns. ZI is a
// ReadyForQuery with its status, !X must be Broken. A word in = = checks the
// state: =free= =busy= =copy= =skip= =open= =doubt= =quiet= and their
// negations with ~.
func play(t *testing.T, script string) *Link {
	t.Helper()
	l := New(&Statements{})
	toServer := true
	for _, word := range strings.Fields(script) {
		switch {
		case word == "|":
			toServer = !toServer
		case word[0] == '=':
			if why := state(l, strings.Trim(word, "=")); why != "" {
				t.Errorf("%q: at %s: %s: %+v", script, word, why, l)
			}
		case toServer:
			sendLetter(l, word[0])
		default:
			want := ToClient
			if word[0] == '!' {
				want, word = Broken, word[1:]
			}
			var status byte
			if len(word) > 1 {
				status = word[1]
			}
			if got := l.Received(word[0], status); got != want {
				t.Errorf("%q: at %s: verdict %d, want %d", script, word, got, want)
			}
		}
	}
	return l
}

var letters = map[byte]Kind{'Q': Query, 'F': FunctionCall, 'P': Parse, 'B': Bind, 'D': Describe, 'C': Close, 'E': Execute, 'S': Sync, 'c': CopyEnd, 'f': CopyEnd}

func sendLetter(l *Link, typ byte) {
	switch typ {
	case 'd': // the link is not told of CopyData
	case 'H':
		l.SentFlush()
	default:
		l.Sent(Entry{Kind: letters[typ]})
	}
}

func state(l *Link, word string) string {
	word, not := strings.CutPrefix(word, "~")
	var is bool
	switch word {
	case "free":
		is = l.Free()
	case "busy":
		is = !l.Free()
	case "quiet":
		is = l.Quiet()
	case "copy":
		is = l.CopyIn()
	case "skip":
		is = l.Skipping()
	case "open":
		is = l.NeedsSync()
	case "ready":
		is = l.AwaitsReady()
	case "doubt":
		is = l.doubt
	default:
		return "no such state"
	}
	if is == not {
		return "is not so"
	}
	return ""
}

func TestScripts(t *testing.T) {
	for name, scripts := range map[string][]string{
		"nothing sent": {"=free= =quiet= =~ready= =~open="},
		"simple": {
			"Q =busy= =ready= | T D D C =busy= ZI =free=",
			"Q | I ZI =free=", // Q12 an empty one
			"Q | E ZI =free=",
			"Q | T D C T D C E ZI =free=", // several statements, the last fails
			"Q | C ZT =busy= =quiet= | Q | C ZI =free=",
			"Q | C ZT | Q | E ZE =busy= =quiet= | Q | C ZI =free=",
			"Q Q Q | C ZI =busy= C ZI =busy= C ZI =free=",
			"Q | ZI =free=", // says nothing of what it did: odd, but it is ready
		},
		"extended": {
			"P =open= =~ready= B D E S =ready= =~open= | 1 2 T D C =busy= ZI =free=",
			"P D S | 1 t T ZI =free=",
			"P D S | 1 t n ZI =free=",
			"B D E S | 2 n C ZI =free=",
			"C S | 3 ZI =free=",
			"B E S | 2 I ZI =free=",
			"B E S | 2 D s ZT =busy= | E S | D C ZI =free=", // suspended, in a transaction
			"P B E S P B E S | 1 2 C ZI =busy= 1 2 C ZI =free=",
			"S S S | ZI =busy= ZI =busy= ZI =free=", // Q21
			"P S B E S | 1 ZI =busy= 2 C ZI =free=",
			"P B E S | 1 2 C E ZI =free=", // a deferred constraint fails at the Sync
			"S | E ZI =free=",             // Q09 a Sync with a body
		},
		"no Sync": {
			"P B E | 1 2 C =busy= =~quiet= =open= =~ready= | S | ZI =free=",
			"H =busy= =open= S | ZI =free=", // Q34
			"P B E H | 1 2 C =busy= | S | ZI =free=",
			"P Q | 1 T D C ZI =free=",     // Q37
			"P B E Q | 1 2 C C ZI =free=", // the Query ends the exchange
			"P F | 1 V ZI =free=",
			"Q | C ZI | H =busy= S | ZI =free=",
		},
		"errors": {
			"P B E S | E =busy= =ready= ZI =free=", // Q35
			"P B E S | 1 E =busy= ZI =free=",       // Q13
			"P B E S | 1 2 D D E =busy= ZI =free=", // in the middle of the rows
			"P B E S P B E S | E ZI =busy= 1 2 C ZI =free=",
			"P B E S P B E S | 1 2 C ZI E ZI =free=",
			"P | E =skip= =open= =busy= | B E =skip= S =~skip= | ZI =free=",
			"P | E | B E H S B E S | ZI 2 C ZI =free=",
			"P Q | E =skip= =busy= =~ready= | S =ready= | ZI =free=", // Q36
			"P Q S | E =ready= ZI =free=",                            // Q36, the Sync sent along
			"P | E =skip= | Q F =skip= =~ready= S | ZI =free=",       // Q36, sent later
			"P F S | E ZI =free=",
			"P B E S | 1 2 E ZE =busy= | Q | C ZI =free=",
			"P | E | c f d S | ZI =free=",
		},
		"function call": {
			"F | V ZI =free=",
			"F | E ZI =free=", // Q25, Q26
			"F Q | V ZI C ZI =free=",
		},
		"copy out": {
			"Q | H d d c C ZI =free=",
			"Q | H d E ZI =free=",
			"B E S | 2 H d c C ZI =free=",
			"Q | H d c C T D C ZI =free=",
		},
		"copy in, simple": {
			"Q | G =copy= =busy= | d d c =~copy= =busy= | C ZI =free=",
			"Q | G | d f | E ZI =free=",                             // Q32
			"Q | G | d | E =~copy= ZI =free= | c =free= d f =free=", // fails, and the end comes late
			"Q | G | d | E | c =busy= | ZI =free=",                  // the end comes between
			"Q | G | d c | E ZI =free=",                             // fails at the end
			"Q d d c | G =~copy= C ZI =free=",                       // all sent at once
			"Q d c | E ZI =free=",                                   // there never was a COPY
			"Q d c Q | G C ZI C ZI =free=",
			"Q d c Q | E ZI C ZI =free=",
			"Q | G | d c | C G =copy= | d c | C ZI =free=", // two in one Query
			"Q c c | G C G C ZI =free=",
			"Q c c | G E ZI =free=",
			"Q c | G C G =copy= | c | C ZI =free=",
			"Q | C G =copy= | c | C ZI =free=",
			"Q | G | H c | C ZI =free=", // a Flush in it is ignored
			"Q H | G =~open= | c | C ZI =free=",
			"Q | G | S S c | C ZI =free=", // and so is a Sync
			"Q S | G =copy= | c | C ZI =free=",
			"Q c P | G C ZI 1 =busy= =open= | S | ZI =free=",
			"Q c H | G C ZI =busy= =open= | S | ZI =free=",
			"Q c P c | G C ZI 1 =busy= =open= | S | ZI =free=", // a stray end closes nothing
		},
		"copy in, extended": {
			"P B E S | 1 2 G =copy= | d c =open= | C =busy= | S | ZI =free=", // libpq sends the Sync along
			"P B E H | 1 2 G | d c S | C ZI =free=",
			"P B E | 1 2 G =copy= | d c | C =busy= =open= | S | ZI =free=",
			"P B E d c S | 1 2 G C ZI =free=",
			"P B E S d c S | 1 2 G C ZI =free=",
			"P B E S d c S | E ZI =busy= ZI =free=", // no COPY: both Syncs count
			"P B E c S | 1 2 G E ZI =free=",
			"P B E | 1 2 G | d | E =skip= =~copy= | d c S | ZI =free=",
			"P B E | 1 2 G | d c | E =skip= | S | ZI =free=",
			"P B E c S P B E c S | 1 2 G C ZI 1 2 G C ZI =free=",
			"P B E | 1 2 G | f S | E ZI =free=",
			"P B E c P B E S | 1 2 G C 1 2 C ZI =free=",
			"P B E c P B E S | 1 2 G E ZI =free=",
		},
		"copy in, fails around a Sync": {
			// The Sync was ignored, then it failed.
			"P B E S | 1 2 G | d c S | E ZI =busy= =~ready= | Q =ready= | T =ready= D C ZI =free=",
			// It failed before the Sync was read.
			"P B E S | 1 2 G | d c S | E ZI =busy= ZI =free=",
			"P B E S | 1 2 G E =busy= ZI =free= | d c S | ZI =free=",
			"P B E S | 1 2 G | d | E =skip= =open= | S | ZI =busy= | P S | 1 ZI =free=",
			"P B E S | 1 2 G | d | E | c c S c | ZI =busy= | S | ZI =busy= =~ready= | Q | C ZI =free=",
			"Q S S | G E ZI =busy= ZI =busy= ZI =free=",
			"Q S | G | d c | E ZI =busy= =~ready= | Q | E =ready= ZI =free=",
			"Q S | G | d c Q | E ZI T D C ZI =free=",
			"Q S S | G | d | E | c S | ZI ZI =busy= | Q | T D C ZI =free=", // the end comes late
			"Q S | G | d c Q | E ZI ZI T D C ZI =free=",
			"Q | G | d S d c S | E ZI ZI =busy= | Q | I ZI =free=",
			// What was pipelined behind it may have been skipped or not.
			"P B E S c P S | 1 2 G E =doubt= ZI =busy=",
			"P B E S | 1 2 G E | P =doubt= | ZI =busy=",
		},
		"copy in, against the rules": {
			"Q | G | Q =doubt= | E E =busy=",   // Q30
			"E | G | P S =doubt= | E E =busy=", // Q31
			"Q P | G =doubt= E E =busy=",
			"E Q S | G =doubt= E =busy=",
		},
		"stray ends of a COPY": { // Q22 to Q24
			"c d f =free= =quiet= Q | C ZI =free=",
			"Q c | C ZI =free=",
			"P c S | 1 ZI =free=",
			"P B E c S | 1 2 C ZI =free=",
			"S c S c | ZI =busy= ZI =free=",
			"P c c c B S | 1 2 ZI =free=",
		},
		"last words": {
			"| E", "Q | C ZI E", "Q | E E",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, script := range scripts {
				play(t, script)
			}
		})
	}
}

// No prefix of an exchange frees the server: only its last message does.
func TestOnlyTheLastAnswerFrees(t *testing.T) {
	for _, script := range []string{
		"Q | T D D C ZI", "P B D E S | 1 2 T D C ZI", "P B E S P B E S | 1 2 C ZI 1 2 C ZI", "P D S | 1 t n ZI",
		"Q | G | d c | C ZI", "P B E S | 1 2 G | d c S | C ZI", "F | V ZI", "P B E S | E ZI", "Q | H d c C ZI",
	} {
		words := strings.Fields(script)
		for i := 1; i < len(words); i++ {
			if l := play(t, strings.Join(words[:i], " ")); l.Free() {
				t.Errorf("%q: free after %q", script, words[:i])
			}
		}
		if l := play(t, script); !l.Free() {
			t.Errorf("%q: not free", script)
		}
	}
}

func TestStatus(t *testing.T) {
	l := New(&Statements{})
	if l.Status() != 'I' {
		t.Errorf("fresh: %q", l.Status())
	}
	for _, want := range []byte("TEI") {
		l.Sent(Entry{Kind: Query})
		l.Received('C', 0)
		if v := l.Received('Z', want); v != ToClient || l.Status() != want || l.Free() != (want == 'I') {
			t.Errorf("%q: verdict %d, status %q, free %v", want, v, l.Status(), l.Free())
		}
	}
}

// Modes: who gets which answer.
func TestModes(t *testing.T) {
	for _, tc := range []struct {
		id   string
		sent []Entry
		in   string
		want []Verdict
	}{
		{"a statement parsed again", []Entry{{Kind: Parse, Mode: Quiet}, {Kind: Bind}, {Kind: Execute}, {Kind: Sync}}, "12DCZ",
			[]Verdict{Swallow, ToClient, ToClient, ToClient, ToClient}},
		{"that fails", []Entry{{Kind: Parse, Mode: Quiet}, {Kind: Bind}, {Kind: Execute}, {Kind: Sync}}, "EZ",
			[]Verdict{ToClient, ToClient}},
		{"the unnamed statement dropped", []Entry{{Kind: Close, Mode: Quiet}, {Kind: Bind}, {Kind: Sync}}, "3EZ",
			[]Verdict{Swallow, ToClient, ToClient}},
		{"our own round", []Entry{{Kind: Parse, Mode: Internal}, {Kind: Bind, Mode: Internal}, {Kind: Execute, Mode: Internal}, {Kind: Sync, Mode: Internal}}, "12CZ",
			[]Verdict{Swallow, Swallow, Swallow, Swallow}},
		{"our own round fails", []Entry{{Kind: Query, Mode: Internal}}, "EZ", []Verdict{Swallow, Swallow}},
		{"then the client's", []Entry{{Kind: Query, Mode: Internal}, {Kind: Query}}, "CZTCZ", []Verdict{Swallow, Swallow, ToClient, ToClient, ToClient}},
		{"refused", []Entry{{Kind: Describe, Mode: Refused, Refusal: 7}, {Kind: Bind}, {Kind: Sync}}, "EZ", []Verdict{Replace, ToClient}},
		{"refused, yet answered", []Entry{{Kind: Describe, Mode: Refused}, {Kind: Sync}}, "T", []Verdict{Broken}},
		{"refused behind an error", []Entry{{Kind: Parse}, {Kind: Describe, Mode: Refused}, {Kind: Sync}}, "EZ", []Verdict{ToClient, ToClient}},
	} {
		l := New(&Statements{})
		for _, e := range tc.sent {
			l.Sent(e)
		}
		for i := range tc.in {
			if got := l.Received(tc.in[i], 'I'); got != tc.want[i] {
				t.Errorf("%s: %c: verdict %d, want %d", tc.id, tc.in[i], got, tc.want[i])
			}
			if tc.want[i] == Replace && l.Last().Refusal != 7 {
				t.Errorf("%s: which refusal is forgotten: %+v", tc.id, l.Last())
			}
		}
	}
}

// Last is the entry of the message judged latest, with what Scan said.
func TestLast(t *testing.T) {
	l := New(&Statements{})
	l.Sent(Entry{Kind: Query, Note: sqltext.SetsSeed})
	l.Sent(Entry{Kind: Execute, Note: sqltext.SetHarmless})
	for _, step := range []struct {
		typ  byte
		want sqltext.Note
	}{{'C', sqltext.SetsSeed}, {'Z', sqltext.SetsSeed}, {'D', sqltext.SetHarmless}, {'C', sqltext.SetHarmless}} {
		l.Received(step.typ, 'I')
		if l.Last().Note != step.want {
			t.Errorf("%c: %+v", step.typ, l.Last())
		}
	}
	l.Received('E', 0)
	if l.Last() != (Entry{}) {
		t.Errorf("last words: %+v", l.Last())
	}
}

func TestAsynchronous(t *testing.T) {
	for c := range 256 {
		if got, want := Asynchronous(byte(c)), strings.ContainsRune("NSA", rune(c)) && c < 128; got != want {
			t.Errorf("%q: %v", rune(c), got)
		}
	}
}

// The queue's memory is bounded by what is outstanding, however long it lives,
// and a deep pipeline costs no more per message than a shallow one.
func TestQueueStaysSmall(t *testing.T) {
	l := New(&Statements{})
	for range MaxOutstanding {
		l.Sent(Entry{Kind: Query})
	}
	for range 100_000 {
		l.Received('C', 0)
		if l.Received('Z', 'I') == Broken {
			t.Fatal("broken")
		}
		l.Sent(Entry{Kind: Query})
		if l.Outstanding() != MaxOutstanding {
			t.Fatalf("%d outstanding", l.Outstanding())
		}
	}
	if cap(l.queue) > 4*MaxOutstanding {
		t.Errorf("the queue has grown to %d", cap(l.queue))
	}
}
