// Each client runs what it was told of, or nothing: rule by rule, and by random clients while tables change.

package link

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// typed is a ParameterDescription of one parameter.
func typed(oid byte) string { return "\x00\x01\x00\x00\x00" + string(rune(oid)) }

// digest reads a RowDescription in two pieces.
func digest(stmts *Statements, body string, at int) uint64 {
	d := heed{head: 2}
	d.hash.SetSeed(stmts.seedOf())
	d.columns([]byte(body[:at]))
	d.columns([]byte(body[at:]))
	return d.hash.Sum64()
}

// What Postgres compares of a result makes another digest, what it does not compare does not, and pieces do not matter.
func TestDigest(t *testing.T) {
	var stmts Statements
	column := func(name, table, number, oid, length, modifier, format string) string {
		return name + "\x00" + table + number + oid + length + modifier + format
	}
	one := column("cents", "\x00\x00\x40\x01", "\x00\x02", "\x00\x00\x00\x17", "\x00\x04", "\xff\xff\xff\xff", "\x00\x00")
	two := column("stock", "\x00\x00\x40\x01", "\x00\x03", "\x00\x00\x00\x17", "\x00\x04", "\xff\xff\xff\xff", "\x00\x00")
	base := "\x00\x02" + one + two
	want := digest(&stmts, base, 0)
	for id, tc := range map[string]struct {
		body string
		same bool
	}{
		"the same":           {base, true},
		"another table":      {strings.ReplaceAll(base, "\x40\x01", "\x40\x02"), true},
		"another number":     {strings.Replace(base, "\x00\x03", "\x00\x04", 1), true},
		"another format":     {base[:len(base)-1] + "\x01", true},
		"swapped":            {"\x00\x02" + two + one, false},
		"another name":       {strings.Replace(base, "stock", "stack", 1), false},
		"another type":       {strings.Replace(base, "\x17", "\x14", 1), false},
		"another modifier":   {strings.Replace(base, "\xff\xff\x00", "\xff\xfe\x00", 1), false},
		"one column":         {"\x00\x01" + one, false},
		"one more":           {"\x00\x03" + one + two + one, false},
		"none":               {"\x00\x00", false},
		"a name goes on":     {strings.Replace(base, "cents", "centss", 1), false},
		"a name with a type": {"\x00\x01" + column("cents\x00\x00\x00\x17", "\x00\x00\x40\x01", "\x00\x02", "\x00\x00\x00\x17", "\x00\x04", "\xff\xff\xff\xff", "\x00\x00"), false},
	} {
		for at := range len(tc.body) + 1 {
			if got := digest(&stmts, tc.body, at); (got == want) != tc.same {
				t.Fatalf("%s, split at %d: the same is %v", id, at, got == want)
			}
		}
	}
}

// told has a statement parsed, described as these bodies say, and answered.
func (w *world) told(name, sql, types, columns string) {
	w.t.Helper()
	w.Parse(nil, []byte(name), text(sql))
	w.DescribeStatement(nil, []byte(name))
	w.sync()
	w.described(types, columns, "1")
	w.answer("Z", "")
}

// described answers what is due, up to and with a description.
func (w *world) described(types, columns, before string) {
	w.t.Helper()
	w.answer(before, "")
	last := byte('T')
	if columns == "" {
		last = 'n'
	}
	for _, m := range []struct {
		typ  byte
		body string
	}{{'t', types}, {last, columns}} {
		if w.receives(m.typ, m.body) == Broken {
			w.t.Fatalf("%c is broken: %+v", m.typ, w.Link)
		}
	}
}

// elsewhere is another server, on which the client goes on.
func (w *world) elsewhere() *world {
	there := &world{t: w.t, stmts: w.stmts, s: w.s, Link: New(w.stmts)}
	w.End()
	there.Begin(w.s)
	return there
}

const none = "\x00\x00"

