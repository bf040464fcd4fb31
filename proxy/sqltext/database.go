// Which databases a statement wants to have for itself: what it drops, renames, moves or copies.

package sqltext

// Vacates returns the databases that nobody else may be connected to while a
// text runs: those that DROP DATABASE, ALTER DATABASE ... RENAME or SET
// TABLESPACE, and CREATE DATABASE name, the latter as its template. None of these
// runs beside another statement, so only the first is looked at. Scan says of
// each that it Alters.
func Vacates(text []byte) (databases []string) {
	r := words{rest: text}
	for r.next(); r.is(";"); r.next() {
	}
	name, vacates := "", false
	switch {
	case r.skip("drop"):
		if vacates = r.skip("database"); r.skip("if") {
			r.skip("exists")
		}
		name = r.name
	case r.skip("alter"):
		of := r.skip("database")
		if name = r.name; of {
			r.next()
			vacates = r.is("rename") || r.skip("set") && r.is("tablespace")
		}
	case r.skip("create"):
		vacates = r.skip("database")
		name = r.template()
	}
	if !vacates || name == "" {
		return nil
	}
	return []string{name}
}

// template reads on from the name of a new database: what it is a copy of.
func (r *words) template() string {
	for r.next(); r.kind != noWord && !r.is(";"); r.next() {
		if !r.skip("template") {
			continue
		}
		if r.skip("="); r.is("default") {
			break
		}
		return r.name
	}
	return "template1"
}

// words reads a text word by word, as far as names of databases need it.
type words struct {
	rest []byte
	kind wordKind
	name string // what the word is as a name: folded unless it is quoted, and cut where Postgres does
}

type wordKind uint8

const (
	noWord    wordKind = iota // the end, or what is not understood: U&"..." and the like
	plainWord                 // a keyword or a name
	quotedWord
	mark // a single character
)

// is reports whether the word is a keyword or a mark.
func (r *words) is(word string) bool {
	return (r.kind == plainWord || r.kind == mark) && r.name == word
}

// skip goes on to the next word if this one is word.
func (r *words) skip(word string) bool {
	is := r.is(word)
	if is {
		r.next()
	}
	return is
}

// next goes on to the next word.
func (r *words) next() {
	r.kind, r.name = noWord, ""
	for {
		if r.rest = skipSpace(r.rest); !begins(r.rest, "--") && !begins(r.rest, "/*") {
			break
		}
		left := skipComment(r.rest)
		if len(left) == len(r.rest) {
			return // all of it
		}
		r.rest = left
	}
	switch b := r.rest; {
	case len(b) == 0 || b[0] == 0:
	case b[0] == '"' || b[0] == '\'':
		r.quoted(b[0])
	case wordByte[b[0]]:
		n := 1
		for n < len(b) && (wordByte[b[n]] || b[n] == '$') {
			n++
		}
		if n < len(b) && (b[n] == '\'' || begins(b[n:], `&"`) || begins(b[n:], `&'`)) {
			return // escapes
		}
		r.kind, r.name, r.rest = plainWord, cut(string(appendLower(nil, b[:n]))), b[n:]
	default:
		r.kind, r.name, r.rest = mark, string(b[:1]), b[1:]
	}
}

// quoted reads a quoted name, or a literal that stands for one.
func (r *words) quoted(quote byte) {
	var name []byte
	for i := 1; i < len(r.rest); i++ {
		switch c := r.rest[i]; {
		case c != quote:
			name = append(name, c)
		case i+1 < len(r.rest) && r.rest[i+1] == quote:
			name = append(name, c)
			i++
		default:
			r.kind, r.name, r.rest = quotedWord, cut(string(name)), r.rest[i+1:]
			return
		}
	}
}

// cut is where Postgres cuts a name, but for the middle of a character.
func cut(name string) string {
	if len(name) <= MaxName {
		return name
	}
	n := MaxName
	for n > 0 && name[n]&0xc0 == 0x80 {
		n--
	}
	return name[:n]
}
