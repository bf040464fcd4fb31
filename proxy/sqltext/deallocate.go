// Which prepared statement a text drops, if that is all it does.

package sqltext

// Deallocated returns the statement that a text drops, if that is all it does.
// What it does not understand is left to the server.
func Deallocated(text []byte) (name []byte, ok bool) {
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
