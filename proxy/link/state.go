// What a statement's text and its command tag say about session state: which kinds it may leave or end.

package link

import (
	"bytes"
	"slices"
)

// State is a set of kinds of session state: what outlives a transaction and
// the next client must not see.
type State uint16

// The kinds, and what a text can say besides.
const (
	StateSet      State = 1 << iota // run-time parameters, the role and the session's user among them
	StateListen                     // channels listened to
	StateTemp                       // temporary tables and the like
	StateLock                       // advisory locks of the session
	StateCursor                     // cursors WITH HOLD
	StatePrepared                   // statements made by SQL PREPARE
	StateLoad                       // libraries, the seed of random(): what nothing ends but the session
	// StateEnds: something of any kind may have ended.
	StateEnds
	// StateNamed: the text may set or reset parameters; ParameterNames tells which.
	StateNamed
	// StateHidden: a parameter is set whose name the text does not tell.
	StateHidden

	// StateAny is every kind.
	StateAny = StateSet | StateListen | StateTemp | StateLock | StateCursor | StatePrepared
)

// StateNames are the kinds in the order of their bits, as configuration and
// metrics name them.
func StateNames() []string {
	return []string{"set", "listen", "temp", "advisory_lock", "cursor", "prepare", "load"}
}

// Names returns the names of the kinds in s.
func (s State) Names() (names []string) {
	for i, name := range StateNames() {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// stateStart marks the first letters of the words that stateOf knows. All
// words with "advisory" in them begin with p.
var stateStart = func() (t [256]bool) {
	for _, c := range "cCdDhHpPrRsStTuU" {
		t[c] = true
	}
	return t
}()

// stateOf judges one word; the text goes on at next.
func stateOf(word, prev, text []byte, next int) State {
	switch word[0] | 0x20 {
	case 's':
		switch {
		case equalFold(word, "set"):
			return StateNamed
		case equalFold(word, "set_config"):
			name, local := setConfig(text[next:])
			switch {
			case local:
				return StateNamed // others may be set in the same way, and not so
			case name == "":
				return StateSet | StateNamed | StateHidden
			}
			return StateSet | StateNamed
		case equalFold(word, "setseed"):
			return StateLoad
		}
	case 'r':
		if equalFold(word, "reset") {
			return StateNamed
		}
	case 'h':
		if equalFold(word, "hold") {
			return StateCursor
		}
	case 'p':
		switch {
		case equalFold(word, "pg_temp"):
			return StateTemp
		case containsFold(word, "advisory_unlock"):
			return StateEnds
		case containsFold(word, "advisory") && !containsFold(word, "xact"):
			return StateLock
		}
	case 't':
		if (equalFold(word, "temp") || equalFold(word, "temporary")) &&
			(containsFold(prev, "create") || containsFold(prev, "replace") || containsFold(prev, "into") ||
				containsFold(prev, "local") || containsFold(prev, "global") || hasComment(text)) {
			return StateTemp
		}
	case 'd':
		if equalFold(word, "drop") || equalFold(word, "discard") || equalFold(word, "deallocate") {
			return StateEnds
		}
	case 'c':
		if equalFold(word, "close") {
			return StateEnds
		}
	case 'u':
		if equalFold(word, "unlisten") {
			return StateEnds
		}
	}
	return 0
}

// TagState judges a CommandComplete tag: which kinds its command left, given
// whether the text's SETs were all harmless (see Scan).
func TagState(tag []byte, note Note) State {
	switch string(tag) {
	case "SET":
		if note&SetHarmless != 0 {
			return 0
		}
		return StateSet
	case "RESET":
		return StateSet
	case "LISTEN":
		return StateListen
	case "LOAD":
		return StateLoad
	case "PREPARE":
		return StatePrepared
	case "DO":
		return StateAny // its body may do anything, and says so in words of its own
	case "DISCARD ALL":
		return StateEnds | StateSet
	case "DISCARD TEMP", "DEALLOCATE", "DEALLOCATE ALL", "UNLISTEN", "CLOSE CURSOR", "CLOSE CURSOR ALL":
		return StateEnds
	}
	return 0
}

// Refusable returns the kinds that a text would leave, for those who refuse
// them before they are sent: what tags would show is guessed from the words
// that begin statements.
func Refusable(text []byte) State {
	_, state := Scan(text)
	begin := true
	for i := 0; i < len(text); {
		if !wordByte[text[i]] {
			begin = begin || text[i] == ';'
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		if word := text[start:i]; begin {
			switch {
			case equalFold(word, "set"):
				if next, _ := nextWord(text[i:]); !equalFold(next, "local") && !equalFold(next, "transaction") && !equalFold(next, "constraints") {
					state |= StateSet
				}
			case equalFold(word, "listen"):
				state |= StateListen
			case equalFold(word, "load"):
				state |= StateLoad
			case equalFold(word, "prepare"):
				if next, _ := nextWord(text[i:]); !equalFold(next, "transaction") {
					state |= StatePrepared
				}
			}
		}
		begin = false
	}
	return state
}

const (
	// maxNames bounds the parameters that a text can name.
	maxNames = 32
	// maxParameter is the longest name, as in Postgres.
	maxParameter = 63
)

// ParameterNames returns the parameters that a text sets by SET, RESET or
// set_config and that pg_settings does not show: those with a dot in their
// names, the role and the session's user. Names are in lower case.
func ParameterNames(text []byte) (names []string) {
	add := func(name string) {
		if name != "" && len(names) < maxNames && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for i := 0; i < len(text); {
		if !wordByte[text[i]] {
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		switch word := text[start:i]; {
		case equalFold(word, "set"), equalFold(word, "reset"):
			add(parameterName(text[i:]))
		case equalFold(word, "set_config"):
			if name, _ := setConfig(text[i:]); hiddenName(name) {
				add(name)
			}
		}
	}
	return names
}

func hiddenName(name string) bool {
	return bytes.IndexByte([]byte(name), '.') >= 0 || name == "role" || name == "session_authorization"
}

// parameterName reads what follows SET or RESET.
func parameterName(rest []byte) string {
	word, after := nextWord(rest)
	if equalFold(word, "session") || equalFold(word, "local") {
		rest = after
		word, after = nextWord(rest)
	}
	switch {
	case equalFold(word, "authorization"):
		return "session_authorization"
	case equalFold(word, "role"):
		return "role"
	}
	var name []byte
	for rest = skipSpace(rest); len(name) <= maxParameter; {
		part, quoted := rest, false
		if len(rest) > 0 && rest[0] == '"' {
			end := bytes.IndexByte(rest[1:], '"')
			if end < 0 {
				return ""
			}
			part, rest, quoted = rest[1:1+end], rest[2+end:], true
		} else {
			n := 0
			for n < len(rest) && (wordByte[rest[n]] || rest[n] == '$') {
				n++
			}
			part, rest = rest[:n], rest[n:]
		}
		if len(part) == 0 && !quoted {
			return ""
		}
		name = append(name, bytes.ToLower(part)...)
		if rest = skipSpace(rest); len(rest) == 0 || rest[0] != '.' {
			break
		}
		name = append(name, '.')
		rest = skipSpace(rest[1:])
	}
	if s := string(name); len(s) <= maxParameter && hiddenName(s) {
		return s
	}
	return ""
}

// setConfig reads the arguments of set_config: the name in lower case, "" if
// it is no literal, and whether what is set ends with the transaction for
// certain.
func setConfig(rest []byte) (name string, local bool) {
	rest = skipSpace(rest)
	if len(rest) > 0 && rest[0] == '"' { // the name of the function was quoted
		rest = skipSpace(rest[1:])
	}
	if len(rest) == 0 || rest[0] != '(' {
		return "", false
	}
	rest = skipSpace(rest[1:])
	if len(rest) > 0 && rest[0] == '\'' {
		if end := bytes.IndexByte(rest[1:], '\''); end >= 0 && end <= maxParameter && (len(rest) < end+3 || rest[end+2] != '\'') {
			name = string(bytes.ToLower(rest[1 : 1+end]))
		}
	}
	depth, quoted, last := 0, false, -1
	for i, c := range rest {
		switch {
		case c == '\'':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ',' && depth == 0:
			last = i
		case c == ')' && depth > 0:
			depth--
		case c == ')':
			if last < 0 {
				return name, false
			}
			third := bytes.TrimSpace(rest[last+1 : i])
			return name, equalFold(third, "true") || equalFold(third, "'true'") || equalFold(third, "'t'")
		}
	}
	return name, false
}
