// The documents: README's size, links and anchors, and that the commands that they show exist.

package test

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// documents are all Markdown files of the repository, from its root.
func documents(t *testing.T) (names []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case strings.HasSuffix(name, ".md"):
			names = append(names, filepath.ToSlash(name)[len("../"):])
		}
		return nil
	})
	if err != nil || len(names) < 15 {
		t.Fatalf("found %v, %v", names, err)
	}
	return names
}

// TestReadmeIsShort: what a newcomer reads fits into one sitting, and into a terminal.
func TestReadmeIsShort(t *testing.T) {
	lines := strings.Split(strings.TrimSuffix(read(t, "../README.md"), "\n"), "\n")
	if len(lines) > 200 {
		t.Errorf("README.md has %d lines, 200 at most", len(lines))
	}
	for i, line := range lines {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("README.md:%d has %d characters, 120 at most", i+1, n)
		}
	}
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```\n?")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
)

// anchors are the names that a document's headings are linked by, as GitHub makes them.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])] = true
	}
	return all
}

// TestLinks: every relative link leads to a file that is there, and to a heading that it has.
func TestLinks(t *testing.T) {
	found := 0
	for _, name := range documents(t) {
		text := code.ReplaceAllString(fence.ReplaceAllString(read(t, "../"+name), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = path.Join(path.Dir(name), file)
			}
			if _, err := os.Stat("../" + target); err != nil || strings.HasPrefix(target, "..") {
				t.Errorf("%s: %s leads nowhere", name, m[1])
				continue
			}
			if anchor != "" && !anchors(read(t, "../"+target))[anchor] {
				t.Errorf("%s: %s has no heading %q", name, target, anchor)
			}
		}
	}
	if found < 40 {
		t.Errorf("found %d links only", found)
	}
}

// TestEveryPageIsReached: whoever begins with the README finds every page.
func TestEveryPageIsReached(t *testing.T) {
	seen := map[string]bool{}
	for todo := []string{"README.md"}; len(todo) > 0; todo = todo[1:] {
		name := todo[0]
		if seen[name] || !strings.HasSuffix(name, ".md") {
			continue
		}
		seen[name] = true
		for _, m := range link.FindAllStringSubmatch(read(t, "../"+name), -1) {
			if file, _, _ := strings.Cut(m[1], "#"); file != "" && !strings.Contains(file, "://") {
				todo = append(todo, path.Join(path.Dir(name), file))
			}
		}
	}
	for _, name := range documents(t) {
		if !seen[name] {
			t.Errorf("no link leads from the README to %s", name)
		}
	}
}

var required = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)

// TestDependenciesHaveReasons: docs/architecture.md says why each module is needed that go.mod names directly.
func TestDependenciesHaveReasons(t *testing.T) {
	page := read(t, "../docs/architecture.md")
	modules := required.FindAllStringSubmatch(read(t, "../go.mod"), -1)
	if len(modules) < 15 {
		t.Fatalf("found %d modules only", len(modules))
	}
	for _, m := range modules {
		name := strings.TrimPrefix(strings.TrimPrefix(m[1], "github.com/"), "golang.org/")
		if i := strings.LastIndex(name, "/v"); i > 0 && len(name) == i+3 && !strings.Contains(page, name) {
			name = name[:i]
		}
		if !strings.Contains(page, name+"`") {
			t.Errorf("docs/architecture.md does not say what %s is for", m[1])
		}
	}
}

var (
	target   = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	use      = regexp.MustCompile(`(?:Use:\s+|group\()"([a-z-]+)`)
	flag     = regexp.MustCompile(`[Ff]lags(?:\(\))?\.\w+\((?:&[\w.]+, )?"([a-z-]+)"`)
	makes    = regexp.MustCompile("(?m)(?:^    |`)make ([a-z][a-z-]*)")
	posterns = regexp.MustCompile("(?m)(?:^ *\\$ |^    |`|\\| |/)postern ([a-z][a-z-]*)((?: --?[a-z-]+(?: [A-Za-z./]+)?)*)")
	option   = regexp.MustCompile(`--([a-z-]+)`)
)

// TestArchitectureHasEveryPackage: docs/architecture.md says the job of each.
func TestArchitectureHasEveryPackage(t *testing.T) {
	page := read(t, "../docs/architecture.md")
	for name := range walls {
		if !strings.Contains(page, "\n| `"+name+"` |") {
			t.Errorf("docs/architecture.md does not say what %s is for", name)
		}
	}
}

// goTest is a line that runs some tests of a package, or a fuzz target.
var goTest = regexp.MustCompile(`go test [^\n]*-(?:run|fuzz) ([A-Z]\w+) \./([a-z0-9/]+)`)

// hasTest reports whether a package has a test whose name begins so.
func hasTest(t *testing.T, name, dir string) bool {
	t.Helper()
	files, err := filepath.Glob("../" + dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.Contains(read(t, file), "\nfunc "+name) {
			return true
		}
	}
	return false
}

// TestCommandsExist: every make target, command of postern and flag that a document shows is there.
func TestCommandsExist(t *testing.T) {
	targets, commands, flags := map[string]bool{}, map[string]bool{"completion": true}, map[string]bool{} // which cobra has
	for _, m := range target.FindAllStringSubmatch(read(t, "../Makefile"), -1) {
		targets[m[1]] = true
	}
	sources, err := filepath.Glob("../cmd/postern/*.go")
	remote, err2 := filepath.Glob("../cmd/postern/ctl/*.go")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(sources, remote...) {
		text := read(t, name)
		for _, m := range use.FindAllStringSubmatch(text, -1) {
			commands[m[1]] = true
		}
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			flags[m[1]] = true
		}
	}
	shownTargets, shownCommands := 0, 0
	for _, name := range documents(t) {
		text := read(t, "../"+name)
		for _, m := range makes.FindAllStringSubmatch(text, -1) {
			if shownTargets++; !targets[m[1]] {
				t.Errorf("%s: there is no make %s", name, m[1])
			}
		}
		for _, m := range posterns.FindAllStringSubmatch(text, -1) {
			if shownCommands++; !commands[m[1]] {
				t.Errorf("%s: there is no postern %s", name, m[1])
			}
			for _, f := range option.FindAllStringSubmatch(m[2], -1) {
				if !flags[f[1]] {
					t.Errorf("%s: postern %s has no flag --%s", name, m[1], f[1])
				}
			}
		}
	}
	for _, name := range documents(t) {
		for _, m := range goTest.FindAllStringSubmatch(read(t, "../"+name), -1) {
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s: %s has no %s", name, m[2], m[1])
			}
		}
	}
	if shownTargets < 15 || shownCommands < 10 {
		t.Errorf("found %d targets and %d commands only", shownTargets, shownCommands)
	}
}
