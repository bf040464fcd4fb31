// What a client asks for in its startup packet, and what of it can be given to a server that has logged in already.

package params

import (
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// Effective drops what does nothing in a startup packet, and would if it were
// set on a server, or could not be: the seed of random(), and what ends with a
// transaction (which versions before 18 may refuse).
// Wrong values are left in, for the server to say so.
func Effective(list []pgwire.Param) []pgwire.Param {
	none := func(p pgwire.Param) bool {
		name := strings.ToLower(p.Name)
		return name == "seed" || passing(name) && validPassing(name, p.Value)
	}
	if !slices.ContainsFunc(list, none) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), none)
}

func validPassing(name, value string) bool {
	lower := strings.ToLower(value)
	valid := []string{"serializable", "repeatable read", "read committed", "read uncommitted"}
	if name != "transaction_isolation" {
		valid = strings.Fields("t tr tru true f fa fal fals false y ye yes n no on of off 1 0")
		lower = strings.TrimSpace(lower)
	}
	return slices.Contains(valid, lower)
}

// StartOnly returns the parameter, "" for none, that Postgres reads only when a
// session begins: a server would take it later, and it would do nothing.
func StartOnly(list []pgwire.Param) string {
	for _, p := range list {
		switch name := strings.ToLower(p.Name); name {
		case "local_preload_libraries", "session_preload_libraries":
			if p.Value != "" {
				return name
			}
		}
	}
	return ""
}
