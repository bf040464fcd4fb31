package proxy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMapNamesEveryFile keeps the map of the package's documentation complete.
func TestMapNamesEveryFile(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if name != "doc.go" && !strings.HasSuffix(name, "_test.go") && !strings.Contains(string(doc), name) {
			t.Errorf("the map in doc.go does not have %s", name)
		}
	}
}
