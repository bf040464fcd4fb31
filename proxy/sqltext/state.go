// What a statement's text and its command tag say about session state: which kinds it may leave or end.

package sqltext

// State is a set of kinds of session state: what outlives a transaction and
// the next client must not see.
type State uint32

// The kinds, and what a text can say besides.
const (
	StateSet      State = 1 << iota // run-time parameters, the role and the session's user among them
	StateListen                     // channels listened to
	StateTemp                       // temporary tables and the like
	StateLock                       // advisory locks of the session
	StateCursor                     // cursors WITH HOLD
	StatePrepared                   // statements made by SQL PREPARE
	StateLoad                       // libraries, replication slots and origins, backups, dblink's connections: what only the end of the session is sure to end
	StateSequence                   // numbers drawn from sequences, which currval and lastval show
	StateSeed                       // the seed of random()
	// StateEnds: something of any kind may have ended.
	StateEnds
	// StateNamed: the text may set or reset parameters; ParameterNames tells which.
	StateNamed
	// StateHidden: a parameter is set whose name was not understood.
	StateHidden
	// StateNameUnknown: something may be set that nobody can ask about, because its
	// name is computed or was not seen.
	StateNameUnknown
	// StateNameInBind: the text may set a parameter whose name is in a Bind.
	StateNameInBind
	// StateReads: the text may read what StateSequence is about.
	StateReads
	// StateMakes: the text may make a table or the like, which is temporary where
	// the search_path says so.
	StateMakes

	// StateAny is every kind that the server can be asked about.
	StateAny = StateSet | StateListen | StateTemp | StateLock | StateCursor | StatePrepared
	// StateUnasked is what it cannot be asked about.
	StateUnasked = StateLoad | StateSequence | StateSeed
	// StateUnseen is what must be assumed of a text that was not seen.
	StateUnseen = StateAny | StateSequence | StateReads | StateNameUnknown
)

