// What a statement's text says about state that outlives a transaction.

package link

// Note is what Scan found in a text.
type Note uint8

const (
	// Leaves marks a text that may leave session state which no command tag
	// shows: set_config, a session advisory lock, a temporary table, a cursor
	// WITH HOLD.
	Leaves Note = 1 << iota
	// SetHarmless marks a text whose SETs are all over with the transaction or
	// of parameters that the server reports, which Postern tracks.
	SetHarmless
	// DropsUnnamed marks a Close of the unnamed statement; Scan never says it.
	DropsUnnamed
	// Deallocates marks a text that may drop prepared statements.
	Deallocates
)

// wordStart marks the first letters of the words that Scan looks at.
var wordStart = func() (t [256]bool) {
	for _, c := range "dDhHpPsStT" {
		t[c] = true
	}
	return t
}()

var wordByte = func() (t [256]bool) {
	for c := range 256 {
		t[c] = c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
	}
	return t
}()

// Scan reads a text once, without understanding it: words are compared
// wherever they stand, even inside literals and comments, so that it errs on
// the side of too much. What the body of a function does cannot be seen, and
// what the command tag shows for certain (SET, LISTEN, ...) counts only once
// the tag has come; see TagState.
func Scan(text []byte) (note Note, state State) {
	harmless, harmful := false, false
	begin := true // at the beginning of a statement
	var prev []byte
	for i := 0; i < len(text); {
		c := text[i]
		if !wordByte[c] {
			if c == ';' {
				begin = true
			}
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		word := text[start:i]
		if stateStart[c] {
			state |= stateOf(word, prev, text, i)
		}
		if wordStart[c] {
			switch {
			case begin && equalFold(word, "set"):
				if harmlessSet(text[i:]) {
					harmless = true
				} else {
					harmful = true
				}
			case c|0x20 == 'd':
				if equalFold(word, "deallocate") || equalFold(word, "discard") {
					note |= Deallocates
				}
			case leaves(word, prev, text):
				note |= Leaves
			}
		}
		begin = false
		prev = word
	}
	if harmless && !harmful && !hasComment(text) { // which may hide where a statement begins
		note |= SetHarmless
	}
	return note, state
}

// leaves judges one word. prev is the word before it.
func leaves(word, prev, text []byte) bool {
	switch word[0] | 0x20 {
	case 's':
		return equalFold(word, "set_config") || equalFold(word, "setseed")
	case 'h':
		return equalFold(word, "hold")
	case 'p':
		return equalFold(word, "pg_temp") ||
			containsFold(word, "advisory") && !containsFold(word, "xact") && !containsFold(word, "unlock")
	case 't':
		return (equalFold(word, "temp") || equalFold(word, "temporary")) &&
			(containsFold(prev, "create") || containsFold(prev, "replace") || containsFold(prev, "into") ||
				containsFold(prev, "local") || containsFold(prev, "global") || hasComment(text))
	}
	return false
}

// hasComment reports whether something may stand between two words unseen.
func hasComment(text []byte) bool {
	for i := 1; i < len(text); i++ {
		if text[i] == '*' && text[i-1] == '/' || text[i] == '-' && text[i-1] == '-' {
			return true
		}
	}
	return false
}

// harmlessSet judges what follows the word SET.
func harmlessSet(rest []byte) bool {
	word, rest := nextWord(rest)
	if equalFold(word, "session") {
		word, rest = nextWord(rest)
	}
	if rest = skipSpace(rest); len(rest) > 0 && rest[0] == '.' {
		return false // the first half of a name like local.tenant
	}
	for _, w := range [...]string{"local", "transaction", "constraints",
		"application_name", "client_encoding", "names", "datestyle", "timezone", "time", "intervalstyle", "standard_conforming_strings"} {
		if equalFold(word, w) {
			return true
		}
	}
	return false
}

// nextWord returns the word at the start of b, after white space only: a
// comment or a quote in between makes it empty.
func nextWord(b []byte) (word, rest []byte) {
	b = skipSpace(b)
	n := 0
	for n < len(b) && wordByte[b[n]] {
		n++
	}
	return b[:n], b[n:]
}

func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] >= '\t' && b[0] <= '\r') {
		b = b[1:]
	}
	return b
}

// equalFold compares a word with a lower-case one.
func equalFold(word []byte, lower string) bool {
	if len(word) != len(lower) {
		return false
	}
	for i := range word {
		c := word[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func containsFold(word []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(word); i++ {
		if equalFold(word[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}
