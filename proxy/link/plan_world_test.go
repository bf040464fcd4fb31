// What tests of plans have: a client, a server, and what is said between them in letters.

package link

import (
	"fmt"
	"strings"
	"testing"
)

// toServer is what a plan makes of a message for the server, in letters: a
// lower case one is put in, a name stands behind it.
func toServer(p Plan) string {
	var b strings.Builder
	for _, put := range p.Puts {
		fmt.Fprintf(&b, "%s%s ", map[Kind]string{Parse: "p", Describe: "d", Close: "c"}[put.Kind], short(put.Name))
	}
	switch p.Do {
	case Pass:
		b.WriteString("pass")
	case Rename:
		b.WriteString("as" + short(p.Name))
	case Rewrite:
		b.WriteString("rewritten" + short(p.Name))
	case StandIn:
		b.WriteString("stand-in")
	case Wait:
		b.WriteString("wait")
		if p.Flush {
			b.WriteString(" flush")
		}
	case TooMany:
		b.WriteString("too many")
	case Changed:
		b.WriteString("changed")
	}
	return b.String()
}

func short(n ServerName) string {
	if n == Unnamed {
		return ""
	}
	return strings.TrimPrefix(string(n.Append(nil)), prefix)
}

// world is a link and a client.
type world struct {
	*Link
	t     *testing.T
	stmts *Statements
	s     *Session
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, stmts: &Statements{}, s: &Session{}}
	w.Link = New(w.stmts)
	w.Begin(w.s)
	return w
}

func text(s string) []byte { return []byte("\x00" + s + "\x00\x00\x00") }

func (w *world) wants(what string, p Plan, want string) {
	w.t.Helper()
	if got := toServer(p); got != want {
		w.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// says is what the bodies of answers are where nothing else is said.
var says = map[rune]string{'t': "\x00\x00", 'T': column("a", 23), 'Z': "I"}

// column is a RowDescription of one column of a type.
func column(name string, oid byte) string {
	return "\x00\x01" + name + "\x00\x00\x00\x40\x01\x00\x01\x00\x00\x00" + string(rune(oid)) + "\x00\x04\xff\xff\xff\xff\x00\x00"
}

// receives judges an answer, and reads it if it describes a statement.
func (l *Link) receives(typ byte, body string) Verdict {
	status := byte(0)
	if typ == 'Z' {
		status = body[0]
	}
	v := l.Received(typ, status)
	if l.Heeds() {
		l.Heed([]byte(body), true)
	}
	return v
}

// sync sends a Sync and answers all; tag is of commands.
func (w *world) answer(types, tag string) {
	w.t.Helper()
	for _, c := range types {
		if w.receives(byte(c), says[c]) == Broken {
			w.t.Fatalf("%c is broken: %+v", c, w.Link)
		}
		if c == 'C' {
			w.Completed([]byte(tag))
		}
	}
}

// turn has another client with nothing come in its place.
func (w *world) turn(s *Session) {
	w.t.Helper()
	if !w.Free() {
		w.t.Fatal("not free")
	}
	w.End()
	w.Begin(s)
}

func (w *world) sync() { w.Sent(Entry{Kind: Sync}) }
