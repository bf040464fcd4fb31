// Scan: a text is read once, word by word, for what it may leave (State) and what else it tells (Note).

package sqltext

import "strings"

// Note is what Scan found in a text.
type Note uint16

const (
	// SetHarmless marks a text whose SETs are all over with the transaction or
	// of parameters that the server reports, which Postern tracks.
	SetHarmless Note = 1 << iota
	// Deallocates marks a text that may drop prepared statements.
	Deallocates
	// SetsSeed marks a text in which a SET may be of the parameter seed, which no
	// list of parameters shows and nothing sets back.
	SetsSeed
	// Alters marks a text that may change which tables and functions later texts
	// mean, or what there is of them; see meaning.go.
	Alters
	// Rereads marks a text that may change which characters end a literal in later
	// ones, and what a backslash in one stands for.
	Rereads
	// Timed marks a text with a literal that means the time at which it is parsed.
	Timed
	// SetsHidden marks a text in which a SET may be of a parameter whose name is
	// not understood.
	SetsHidden
	// HidesNames marks a text that sets a parameter whose name it computes.
	HidesNames
	// BodyHides marks a text in which a DO block may do either.
	BodyHides
	// Resets marks a text that may put a parameter back to what it is by itself.
	Resets
	// Unseen marks what stands for a text that was not seen, or not all of it:
	// the name of a function in escapes, a text that is made up for one to run.
	Unseen
)

// known are the words that a text is judged by. Names that begin with pg_ are
// looked at as well, and those of extensions.
const known = "alter call close copy create currval deallocate default discard do drop grant hold insert into lastval merge nextval now " +
	"query_to_xml query_to_xml_and_xmlschema query_to_xmlschema reset revoke set set_config setseed setval temp temporary today tomorrow " +
	"ts_rewrite ts_stat unlisten yesterday"

// lengths has, for the first letter of a word, a bit for each length that a
// known word has, so that nearly all other words are not looked at twice.
type lengths [256]uint32

var knownLengths = func() (t lengths) {
	add := func(word string) {
		t[word[0]] |= 1 << len(word)
		t[word[0]-'a'+'A'] |= 1 << len(word)
	}
	for _, word := range strings.Fields(known) {
		add(word)
	}
	for _, e := range extensions {
		add(e.name)
	}
	return t
}()

// has reports whether a word may be a known one.
func (t *lengths) has(word []byte) bool {
	return t[word[0]]>>min(len(word), 31)&1 != 0 || len(word) > 3 && word[2] == '_' && word[1]|0x20 == 'g' && word[0]|0x20 == 'p'
}

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
	note, state = scan(text, &knownLengths)
	if note&Unseen != 0 {
		note, state = note|Alters|Rereads|Resets, state|StateUnseen
	}
	return note, state
}