// A client that was told of a statement uses it on a server that lacks it: it is described first, once, and compared.
func TestToldElsewhere(t *testing.T) {
	for id, tc := range map[string]struct {
		types, columns string // what it is there
		wants          string // and what becomes of a Bind then
	}{
		"the same":               {typed(23), column("a", 23), "as2"},
		"a column more":          {typed(23), column("a", 23) + column("b", 23)[2:], "changed"},
		"another name":           {typed(23), column("b", 23), "changed"},
		"another type":           {typed(23), column("a", 20), "changed"},
		"no columns":             {typed(23), "", "changed"},
		"another parameter":      {typed(20), column("a", 23), "changed"},
		"another number of them": {none, column("a", 23), "changed"},
	} {
		t.Run(id, func(t *testing.T) {
			w := newWorld(t)
			w.told("s", "q", typed(23), column("a", 23))
			w = w.elsewhere()
			p := w.Bind(nil, nil, []byte("s"))
			w.wants("Bind", p, "p2 d2 wait flush")
			if p.Puts[0].Types != typed(23) {
				t.Errorf("parsed with the types %q", p.Puts[0].Types)
			}
			w.wants("asked too early", w.Bind(nil, nil, []byte("s")), "wait")
			w.described(tc.types, tc.columns, "1")
			w.wants("Bind, then", w.Bind(nil, nil, []byte("s")), tc.wants)
			// What differs may be changed back, so the server is asked each time.
			for range 2 {
				if tc.wants == "changed" {
					w.wants("asked again", w.DescribeStatement(nil, []byte("s")), "d2 wait flush")
					w.described(tc.types, tc.columns, "")
				}
				w.wants("Describe, then", w.DescribeStatement(nil, []byte("s")), tc.wants)
			}
			// Whoever parses the text anew is told what it is now.
			if tc.wants == "changed" {
				w.wants("changed back", w.Bind(nil, nil, []byte("s")), "d2 wait flush")
				w.described(typed(23), column("a", 23), "")
				w.wants("Bind, then", w.Bind(nil, nil, []byte("s")), "as2")
				w.wants("Close", w.CloseStatement([]byte("s")), "as0")
				w.wants("Parse", w.Parse(nil, []byte("s"), text("q")), "as3")
				w.wants("Bind", w.Bind(nil, nil, []byte("s")), "d3 as3")
			}
		})
	}
}

// What two clients were told of one text, before and after a change, is held side by side.
func TestToldAtDifferentTimes(t *testing.T) {
	w := newWorld(t)
	w.told("s", "q", typed(23), column("a", 23))
	old, young := w.s, &Session{}
	w.turn(&Session{})
	w.query("alter table t alter a type bigint", 'I', "ALTER TABLE")
	w.turn(young)
	w.told("s", "q", typed(20), column("a", 23))
	w.turn(old)
	w.wants("old", w.Bind(nil, nil, []byte("s")), "p4 d4 wait flush")
	w.described(typed(23), column("a", 23), "1")
	w.wants("old, then", w.Bind(nil, nil, []byte("s")), "as4")
	w.sync()
	w.answer("2Z", "")
	w.turn(young)
	w.used("young", "s", "as3")
	w.turn(old)
	w.used("old again", "s", "as4")
	w.turn(&Session{})
	w.parsed("a third one", "x", "q", "stand-in")
	w.used("a third one", "x", "as3")
}

// Who was never told anything is told by the first Bind that succeeds, and not by one that fails.
func TestToldByABind(t *testing.T) {
	w := newWorld(t)
	w.parsed("Parse", "s", "q", "as2")
	n := w.s.find([]byte("s"))
	w.wants("Bind", w.Bind(nil, nil, []byte("s")), "d2 as2")
	w.sync()
	w.described(none, column("a", 23), "")
	w.answer("EZ", "")
	if n.told != nil {
		t.Error("told by an error")
	}
	w.wants("Bind again", w.Bind(nil, nil, []byte("s")), "as2")
	w.sync()
	w.answer("2Z", "")
	if n.told == nil {
		t.Error("not told")
	}
}

// A Describe of ours that was skipped is sent again.
func TestDescribeIsSkipped(t *testing.T) {
	w := newWorld(t)
	w.parsed("Parse", "s", "q", "as2")
	w.BindUnseen()
	w.wants("Bind", w.Bind(nil, nil, []byte("s")), "d2 as2")
	w.sync()
	w.answer("EZ", "")
	w.wants("Bind again", w.Bind(nil, nil, []byte("s")), "d2 as2")
}

// While a client is about to be told of a statement, another preparation of it waits for that.
func TestToldOnceInAPipeline(t *testing.T) {
	w := newWorld(t)
	w.parsed("Parse", "s", "q", "as2")
	w.wants("Bind", w.Bind(nil, nil, []byte("s")), "d2 as2")
	w.s.find([]byte("s")).stmt.version++ // a server has told another client that it has changed
	w.wants("Bind again", w.Bind(nil, nil, []byte("s")), "wait flush")
	w.answer("tT2", "")
	w.wants("Bind, then", w.Bind(nil, nil, []byte("s")), "p3 d3 wait flush")
	w.described(none, column("b", 23), "1")
	w.wants("and then", w.Bind(nil, nil, []byte("s")), "changed")
}

