// Which run-time parameters a text sets, where pg_settings does not show them.

package sqltext

import (
	"bytes"
	"slices"
)

// MaxName is how many bytes of a name Postgres looks at (NAMEDATALEN - 1): of
// each part of a parameter's, of a statement, a database, a role, an application.
const MaxName = 63

const (
	// maxNames bounds the parameters that a text can name.
	maxNames = 256
	// maxParameter is the longest name of a parameter, with its dots, that is tracked.
	maxParameter = 255
	// maxBlank bounds what may stand between two words, and maxArguments how much
	// of a call is read, so that reading a text takes time in proportion to it.
	maxBlank, maxArguments = 256, 4096
)

// naming is what a text tells of the name of a parameter that it may set.
type naming uint8

const (
	nameShown   naming = iota // pg_settings shows it, or there is none of the name
	nameKnown                 // it does not, and this is the name
	nameInBind                // a parameter of the statement holds the name
	nameUnclear               // the name is not understood
)

// ParameterNames returns the parameters that a text sets by SET, RESET,
// set_config or a function of an extension and that pg_settings does not show: those with a dot in their
// names, the role and the session's user. Names are in lower case. Scan tells
// whether there may be others.
func ParameterNames(text []byte) (names []string) {
	var buf [maxParameter]byte
	calls, unclear := 0, 0
	for i := 0; i < len(text) && len(names) < maxNames && calls < maxNames && unclear <= maxNames; {
		if !wordByte[text[i]] {
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		var name []byte
		var how naming
		switch word := text[start:i]; {
		case equalFold(word, "set"), equalFold(word, "reset"):
			name, how = parameterName(text[i:], &buf)
		case equalFold(word, "set_config"):
			calls++
			name, how, _ = setConfig(text[i:], &buf)
		default:
			if e := extensionOf(word, text[i:]); e != nil && e.sets != "" {
				name, how = append(buf[:0], e.sets...), nameKnown
			}
		}
		if how == nameUnclear {
			unclear++
		}
		if how == nameKnown && !slices.Contains(names, string(name)) {
			names = append(names, string(name))
		}
	}
	return names
}

// ParameterName returns a value as the name of a parameter that pg_settings
// does not show, if it can be one.
func ParameterName(value []byte) (name string, ok bool) {
	if len(value) == 0 || len(value) > maxParameter {
		return "", false
	}
	for _, c := range value {
		if !wordByte[c] && c != '.' && c != '$' {
			return "", false
		}
	}
	lower := appendLower(nil, value)
	return string(lower), hiddenName(lower)
}

func hiddenName(name []byte) bool {
	return bytes.IndexByte(name, '.') >= 0 || string(name) == "role" || string(name) == "session_authorization"
}

// parameterName reads what follows SET or RESET. A name stands in buf.
func parameterName(rest []byte, buf *[maxParameter]byte) (name []byte, how naming) {
	rest = skipBlank(rest)
	word, after := nextWord(rest)
	for range 2 { // SET SESSION SESSION AUTHORIZATION is one
		if !equalFold(word, "session") && !equalFold(word, "local") {
			break
		}
		if after = skipBlank(after); len(after) > 0 && after[0] == '.' {
			break // the first part of a name
		}
		rest = after
		word, after = nextWord(rest)
	}
	if after = skipBlank(after); len(after) == 0 || after[0] != '.' {
		switch {
		case equalFold(word, "authorization"):
			return append(buf[:0], "session_authorization"...), nameKnown
		case equalFold(word, "role"):
			return append(buf[:0], "role"...), nameKnown
		}
	}
	return dottedName(rest, buf)
}

// dottedName reads the name of a parameter.
func dottedName(rest []byte, buf *[maxParameter]byte) (name []byte, how naming) {
	name = buf[:0]
	ascii := true
	for {
		part, after, ok := namePart(rest)
		switch {
		case !ok || len(name)+len(part) >= maxParameter:
			return nil, nameUnclear
		case len(part) == 0:
			return nil, nameShown // nothing that could be set
		}
		for _, c := range part {
			ascii = ascii && c < 0x80
		}
		name = appendLower(name, part)
		if rest = skipBlank(after); begins(rest, "/*") || begins(rest, "--") {
			return nil, nameUnclear
		}
		if len(rest) == 0 || rest[0] != '.' {
			break
		}
		name = append(name, '.')
		rest = skipBlank(rest[1:])
	}
	return judged(name, ascii)
}

// judged tells what a name is of which all was read. Letters beyond ASCII are
// folded by rules of the server's.
func judged(name []byte, ascii bool) ([]byte, naming) {
	switch {
	case !hiddenName(name):
		return name, nameShown
	case !ascii:
		return nil, nameUnclear
	}
	return name, nameKnown
}

// namePart reads an identifier. False: it is not understood.
func namePart(b []byte) (part, rest []byte, ok bool) {
	if begins(b, "/*") || begins(b, "--") {
		return nil, nil, false
	}
	if len(b) > 0 && b[0] == '"' {
		end := bytes.IndexByte(b[1:min(len(b), MaxName+2)], '"')
		if end <= 0 || len(b) > end+2 && b[end+2] == '"' {
			return nil, nil, false
		}
		return b[1 : 1+end], b[2+end:], true
	}
	n := 0
	for n < len(b) && n <= MaxName && (wordByte[b[n]] || b[n] == '$') {
		n++
	}
	if n > MaxName || n == 1 && b[0]|0x20 == 'u' && begins(b[1:], `&"`) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// setConfig reads what follows the word set_config: which parameter it sets,
// and whether what is set ends with the transaction for certain. A name stands
// in buf.
func setConfig(rest []byte, buf *[maxParameter]byte) (name []byte, how naming, local bool) {
	rest = rest[:min(len(rest), maxArguments)]
	rest = skipBlank(rest)
	if len(rest) > 0 && rest[0] == '"' { // the name of the function was quoted
		rest = skipBlank(rest[1:])
	}
	if len(rest) == 0 || rest[0] != '(' {
		if begins(rest, "/*") || begins(rest, "--") {
			return nil, nameUnclear, false
		}
		return nil, nameShown, true // no call
	}
	rest = skipBlank(rest[1:])
	name, how = firstArgument(rest, buf)
	return name, how, isLocal(rest)
}

// firstArgument reads a literal or the number of a parameter.
func firstArgument(rest []byte, buf *[maxParameter]byte) (name []byte, how naming) {
	switch {
	case begins(rest, "'"):
		end := bytes.IndexByte(rest[1:min(len(rest), maxParameter+1)], '\'')
		if end < 0 || !endsArgument(rest[end+2:]) {
			return nil, nameUnclear
		}
		literal := rest[1 : 1+end]
		ascii := true
		for _, c := range literal {
			if c == '\\' {
				return nil, nameUnclear // it may be an escape
			}
			ascii = ascii && c < 0x80
		}
		return judged(appendLower(buf[:0], literal), ascii)
	case begins(rest, "$"):
		n := 1
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		if n > 1 && endsArgument(rest[n:]) {
			return nil, nameInBind
		}
	}
	return nil, nameUnclear
}

// isLocal reports whether the last argument of a call is true. What it does not
// understand, such as escapes and dollar quotes, is not.
func isLocal(rest []byte) bool {
	depth, quoted, last := 0, false, -1
	for i, c := range rest {
		switch {
		case c == '\\':
			return false
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '$' && (i+1 == len(rest) || rest[i+1] < '0' || rest[i+1] > '9'),
			c == '"', begins(rest[i:], "/*"), begins(rest[i:], "--"):
			return false
		case c == '(':
			depth++
		case c == ',' && depth == 0:
			last = i
		case c == ')' && depth > 0:
			depth--
		case c == ')':
			if last < 0 {
				return false
			}
			third := bytes.TrimSpace(rest[last+1 : i])
			return equalFold(third, "true") || equalFold(third, "'true'") || equalFold(third, "'t'")
		}
	}
	return false
}

// endsArgument reports whether nothing more belongs to a function's argument
// than a cast.
func endsArgument(rest []byte) bool {
	rest = skipBlank(rest)
	if begins(rest, "::") {
		_, rest = nextWord(rest[2:])
		rest = skipBlank(rest)
	}
	return len(rest) == 0 || rest[0] == ','
}

// skipBlank skips white space and comments, which may be nested. It stops at
// one that does not end soon.
func skipBlank(b []byte) []byte {
	for left := maxBlank; left > 0; left-- {
		var n int
		if begins(b, "--") || begins(b, "/*") {
			n = len(b) - len(skipComment(b[:min(len(b), maxBlank)])) - max(0, len(b)-maxBlank)
		} else {
			n = len(b) - len(skipSpace(b))
		}
		if n == 0 {
			return b
		}
		b = b[n:]
	}
	return b
}

// skipComment skips the comment that begins b, if it ends.
func skipComment(b []byte) []byte {
	if b[0] == '-' {
		return b[bytes.IndexByte(b, '\n')+1:]
	}
	depth := 0
	for i := 0; i+1 < len(b); i++ {
		switch {
		case b[i] == '/' && b[i+1] == '*':
			depth++
			i++
		case b[i] == '*' && b[i+1] == '/':
			depth--
			if i++; depth == 0 {
				return b[i+1:]
			}
		}
	}
	return b
}

// appendLower folds as Postgres compares the names of parameters: ASCII only.
func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		dst = append(dst, c)
	}
	return dst
}
