// Sets of run-time parameters, which are shared, compared by pointer, and never changed.

package params

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
)

const (
	// maxSets bounds the sets that one pool remembers. Beyond it all are forgotten;
	// those in use live on and are recognized by content.
	maxSets = 4096
	// maxSetBytes bounds the remembered sets, too.
	maxSetBytes = 64 << 20
	// longKey is from how many bytes on a set is known by a hash of its content.
	longKey = 4 << 10
)

// Set is an immutable set of run-time parameters that differ from a fresh
// session's. Two clients with equal sets have the same pointer, so that asking
// whether a server has a client's settings costs one comparison. All sets are
// made by a Sets; the zero Set is empty, too, for tests.
type Set struct {
	list []pgwire.Param // by name, in lower case
	key  string
	base *Set // the same without what is each client's own (its name and address), perhaps itself

	// told is what a server shows a client with exactly this set; nil while
	// unknown. It is what was learned about a set, is no part of it, and is kept
	// on base sets only.
	told *Reports

	size int // of names and values, in bytes

	temporary bool // pg_temp stands in its search_path
}

// Same reports whether two sets are equal. Usually they are one then; not so if
// a Sets has forgotten the first.
func (s *Set) Same(o *Set) bool { return s == o || s.key == o.key }

// Empty reports whether nothing is set.
func (s *Set) Empty() bool { return len(s.list) == 0 }

// List is what is set, by name, in lower case. It is not for the caller to change.
func (s *Set) List() []pgwire.Param { return s.list }

// Base is the set without what is each client's own, its application_name and
// its address. It is what a text may mean something else under.
func (s *Set) Base() *Set { return s.base }

// Size is how long names and values are, in bytes.
func (s *Set) Size() int { return s.size }

// Temporary reports whether pg_temp stands in its search_path, so that any table
// that is made may be a temporary one.
func (s *Set) Temporary() bool { return s.temporary }

// Defers reports whether a session's transactions may be deferrable.
func (s *Set) Defers() bool {
	_, ok := s.Get(Deferrable)
	return ok
}

// Get returns a parameter's value.
func (s *Set) Get(name string) (string, bool) {
	i, ok := s.find(strings.ToLower(name))
	if !ok {
		return "", false
	}
	return s.list[i].Value, true
}

func (s *Set) find(lower string) (int, bool) {
	return slices.BinarySearchFunc(s.list, lower, func(e pgwire.Param, n string) int { return strings.Compare(e.Name, n) })
}

// Sets shares sets by content. It is one pool's, and the loop thread's only. The
// zero value is ready.
type Sets struct {
	byKey map[string]*Set
	bytes int // of the names and values in byKey, about
}

// Intern returns the set of a list in which the last of a name wins.
func (t *Sets) Intern(list []pgwire.Param) *Set {
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

func (t *Sets) shared(sorted []pgwire.Param) *Set {
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
	if t.byKey == nil || len(t.byKey) >= maxSets || t.bytes > maxSetBytes {
		t.byKey, t.bytes = make(map[string]*Set), 0
	}
	t.bytes += b.Len()
	set := &Set{list: sorted, key: key, size: b.Len()}
	path, _ := set.Get("search_path")
	set.temporary = strings.Contains(strings.ToLower(path), "pg_temp")
	t.byKey[key] = set
	set.base = set
	own := func(p pgwire.Param) bool { return p.Name == ApplicationName || p.Name == ClientAddress }
	if slices.ContainsFunc(sorted, own) {
		set.base = t.shared(slices.DeleteFunc(slices.Clone(sorted), own))
	}
	return set
}

// With returns the set in which name has the value.
func (t *Sets) With(s *Set, name, value string) *Set {
	lower := strings.ToLower(name)
	i, ok := s.find(lower)
	if ok && s.list[i].Value == value {
		return s
	}
	list := slices.Clone(s.list)
	if ok {
		list[i].Value = value
	} else {
		list = slices.Insert(list, i, pgwire.Param{Name: lower, Value: value})
	}
	return t.shared(list)
}
