// Commands: the language of PgBouncer's console.

package console

import (
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// Command is one command. Verb and, for SHOW, Arg are in upper case.
type Command struct {
	Verb string
	Arg  string // "": none
}

// The verbs, and Empty for a text without a command in it.
const (
	Empty      = ""
	Show       = "SHOW"
	Set        = "SET"
	Reload     = "RELOAD"
	Pause      = "PAUSE"
	Resume     = "RESUME"
	Disable    = "DISABLE"
	Enable     = "ENABLE"
	Reconnect  = "RECONNECT"
	Kill       = "KILL"
	KillClient = "KILL_CLIENT"
	Suspend    = "SUSPEND"
	Shutdown   = "SHUTDOWN"
	WaitClose  = "WAIT_CLOSE"
	ClearBan   = "CLEAR BAN"
)

// arity is how many arguments a verb takes.
type arity uint8

const (
	none arity = iota
	maybe
	one
)

// verbs are the control commands. A missing argument that must be there is
// told by what is missing, everything else is a syntax error.
var verbs = map[string]struct {
	arity arity
	needs string
}{
	Reload: {none, ""}, Suspend: {none, ""}, Shutdown: {maybe, ""},
	Pause: {maybe, ""}, Resume: {maybe, ""}, Reconnect: {maybe, ""}, WaitClose: {maybe, ""},
	Disable: {one, "a database is required"}, Enable: {one, "a database is required"}, Kill: {one, "a database is required"},
	KillClient: {one, "invalid client id supplied"}, ClearBan: {one, "an address or a tenant is required"},
}

// commands is the list that SHOW HELP and hints give.
const commands = `SHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
SHOW TENANTS|PINS|BANS|REFUSALS|NODES
SHOW PEERS|PEER_POOLS
SHOW SOCKETS|ACTIVE_SOCKETS|LISTS|MEM|STATE
SHOW DNS_HOSTS|DNS_ZONES
SHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
RELOAD
PAUSE [<tenant>]
RESUME [<tenant>]
DISABLE <tenant>
ENABLE <tenant>
RECONNECT [<tenant>]
KILL <tenant>
KILL_CLIENT <client_id>
CLEAR BAN <address>|<tenant>
SHUTDOWN
WAIT_CLOSE [<tenant>]`

// maxShown bounds what an error repeats of a command.
const maxShown = 200

func fail(code, message, hint string) *pgwire.Error {
	return &pgwire.Error{Severity: pgwire.Err, Code: code, Message: message, Hint: hint}
}

func syntaxError(text string) *pgwire.Error {
	return fail("42601", "invalid command '"+strings.ToValidUTF8(text[:min(len(text), maxShown)], "?")+"', use SHOW HELP;",
		"The commands are:\n"+commands)
}

// Parse reads one command. A word may be quoted; a semicolon may follow;
// comments and a text without anything are allowed, because drivers ping with
// them. The error is a *pgwire.Error.
func Parse(text string) (Command, error) {
	s := scanner{text}
	verb, quoted, ok := s.word()
	if !ok {
		if s.end() {
			return Command{}, nil
		}
		return Command{}, syntaxError(text)
	}
	verb = strings.ToUpper(verb)
	if verb == "CLEAR" {
		what, _, _ := s.word()
		verb += " " + strings.ToUpper(what)
	}
	if verb == Set && !quoted {
		return s.set(text)
	}
	arg, _, given := s.word()
	if !s.end() || quoted || given && arg == "" {
		return Command{}, syntaxError(text)
	}
	if verb == "SELECT" {
		verb = Show // as PgBouncer has it
	}
	if verb == Show {
		arg = strings.ToUpper(arg)
		if _, known := shows[arg]; !known {
			return Command{}, syntaxError(text)
		}
		return Command{Show, arg}, nil
	}
	v, known := verbs[verb]
	switch {
	case !known, given && v.arity == none:
		return Command{}, syntaxError(text)
	case !given && v.arity == one:
		return Command{}, fail("42601", v.needs, "")
	}
	return Command{verb, arg}, nil
}

// set reads what is behind SET. Only the name is of interest.
func (s *scanner) set(text string) (Command, error) {
	name, _, ok := s.word()
	if !ok || name == "" {
		return Command{}, syntaxError(text)
	}
	s.skip()
	if rest, found := strings.CutPrefix(s.rest, "="); found {
		s.rest = rest
	} else if to, _, ok := s.word(); !ok || !strings.EqualFold(to, "to") {
		return Command{}, syntaxError(text)
	}
	if strings.Trim(s.rest, " \t\r\n;") == "" {
		return Command{}, syntaxError(text)
	}
	return Command{Set, strings.ToLower(name)}, nil
}

// scanner takes words off the front of a text.
type scanner struct{ rest string }

// skip passes over white space and comments.
func (s *scanner) skip() {
	for {
		s.rest = strings.TrimLeft(s.rest, " \t\r\n\f\v")
		switch {
		case strings.HasPrefix(s.rest, "--"):
			_, s.rest, _ = strings.Cut(s.rest, "\n")
		case strings.HasPrefix(s.rest, "/*"):
			_, after, ok := strings.Cut(s.rest[2:], "*/")
			if !ok {
				return
			}
			s.rest = after
		default:
			return
		}
	}
}

// word takes one. In quotes it may have anything in it, and a quote twice.
func (s *scanner) word() (word string, quoted, ok bool) {
	s.skip()
	if strings.HasPrefix(s.rest, `"`) {
		for i := 1; i < len(s.rest); i++ {
			if s.rest[i] != '"' {
				continue
			}
			if i+1 < len(s.rest) && s.rest[i+1] == '"' {
				i++
				continue
			}
			word, s.rest = s.rest[1:i], s.rest[i+1:]
			return strings.ReplaceAll(word, `""`, `"`), true, true
		}
		return "", true, false
	}
	n := strings.IndexFunc(s.rest, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '/' || r == '.' || r == ':')
	})
	if n < 0 {
		n = len(s.rest)
	}
	word, s.rest = s.rest[:n], s.rest[n:]
	return word, false, n > 0
}

// end reports whether nothing but a semicolon is left.
func (s *scanner) end() bool {
	s.skip()
	if rest, ok := strings.CutPrefix(s.rest, ";"); ok {
		s.rest = rest
		s.skip()
	}
	return s.rest == ""
}
