// Which texts make the same SQL mean something else later: settings that parsing looks at, tables and functions, the time.

package sqltext

import "bytes"

// parsing are the parameters that parsing looks at, as SET names them, and what
// it is there. Those with a dot in their names are not among them.
var parsing = map[string]Note{
	"search_path": Alters, "schema": Alters, "role": Alters, "authorization": Alters, "session_authorization": Alters,
	"session_replication_role": Alters, "transform_null_equals": Alters,

	"datestyle": Alters, "intervalstyle": Alters, "timezone": Alters, "time": Alters, "timezone_abbreviations": Alters,
	"array_nulls": Alters, "xmloption": Alters, "xml": Alters, "lc_monetary": Alters, "lc_numeric": Alters, "lc_time": Alters,

	"standard_conforming_strings": Rereads, "backslash_quote": Rereads, "client_encoding": Rereads, "names": Rereads,

	"all": Alters | Rereads,
}

// longestParsing is the length of the longest name among them.
const longestParsing = 27

// meaning judges a word: what it says of statements that are parsed later, or of
// its own. next is where the text goes on; head says that the word may begin a
// statement, quoted that it may stand in a literal.
func meaning(word, prev, text []byte, next int, head, quoted bool) Note {
	switch word[0] | 0x20 {
	case 's':
		switch {
		case head && equalFold(word, "set"):
			return setMeaning(text[next:])
		case equalFold(word, "set_config"):
			return setConfigMeaning(text[next:])
		}
	case 'r':
		switch {
		case head && equalFold(word, "reset"):
			return setMeaning(text[next:])
		case head && equalFold(word, "revoke"):
			return Alters
		}
	case 'a', 'c', 'd', 'g':
		if head && (equalFold(word, "alter") || equalFold(word, "create") || equalFold(word, "drop") || equalFold(word, "grant")) {
			return Alters
		}
		if !head {
			break
		}
		if after, _ := nextWord(text[next:]); equalFold(word, "call") ||
			equalFold(word, "do") && !equalFold(after, "nothing") && !equalFold(after, "update") { // ON CONFLICT DO
			return Alters | Rereads
		}
	case 'i':
		if makesTable(word, prev) {
			return Alters
		}
	case 'n', 't', 'y':
		if quoted && (equalFold(word, "now") || equalFold(word, "today") || equalFold(word, "tomorrow") || equalFold(word, "yesterday")) {
			return Timed
		}
	}
	return 0
}

// makesTable reports whether a word is the INTO of a SELECT INTO.
func makesTable(word, prev []byte) bool {
	return equalFold(word, "into") && !equalFold(prev, "insert") && !equalFold(prev, "merge")
}

// setMeaning judges what follows SET or RESET.
func setMeaning(rest []byte) Note {
	word, after := nextWord(rest)
	for (equalFold(word, "session") || equalFold(word, "local")) && !begins(skipSpace(after), ".") {
		rest = after
		word, after = nextWord(rest)
	}
	if len(word) == 0 {
		if rest = skipSpace(rest); !begins(rest, `"`) {
			return Alters | Rereads // a comment, say
		}
		n := 1
		for n < len(rest) && rest[n] != '"' {
			n++
		}
		word, after = rest[1:n], rest[min(n+1, len(rest)):]
	}
	switch after = skipSpace(after); {
	case begins(after, "."):
		return 0
	case begins(after, "&"): // U&"..."
		return Alters | Rereads
	}
	return parsingNote(word)
}

// setConfigMeaning judges what follows set_config.
func setConfigMeaning(rest []byte) Note {
	rest = skipSpace(rest)
	if begins(rest, `"`) { // the name of the function was quoted
		rest = skipSpace(rest[1:])
	}
	if !begins(rest, "(") {
		return Alters | Rereads
	}
	rest = skipSpace(rest[1:])
	if begins(rest, "'") {
		for i := 1; i < len(rest); i++ {
			if rest[i] == '\'' {
				if !endsArgument(rest[i+1:]) {
					break
				}
				return parsingNote(rest[1:i])
			}
		}
	}
	return Alters | Rereads // not known
}

func parsingNote(name []byte) Note {
	if len(name) > longestParsing {
		return 0
	}
	var lower [longestParsing]byte
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	return parsing[string(lower[:len(name)])]
}

// Escapes reports whether the settings of Rereads may decide where the words and
// literals of a text end.
func Escapes(text string) bool {
	for i := 0; i < len(text) && text[i] != 0; i++ {
		if text[i] == '\\' || text[i] >= 0x80 {
			return true
		}
	}
	return false
}

// Shapeless reports whether the body of a Parse, less its name, is of a statement
// whose columns are those of what is behind a name whenever it runs: of a cursor,
// or of a statement that SQL has prepared.
func Shapeless(body []byte) bool {
	text := skipBlank(bytes.TrimPrefix(body, []byte{0}))
	for begins(text, ";") {
		text = skipBlank(text[1:])
	}
	word, _ := nextWord(text)
	return equalFold(word, "fetch") || equalFold(word, "execute")
}
