// docs/errors.md beside the code: every error that Postern builds has its row, and every row is an error that it builds.

package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// said is an error or notice as the code has it: its message may have the verbs of fmt.
type said struct {
	code, message, at string
}

// builders are the functions that make an error out of a code and a message, by the places of the two among their arguments.
var errorBuilders = map[string][2]int{"fatal": {0, 1}, "consoleError": {0, 1}, "fail": {0, 1}, "errViolation": {-1, 0}, "denyViolation": {-1, 0},
	"violation": {-1, 0}, "badOption": {-1, 0}, "notice": {-1, 0}}

// codeOf is what builders that take no code give their errors.
var codeOf = map[string]string{"errViolation": "08P01", "denyViolation": "08P01", "violation": "08P01", "badOption": "42601", "notice": "00000"}

// codeOfKind is proxy/scram's Kind.SQLSTATE. Of a bad proof the gate has its own words.
var codeOfKind = map[string]string{"Malformed": "08P01", "Unsupported": "0A000", "Downgraded": "28000"}

// TestDocsErrors: docs/errors.md has every SQLSTATE with its message that the code has, and no others.
func TestDocsErrors(t *testing.T) {
	text := read(t, "../docs/errors.md")
	rows := errorRows(text)
	used := make([]bool, len(rows))
	all := spoken(t)
	if len(all) < 80 {
		t.Fatalf("found %d errors in the code only", len(all))
	}
	for _, e := range all {
		found := false
		for i, r := range rows {
			if r.code == e.code && (r.message == "any other" || pattern(e.message).MatchString(r.message)) {
				found, used[i] = true, true
			}
		}
		if !found && e.message != "%s" { // else it is where an error is built of what was handed in
			t.Errorf("%s: %s %q has no row in docs/errors.md", e.at, e.code, e.message)
		}
	}
	for i, r := range rows {
		if !used[i] {
			t.Errorf("docs/errors.md: %s %q is in no code", r.code, r.message)
		}
	}
}

var errorRow = regexp.MustCompile("(?m)^\\| ([0-9A-Z]{5}) \\| (`[^`]+`|any other) \\|")

// errorRows are the rows of the page: "any other" stands for all messages of its code.
func errorRows(text string) (rows []said) {
	for _, m := range errorRow.FindAllStringSubmatch(text, -1) {
		message := strings.Trim(m[2], "`")
		rows = append(rows, said{code: m[1], message: message})
	}
	return rows
}

var verb = regexp.MustCompile(`%[a-z]`)

// pattern matches a message whatever its verbs stand for.
func pattern(message string) *regexp.Regexp {
	parts := verb.Split(message, -1)
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".+") + "$")
}

// spoken collects what the code of the gate can say to a client, besides what a server says.
func spoken(t *testing.T) (all []said) {
	t.Helper()
	for _, dir := range []string{"proxy", "proxy/console", "proxy/pgwire", "proxy/link", "proxy/scram"} {
		files, err := filepath.Glob("../" + dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				e, ok := sentence(n)
				if ok {
					e.at = name
					all = append(all, e)
				}
				return true
			})
		}
	}
	return all
}

// sentence reads one error that is built: a call of a builder, a literal with Code and Message, or a row of the denials.
func sentence(n ast.Node) (e said, ok bool) {
	switch n := n.(type) {
	case *ast.CallExpr:
		name, isName := n.Fun.(*ast.Ident)
		if !isName {
			return e, false
		}
		at, known := errorBuilders[name.Name]
		if !known || len(n.Args) <= at[1] {
			return e, false
		}
		e.code = codeOf[name.Name]
		if at[0] >= 0 {
			e.code, _ = words(n.Args[at[0]])
		}
		e.message, ok = words(n.Args[at[1]])
		return e, ok && len(e.code) == 5
	case *ast.CompositeLit:
		var code, message bool
		for i, x := range n.Elts {
			kv, keyed := x.(*ast.KeyValueExpr)
			switch {
			case !keyed && len(n.Elts) == 5 && i == 2: // of denialRow
				e.code, code = words(x)
			case !keyed && len(n.Elts) == 5 && i == 3:
				e.message, message = words(x)
			case keyed && isNamed(kv.Key, "Kind"):
				if kind, ok := kv.Value.(*ast.Ident); ok {
					e.code, code = codeOfKind[kind.Name], codeOfKind[kind.Name] != ""
				}
			case keyed && isNamed(kv.Key, "Code"):
				e.code, code = words(kv.Value)
			case keyed && isNamed(kv.Key, "Message"):
				e.message, message = words(kv.Value)
			}
		}
		return e, code && message && len(e.code) == 5
	}
	return e, false
}

func isNamed(x ast.Expr, name string) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == name
}

// words are the text of an expression: a literal, a sum, a Sprintf, a constant of the same file. What is not known is a verb.
func words(x ast.Expr) (string, bool) {
	switch x := x.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(x.Value)
		return s, err == nil && x.Kind == token.STRING
	case *ast.BinaryExpr:
		a, _ := words(x.X)
		b, _ := words(x.Y)
		return a + b, x.Op == token.ADD
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			return words(x.Args[0])
		}
	case *ast.Ident:
		if x.Obj != nil {
			if spec, ok := x.Obj.Decl.(*ast.ValueSpec); ok && len(spec.Names) == 1 && len(spec.Values) == 1 {
				return words(spec.Values[0])
			}
		}
	}
	return "%s", true
}
