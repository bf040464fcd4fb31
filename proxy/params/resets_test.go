// Tests of resets: what a client's session has set once something was put back.

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

func listOf(s string) (out []pgwire.Param) {
	for _, p := range strings.Fields(s) {
		name, value, _ := strings.Cut(p, "=")
		out = append(out, pgwire.Param{Name: name, Value: value})
	}
	return out
}

// TestWantedAfterResets of parameters that servers do not tell about.
func TestWantedAfterResets(t *testing.T) {
	for _, tc := range []struct {
		name              string
		came, before, set string
		some, all         bool
		mentioned, listed string
		want              string
	}{
		{name: "nothing happened", came: "role=r1 app.u=1", before: "role=r1 app.u=1", set: "role=r1 app.u=1", want: "app.u=1 role=r1"},
		{name: "set", came: "role=r1 app.u=1", before: "role=r1 app.u=1", set: "role=r2 app.u=2", want: "app.u=2 role=r2"},
		{name: "set, another reset", came: "role=r1 app.u=1", before: "role=r1 app.u=1", set: "role=r2 app.u=2", some: true, want: "app.u=2 role=r2"},
		{name: "set to the default", came: "role=r1 app.u=1", before: "role=r1 app.u=1", set: "app.u=", want: "app.u="},
		{name: "then another reset", came: "role=r1 app.u=1", before: "app.u=", set: "app.u=", some: true, want: "app.u="},
		{name: "then these reset", came: "role=r1 app.u=1", before: "app.u=", set: "app.u=", some: true, mentioned: "role app.u", want: "app.u=1 role=r1"},
		{name: "reset", came: "role=r1 app.u=1", before: "role=r2 app.u=2", set: "app.u=", some: true, want: "app.u=1 role=r1"},
		{name: "discarded", came: "role=r1 app.u=1", before: "app.u=", set: "app.u=", all: true, want: "app.u=1 role=r1"},
		{name: "discarded and set", came: "role=r1 app.u=1", before: "app.u=", set: "role=r3 app.u=3", all: true, want: "app.u=3 role=r3"},
		{name: "another user", came: "role=r1", before: "role=r1", set: "session_authorization=x", want: "session_authorization=x"},
		{name: "another user no more", came: "role=r1", before: "session_authorization=x", want: "role=r1"},
		{name: "shown after all", came: "ext.on=1", before: "ext.on=1", listed: "ext.on", want: "ext.on=1"},
		{name: "shown, reset", came: "work_mem=1", before: "work_mem=2", want: "work_mem=1"},
		{name: "the address", came: ClientAddress + "=a", before: ClientAddress + "=a", set: ClientAddress + "=b", want: ClientAddress + "=a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var sets Sets
			r := Resets{tc.some, tc.all, strings.Fields(tc.mentioned)}
			came, had, found := sets.Intern(listOf(tc.came)), sets.Intern(listOf(tc.before)), sets.Intern(listOf(tc.set))
			got := r.Wanted(&sets, came, had, found, strings.Fields(tc.listed))
			if want := listOf(tc.want); !slices.Equal(got.List(), want) {
				t.Errorf("%v, want %v", got.List(), want)
			}
		})
	}
}

// postgres is a model of a session in Postgres. Parameters with a dot in their names are known by their values only, and
// an empty one is what is left of one that was reset.
type postgres struct {
	started map[string]string // by the startup packet
	now     map[string]string
}

func (p postgres) reset(name string) {
	value, ok := p.started[name]
	switch {
	case ok:
		p.now[name] = value
	case strings.Contains(name, ".") && name != "ext.on":
		p.now[name] = ""
	default:
		delete(p.now, name)
	}
}

// notEmpty is what is set to something.
func notEmpty(m map[string]string) map[string]string {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(_, value string) bool { return value == "" })
	return m
}

