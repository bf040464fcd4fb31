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

// set does what set_config does. Only a superuser, which the login is and
// nobody else, may touch the parameters that begin with log.
func (s session) set(t *rapid.T, name string, value []byte) {
	if strings.HasPrefix(name, "log") && s["role"]+s["session_authorization"] != "" {
		t.Fatalf("%s is changed by %v", name, s)
	}
	if name == "session_authorization" {
		delete(s, "role")
	}
	if value == nil {
		delete(s, name)
	} else {
		s[name] = string(value)
	}
}

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
			s.set(t, string(m.Parameters[0]), m.Parameters[1])
		}
		messages = messages[size+1:]
	}
}

func TestChangesMakeOneSetOfAnother(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		param := rapid.Custom(func(t *rapid.T) pgwire.Param {
			return pgwire.Param{
				Name: rapid.SampledFrom([]string{"client_encoding", "TimeZone", "search_path", "work_mem", "application_name",
					"log_statement", "role", "session_authorization"}).Draw(t, "name"),
				Value: rapid.StringMatching(`[a-zé'\\"]{1,4}`).Draw(t, "value"),
			}
		})
		var sets paramSets
		have := sets.intern(rapid.SliceOf(param).Draw(t, "have"))
		want := sets.intern(rapid.SliceOf(param).Draw(t, "want"))
		s := session{}
		s.carryOut(t, changing(changes(sets.shared(nil), have)))
		list := changes(have, want)
		s.carryOut(t, changing(list))
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
		if len(list) == 0 {
			return
		}
		if i := slices.IndexFunc(list, func(c change) bool { return c.name == "client_encoding" }); i > 0 {
			t.Fatal("client_encoding must come first, the other values are read in it")
		}
	})
}

func TestStartupParametersWithoutEffect(t *testing.T) {
	list := []pgwire.Param{{Name: "Transaction_Isolation", Value: "Repeatable Read"}, {Name: "transaction_isolation", Value: "best"},
		{Name: "transaction_read_only", Value: "TRUE"}, {Name: "transaction_deferrable", Value: "o"}, {Name: "seed", Value: "0.5"},
		{Name: "geqo", Value: "off"}, {Name: "default_transaction_read_only", Value: "on"}}
	var left []string
	for _, p := range withoutEffect(list) {
		left = append(left, p.Name+"="+p.Value)
	}
	want := "transaction_isolation=best transaction_deferrable=o geqo=off default_transaction_read_only=on"
	if got := strings.Join(left, " "); got != want || list[2].Value != "TRUE" {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestLongParametersAreBounded in what is kept of them.
func TestLongParametersAreBounded(t *testing.T) {
	var sets paramSets
	value := strings.Repeat("x", 1<<20)
	first := sets.intern([]pgwire.Param{{Name: "a", Value: value}})
	if len(first.key) > 100 {
		t.Errorf("it is known by %d bytes", len(first.key))
	}
	if again := sets.intern([]pgwire.Param{{Name: "a", Value: value}}); again != first {
		t.Error("it is not recognized")
	}
	for i := range 200 {
		if sets.intern([]pgwire.Param{{Name: "a", Value: value + itoa(i)}}).same(first) {
			t.Fatal("it is taken for another")
		}
		if n := len(sets.byKey) << 20; n > 2*maxParamBytes {
			t.Fatalf("%d bytes are remembered", n)
		}
	}
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