// StateNames are the kinds in the order of their bits, as configuration and
// metrics name them.
func StateNames() []string {
	return []string{"set", "listen", "temp", "advisory_lock", "cursor", "prepare", "load", "sequence", "seed"}
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

// stateOf judges one word, which is one of known; the text goes on at next.
func (r *reader) stateOf(word, prev []byte, next int) State {
	if e := extensionOf(word, r.text[next:]); e != nil {
		return e.state
	}
	if word[0]|0x20 == 'p' {
		return r.systemState(word, next)
	}
	if state := r.commandState(word, prev); state != 0 {
		return state
	}
	return r.functionState(word, next)
}

// commandState judges a word as one of a command's.
func (r *reader) commandState(word, prev []byte) State {
	switch word[0] | 0x20 {
	case 'c':
		switch {
		case equalFold(word, "create"):
			return StateMakes
		case equalFold(word, "copy"), equalFold(word, "call"):
			return StateSequence
		case equalFold(word, "close"):
			return StateEnds
		}
	case 'd':
		switch {
		case equalFold(word, "drop"), equalFold(word, "discard"), equalFold(word, "deallocate"):
			return StateEnds
		case equalFold(word, "do"):
			return StateSequence
		}
	case 'h':
		if equalFold(word, "hold") {
			return StateCursor
		}
	case 'i':
		switch {
		case equalFold(word, "insert"):
			return StateSequence
		case makesTable(word, prev):
			return StateMakes
		}
	case 'm':
		if equalFold(word, "merge") {
			return StateSequence
		}
	case 'r':
		if equalFold(word, "reset") {
			return StateNamed
		}
	case 's':
		if equalFold(word, "set") {
			return StateNamed
		}
	case 't':
		if (equalFold(word, "temp") || equalFold(word, "temporary")) && r.mayBeOfCreate(prev) {
			return StateTemp
		}
	case 'u':
		if equalFold(word, "unlisten") {
			return StateEnds
		}
	}
	return 0
}

// mayBeOfCreate reports whether a TEMP behind prev may be one of a CREATE or
// SELECT INTO.
func (r *reader) mayBeOfCreate(prev []byte) bool {
	return containsFold(prev, "create") || containsFold(prev, "replace") || containsFold(prev, "into") ||
		containsFold(prev, "local") || containsFold(prev, "global") || r.commented
}

// functionState judges a word as a function's name.
func (r *reader) functionState(word []byte, next int) State {
	switch word[0] | 0x20 {
	case 'c':
		if equalFold(word, "currval") {
			return StateReads
		}
	case 'l':
		if equalFold(word, "lastval") {
			return StateReads
		}
	case 'n':
		if equalFold(word, "nextval") {
			return StateSequence
		}
	case 's':
		switch {
		case equalFold(word, "set_config"):
			return r.setConfig(next)
		case equalFold(word, "setval"):
			return StateSequence
		case equalFold(word, "setseed"):
			return StateSeed
		}
	case 'q', 't': // these run a text, which may be made up of pieces
		if equalFold(word, "query_to_xml") || equalFold(word, "query_to_xmlschema") || equalFold(word, "query_to_xml_and_xmlschema") ||
			equalFold(word, "ts_stat") || equalFold(word, "ts_rewrite") {
			r.unseen = true
		}
	}
	return 0
}

// systemState judges a name that begins with pg_.
func (r *reader) systemState(word []byte, next int) State {
	switch {
	case equalFold(word, "pg_temp"), len(word) > 8 && equalFold(word[:8], "pg_temp_") && word[8]-'0' <= 9: // as it is really called
		return StateTemp
	case equalFold(word, "pg_settings"):
		r.settings = next
	case equalFold(word, "pg_backup_start"), equalFold(word, "pg_start_backup"), equalFold(word, "pg_replication_origin_session_setup"):
		return StateLoad
	case containsFold(word, "advisory_unlock"):
		return StateEnds
	case containsFold(word, "advisory") && !containsFold(word, "xact"):
		return StateLock
	case len(word) > 4 && equalFold(word[:4], "pg_c") && containsFold(word, "replication_slot"):
		return StateLoad // one may be temporary, which not even a reset ends
	}
	return 0
}

// setConfig judges a call of set_config, whose arguments begin at next.
func (r *reader) setConfig(next int) State {
	if r.calls++; r.calls > maxNames {
		return StateSet | StateNamed | StateNameUnknown
	}
	var buf [maxParameter]byte
	name, how, local := setConfig(r.text[next:], &buf)
	switch {
	case string(name) == "seed":
		return StateNamed | StateSeed // also where it is local: nothing takes a seed back
	case local:
		return StateNamed // others may be set in the same way, and not so
	case how == nameInBind:
		return StateSet | StateNamed | StateNameInBind
	case how == nameUnclear:
		return StateSet | StateNamed | StateNameUnknown
	}
	return StateSet | StateNamed
}

// TagState judges a CommandComplete tag: which kinds its command left, given
// what Scan said of the text. That of an Execute which was suspended is empty.
func TagState(tag []byte, note Note) State {
	state := tagState(tag, note)
	if note&Unseen != 0 {
		state |= StateUnseen
	}
	if note&HidesNames != 0 {
		state |= StateNameUnknown
	}
	return state
}

func tagState(tag []byte, note Note) (state State) {
	if len(tag) == 0 {
		return 0
	}
	switch string(tag) {
	case "SET":
		if note&SetsSeed != 0 {
			state = StateSeed
		}
		if note&SetHarmless != 0 {
			return state
		}
		if note&SetsHidden != 0 {
			state |= StateHidden
		}
		return state | StateSet
	case "RESET":
		return StateSet
	case "LISTEN":
		return StateListen
	case "LOAD":
		return StateLoad
	case "PREPARE":
		return StatePrepared
	case "DO":
		if note&SetsSeed != 0 {
			state = StateSeed
		}
		if note&BodyHides != 0 {
			state |= StateNameUnknown
		}
		return state | StateAny | StateSequence // its body may do anything, and says so in words of its own
	case "DISCARD ALL":
		return StateEnds | StateSet
	case "DISCARD TEMP", "DEALLOCATE", "DEALLOCATE ALL", "UNLISTEN", "CLOSE CURSOR", "CLOSE CURSOR ALL":
		return StateEnds
	}
	switch tag[0] {
	case 'C', 'I', 'M':
		if begins(tag, "INSERT ") || begins(tag, "COPY ") || begins(tag, "MERGE ") || string(tag) == "CALL" {
			return StateSequence // perhaps by the default of a column
		}
	}
	return 0
}

// Refusable returns the kinds that a text would leave, and StateReads if it
// would read a sequence's, for those who refuse them before they are sent: what
// tags would show is guessed from the words that begin statements. What cannot
// be read gets past.
func Refusable(text []byte) State {
	_, state := scan(text, &knownLengths)
	begin := true
	for i := 0; i < len(text); {
		if !wordByte[text[i]] {
			if rest := text[i:]; begin && (begins(rest, "--") || begins(rest, "/*")) {
				left := len(skipComment(rest))
				if left == len(rest) {
					break // all of it
				}
				i = len(text) - left
				continue
			}
			begin = begin || text[i] == ';'
			i++
			continue
		}
		start := i
		for i++; i < len(text) && wordByte[text[i]]; i++ {
		}
		if begin {
			state |= beginsWith(text[start:i], text[i:])
		}
		begin = false
	}
	return state
}

// beginsWith judges the first word of a statement.
func beginsWith(word, rest []byte) (state State) {
	switch {
	case equalFold(word, "set"):
		if setsSeed(rest) {
			state |= StateSeed
		}
		next, after := nextWord(rest)
		if begins(skipBlank(after), ".") ||
			!equalFold(next, "local") && !equalFold(next, "transaction") && !equalFold(next, "constraints") {
			state |= StateSet
		}
	case equalFold(word, "listen"):
		state |= StateListen
	case equalFold(word, "load"):
		state |= StateLoad
	case equalFold(word, "prepare"):
		if next, _ := nextWord(rest); !equalFold(next, "transaction") {
			state |= StatePrepared
		}
	}
	return state
}