// TestResetsGoBackToTheStartupPacket: what a client has on a shared server, whose startup packet is another, is what it
// would have on one of its own, lease after lease. It sets nothing to what a reset leaves, which would look like one.
func TestResetsGoBackToTheStartupPacket(t *testing.T) {
	names := []string{"geqo", "work_mem", "app.u", "app.v", "ext.on", role} // pg_settings shows ext.on, too
	rapid.Check(t, func(t *rapid.T) {
		came := map[string]string{}
		for _, name := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, "came with") {
			came[name] = "came"
		}
		var sets Sets
		var list []pgwire.Param
		for name, value := range came {
			list = append(list, pgwire.Param{Name: name, Value: value})
		}
		startup := sets.Intern(list)
		alone, shared := postgres{came, maps.Clone(came)}, postgres{map[string]string{}, map[string]string{}}
		had, asked := startup, startup.Names()
		server := sets.Intern(nil)
		for lease := range rapid.IntRange(1, 4).Draw(t, "leases") {
			for _, c := range Changes(server, had) {
				if c.Value != nil {
					shared.now[c.Name] = *c.Value
				} else {
					shared.reset(c.Name)
				}
			}
			var r Resets
			for i := range rapid.IntRange(0, 4).Draw(t, "commands") {
				name := rapid.SampledFrom(names).Draw(t, "name")
				mention := func() {
					if hidden(name) {
						r.Mention(name)
						asked.Add(name)
					}
				}
				switch rapid.SampledFrom([]string{"SET", "SET", "RESET", "RESET ALL", "DISCARD ALL"}).Draw(t, "command") {
				case "SET":
					mention()
					alone.now[name] = strconv.Itoa(10*lease + i)
					shared.now[name] = alone.now[name]
					r.Completed([]byte("SET"))
				case "RESET":
					mention()
					alone.reset(name)
					shared.reset(name)
					r.Completed([]byte("RESET"))
				case "RESET ALL": // leaves alone who the session is
					for _, name := range names[:len(names)-1] {
						alone.reset(name)
						shared.reset(name)
					}
					r.Completed([]byte("RESET"))
				case "DISCARD ALL":
					for _, name := range names {
						alone.reset(name)
						shared.reset(name)
					}
					r.Completed([]byte("DISCARD ALL"))
				}
			}
			var found []pgwire.Param
			var listed []string
			for name, value := range shared.now {
				if !hidden(name) || slices.Contains(asked, name) || name == "ext.on" {
					found = append(found, pgwire.Param{Name: name, Value: value})
				}
			}
			if _, set := shared.now["ext.on"]; !set && slices.Contains(asked, "ext.on") {
				listed = append(listed, "ext.on")
			}
			server = sets.Intern(found)
			had = r.Wanted(&sets, startup, had, server, listed)
			if got, want := notEmpty(last(had.List())), notEmpty(alone.now); !maps.Equal(got, want) {
				t.Fatalf("lease %d: the client has %v, and would have %v on a server of its own", lease, got, want)
			}
		}
	})
}

// TestNamesAreBounded: those that turned out to be of nothing are forgotten, once there are many.
func TestNamesAreBounded(t *testing.T) {
	var sets Sets
	came := sets.Intern(listOf("app.came=1 role=x geqo=off " + ClientAddress + "=::1"))
	names := came.Names()
	if !slices.Equal(names, Names{"app.came", role}) {
		t.Errorf("from the beginning: %v", names)
	}
	for i := range MaxTracked - 2 {
		if !names.Add("app.x" + strconv.Itoa(i)) {
			t.Fatalf("full after %d", i)
		}
	}
	if names.Add("app.more") || !names.Add(role) {
		t.Error("one more fits, or one that is there does not")
	}
	names.Prune(came, listOf("app.x7=1"))
	if !slices.Equal(names, Names{"app.came", role, "app.x7"}) {
		t.Errorf("left: %v", names)
	}
	names.Prune(came, nil)
	if len(names) != 3 {
		t.Errorf("a few are forgotten, too: %v", names)
	}
}

func TestAsNotSet(t *testing.T) {
	for _, p := range listOf("transaction_isolation=serializable role=none session_authorization=app") {
		if !AsNotSet(p.Name, p.Value, "app") {
			t.Errorf("%v is set", p)
		}
	}
	for _, p := range listOf("geqo=off role=app session_authorization=none app.none=none") {
		if AsNotSet(p.Name, p.Value, "app") {
			t.Errorf("%v is not set", p)
		}
	}
}