// An unnamed statement that was described is put in as it was told, or its use fails until it is defined anew.
func TestToldOfTheUnnamed(t *testing.T) {
	for id, tc := range map[string]struct{ columns, wants string }{
		"the same": {column("a", 23), "pass"}, "another": {column("b", 23), "changed"},
	} {
		t.Run(id, func(t *testing.T) {
			w := newWorld(t)
			w.told("", "q", typed(23), column("a", 23))
			for range 2 { // the second server is another client's meanwhile
				w = w.elsewhere()
				p := w.Bind(nil, nil, nil)
				w.wants("Bind", p, "p d wait flush")
				if p.Puts[0].Types != typed(23) {
					t.Errorf("parsed with the types %q", p.Puts[0].Types)
				}
				w.described(typed(23), tc.columns, "1")
				for range 2 {
					w.wants("Bind, then", w.Bind(nil, nil, nil), tc.wants)
				}
				w.sync()
				w.answer(map[string]string{"pass": "22Z", "changed": "Z"}[tc.wants], "")
			}
			if tc.wants == "changed" { // also where it was put in before
				w.End()
				w.Begin(w.s)
				w.wants("later", w.Bind(nil, nil, nil), "p d wait flush")
				w.described(typed(23), tc.columns, "1")
				w.wants("later, then", w.Bind(nil, nil, nil), "changed")
			}
			w.Parse(nil, nil, text("q"))
			w.wants("anew", w.Bind(nil, nil, nil), "pass")
			w.sync()
			w.answer("12Z", "")
			w = w.elsewhere()
			w.wants("told of nothing", w.Bind(nil, nil, nil), "p pass")
		})
	}
}

// Where a description of ours fails, or a client leaves in the middle, nothing is left over.
func TestDescriptionEndsEarly(t *testing.T) {
	for _, name := range []string{"", "s"} {
		for id, rest := range map[string]func(*world){
			"the Parse fails":    func(w *world) { w.answer("E", ""); w.sync(); w.answer("Z", "") },
			"the Describe fails": func(w *world) { w.answer("1E", ""); w.sync(); w.answer("Z", "") },
			"its client has left": func(w *world) {
				w.sync()
				w.End()
				w.described(typed(23), column("a", 23), "1")
				w.answer("Z", "")
				w.Begin(w.s)
			},
		} {
			t.Run(id+" "+name, func(t *testing.T) {
				w := newWorld(t)
				w.told(name, "q", typed(23), column("a", 23))
				here := w
				w = w.elsewhere()
				w.Bind(nil, nil, []byte(name))
				if rest(w); !w.Free() {
					t.Fatalf("%+v", w.Link)
				}
				p := w.Bind(nil, nil, []byte(name))
				if p.Do == Wait {
					for _, put := range p.Puts {
						if put.Kind == Parse {
							w.answer("1", "")
						}
					}
					w.described(typed(23), column("a", 23), "")
					p = w.Bind(nil, nil, []byte(name))
				}
				if p.Do != Pass && p.Do != Rename {
					t.Errorf("%+v", p)
				}
				w.sync()
				w.answer("2Z", "")
				w.End()
				w.s.Release(w.stmts)
				w.Close()
				here.Close()
				if w.stmts.unused != w.stmts.Len() {
					t.Errorf("%d of %d are unused", w.stmts.unused, w.stmts.Len())
				}
			})
		}
	}
}

