// DEALLOCATE of a statement that the client has prepared by the protocol, as psycopg does it.

package link

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
	if st.Note&Deallocates == 0 {
		return st, true
	}
	end := 1
	for end < len(body) && body[end] != 0 {
		end++
	}
	name, ok := deallocated(body[min(1, end):end])
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

// deallocated returns the statement that a text drops, if that is all it does.
// What it does not understand is left to the server.
func deallocated(text []byte) (name []byte, ok bool) {
	word, rest := nextWord(text)
	if !equalFold(word, "deallocate") || !separates(rest) {
		return nil, false
	}
	name, rest, ok = identifier(rest)
	if ok && string(name) == "prepare" && !ends(rest) {
		name, rest, ok = identifier(rest)
	}
	if !ok || !ends(rest) {
		return nil, false
	}
	return name, true
}

// identifier reads a name: in quotes, or folded to lower case. ALL is none.
func identifier(b []byte) (name, rest []byte, ok bool) {
	b = skipSpace(b)
	if len(b) > 0 && b[0] == '"' {
		for i := 1; i < len(b); i++ {
			switch c := b[i]; {
			case c == '\n' || c == '\r' || c == 0:
				return nil, nil, false // cannot stand in a comment
			case c != '"':
				name = append(name, c)
			case i+1 < len(b) && b[i+1] == '"':
				name = append(name, c)
				i++
			default:
				return name, b[i+1:], len(name) > 0
			}
		}
		return nil, nil, false
	}
	n := 0
	for n < len(b) && wordByte[b[n]] && b[n] < 0x80 {
		c := b[n]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		name = append(name, c)
		n++
	}
	ok = n > 0 && (name[0] < '0' || name[0] > '9') && string(name) != "all"
	return name, b[n:], ok
}

// separates reports whether a word is over.
func separates(b []byte) bool { return len(b) > 0 && (b[0] == '"' || len(skipSpace(b)) < len(b)) }

// ends reports whether nothing comes any more.
func ends(b []byte) bool {
	for len(b) > 0 && (b[0] == ';' || b[0] == 0 || len(skipSpace(b)) < len(b)) {
		b = skipSpace(b)
		if len(b) > 0 && (b[0] == ';' || b[0] == 0) {
			b = b[1:]
		}
	}
	return len(b) == 0
}
