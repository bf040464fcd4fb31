// Run-time parameters of clients and servers: sets that are shared, compared by pointer, and never changed.

package proxy

import (
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// maxParamSets bounds the sets that one pool remembers. Beyond it all are
// forgotten; those in use live on and are recognized by content.
const maxParamSets = 4096

// params is an immutable set of run-time parameters that differ from a fresh
// session's. Two clients with equal sets have the same pointer, so that asking
// whether a server has a client's settings costs one comparison.
type params struct {
	list []pgwire.Param // by name, in lower case
	key  string
	base *params // the same without what is each client's own (its name and address), perhaps itself

	// greeting holds the ParameterStatus messages that a server sends a client
	// with exactly this set, without application_name; nil while unknown. Kept
	// on base sets only.
	greeting []byte
}

// same reports whether two sets are equal.
func (p *params) same(o *params) bool { return p == o || p.key == o.key }

// get returns a parameter's value.
func (p *params) get(name string) (string, bool) {
	i, ok := p.find(strings.ToLower(name))
	if !ok {
		return "", false
	}
	return p.list[i].Value, true
}

func (p *params) find(lower string) (int, bool) {
	return slices.BinarySearchFunc(p.list, lower, func(e pgwire.Param, n string) int { return strings.Compare(e.Name, n) })
}

// paramSets shares sets by content. One pool's, loop thread only.
type paramSets struct{ byKey map[string]*params }

// intern returns the set of a list in which the last of a name wins.
func (t *paramSets) intern(list []pgwire.Param) *params {
	sorted := make([]pgwire.Param, 0, len(list))
	for _, p := range list {
		sorted = append(sorted, pgwire.Param{Name: strings.ToLower(p.Name), Value: p.Value})
	}
	slices.SortStableFunc(sorted, func(a, b pgwire.Param) int { return strings.Compare(a.Name, b.Name) })
	kept := sorted[:0]
	for i, p := range sorted {
		if i+1 < len(sorted) && sorted[i+1].Name == p.Name {
			continue
		}
		kept = append(kept, p)
	}
	return t.shared(kept)
}

func (t *paramSets) shared(sorted []pgwire.Param) *params {
	var b strings.Builder
	for _, p := range sorted {
		b.WriteString(p.Name)
		b.WriteByte(0)
		b.WriteString(p.Value)
		b.WriteByte(0)
	}
	key := b.String()
	if set, ok := t.byKey[key]; ok {
		return set
	}
	if t.byKey == nil || len(t.byKey) >= maxParamSets {
		t.byKey = make(map[string]*params)
	}
	set := &params{list: sorted, key: key}
	t.byKey[key] = set
	set.base = set
	own := func(p pgwire.Param) bool { return p.Name == applicationName || p.Name == clientAddressName }
	if slices.ContainsFunc(sorted, own) {
		set.base = t.shared(slices.DeleteFunc(slices.Clone(sorted), own))
	}
	return set
}

// with returns the set in which name has the value.
func (t *paramSets) with(p *params, name, value string) *params {
	lower := strings.ToLower(name)
	i, ok := p.find(lower)
	if ok && p.list[i].Value == value {
		return p
	}
	list := slices.Clone(p.list)
	if ok {
		list[i].Value = value
	} else {
		list = slices.Insert(list, i, pgwire.Param{Name: lower, Value: value})
	}
	return t.shared(list)
}

// change is one step from one set to another: a value, or nil for the default.
type change struct {
	name  string
	value *string
}

// changes lists what makes a session with the set have look like one with the
// set want. client_encoding comes first, because the other values are read in it.
func changes(have, want *params) []change {
	var out []change
	for i := range want.list {
		p := &want.list[i]
		if v, ok := have.get(p.Name); !ok || v != p.Value {
			out = append(out, change{p.Name, &p.Value})
		}
	}
	for _, p := range have.list {
		if _, ok := want.get(p.Name); !ok {
			out = append(out, change{p.Name, nil})
		}
	}
	slices.SortStableFunc(out, func(a, b change) int {
		return rank(a.name) - rank(b.name)
	})
	return out
}

func rank(name string) int {
	if name == "client_encoding" {
		return 0
	}
	return 1
}

// appendChanges builds the messages that carry out changes in one implicit
// transaction. Values travel as Bind parameters, so that nothing needs quoting
// in whatever encoding and syntax the session has. set_config reads a value as
// a startup packet does (a list stays a list), and NULL means the default.
func appendChanges(dst []byte, list []change) []byte {
	dst = pgwire.AppendParse(dst, "", "SELECT pg_catalog.set_config($1, $2, false)")
	for _, c := range list {
		if c.value != nil {
			dst = pgwire.AppendBind(dst, "", "", []byte(c.name), []byte(*c.value))
		} else {
			dst = pgwire.AppendBind(dst, "", "", []byte(c.name), nil)
		}
		dst = pgwire.AppendExecute(dst, "")
	}
	return pgwire.AppendSync(dst)
}

const applicationName = "application_name"

// maxName is Postgres's NAMEDATALEN - 1: application names are cut there.
const maxName = 63

// cleanName is how Postgres reports an application name (before version 16,
// which writes escapes instead of question marks).
func cleanName(s string) string {
	if len(s) > maxName {
		s = s[:maxName]
	}
	b := []byte(s)
	for i, c := range b {
		if c < 32 || c > 126 {
			b[i] = '?'
		}
	}
	return string(b)
}

// fixed lists what a server reports that no session can set: facts about the
// server and the login. Everything else it reports is a setting.
func fixed(name string) bool {
	switch strings.ToLower(name) {
	case "server_version", "server_encoding", "integer_datetimes", "is_superuser", "session_authorization",
		"in_hot_standby":
		return true
	}
	return false
}
