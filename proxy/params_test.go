package proxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/pgwire"
)

func TestParamsAreSharedByContent(t *testing.T) {
	var sets paramSets
	a := sets.intern([]pgwire.Param{{Name: "TimeZone", Value: "UTC"}, {Name: "search_path", Value: "a,b"}})
	b := sets.intern([]pgwire.Param{{Name: "search_path", Value: "x"}, {Name: "timezone", Value: "UTC"}, {Name: "SEARCH_PATH", Value: "a,b"}})
	if a != b {
		t.Fatalf("equal sets are not the same: %q and %q", a.key, b.key)
	}
	if a.base != a {
		t.Fatal("a set without application_name is its own base")
	}
	c := sets.with(a, "application_name", "psql")
	if c == a || c.base != a {
		t.Fatal("application_name must not change the base")
	}
	if v, ok := c.get("Search_Path"); !ok || v != "a,b" {
		t.Fatalf("get: %q, %v", v, ok)
	}
	if sets.with(c, "APPLICATION_NAME", "psql") != c {
		t.Fatal("with the same value is the same set")
	}
}

func TestParamSetsAreBounded(t *testing.T) {
	var sets paramSets
	first := sets.intern([]pgwire.Param{{Name: "a", Value: "1"}})
	for i := range 3 * maxParamSets {
		sets.intern([]pgwire.Param{{Name: "application_name", Value: itoa(i)}})
		if len(sets.byKey) > maxParamSets+1 {
			t.Fatalf("%d sets are remembered", len(sets.byKey))
		}
	}
	if again := sets.intern([]pgwire.Param{{Name: "a", Value: "1"}}); !again.same(first) {
		t.Fatal("a forgotten set is not recognized by content")
	}
}

// session is a model of a server session: what it is set to.
type session map[string]string

func (s session) carryOut(t *rapid.T, messages []byte) {
	var binds int
	for len(messages) > 0 {
		size := int(messages[1])<<24 | int(messages[2])<<16 | int(messages[3])<<8 | int(messages[4])
		body := messages[5 : size+1]
		if messages[0] == pgwire.Bind {
			var m pgproto3.Bind
			if err := m.Decode(body); err != nil {
				t.Fatal(err)
			}
			binds++
			if name := string(m.Parameters[0]); m.Parameters[1] == nil {
				delete(s, name)
			} else {
				s[name] = string(m.Parameters[1])
			}
		}
		messages = messages[size+1:]
	}
}

func TestChangesMakeOneSetOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		param := rapid.Custom(func(t *rapid.T) pgwire.Param {
			return pgwire.Param{
				Name:  rapid.SampledFrom([]string{"client_encoding", "TimeZone", "search_path", "work_mem", "application_name"}).Draw(t, "name"),
				Value: rapid.StringMatching(`[a-zé'\\"]{0,4}`).Draw(t, "value"),
			}
		})
		var sets paramSets
		have := sets.intern(rapid.SliceOf(param).Draw(t, "have"))
		want := sets.intern(rapid.SliceOf(param).Draw(t, "want"))
		s := session{}
		s.carryOut(t, appendChanges(nil, changes(sets.shared(nil), have)))
		list := changes(have, want)
		s.carryOut(t, appendChanges(nil, list))
		if len(s) != len(want.list) {
			t.Fatalf("session has %v, want %v", s, want.list)
		}
		for _, p := range want.list {
			if s[p.Name] != p.Value {
				t.Fatalf("session has %v, want %v", s, want.list)
			}
		}
		if have.same(want) != (len(list) == 0) {
			t.Fatalf("%d changes between sets that are the same: %v", len(list), have.same(want))
		}
		if i := slices.IndexFunc(list, func(c change) bool { return c.name == "client_encoding" }); i > 0 {
			t.Fatal("client_encoding must come first, the other values are read in it")
		}
	})
}

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"psql":                  "psql",
		"tab\tand\nline":        "tab?and?line",
		"über":                  "??ber",
		strings.Repeat("x", 80): strings.Repeat("x", 63),
		"":                      "",
	} {
		if got := cleanName(in); got != want {
			t.Errorf("cleanName(%q) = %q, want %q", in, got, want)
		}
	}
}