// scan is Scan, but for what may be done by what is Unseen.
func scan(text []byte, known *lengths) (note Note, state State) {
	r := reader{text: text}
	begin, quoted := true, false // at the beginning of a statement; perhaps in a literal
	var prev []byte
	for i := 0; i < len(text); {
		c := text[i]
		if !wordByte[c] {
			switch c {
			case ';':
				begin = true
			case '\'':
				quoted = !quoted
			case '$', '-', '/':
				r.marks(i)
			case '"':
				if i > 1 && text[i-1] == '&' {
					r.unseen = r.unseen || spellsASCII(text, i)
				}
			}
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		word := text[start:i]
		if known.has(word) {
			head := begin || r.commented // which may hide where a statement begins
			state |= r.stateOf(word, prev, i)
			note |= meaning(word, prev, text, i, head, quoted || r.dollars || r.commented)
			switch {
			case equalFold(word, "set"):
				note |= r.set(i, begin)
				r.setting = r.setting || head
			case equalFold(word, "reset"):
				r.resets = r.resets || head
			case equalFold(word, "default"):
				r.resets = r.resets || r.setting
			case equalFold(word, "deallocate"):
				note |= Deallocates
			case equalFold(word, "discard"):
				note |= Deallocates
				r.resets = r.resets || head
			case equalFold(word, "do") && head:
				r.literal = r.literal || !bodyInDollars(text[i:])
				if r.body == 0 {
					r.body = i
				}
			}
		}
		begin = false
		prev = word
	}
	if r.settings > 0 && containsFold(text[:r.settings], "update") { // a SET of any parameter that the view shows
		state, note = state|StateSet, note|Alters|Rereads|Resets
	}
	if r.resets || r.body > 0 || r.calls > 0 && state&StateSet != 0 {
		note |= Resets
	}
	if state&StateNameUnknown != 0 {
		state, note = state&^StateNameUnknown, note|HidesNames
	}
	return note | r.note(), state
}

// reader is what Scan knows of a text so far.
type reader struct {
	text      []byte
	commented bool // there may have been a comment
	dollars   bool // and a literal in dollar quotes
	harmless  bool // a SET began a statement
	harmful   bool
	hidden    bool // the name behind one was not understood
	unclear   int  // SETs of which that is so, wherever they stand
	sets      int  // SETs of parameters that pg_settings does not show
	calls     int  // of set_config
	setting   bool // a SET may have begun a statement
	resets    bool // something may put a parameter back
	body      int  // where that of the first DO begins; 0: nowhere
	literal   bool // that of one may not be in dollar quotes
	settings  int  // where pg_settings was mentioned last; 0: nowhere
	unseen    bool // some of it cannot be read
}

// marks looks at what two bytes may begin.
func (r *reader) marks(i int) {
	switch rest := r.text[i:]; {
	case rest[0] == '$':
		r.dollars = r.dollars || len(rest) > 1 && (rest[1] < '0' || rest[1] > '9')
	case begins(rest, "--"), begins(rest, "/*"):
		r.commented = true
	}
}

// spellsASCII reports whether the quote at i, behind a &, begins an identifier
// with escapes of Unicode, one of which may be of an ASCII character, whichever
// character UESCAPE makes begin them. No name that means something has others.
func spellsASCII(text []byte, i int) bool {
	if text[i-2]|0x20 != 'u' || i > 2 && wordByte[text[i-3]] {
		return false
	}
	for i++; i+2 < len(text) && text[i] != '"'; i++ {
		if text[i] == '0' && text[i+1] == '0' && text[i+2] >= '0' && text[i+2] <= '7' {
			return true
		}
	}
	return false
}

// bodyInDollars reports whether what follows DO is for certain in dollar quotes,
// where there are no escapes and where nothing goes on in another literal.
func bodyInDollars(rest []byte) bool {
	rest = skipBlank(rest)
	if word, after := nextWord(rest); equalFold(word, "language") {
		_, after, _ = namePart(skipBlank(after))
		rest = skipBlank(after)
	}
	return begins(rest, "$")
}

// set judges a SET; its name stands at next.
func (r *reader) set(next int, begin bool) (note Note) {
	rest := r.text[next:]
	if setsSeed(rest) {
		note |= SetsSeed
	}
	if r.unclear <= maxNames {
		var buf [maxParameter]byte
		switch _, how := parameterName(rest, &buf); how {
		case nameKnown:
			r.sets++
		case nameUnclear:
			r.unclear++
			r.hidden = r.hidden || begin
		}
	}
	switch {
	case !begin:
	case harmlessSet(rest):
		r.harmless = true
	default:
		r.harmful = true
	}
	return note
}

// note is what can be said once all was read.
func (r *reader) note() (note Note) {
	if r.harmless && !r.harmful && !r.commented {
		note |= SetHarmless
	}
	many := r.sets > maxNames || r.unclear > maxNames
	if r.hidden || r.unclear > 0 && r.commented || many {
		note |= SetsHidden
	}
	if r.unseen {
		note |= Unseen
	}
	if r.body > 0 && (r.unclear > 0 || many || r.literal || containsFold(r.text[r.body:], "execute") || containsFold(r.text[r.body:], "spi_")) {
		note |= BodyHides
	}
	return note
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

// setsSeed judges what follows the word SET; what hides the name may be it.
func setsSeed(rest []byte) bool {
	word, rest := nextWord(rest)
	if equalFold(word, "session") || equalFold(word, "local") {
		word, rest = nextWord(rest)
	}
	switch {
	case len(word) > 1:
		return equalFold(word, "seed")
	case len(word) == 1:
		return len(rest) > 1 && rest[0] == '&' && rest[1] == '"' // U&"..."
	case len(rest) > 0 && rest[0] == '"':
		return equalFold(rest[1:min(len(rest), len(`"seed"`)-1)], "seed")
	}
	return len(rest) > 1 && (rest[0] == '/' || rest[0] == '-') // a comment
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

func begins(tag []byte, word string) bool {
	return len(tag) >= len(word) && string(tag[:len(word)]) == word
}
