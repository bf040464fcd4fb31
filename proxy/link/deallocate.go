// DEALLOCATE of a statement that the client has prepared by the protocol, as psycopg does it.

package link

import "github.com/postern/postern/proxy/sqltext"

// The statement is the client's alone by its name; the server holds it under
// another, for others as well. So that DEALLOCATE succeeds or fails as it would
// (in a transaction that has failed, say), it is made to drop something else
// that was prepared for this purpose, and its tag shows the success.

// Dropping is the text of the Query that stands for a client's DEALLOCATE. The
// tag of its first statement is not for the client.
func Dropping(name ServerName) string {
	n := string(name.Append(nil))
	return "PREPARE " + n + " AS SELECT 1; DEALLOCATE " + n
}

// dropping puts in what an Execute of a rewritten DEALLOCATE drops, if the
// client still has the statement, and returns that.
func (l *Link) dropping(name []byte) *Name {
	l.put(Put{Kind: Close, Name: Scratch}, Entry{})
	n := l.client.find(name)
	if n == nil {
		return &Name{text: string(name), stmt: &Stmt{}} // for the error's text
	}
	l.put(Put{Kind: Parse, Name: Scratch}, Entry{})
	return n
}

// intern returns the definition for a Parse, less its name. Where that is a
// DEALLOCATE of one of the client's statements, perhaps a later one, it is rewritten, with the
// client's name as a comment. False: it is open which statements there are.
func (l *Link) intern(body []byte) (*Stmt, bool) {
	st := l.stmts.Intern(body)
	if st.Note&sqltext.Deallocates == 0 {
		return st, true
	}
	end := 1
	for end < len(body) && body[end] != 0 {
		end++
	}
	name, ok := sqltext.Deallocated(body[min(1, end):end])
	if !ok {
		return st, true
	}
	if l.unsettled() {
		l.stmts.Drop(st)
		return nil, false
	}
	if l.client.find(name) == nil && l.client.prepares { // perhaps SQL's
		return st, true
	}
	l.stmts.Drop(st)
	text := Scratch.Append([]byte("\x00DEALLOCATE "))
	text = append(append(text, " --"...), name...)
	st = l.stmts.Intern(append(text, body[end:]...))
	st.deallocates = string(name)
	return st, true
}
