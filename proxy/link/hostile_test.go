// Servers that lie: whatever they drop, add or change, they are not lent to anybody while they owe something.

package link

import (
	"testing"

	"pgregory.net/rapid"
)

// lies are what a server says without cause. ErrorResponse, ReadyForQuery and
// CopyInResponse are not among them: they say what becomes of other messages,
// and who says them at random cannot be told from one who means it.
const lies = "123CIDTnstVHdcW"

// hostile is work with a server that lies now and then.
//
// It reports over when the link has noticed, and when there was an error: to
// which message that belongs is up to the server, lies or not.
func hostile(t *rapid.T, r *rig) (over bool) {
	s := r.servers[0]
	for range rapid.IntRange(0, 6).Draw(t, "work") {
		lie := answer{typ: rapid.SampledFrom([]byte(lies)).Draw(t, "lie")}
		how := rapid.IntRange(0, 16).Draw(t, "how")
		switch {
		case len(s.in) > 0 && how < 6:
			s.step()
		case len(s.out) > 0 && how == 13: // dropped
			s.out = s.out[1:]
		case len(s.out) > 0 && how == 14: // changed
			s.out[0] = lie
		case how == 15: // added
			s.out = append([]answer{lie}, s.out...)
		}
		if len(s.out) > 0 {
			a := s.out[0]
			s.out = s.out[1:]
			if r.receive(s, a) == Broken || a.typ == 'E' {
				return true
			}
		}
		if s.link.Free() && !s.idle() {
			t.Fatalf("said to be free: %+v", s.pgServer)
		}
	}
	return false
}

func TestLiesFreeNobody(t *testing.T) {
	check(t, func(t *rapid.T) {
		r := newRig(1, 1)
		r.pinned = true
		d := &driver{peer: r.clients[0], like: taste{copies: rapid.Bool().Draw(t, "copies")}}
		for range rapid.IntRange(1, 30).Draw(t, "messages") {
			d.next(t, r)
			if hostile(t, r) {
				return
			}
		}
	})
}

// One ReadyForQuery too many is noticed when everything has arrived, at the
// latest. Errors end the test, as above.
func TestExtraReadyIsBroken(t *testing.T) {
	check(t, func(t *rapid.T) {
		r := newRig(1, 1)
		r.pinned = true
		d := &driver{peer: r.clients[0], like: taste{unreadable: true}}
		n := rapid.IntRange(1, 12).Draw(t, "messages")
		extra := rapid.IntRange(0, n-1).Draw(t, "extra")
		s := r.servers[0]
		deliver := func() (over bool) {
			for len(s.in)+len(s.out) > 0 && !over {
				if len(s.out) == 0 {
					s.step()
					continue
				}
				a := s.out[0]
				s.out = s.out[1:]
				over = r.receive(s, a) == Broken || a.typ == 'E'
			}
			return over
		}
		d.sends(r, sent{typ: 'Q', text: "sel"})
		for i := range n {
			d.next(t, r)
			if i == extra {
				if r.receive(s, answer{'Z', "I"}) == Broken {
					return
				}
			}
			if rapid.Bool().Draw(t, "deliver") && deliver() {
				return
			}
		}
		d.sends(r, sent{typ: 'S'})
		if !deliver() {
			t.Fatalf("an extra ReadyForQuery went unnoticed: %+v", s.link)
		}
	})
}

// What no server may ever say.
func TestBroken(t *testing.T) {
	for _, script := range []string{
		// F10 extra ReadyForQuery, F11 a late row, F24 CopyBoth unasked, F22 and F23 a bad status.
		"Q | C ZI !ZI", "| !ZI", "Q | C ZI !D", "| !1", "| !T", "| !C", "Q | !W", "E | !W", "| !G",
		"Q | C !ZX", "Q | C !Z", "S | !Zi",
		// Answers to something else.
		"Q | !1", "Q | !2", "Q | !3", "Q | !n", "Q | !t", "Q | !s", "Q | !V",
		"P | !2", "P | !C", "P | !ZI", "P | !T", "P | !G", "B | !1", "B | !D", "D | !D", "D | !C", "D | !3",
		"E | !T", "E | !1", "E | !ZI", "E | !V", "C | !1", "C | !C", "S | !C", "S | !D", "S | !1", "S | !T", "S | !G", "S | !c",
		"F | !C", "F | !D", "F | !T", "F | !G",
		"P B S | 1 !ZI", "P B S | !2",
		// Out of order.
		"P B E S | 1 !C", "P D S | !t", "B E | 2 C !C",
		// Nobody ends a COPY IN for the client.
		"Q | G !C", "Q | G !ZI", "E | G !C", "E S | G !ZI",
		// What was skipped is not answered.
		"P B E S | E !2", "P Q | E !T", "P F | E !V", "P S | E ZI !ZI",
	} {
		play(t, script)
	}
}
