// The map of the files in doc.go names every file, and no other.

package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestMapNamesEveryFile keeps the map of the package's documentation: every file is in it, and it has no others.
func TestMapNamesEveryFile(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	files = slices.DeleteFunc(files, func(name string) bool { return name == "doc.go" || strings.HasSuffix(name, "_test.go") })
	missing, gone := compareMap(string(doc), files)
	for _, name := range missing {
		t.Errorf("the map in doc.go does not have %s", name)
	}
	for _, name := range gone {
		t.Errorf("doc.go names %s, which does not exist", name)
	}
}

// compareMap returns the files that a text does not name, and those that only it knows. A name counts as a whole.
func compareMap(text string, files []string) (missing, gone []string) {
	named := regexp.MustCompile(`[\w.-]+\.go\b`).FindAllString(text, -1)
	for _, name := range files {
		if !slices.Contains(named, name) {
			missing = append(missing, name)
		}
	}
	for _, name := range named {
		if !slices.Contains(files, name) {
			gone = append(gone, name)
		}
	}
	return missing, gone
}

func TestCompareMap(t *testing.T) {
	for _, c := range []struct{ text, files, missing, gone string }{
		{"//\town.go    what\n", "own.go", "", ""},
		{"//\tknown.go  what\n", "known.go own.go", "own.go", ""},
		{"//\town.go_   what\n", "own.go", "own.go", ""},
		{"see pool-own.go, x.own.go", "own.go", "own.go", "pool-own.go x.own.go"},
		{"//\ta.go b_c.go  what; see (d.go).", "a.go b_c.go d.go", "", ""},
		{"is in a.go.", "a.go", "", ""},
		{"a.go and b.go", "a.go", "", "b.go"},
		{"a.golang", "a.go", "a.go", ""},
	} {
		missing, gone := compareMap(c.text, strings.Fields(c.files))
		if got := strings.Join(missing, " "); got != c.missing {
			t.Errorf("%q: missing %q, want %q", c.text, got, c.missing)
		}
		if got := strings.Join(gone, " "); got != c.gone {
			t.Errorf("%q: gone %q, want %q", c.text, got, c.gone)
		}
	}
}
