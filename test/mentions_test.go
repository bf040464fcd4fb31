// Files that comments name exist: in the same folder, or where their path says.

package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mentioned are Go files in a text, with a path or without.
var mentioned = regexp.MustCompile(`[\w./-]*\w\.go\b`)

// missingFiles returns the Go files that the comments of a file name and that are neither in its folder nor below root.
func missingFiles(root, name string, src any) (missing []string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, group := range f.Comments {
		for _, file := range mentioned.FindAllString(group.Text(), -1) {
			_, here := os.Stat(filepath.Join(filepath.Dir(name), file))
			_, there := os.Stat(filepath.Join(root, file))
			if here != nil && there != nil {
				missing = append(missing, file)
			}
		}
	}
	return missing, nil
}

func TestCommentsNameFilesThatExist(t *testing.T) {
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != ".." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		missing, err := missingFiles("..", path, nil)
		for _, file := range missing {
			t.Errorf("%s: a comment names %s, which does not exist", path, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMissingFilesAreFound(t *testing.T) {
	for comment, want := range map[string]string{
		"see imports_test.go":                "",
		"see (imports_test.go).":             "",
		"see test/imports_test.go, doc.go":   "",
		"see pool/pool.go and pool/check.go": "",
		"see ports_test.go":                  "ports_test.go",
		"see proxy/imports_test.go":          "proxy/imports_test.go",
		"a.golang and go.mod, what goes":     "",
	} {
		missing, err := missingFiles("..", "x_test.go", "// "+comment+"\npackage x\n")
		if got := strings.Join(missing, " "); err != nil || got != want {
			t.Errorf("%s: %q, want %q, %v", comment, got, want, err)
		}
	}
}
