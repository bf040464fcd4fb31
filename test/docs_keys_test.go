// docs/configure.md beside the code: every key with its default, and none that the code does not know.

package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern/postern/configs"
	"github.com/postern/postern/tenants/file"
)

// notBuilt are the keys that are refused by name.
var notBuilt = []string{"regions", "residency.data"}

var keyRow = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| (?:`([^`]*)`|—) \\|")

// documented returns the keys of a table of docs/configure.md with their defaults; "—": none.
func documented(t *testing.T, from, to string) map[string]string {
	t.Helper()
	_, text, ok := strings.Cut(read(t, "../docs/configure.md"), from)
	if !ok {
		t.Fatalf("docs/configure.md has no %q", from)
	}
	text, _, _ = strings.Cut(text, to)
	keys := make(map[string]string)
	for _, m := range keyRow.FindAllStringSubmatch(text, -1) {
		if _, twice := keys[m[1]]; twice {
			t.Errorf("docs/configure.md has %s twice", m[1])
		}
		keys[m[1]] = m[2]
	}
	return keys
}

func compareKeys(t *testing.T, got, want map[string]string, example string) {
	t.Helper()
	shown := read(t, example)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, ok := got[key]
		switch {
		case !ok:
			t.Errorf("docs/configure.md does not have %s", key)
		case value != want[key]:
			t.Errorf("docs/configure.md: %s is %q, the code's default %q", key, value, want[key])
		}
		if last := key[strings.LastIndex(key, ".")+1:]; !strings.Contains(shown, last+":") {
			t.Errorf("%s does not show %s", example, key)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("docs/configure.md has %s, which the code does not know", key)
		}
	}
}

// TestDocsKeysOfTheProcess compares with the types of package configs and their defaults.
func TestDocsKeysOfTheProcess(t *testing.T) {
	want := make(map[string]string)
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		for i := range v.NumField() {
			key := v.Type().Field(i).Tag.Get("mapstructure")
			if key == "-" {
				continue
			}
			field, at := v.Field(i), path+key
			if field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct && field.Type().Elem().NumField() > 0 &&
				field.Type().Elem().Field(0).Tag.Get("mapstructure") != "" {
				item := reflect.New(field.Type().Elem()).Elem()
				if key == "listeners" {
					item = reflect.ValueOf(configs.DefaultListener())
				}
				walk(item, at+"[].")
				continue
			}
			if field.Kind() == reflect.Struct && field.NumField() > 0 && field.Type().Field(0).Tag.Get("mapstructure") != "" {
				walk(field, at+".")
				continue
			}
			if !slices.Contains(notBuilt, at) {
				want[at] = shownDefault(field)
			}
		}
	}
	walk(reflect.ValueOf(configs.Default()), "")
	want["machines.fly.api"] = configs.DefaultFlyAPI // filled in where Fly is wanted at all, as the next one where a cluster is
	want["cluster.max_nodes"] = fmt.Sprint(configs.DefaultMaxNodes)
	compareKeys(t, documented(t, "### Of the process", "### Of a tenant"), want, "../configs/postern.example.yaml")
}

// shownDefault is a value as the page has it: "" for none.
func shownDefault(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return shortDuration(x)
	case int, bool:
		return fmt.Sprint(x)
	case string:
		return x
	}
	return ""
}

// shortDuration leaves out what is zero: 2m for 2m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// keysOf are the functions of package tenants/file that read keys, with where their keys stand.
var keysOf = map[string][]string{
	"tenant":   {""},
	"upstream": {"upstream."},
	"machine":  {"machine."},
	"security": {"upstream.", "machine."},
	"user":     {"users[]."},
	"pool":     {"pool."},
	"caps":     {"caps."},
	"timeouts": {"timeouts.", "users[].timeouts."},
	"rule":     {"allow_list[]."},

	"authQuery": {"auth_query."},
	"service":   {"service."},
	"residency": {"residency."},
}

// sections are keys with keys of their own, which are read elsewhere.
var sections = []string{"upstream", "machine", "users", "pool", "caps", "timeouts", "state", "users[].timeouts", "users[].upstream", "allow_list[].endpoint", "auth_query", "service", "residency"}

// TestDocsKeysOfATenant compares with what package tenants/file reads, and with what it makes of a tenant that says nothing.
func TestDocsKeysOfATenant(t *testing.T) {
	want := make(map[string]string)
	for _, name := range []string{"decode.go", "rules.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), "../tenants/file/"+name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			keys := keysRead(fn.Body, "")
			if len(keys) > 0 && keysOf[fn.Name.Name] == nil {
				t.Errorf("%s reads keys: where do they stand?", fn.Name.Name)
			}
			for _, prefix := range keysOf[fn.Name.Name] {
				for _, key := range keys {
					if !slices.Contains(sections, prefix+key) && !slices.Contains(notBuilt, prefix+key) {
						want[prefix+key] = ""
					}
				}
			}
		}
	}
	if len(want) < 50 {
		t.Fatalf("found %d keys only", len(want))
	}
	path := filepath.Join(t.TempDir(), "tenants.yaml")
	write(t, path, `