// Random clients use statements on random servers while a table changes: whatever is bound is of the shape that its client
// was told first.
func TestNobodyGetsWhatItWasNotTold(t *testing.T) {
	check(t, func(t *rapid.T) {
		stmts := &Statements{}
		version := byte(1) // of the table
		types := func() byte { return 20 + version%2 }
		// What a server has under a name: the version at its Parse.
		type server struct {
			*Link
			has map[ServerName]string
		}
		shapeOf := func(given string) string {
			if given == "" {
				given = typed(types())
			}
			return given + column("a", version)
		}
		servers := []*server{{New(stmts), map[ServerName]string{}}, {New(stmts), map[ServerName]string{}}}
		clients := []*Session{{}, {}, {}}
		toldOf := map[*Name]string{}
		names := []string{"", "a", "b"}
		unnamedOf := map[*Session]string{}
		for range rapid.IntRange(1, 60).Draw(t, "rounds") {
			if rapid.IntRange(0, 3).Draw(t, "change") == 3 {
				version = byte(rapid.IntRange(1, 3).Draw(t, "version"))
				if rapid.Bool().Draw(t, "seen") {
					stmts.changes++
				}
			}
			s, c := rapid.SampledFrom(servers).Draw(t, "server"), rapid.SampledFrom(clients).Draw(t, "client")
			name := []byte(rapid.SampledFrom(names).Draw(t, "name"))
			s.Begin(c)
			// send has the server answer at once; false: it has failed.
			send := func(kind Kind, name ServerName, given string, describes bool) bool {
				shape, held := s.has[name]
				switch {
				case kind == Parse:
					s.has[name] = shapeOf(given)
					s.Received('1', 0)
				case kind == Close:
					delete(s.has, name)
					s.Received('3', 0)
				case !held:
					s.Received('E', 0)
					s.Failed("26000", "")
					return false
				case shape != shapeOf(shape[:6]): // as Postgres does it
					s.Received('E', 0)
					s.Failed("0A000", "RevalidateCachedQuery")
					return false
				case describes:
					s.receives('t', shape[:6])
					s.receives('T', shape[6:])
				default:
					s.Received('2', 0)
				}
				return true
			}
			play := func(p Plan) bool {
				for _, put := range p.Puts {
					if !send(put.Kind, put.Name, put.Types, put.Kind == Describe) {
						return false
					}
				}
				return true
			}
			switch op := rapid.SampledFrom([]string{"parse", "close", "bind", "bind", "bind", "describe"}).Draw(t, "op"); op {
			case "parse":
				if p := s.Parse(nil, name, text("q")); !play(p) {
					t.Fatal("an eviction failed")
				} else if p.Do == StandIn {
					s.Received('3', 0)
				} else if c.find(name) != nil && p.Name != Unnamed && s.has[p.Name] != "" {
					s.Received('E', 0) // taken
				} else {
					name := p.Name
					if p.Do == Pass {
						name = Unnamed
						delete(unnamedOf, c)
					}
					send(Parse, name, "", false)
				}
			case "close":
				p := s.CloseStatement(name)
				on := p.Name
				if len(name) == 0 {
					on = Unnamed
					delete(unnamedOf, c)
				}
				send(Close, on, "", false)
			default:
				use := func() Plan {
					if op == "bind" {
						return s.Bind(nil, nil, name)
					}
					return s.DescribeStatement(nil, name)
				}
				p := use()
				going := play(p)
				for range 3 {
					if going && p.Do == Wait {
						p = use()
						going = play(p)
					}
				}
				if !going || p.Do == Changed {
					break
				}
				if p.Do == Wait {
					t.Fatalf("waits for ever: %+v", s.Link)
				}
				n, on := c.find(name), p.Name
				if len(name) == 0 {
					on = Unnamed
				} else if n == nil {
					s.Received('E', 0)
					break
				}
				shape := s.has[on]
				if !send(map[string]Kind{"bind": Bind, "describe": Describe}[op], on, "", op == "describe") {
					break
				}
				if len(name) == 0 {
					if told := unnamedOf[c]; told != "" && told != shape {
						t.Fatalf("%q, told %q, of the unnamed statement", shape, told)
					}
					if op == "describe" {
						unnamedOf[c] = shape
					}
				} else if told := toldOf[n]; told != "" && told != shape {
					t.Fatalf("%q, told %q, of %s", shape, told, name)
				} else {
					toldOf[n] = shape
				}
			}
			s.Sent(Entry{Kind: Sync})
			s.Received('Z', 'I')
			if !s.Free() {
				t.Fatalf("not free: %+v", s.Link)
			}
			s.End()
		}
	})
}

// A hostile server's description of more parameters than a text can have is not kept.
func TestTooManyTypes(t *testing.T) {
	w := newWorld(t)
	w.told("s", "q", "\xff\xff"+strings.Repeat("\x00\x00\x00\x17", 65535), column("a", 23))
	if told := w.s.find([]byte("s")).told; told == nil || told.types != "" || w.heed.types != nil {
		t.Errorf("%+v", told)
	}
	w = w.elsewhere()
	w.wants("Bind", w.Bind(nil, nil, []byte("s")), "p2 d2 wait flush")
}

// A server's description of a thousand columns comes in pieces, and costs what is kept of it.
func TestLongDescription(t *testing.T) {
	w := newWorld(t)
	w.Parse(nil, []byte("s"), text("q"))
	w.DescribeStatement(nil, []byte("s"))
	w.Received('1', 0)
	w.receives('t', none)
	var body strings.Builder
	for i := range 1600 {
		fmt.Fprint(&body, column(fmt.Sprint("column_", i), 23)[2:])
	}
	w.Received('T', 0)
	for _, c := range []byte("\x06\x40" + body.String()) {
		w.Heed([]byte{c}, false)
	}
	if w.Heed(nil, true); w.Heeds() || w.s.find([]byte("s")).told == nil {
		t.Errorf("%+v", w.heed)
	}
}
