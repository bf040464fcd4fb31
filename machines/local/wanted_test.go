// What is wanted: mistakes, digests, quoting, redaction.

package local

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestMistakesAreFoundBeforeAnythingIsDone(t *testing.T) {
	dir := Options{Dir: "/d"}
	long := strings.Repeat("x", maxName)
	for name, tt := range map[string]struct {
		o    MachineOptions
		says string // "": fine
	}{
		"nothing wanted":     {MachineOptions{Options: dir}, ""},
		"all wanted":         {MachineOptions{Options: dir, Sleep: SleepSuspend, Roles: []Role{{long, ""}, {"b", "x"}}, Databases: []string{long, "b", "b"}}, ""},
		"another superuser":  {MachineOptions{Options: Options{Dir: "/d", Superuser: "boss"}, Roles: []Role{{"postgres", "x"}}}, ""},
		"no folder":          {MachineOptions{}, "directory"},
		"sleep":              {MachineOptions{Options: dir, Sleep: "nap"}, `"nap"`},
		"superuser":          {MachineOptions{Options: dir, Roles: []Role{{"postgres", "x"}}}, "superuser"},
		"twice":              {MachineOptions{Options: dir, Roles: []Role{{"a", "x"}, {"a", "y"}}}, "twice"},
		"role without name":  {MachineOptions{Options: dir, Roles: []Role{{"", "x"}}}, "no name"},
		"long role":          {MachineOptions{Options: dir, Roles: []Role{{long + "x", "x"}}}, "63 bytes"},
		"binary role":        {MachineOptions{Options: dir, Roles: []Role{{"a\x00", "x"}}}, "no text"},
		"binary secret":      {MachineOptions{Options: dir, Roles: []Role{{"a", "hunter2\x00"}}}, "no text"},
		"secret not UTF-8":   {MachineOptions{Options: dir, Roles: []Role{{"a", "hunter2\xff"}}}, "no text"},
		"long database":      {MachineOptions{Options: dir, Databases: []string{long + "x"}}, "63 bytes"},
		"database not UTF-8": {MachineOptions{Options: dir, Databases: []string{"\xff"}}, "no text"},
	} {
		err := tt.o.Validate()
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAMachinesNameIsOneElementOfAPath(t *testing.T) {
	for _, name := range []string{"acme", "a.b", "..a", "~", "a b"} {
		if dir, err := MachineDir("/machines", name); err != nil || dir != "/machines/"+name {
			t.Errorf("%q: %q, %v", name, dir, err)
		}
	}
	for _, name := range []string{"", ".", "..", "/", "a/b", "../a", "a/", `a\b`, "a\x00"} {
		if dir, err := MachineDir("/machines", name); err == nil {
			t.Errorf("%q: %q", name, dir)
		}
	}
}

func TestSecretsAreInNoOutput(t *testing.T) {
	role := Role{"app", "hunter2"}
	o := MachineOptions{Options: Options{Dir: "/d"}, Roles: []Role{role}}
	var outputs []string
	for _, v := range []any{role, &role, o, o.Roles, NewMachine(o), struct{ R []Role }{o.Roles}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			outputs = append(outputs, fmt.Sprintf(verb, v))
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "v", v)
		outputs = append(outputs, string(text), logged.String())
	}
	for _, got := range outputs {
		if strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
			t.Error(got)
		}
	}
}

func TestWhatWasAppliedIsNotMissing(t *testing.T) {
	text := rapid.StringMatching(`[a-c:1]{0,3}`)
	role := rapid.Custom(func(t *rapid.T) Role { return Role{text.Draw(t, "name"), text.Draw(t, "secret")} })
	anything := rapid.Custom(func(t *rapid.T) wanted {
		return wanted{rapid.SliceOfN(role, 0, 4).Draw(t, "roles"), rapid.SliceOfN(text, 0, 4).Draw(t, "databases")}
	})
	rapid.Check(t, func(t *rapid.T) {
		before, now := anything.Draw(t, "before"), anything.Draw(t, "now")
		applied := make(map[string]bool)
		for _, d := range strings.Fields(before.digests("key")) {
			applied[d] = true
		}
		missing := now.missing("key", applied)
		roles, databases := make(map[Role]bool), make(map[string]bool)
		for _, r := range before.roles {
			roles[r] = true
		}
		for _, d := range before.databases {
			databases[d] = true
		}
		var want wanted
		for _, r := range now.roles {
			if !roles[r] {
				want.roles = append(want.roles, r)
			}
		}
		for _, d := range now.databases {
			if !databases[d] {
				want.databases = append(want.databases, d)
			}
		}
		if show(missing) != show(want) {
			t.Fatalf("missing %s, want %s", show(missing), show(want))
		}
		if other := now.missing("another key", applied); len(other.roles) != len(now.roles) || len(other.databases) != len(now.databases) {
			t.Fatal("digests of another cluster count")
		}
	})
}

func show(w wanted) string {
	var text strings.Builder
	for _, r := range w.roles {
		fmt.Fprintf(&text, "%q:%q ", r.Name, r.Secret)
	}
	return fmt.Sprintf("%s%q", &text, w.databases)
}

func TestTheServerReadsWhatWasQuoted(t *testing.T) {
	c := create(t, Options{Dir: folder(t)})
	start(t, c)
	conn, err := c.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if err := ensure(t.Context(), conn, wanted{}, ""); err != nil { // the settings
		t.Fatal(err)
	}
	text := rapid.String().Filter(func(s string) bool { return !strings.ContainsRune(s, 0) && utf8.ValidString(s) })
	rapid.Check(t, func(r *rapid.T) {
		secret := text.Draw(r, "secret")
		name := text.Filter(func(s string) bool { return checkName(s) == nil }).Draw(r, "name")
		all, err := conn.PgConn().Exec(t.Context(), "select "+literal(secret)+" as "+identifier(name)).ReadAll()
		if err != nil || len(all) != 1 || string(all[0].Rows[0][0]) != secret || all[0].FieldDescriptions[0].Name != name {
			r.Fatalf("%q, %q: %v", secret, name, err)
		}
	})
}
