// No function is longer than a screen or two: counted from its func to its brace, over all files but tests.

package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// maxLines is how many lines a function may have.
const maxLines = 80

// longFunctions returns the functions of a file that have more lines than they may, and how many functions there are.
func longFunctions(name string, src any) (long []string, functions int, err error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, 0, err
	}
	for _, d := range f.Decls {
		d, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		functions++
		if n := files.Position(d.End()).Line - files.Position(d.Pos()).Line + 1; n > maxLines {
			long = append(long, fmt.Sprintf("%s: %s has %d lines", files.Position(d.Pos()), d.Name.Name, n))
		}
	}
	return long, functions, nil
}

func TestFunctionsAreShort(t *testing.T) {
	total := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != ".." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		long, functions, err := longFunctions(path, nil)
		for _, l := range long {
			t.Errorf("%s, at most %d: split it by meaning", l, maxLines)
		}
		total += functions
		return err
	})
	if err != nil || total < 1000 {
		t.Fatalf("%d functions looked at: %v", total, err)
	}
}

func TestLongFunctionsAreFound(t *testing.T) {
	source := func(lines int) string {
		return "package p\n\n// long is one.\nfunc (x T) long() {\n" + strings.Repeat("\tx++\n", lines-2) + "}\n\nfunc short() {}\n"
	}
	for lines, want := range map[int]int{2: 0, maxLines: 0, maxLines + 1: 1} {
		long, functions, err := longFunctions("p.go", source(lines))
		if err != nil || len(long) != want || functions != 2 {
			t.Errorf("%d lines: %q of %d functions, %v", lines, long, functions, err)
		}
	}
	if long, _, _ := longFunctions("p.go", source(200)); len(long) != 1 || long[0] != "p.go:4:1: long has 200 lines" {
		t.Error(long)
	}
}
