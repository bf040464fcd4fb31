// What an equal text may come to something else by: settings that parsing looks at, names that mean other tables, and the time.

package link

// Statements are shared under the settings that Postern knows their client to
// have. It does not know what holds for a transaction only (SET LOCAL, a table
// that may yet be rolled back), nor what a lease has just changed. What is
// parsed then is the client's alone: it is held under its Name, where nobody
// else finds it. Elsewhere it is parsed again, as Postgres itself does with any
// statement, under the settings of that moment, when the search_path or a table
// has changed, or a schema anywhere. Only where its words and literals end is
// settled for good: a client with a statement of which that was settled under
// such settings keeps its server.

// unlike is what may make a Parse now come to something else than under the
// settings that the client is known to have: Alters, Rereads or both.
func (l *Link) unlike() Note {
	n := l.altered
	if l.alters > 0 {
		for i := l.head; i < len(l.queue); i++ {
			if e := &l.queue[i]; e.alters() {
				n |= e.Note
			}
		}
	}
	return n & (Alters | Rereads)
}

// define returns a client's new name for st, whose reference it takes over.
func (l *Link) define(env any, name []byte, st *Stmt) *Name {
	n := &Name{text: string(name), stmt: st, env: env}
	unlike := l.unlike()
	if unlike != 0 || st.Note&Timed != 0 {
		n.alone, n.env = true, n
	}
	n.fixed = unlike&Rereads != 0 && escapes(st.Body[1:])
	return n
}

// places returns where what the server holds of a client's statement is looked
// for, and where it is kept if it is parsed now.
func (l *Link) places(n *Name, env any) (first, then any) {
	first, then = env, env
	if unlike := l.unlike() != 0; n.alone || unlike {
		if first = n.env; unlike || n.stmt.Note&Timed != 0 {
			then = n
		}
	}
	return first, then
}

// lookup returns what the server holds of a client's statement, with types given
// for its parameters; nil for nothing that can be used.
func (l *Link) lookup(n *Name, env any, types string) *held {
	first, then := l.places(n, env)
	h := l.cache.find(n.stmt, first, types)
	if !h.fresh() && then != first {
		h = l.cache.find(n.stmt, then, types)
	}
	if !h.fresh() {
		return nil
	}
	l.cache.touch(h)
	return h
}

// prepare has the server hold a client's statement.
func (l *Link) prepare(n *Name, env any, types string) *held {
	_, then := l.places(n, env)
	h := l.hold(l.stmts.Keep(n.stmt), then, types)
	l.put(Put{Kind: Parse, Name: h.name, Stmt: n.stmt, Types: types}, Entry{held: h})
	return h
}

// ensure has the server hold a client's statement in any shape.
func (l *Link) ensure(n *Name, env any) *held {
	if h := l.lookup(n, env, ""); h != nil {
		return h
	}
	return l.prepare(n, env, "")
}

// fresh reports whether what is held can be used: no server has said that the
// statement must be prepared again. What others were told says nothing of what
// is one client's alone.
func (h *held) fresh() bool {
	if h == nil || h.stale {
		return false
	}
	_, alone := h.env.(*Name)
	return alone || h.version == h.stmt.version
}

// fixed reports whether the client keeps the server for the sake of what is held.
func (l *Link) fixed(h *held) bool {
	n, ok := h.env.(*Name)
	return ok && n.fixed && l.client != nil && l.client.named[n.key()] == n
}

// changed records a command after which an equal Parse may mean something else,
// and, if its transaction has not ended, will again.
func (l *Link) changed() {
	l.stmts.changes++
	l.altered |= Alters
	l.unended = true
}

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

// escapes reports whether the settings of Rereads may decide where the words and
// literals of a text end.
func escapes(text string) bool {
	for i := 0; i < len(text) && text[i] != 0; i++ {
		if text[i] == '\\' || text[i] >= 0x80 {
			return true
		}
	}
	return false
}
