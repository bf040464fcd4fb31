// Tests of the changes that make one set of parameters of another.

package params

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// session is a model of a server session: what it is set to.
type session map[string]string

// set does what set_config does. Only a superuser, which the login is and
// nobody else, may touch the parameters that begin with log.
func (s session) set(t *rapid.T, c Change) {
	if strings.HasPrefix(c.Name, "log") && s[role]+s[sessionAuthorization] != "" {
		t.Fatalf("%s is changed by %v", c.Name, s)
	}
	if c.Name == sessionAuthorization {
		delete(s, role)
	}
	if c.Value == nil {
		delete(s, c.Name)
	} else {
		s[c.Name] = *c.Value
	}
}

// TestChangesMakeOneSetOfAnother, in an order that Postgres takes, and are none exactly if both are the same.
func TestChangesMakeOneSetOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"client_encoding", "timezone", "search_path", ApplicationName, "log_statement", role, sessionAuthorization}
		var sets Sets
		have, want := sets.Intern(drawList(t, "have", names...)), sets.Intern(drawList(t, "want", names...))
		s := session{}
		for _, c := range Changes(sets.Intern(nil), have) {
			s.set(t, c)
		}
		list := Changes(have, want)
		for _, c := range list {
			s.set(t, c)
		}
		if !maps.Equal(s, last(want.List())) {
			t.Fatalf("session has %v, want %v", s, want.List())
		}
		if have.Same(want) != (len(list) == 0) {
			t.Fatalf("%d changes between sets that are the same: %v", len(list), have.Same(want))
		}
		if i := slices.IndexFunc(list, func(c Change) bool { return c.Name == "client_encoding" }); i > 0 {
			t.Fatal("client_encoding must come first, the other values are read in it")
		}
	})
}
