// What resets put back: in Postgres, RESET goes back to the startup packet, and a shared server's is not the client's.

package params

import (
	"slices"

	"github.com/postern/postern/proxy/pgwire"
)

// MaxTracked bounds the parameters that a session may have set and take along.
const MaxTracked = 256

// Resets is what may have been reset since a server was looked at. The server
// tells it of most parameters; of those that it hides it shows values only, and
// the default may have been set, too. One client's; the loop thread's only.
type Resets struct {
	some, all bool     // by RESET, by DISCARD ALL
	names     []string // that texts have mentioned
}

// Mention takes note of a hidden parameter's name in a text that may set or
// reset it.
func (r *Resets) Mention(name string) {
	if len(r.names) < MaxTracked && !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
}

// Completed takes note of a command's tag.
func (r *Resets) Completed(tag []byte) {
	r.some = r.some || string(tag) == "RESET"
	r.all = r.all || string(tag) == "DISCARD ALL"
}

// Wanted is what a client's session has set once its server was looked at: what
// was found, with what it came with in the place of what was reset. had is what
// it had set when that was last known; listed are the parameters that were asked
// for by name and that pg_settings shows after all, as not set: those are surely
// reset.
func (r *Resets) Wanted(sets *Sets, came, had, found *Set, listed []string) *Set {
	reset := func(name string) bool { return r.wasReset(name, had, found, listed) }
	var all []pgwire.Param
	for _, p := range came.list {
		if !hidden(p.Name) || p.Name == ClientAddress || reset(p.Name) {
			all = append(all, p)
		}
	}
	for _, p := range found.list {
		_, came := came.Get(p.Name)
		switch {
		case p.Name == ClientAddress: // which is not for the client to set
		case came && reset(p.Name):
		default:
			all = append(all, p)
		}
	}
	return sets.Intern(all)
}

// wasReset reports whether a hidden parameter of the startup packet has gone
// back to its default and was not set to it.
func (r *Resets) wasReset(name string, had, found *Set, listed []string) bool {
	if value, _ := found.Get(name); value != "" || !hidden(name) {
		return false
	}
	set := func(name string) bool {
		value, _ := had.Get(name)
		return value != ""
	}
	switch {
	case r.all, slices.Contains(listed, name):
		return true
	case name == role && set(sessionAuthorization):
		_, still := found.Get(sessionAuthorization)
		return !still
	}
	return r.some && (set(name) || slices.Contains(r.names, name))
}

// Names are the hidden parameters that a session may have set: pg_settings may
// not show them, so they must be asked for. One client's; the loop thread's only.
type Names []string

// Names returns what must be asked for by name from the beginning, if a client
// came with the set.
func (s *Set) Names() (names Names) {
	for _, p := range s.list {
		if hidden(p.Name) && p.Name != ClientAddress && len(names) < MaxTracked {
			names = append(names, p.Name)
		}
	}
	return names
}

// Add adds a name. False: there are too many.
func (n *Names) Add(name string) bool {
	switch {
	case slices.Contains(*n, name):
	case len(*n) < MaxTracked:
		*n = append(*n, name)
	default:
		return false
	}
	return true
}

// Prune forgets names that are of nothing, if there are many: found is what was
// asked for by name and exists, came what the client came with.
func (n *Names) Prune(came *Set, found []pgwire.Param) {
	if len(*n) < MaxTracked/2 {
		return
	}
	*n = slices.DeleteFunc(*n, func(name string) bool {
		_, kept := came.Get(name)
		return !kept && name != role && name != sessionAuthorization &&
			!slices.ContainsFunc(found, func(p pgwire.Param) bool { return p.Name == name })
	})
}
