// What makes one set of another: the changes, in an order in which a server takes them.

package params

import (
	"slices"

	"github.com/postern/postern/proxy/pgwire"
)

// Change is one step from one set to another: a value, or nil for the default.
type Change struct {
	Name  string
	Value *string
}

// Changes lists what makes a session with the set have look like one with the
// set want. client_encoding comes first, because the other values are read in
// it. A session that is somebody else than its login becomes the login for them
// and whoever it is to be at last: only the login may set all that it has set.
func Changes(have, want *Set) []Change {
	first, others := differences(have, want)
	is, was := who(want), who(have)
	if len(others) == 0 && slices.Equal(is, was) {
		return first
	}
	out := first
	for _, p := range was {
		out = append(out, Change{p.Name, nil})
	}
	out = append(out, others...)
	for i := len(is) - 1; i >= 0; i-- { // the session's user takes the role away
		out = append(out, Change{is[i].Name, &is[i].Value})
	}
	return out
}

// differences lists what differs between two sets: client_encoding, and the
// rest but for who the session is.
func differences(have, want *Set) (first, others []Change) {
	add := func(c Change) {
		switch c.Name {
		case role, sessionAuthorization:
		case "client_encoding":
			first = append(first, c)
		default:
			others = append(others, c)
		}
	}
	for i := range want.list {
		p := &want.list[i]
		if v, ok := have.Get(p.Name); !ok || v != p.Value {
			add(Change{p.Name, &p.Value})
		}
	}
	for _, p := range have.list {
		if _, ok := want.Get(p.Name); !ok {
			add(Change{p.Name, nil})
		}
	}
	return first, others
}

// who returns the role and the session's user of a set, if they are others than
// the login.
func who(s *Set) (out []pgwire.Param) {
	for _, name := range [...]string{role, sessionAuthorization} {
		if value, ok := s.Get(name); ok {
			out = append(out, pgwire.Param{Name: name, Value: value})
		}
	}
	return out
}
