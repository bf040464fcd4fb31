// The import walls: every allowed pair of packages, every third-party module per package.

package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/postern/postern"

// Third-party modules by short names.
const (
	backoff     = "github.com/cenkalti/backoff/v5"
	bart        = "github.com/gaissmai/bart"
	cobra       = "github.com/spf13/cobra"
	fsnotify    = "github.com/fsnotify/fsnotify"
	goose       = "github.com/pressly/goose/v3"
	goproxy     = "github.com/pires/go-proxyproto"
	memberlist  = "github.com/hashicorp/memberlist"
	mapstruct   = "github.com/go-viper/mapstructure/v2"
	pflag       = "github.com/spf13/pflag"
	pgproto3v2  = "github.com/jackc/pgproto3/v2"
	pgx         = "github.com/jackc/pgx/v5"
	prometheus  = "github.com/prometheus/client_golang"
	scramLib    = "github.com/xdg-go/scram"
	stringprep  = "github.com/xdg-go/stringprep"
	viper       = "github.com/spf13/viper"
	xsync       = "golang.org/x/sync"
	xsys        = "golang.org/x/sys"
	xterm       = "golang.org/x/term"
	xtext       = "golang.org/x/text"
	xtime       = "golang.org/x/time"
	yaml        = "go.yaml.in/yaml/v3"
	anyPackage  = "*" // every package of ours
	testFolder  = "test"
	commandRoom = "cmd/postern"
)

// wall says what a package may import: packages of ours, and modules.
type wall struct {
	ours    []string
	modules []string
	// pure packages have no I/O, no locks and no goroutines to wait for.
	pure bool
}

// walls lists every package. Arrows point down: cmd, then proxy and admin,
// then pool, tenants (stores of them below it see it) and machines, then
// netrestrict and the leaves.
var walls = map[string]wall{
	commandRoom:           {ours: []string{anyPackage}, modules: []string{cobra, pflag, prometheus, xterm}},
	commandRoom + "/demo": {ours: []string{"machines", "tenants", "proxy/scram"}, modules: []string{pgx, goproxy}},
	commandRoom + "/ctl":  {ours: []string{"proxy/scram"}, modules: []string{cobra, yaml}},
	"files":               {modules: []string{fsnotify}},
	"cluster":             {ours: []string{"files", "tenants"}, modules: []string{memberlist, prometheus}},
	"configs":             {ours: []string{"files"}, modules: []string{viper, mapstruct, yaml}},
	"admin":               {ours: []string{"files", "pool", "tenants", "tenants/document", "netrestrict", "machines"}, modules: []string{prometheus, xtime}},
	"proxy": {
		ours: []string{"files", "pool", "tenants", "netrestrict", "machines",
			"proxy/backend", "proxy/console", "proxy/lease", "proxy/link", "proxy/loop", "proxy/params", "proxy/pgwire", "proxy/proxyproto", "proxy/roles", "proxy/scram", "proxy/sqltext"},
		modules: []string{pgx, prometheus, xsync, xsys, xtime},
	},
	"proxy/backend":    {ours: []string{"proxy/loop", "proxy/pgwire", "proxy/scram"}, modules: []string{pgx}},
	"proxy/console":    {ours: []string{"proxy/pgwire"}, pure: true},
	"proxy/link":       {ours: []string{"proxy/pgwire", "proxy/sqltext"}, pure: true},
	"proxy/lease":      {ours: []string{"proxy/link", "proxy/params", "proxy/pgwire", "proxy/sqltext"}, pure: true},
	"proxy/loop":       {modules: []string{xsys}},
	"proxy/params":     {ours: []string{"proxy/pgwire", "proxy/sqltext"}, pure: true},
	"proxy/pgwire":     {pure: true},
	"proxy/proxyproto": {modules: []string{goproxy}},
	"proxy/roles":      {ours: []string{"proxy/scram"}, pure: true},
	"proxy/scram":      {modules: []string{scramLib, stringprep, xtext}},
	"proxy/sqltext":    {pure: true},
	"pool":             {pure: true},
	"netrestrict":      {pure: true, modules: []string{bart}},
	"tenants":          {ours: []string{"netrestrict"}},
	"tenants/document": {ours: []string{"netrestrict", "tenants"}, pure: true},
	"tenants/file":     {ours: []string{"files", "netrestrict", "tenants", "tenants/document"}, modules: []string{yaml}},
	"tenants/postgres": {ours: []string{"files", "netrestrict", "tenants", "tenants/document"}, modules: []string{goose, pgx, xsys, yaml}},
	"machines":         {},
	"machines/fly":     {ours: []string{"files", "machines"}, modules: []string{xtime}},
	"machines/local":   {ours: []string{"files", "machines"}, modules: []string{backoff, pgx}},
}

