// Run-time parameters of clients and servers: sets that are shared, compared by pointer, and never changed.

package proxy

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

// maxParamSets bounds the sets that one pool remembers. Beyond it all are
// forgotten; those in use live on and are recognized by content.
const maxParamSets = 4096

const (
	// maxParamBytes bounds the remembered sets, too.
	maxParamBytes = 64 << 20
	// longKey is from how many bytes on a set is known by a hash of its content.
	longKey = 4 << 10
)

// params is an immutable set of run-time parameters that differ from a fresh
// session's. Two clients with equal sets have the same pointer, so that asking
// whether a server has a client's settings costs one comparison.
type params struct {
	list []pgwire.Param // by name, in lower case
	key  string
	base *params // the same without what is each client's own (its name and address), perhaps itself

	// told is what a server shows a client with exactly this set; nil while
	// unknown. Kept on base sets only.
	told *reports

	size int // of names and values, in bytes

	temporary bool // pg_temp stands in its search_path, so that any table may be temporary
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
type paramSets struct {
	byKey map[string]*params
	bytes int // of the names and values in byKey, about
}

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
	if len(key) > longKey {
		sum := sha256.Sum256([]byte(key))
		key = string(sum[:])
	}
	if set, ok := t.byKey[key]; ok {
		return set
	}
	if t.byKey == nil || len(t.byKey) >= maxParamSets || t.bytes > maxParamBytes {
		t.byKey, t.bytes = make(map[string]*params), 0
	}
	t.bytes += b.Len()
	set := &params{list: sorted, key: key, size: b.Len()}
	path, _ := set.get("search_path")
	set.temporary = strings.Contains(strings.ToLower(path), "pg_temp")
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

const (
	role                 = "role"
	sessionAuthorization = "session_authorization"
)

// hidden reports whether pg_settings may not show a parameter: the two that say
// who the session is, and those with a dot in their names.
func hidden(name string) bool {
	return name == role || name == sessionAuthorization || strings.IndexByte(name, '.') >= 0
}

// passing reports whether a parameter is a transaction's own, which ends with
// it. Outside of one it can be set to no effect, and from version 16 on not reset.
func passing(name string) bool {
	switch name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		return true
	}
	return false
}

// withoutEffect drops what does nothing in a startup packet, and would if it
// were set on a server, or could not be: the seed of random(), and what ends
// with a transaction (which versions before 18 may refuse).
// Wrong values are left in, for the server to say so.
func withoutEffect(list []pgwire.Param) []pgwire.Param {
	none := func(p pgwire.Param) bool {
		name := strings.ToLower(p.Name)
		return passing(name) && validPassing(name, p.Value)
	}
	if list = withoutSeed(list); !slices.ContainsFunc(list, none) {
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

// withoutSeed drops the seed of random(), which does nothing in a startup
// packet, and would if it were set on a server.
func withoutSeed(list []pgwire.Param) []pgwire.Param {
	seed := func(p pgwire.Param) bool { return strings.EqualFold(p.Name, "seed") }
	if !slices.ContainsFunc(list, seed) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), seed)
}

// startOnly returns the parameter, "" for none, that Postgres reads only when a
// session begins: a server would take it later, and it would do nothing.
func startOnly(list []pgwire.Param) string {
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

// change is one step from one set to another: a value, or nil for the default.
type change struct {
	name  string
	value *string
}

// changes lists what makes a session with the set have look like one with the
// set want. client_encoding comes first, because the other values are read in
// it. A session that is somebody else than its login becomes the login for them
// and whoever it is to be at last: only the login may set all that it has set.
func changes(have, want *params) []change {
	first, others := differences(have, want)
	is, was := who(want), who(have)
	if len(others) == 0 && slices.Equal(is, was) {
		return first
	}
	out := first
	for _, p := range was {
		out = append(out, change{p.Name, nil})
	}
	out = append(out, others...)
	for i := len(is) - 1; i >= 0; i-- { // the session's user takes the role away
		out = append(out, change{is[i].Name, &is[i].Value})
	}
	return out
}

// differences lists what differs between two sets: client_encoding, and the
// rest but for who the session is.
func differences(have, want *params) (first, others []change) {
	add := func(c change) {
		switch c.name {
		case role, sessionAuthorization:
		case "client_encoding":
			first = append(first, c)
		default:
			others = append(others, c)
		}
	}
	for i := range want.list {
		p := &want.list[i]
		if v, ok := have.get(p.Name); !ok || v != p.Value {
			add(change{p.Name, &p.Value})
		}
	}
	for _, p := range have.list {
		if _, ok := want.get(p.Name); !ok {
			add(change{p.Name, nil})
		}
	}
	return first, others
}

// who returns the role and the session's user of a set, if they are others than
// the login.
func who(p *params) (out []pgwire.Param) {
	for _, name := range [...]string{role, sessionAuthorization} {
		if value, ok := p.get(name); ok {
			out = append(out, pgwire.Param{Name: name, Value: value})
		}
	}
	return out
}

// change carries changes out in one transaction. Values travel as Bind
// parameters, so that nothing needs quoting in whatever encoding and syntax the
// session has. set_config reads a value as a startup packet does (a list stays a
// list), and NULL means the default.
func (o *own) change(have *params, list []change) {
	if have.defers() {
		o.parse(unhindered)
		o.execute()
	}
	o.parse("SELECT pg_catalog.set_config($1, $2, false)")
	for _, c := range list {
		if c.value != nil {
			o.execute([]byte(c.name), []byte(*c.value))
		} else {
			o.execute([]byte(c.name), nil)
		}
	}
	o.end()
}

const (
	applicationName = "application_name"
	inHotStandby    = "in_hot_standby"
)

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
