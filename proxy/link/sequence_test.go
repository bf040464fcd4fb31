// Tests of what is put in so that a server forgets what was drawn from sequences.

package link

import "testing"

// A Query of Postern's own drops the unnamed statement, and a Parse behind it defines another one, which is not the client's.
func TestADiscardAndParametersLeaveNothingToBind(t *testing.T) {
	l, s := New(&Statements{}), &Session{}
	l.Begin(s)
	l.Sent(Entry{Kind: Query})
	for _, c := range "CZ" {
		l.Received(byte(c), 'I')
	}
	l.End()
	l.Begin(s) // which has no unnamed statement, and nor has the server
	l.SentDiscard()
	l.Forget()
	for _, k := range []Kind{Parse, Bind, Execute, Sync} {
		l.Sent(Entry{Kind: k, Mode: Internal})
	}
	for _, c := range "CZ12CZ" {
		if v := l.Received(byte(c), 'I'); v != Swallow {
			t.Fatalf("%c: %d", c, v)
		}
	}
	if p := l.Bind(nil, nil, nil); len(p.Puts) != 1 || p.Puts[0] != (Put{Kind: Close, Name: Unnamed}) {
		t.Errorf("what Postern has prepared is there to be bound: %+v", p)
	}
}

// In the middle of an exchange all is swallowed but an error, which skips what is behind it.
func TestADiscardWithin(t *testing.T) {
	for answer, want := range map[string]string{"12312C33D": "1 2 - - - - - - D", "12E": "1 2 E"} {
		l, s := New(&Statements{}), &Session{}
		l.Begin(s)
		l.Parse(nil, nil, body)
		l.Bind(nil, nil, nil)
		l.SentDiscardWithin()
		l.Execute(nil)
		l.Sent(Entry{Kind: Sync})
		got := ""
		for _, c := range answer {
			switch l.Received(byte(c), 0) {
			case ToClient:
				got += string(c) + " "
			case Swallow:
				got += "- "
			default:
				got += "? "
			}
		}
		if got != want+" " {
			t.Errorf("%s: the client gets %s, want %s", answer, got, want)
		}
		if answer[len(answer)-1] == 'E' {
			if l.Received('Z', 'E') != ToClient || !l.Quiet() {
				t.Error("not in step after an error")
			}
		}
	}
}