// impure are the standard packages that a pure one has no use for.
var impure = []string{"context", "log/slog", "net", "net/http", "os", "os/exec", "sync", "sync/atomic", "syscall", "crypto/tls", "runtime"}

// listed is what `go list -json` says of a package.
type listed struct {
	Dir, ImportPath                    string
	Imports, TestImports, XTestImports []string
	IgnoredGoFiles                     []string
}

// goList runs `go list -json` in the module's root.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// short is a package's name below the module, or "" if it is not ours.
func short(importPath string) string {
	if importPath == module {
		return "."
	}
	rest, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return rest
}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

func inModule(importPath, mod string) bool {
	return importPath == mod || strings.HasPrefix(importPath, mod+"/")
}

func inTests(pkg string) bool { return pkg == testFolder || strings.HasPrefix(pkg, testFolder+"/") }

// judge says what is wrong with an import of pkg, "" for nothing.
func judge(pkg, imported string) string {
	w, known := walls[pkg]
	switch {
	case inTests(pkg):
		return ""
	case !known:
		return "the package has no row in walls"
	case imported == "C":
		return "no cgo"
	case standard(imported):
		if w.pure && slices.Contains(impure, imported) {
			return "the package is pure"
		}
		return ""
	}
	if own := short(imported); own != "" {
		if inTests(own) {
			return "test is for tests only"
		}
		if !slices.Contains(w.ours, own) && !slices.Contains(w.ours, anyPackage) {
			return "not an arrow"
		}
		return ""
	}
	if inModule(imported, pgproto3v2) {
		return "only under test"
	}
	for _, m := range w.modules {
		if inModule(imported, m) {
			return ""
		}
	}
	return "not one of the package's modules"
}

// judgeTest is judge for a package's own tests: they may use any module but
// pgproto3/v2, and what is in test, but they stay behind the walls.
func judgeTest(pkg, imported string) string {
	own := short(imported)
	switch {
	case inTests(pkg), own == pkg, own != "" && inTests(own):
		return ""
	case own != "":
		return judge(pkg, imported)
	case inModule(imported, pgproto3v2):
		return "only under test"
	}
	return ""
}

func TestImportWalls(t *testing.T) {
	packages := goList(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages", len(packages))
	}
	seen := map[string]bool{}
	for _, p := range packages {
		pkg := short(p.ImportPath)
		seen[pkg] = true
		imports := slices.Clone(p.Imports)
		for _, f := range p.IgnoredGoFiles { // other operating systems
			imports = append(imports, importsOf(t, filepath.Join(p.Dir, f))...)
		}
		for _, i := range imports {
			if why := judge(pkg, i); why != "" {
				t.Errorf("%s imports %s: %s", pkg, i, why)
			}
		}
		for _, i := range append(p.TestImports, p.XTestImports...) {
			if why := judgeTest(pkg, i); why != "" {
				t.Errorf("a test of %s imports %s: %s", pkg, i, why)
			}
		}
	}
	for pkg := range walls {
		if !seen[pkg] {
			t.Errorf("walls has a row for %s, which does not exist", pkg)
		}
	}
}

