// Tests of sets of parameters: shared by content, and bounded.

package params

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/pgwire"
)

func TestSetsAreSharedByContent(t *testing.T) {
	var sets Sets
	a := sets.Intern([]pgwire.Param{{Name: "TimeZone", Value: "UTC"}, {Name: "search_path", Value: "a,b"}})
	b := sets.Intern([]pgwire.Param{{Name: "search_path", Value: "x"}, {Name: "timezone", Value: "UTC"}, {Name: "SEARCH_PATH", Value: "a,b"}})
	if a != b {
		t.Fatalf("equal sets are not the same: %q and %q", a.key, b.key)
	}
	if a.Base() != a {
		t.Fatal("a set without application_name is its own base")
	}
	c := sets.With(a, "application_name", "psql")
	if c == a || c.Base() != a {
		t.Fatal("application_name must not change the base")
	}
	if v, ok := c.Get("Search_Path"); !ok || v != "a,b" {
		t.Fatalf("Get: %q, %v", v, ok)
	}
	if sets.With(c, "APPLICATION_NAME", "psql") != c {
		t.Fatal("with the same value is the same set")
	}
}

// drawList draws lists with names in any case, some more than once.
func drawList(t *rapid.T, label string, names ...string) []pgwire.Param {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) pgwire.Param {
		name := rapid.SampledFrom(names).Draw(t, "name")
		if rapid.Bool().Draw(t, "upper") {
			name = strings.ToUpper(name)
		}
		return pgwire.Param{Name: name, Value: rapid.StringMatching(`[abé'\\",]{0,2}`).Draw(t, "value")}
	}), 0, 5).Draw(t, label)
}

// last is what a list says, by name in lower case.
func last(list []pgwire.Param) map[string]string {
	m := map[string]string{}
	for _, p := range list {
		m[strings.ToLower(p.Name)] = p.Value
	}
	return m
}

// TestOnePointerPerContent: sets are one exactly if they say the same, however they were made, and so are their bases.
func TestOnePointerPerContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", ApplicationName, ClientAddress}
		x, y := drawList(t, "x", names...), drawList(t, "y", names...)
		var sets Sets
		a, b := sets.Intern(x), sets.Intern(nil)
		for _, p := range y { // one by one
			b = sets.With(b, p.Name, p.Value)
		}
		if got := last(a.List()); !maps.Equal(got, last(x)) || len(got) != len(a.List()) {
			t.Fatalf("%v of %v", a.List(), x)
		}
		if equal := maps.Equal(last(x), last(y)); (a == b) != equal || a.Same(b) != equal {
			t.Fatalf("one: %v, the same: %v, equal: %v", a == b, a.Same(b), equal)
		}
		mine, others := last(x), last(y)
		for _, m := range []map[string]string{mine, others} {
			delete(m, ApplicationName)
			delete(m, ClientAddress)
		}
		if (a.Base() == b.Base()) != maps.Equal(mine, others) || !maps.Equal(last(a.Base().List()), mine) {
			t.Fatalf("bases %v and %v of %v and %v", a.Base().List(), b.Base().List(), x, y)
		}
		var forgetful Sets
		if again := forgetful.Intern(slices.Clone(a.List())); again == a || !again.Same(a) {
			t.Fatal("a set of another table is the same, and not one")
		}
	})
}

func TestSetsAreBounded(t *testing.T) {
	var sets Sets
	first := sets.Intern([]pgwire.Param{{Name: "a", Value: "1"}})
	for i := range 3 * maxSets {
		sets.Intern([]pgwire.Param{{Name: "application_name", Value: strconv.Itoa(i)}})
		if len(sets.byKey) > maxSets+1 {
			t.Fatalf("%d sets are remembered", len(sets.byKey))
		}
	}
	if again := sets.Intern([]pgwire.Param{{Name: "a", Value: "1"}}); !again.Same(first) {
		t.Fatal("a forgotten set is not recognized by content")
	}
}

// TestLongParametersAreBounded in what is kept of them.
func TestLongParametersAreBounded(t *testing.T) {
	var sets Sets
	value := strings.Repeat("x", 1<<20)
	first := sets.Intern([]pgwire.Param{{Name: "a", Value: value}})
	if len(first.key) > 100 {
		t.Errorf("it is known by %d bytes", len(first.key))
	}
	if again := sets.Intern([]pgwire.Param{{Name: "a", Value: value}}); again != first {
		t.Error("it is not recognized")
	}
	for i := range 200 {
		if sets.Intern([]pgwire.Param{{Name: "a", Value: value + strconv.Itoa(i)}}).Same(first) {
			t.Fatal("it is taken for another")
		}
		if n := len(sets.byKey) << 20; n > 2*maxSetBytes {
			t.Fatalf("%d bytes are remembered", n)
		}
	}
}

// TestComparingCostsNothing that a transaction could feel.
func TestComparingCostsNothing(t *testing.T) {
	var sets Sets
	list := []pgwire.Param{{Name: "a", Value: "1"}, {Name: ApplicationName, Value: "x"}}
	a, other := sets.Intern(list), new(Sets).Intern(list)
	var r Resets
	if n := testing.AllocsPerRun(100, func() {
		if !a.Same(other) || a.Base() == a || a.Temporary() || a.Defers() || a.Told() != nil {
			t.Error("it is another")
		}
		r.Completed([]byte("SELECT 1"))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
