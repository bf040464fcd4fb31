// Functions of PostgreSQL's own extensions that leave something in the session: by their names, since their texts say no more.

package sqltext

// extensions are all such functions that the contrib modules of PostgreSQL 15 to
// 18 have. It is never changed. Not among them: what runs a text of its caller's (crosstab, connectby,
// xpath_table), which is as good as a function of the user's; what only keeps
// itself a store that nobody can see (postgres_fdw's connections, the clock of
// uuid-ossp); and modules that are set up by SET alone (auto_explain, pgcrypto).
var extensions = [...]extension{
	{name: "set_limit", state: StateSet | StateNamed, sets: "pg_trgm.similarity_threshold"}, // pg_trgm
	{name: "isn_weak", state: StateLoad},                                                    // isn: before 18 no parameter, and nothing else sets it back
	{name: "dblink_connect", state: StateLoad},                                              // dblink: no reset closes its connections
	{name: "dblink_connect_u", state: StateLoad},                                            // likewise
	{name: "sepgsql_setcon", state: StateLoad},                                              // sepgsql: the label of the session
}

// extension is a function of one.
type extension struct {
	name  string
	state State
	sets  string // the parameter that it sets; "": none
}

// extensionOf returns what a word names, where a call goes on behind it; nil: no
// such function. A call without arguments only reads what another has left.
func extensionOf(word, rest []byte) *extension {
	for i := range extensions {
		if e := &extensions[i]; equalFold(word, e.name) && !callsWithout(rest) {
			return e
		}
	}
	return nil
}

// callsWithout reports whether what follows a function's name says for certain
// that it is called without arguments.
func callsWithout(rest []byte) bool {
	if begins(rest, `"`) { // the name was quoted
		rest = rest[1:]
	}
	if rest = skipSpace(rest); !begins(rest, "(") {
		return false
	}
	return begins(skipSpace(rest[1:]), ")")
}