func importsOf(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, s := range f.Imports {
		i, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		imports = append(imports, i)
	}
	return imports
}

// What is linked into the program: no test code, no decoder that crashes.
func TestProgramLinksNoTestCode(t *testing.T) {
	for _, p := range goList(t, "-deps", "./"+commandRoom) {
		if inModule(p.ImportPath, pgproto3v2) || inTests(short(p.ImportPath)) {
			t.Errorf("the program links %s", p.ImportPath)
		}
	}
}

// The rules refuse what they are for.
func TestWallsRefuse(t *testing.T) {
	ours := func(p string) string { return path.Join(module, p) }
	for _, tc := range []struct {
		pkg, imported string
		allowed       bool
	}{
		{"proxy", ours("proxy/link"), true},
		{"proxy", ours("admin"), false},
		{"proxy", ours("configs"), false},
		{"admin", ours("proxy"), false},
		{"proxy/link", ours("proxy/pgwire"), true},
		{"proxy/link", ours("proxy/sqltext"), true},
		{"proxy/sqltext", ours("proxy/link"), false},
		{"proxy/sqltext", ours("proxy/pgwire"), false},
		{"proxy/params", ours("proxy/pgwire"), true},
		{"proxy/params", ours("proxy/link"), false},
		{"proxy/lease", ours("proxy/link"), true},
		{"proxy/lease", ours("tenants"), false},
		{"proxy/link", ours("proxy/lease"), false},
		{"proxy/params", ours("tenants"), false},
		{"proxy/pgwire", ours("proxy/link"), false},
		{"proxy/loop", ours("proxy/pgwire"), false},
		{"proxy/backend", ours("proxy/link"), false},
		{"tenants", ours("netrestrict"), true},
		{"tenants", ours("pool"), false},
		{"tenants", ours("files"), false},
		{"tenants", ours("tenants/file"), false},
		{"tenants/file", ours("tenants"), true},
		{"proxy", ours("tenants/file"), false},
		{"tenants/postgres", ours("tenants"), true},
		{"tenants/postgres", ours("tenants/file"), false},
		{"proxy", ours("tenants/postgres"), false},
		{"tenants", pgx, false},
		{"netrestrict", ours("tenants"), false},
		{"pool", "time", true},
		{"pool", "sync", false},
		{"pool", ours("proxy/pgwire"), false},
		{"netrestrict", "net/netip", true},
		{"netrestrict", "net", false},
		{"proxy/pgwire", pgproto3v2, false},
		{"proxy/backend", pgx + "/pgproto3", true},
		{"proxy/pgwire", pgx + "/pgproto3", false},
		{"proxy/scram", pgx + "/pgproto3", false},
		{"cmd/postern", ours("proxy/scram"), true},
		{"cmd/postern", ours("test/harness"), false},
		{"cmd/postern", "github.com/nobody/knows", false},
		{"cmd/postern/demo", ours("proxy"), false},
		{"somewhere/new", "fmt", false},
		{"test/bench", pgproto3v2, true},
	} {
		if why := judge(tc.pkg, tc.imported); (why == "") != tc.allowed {
			t.Errorf("%s -> %s: %q", tc.pkg, tc.imported, why)
		}
	}
	for _, tc := range []struct {
		pkg, imported string
		allowed       bool
	}{
		{"proxy/link", "pgregory.net/rapid", true},
		{"proxy/link", ours("proxy/link"), true},
		{"proxy/link", ours("proxy/loop"), false},
		{"proxy/link", ours("test/harness"), true},
		{"proxy/link", pgproto3v2, false},
		{"test", pgproto3v2, true},
	} {
		if why := judgeTest(tc.pkg, tc.imported); (why == "") != tc.allowed {
			t.Errorf("a test: %s -> %s: %q", tc.pkg, tc.imported, why)
		}
	}
}