tenants:
  - {id: a, upstream: {host: h}, users: [{name: u, verifier: v}]}
  - {id: b, machine: {provider: fly, app: a, id: b, server_name: s}, users: []}
`)
	s, err := file.Load(file.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := s.Tenant("a")
	b, _ := s.Tenant("b")
	for kind, policy := range a.State {
		want["state."+string(kind)] = string(policy)
	}
	u, _ := a.User("u")
	maps.Copy(want, map[string]string{
		"upstream.port": fmt.Sprint(a.Upstream.Port), "upstream.tls": string(a.Upstream.TLS),
		"machine.port": fmt.Sprint(b.Upstream.Port), "machine.tls": string(b.Upstream.TLS),
		"machine.suspend_after": shortDuration(b.Machine.SuspendAfter), "machine.wake": string(b.Machine.Wake), "machine.sleep": string(b.Machine.Sleep),
		"database": a.Database, "databases": fmt.Sprint(a.Databases), "never_ban": fmt.Sprint(a.NeverBan), "connection_rate": fmt.Sprint(a.ConnectionRate), "require_tls": fmt.Sprint(a.RequireTLS),
		"users[].max_clients": fmt.Sprint(u.MaxClients), "users[].max_servers": fmt.Sprint(u.MaxServers), "users[].upstream.auth": string(u.ServerAuth),
		"pool.size": fmt.Sprint(a.Pool.Size), "pool.reserve": fmt.Sprint(a.Pool.Reserve), "pool.reserve_after": shortDuration(a.Pool.ReserveAfter),
		"pool.min": fmt.Sprint(a.Pool.Min), "pool.max_clients": fmt.Sprint(a.Pool.MaxClients), "pool.max_servers": fmt.Sprint(a.Pool.MaxServers),
		"pool.max_database_clients": fmt.Sprint(a.Pool.MaxDatabaseClients), "pool.max_database_servers": fmt.Sprint(a.Pool.MaxDatabaseServers),
		"caps.size": fmt.Sprint(a.Caps.Size), "caps.max_clients": fmt.Sprint(a.Caps.MaxClients), "caps.max_servers": fmt.Sprint(a.Caps.MaxServers),
		"caps.max_database_clients": fmt.Sprint(a.Caps.MaxDatabaseClients), "caps.max_database_servers": fmt.Sprint(a.Caps.MaxDatabaseServers),
		"pool.per_node": fmt.Sprint(a.Pool.PerNode), "pool.mode": fmt.Sprintf("%q", a.Pool.Mode), "server_reset_always": fmt.Sprint(a.ResetAlways), "paused": fmt.Sprint(a.Paused), "disabled": fmt.Sprint(a.Disabled), "client_address": string(a.ClientAddress), "restrictions_mode": string(a.Restrictions),
	})
	compareKeys(t, documented(t, "### Of a tenant", "\n## "), want, "../configs/tenants.example.yaml")
}

// keysRead are the keys of the maps from keys to readers in a piece of code; a map within another's reader is a section of it.
func keysRead(n ast.Node, prefix string) (keys []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			m, ok := n.Type.(*ast.MapType)
			if !ok {
				return true
			}
			if _, ok := m.Value.(*ast.FuncType); !ok {
				return true
			}
			for _, x := range n.Elts {
				kv := x.(*ast.KeyValueExpr)
				key := prefix + literal(kv.Key)
				keys = append(append(keys, key), keysRead(kv.Value, key+".")...)
			}
			return false
		case *ast.AssignStmt: // keys["tls"] = func...
			if at, ok := n.Lhs[0].(*ast.IndexExpr); ok && isNamed(at.X, "keys") && literal(at.Index) != "" {
				keys = append(keys, prefix+literal(at.Index))
			}
		}
		return true
	})
	return keys
}

// literal is the text of a string in the code, "" of anything else.
func literal(x ast.Expr) string {
	if b, ok := x.(*ast.BasicLit); ok && b.Kind == token.STRING {
		s, _ := strconv.Unquote(b.Value)
		return s
	}
	return ""
}
