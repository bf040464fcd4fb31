// Plans: what a server is sent for a message, when a Parse is spared, and what waits.

package link

import (
	"fmt"
	"testing"

	"github.com/postern/postern/proxy/sqltext"
)

// A Parse is not asked of a server that holds an equal statement, if it is
// certain that it would succeed and mean the same.
func TestStandIn(t *testing.T) {
	type env struct{ int }
	mine, others := &env{1}, &env{2}
	fresh := func(t *testing.T) (w *world, other *Session) {
		w, other = newWorld(t), &Session{}
		w.wants("first", w.Parse(mine, []byte("a"), text("q")), "as2")
		w.sync()
		w.answer("1Z", "")
		w.turn(other)
		return w, other
	}
	round := func(w *world, types, tag string) {
		w.Sent(Entry{Kind: Query})
		w.answer(types, tag)
	}
	for id, tc := range map[string]struct {
		before func(*world)
		env    any
		want   string
	}{
		"as it is":                      {want: "stand-in"},
		"behind the same segment":       {before: func(w *world) { w.Parse(mine, nil, text("x")); w.Bind(mine, nil, nil); w.Execute(nil) }, want: "stand-in"},
		"behind an answered Query":      {before: func(w *world) { round(w, "CZ", "SELECT 1") }, want: "stand-in"},
		"behind a Query":                {before: func(w *world) { w.Sent(Entry{Kind: Query}) }, want: "as3"},
		"behind a Sync":                 {before: func(w *world) { w.sync() }, want: "as3"},
		"behind a function call":        {before: func(w *world) { w.Sent(Entry{Kind: FunctionCall}) }, want: "as3"},
		"in a failed transaction":       {before: func(w *world) { w.Sent(Entry{Kind: Query}); w.Received('E', 0); w.Received('Z', 'E') }, want: "as3"},
		"after DDL":                     {before: func(w *world) { round(w, "CZ", "ALTER TABLE") }, want: "as3"},
		"after more DDL":                {before: func(w *world) { round(w, "CZ", "DROP VIEW") }, want: "as3"},
		"after even more DDL":           {before: func(w *world) { round(w, "CZ", "CREATE TABLE") }, want: "as3"},
		"after a SET":                   {before: func(w *world) { w.Sent(Entry{Kind: Query, Note: sqltext.Alters}); w.answer("CZ", "SET") }, want: "as3"},
		"after another SET":             {before: func(w *world) { round(w, "CZ", "SET") }, want: "stand-in"},
		"behind a SET in the pipeline":  {before: func(w *world) { w.Sent(Entry{Kind: Execute, Note: sqltext.Rereads}) }, want: "as3"},
		"behind others in the pipeline": {before: func(w *world) { w.Sent(Entry{Kind: Execute, Note: sqltext.SetsSeed}) }, want: "stand-in"},
		"after a GRANT":                 {before: func(w *world) { round(w, "CZ", "GRANT") }, want: "as3"},
		"after set_config":              {before: func(w *world) { w.Sent(Entry{Kind: Query, Note: sqltext.Alters}); w.answer("CZ", "SELECT 1") }, want: "as3"},
		"after a plan went bad":         {before: func(w *world) { w.plansWentBad() }, want: "as3"},
		"when its plan went bad":        {before: func(w *world) { w.cache.newest.stmt.version++ }, want: "as3"},
		"under other settings":          {env: others, want: "as3"},
		"after all was dropped":         {before: func(w *world) { round(w, "CZ", "DISCARD ALL") }, want: "as3"},
		"while the server skips":        {before: func(w *world) { w.BindUnseen(); w.Received('E', 0) }, want: "pass"},
		"while the server reads a COPY": {before: func(w *world) { w.Sent(Entry{Kind: Query}); w.Received('G', 0) }, want: "pass"},
	} {
		t.Run(id, func(t *testing.T) {
			w, _ := fresh(t)
			if tc.env == nil {
				tc.env = mine
			}
			if tc.before != nil {
				tc.before(w)
			}
			w.wants("second", w.Parse(tc.env, []byte("b"), text("q")), tc.want)
		})
	}

	// It stands where the ParseComplete would.
	w, _ := fresh(t)
	w.Parse(mine, nil, text("x"))
	w.Parse(mine, []byte("b"), text("q"))
	w.Bind(mine, nil, []byte("b"))
	w.sync()
	for i, c := range "13tT2Z" {
		if got, want := w.receives(byte(c), says[c]), []Verdict{ToClient, AsParse, Swallow, Swallow, ToClient, ToClient}[i]; got != want {
			t.Errorf("%c: %d", c, got)
		}
	}
	// And is forgotten when it is skipped.
	w, other := fresh(t)
	w.BindUnseen()
	w.Parse(mine, []byte("b"), text("q"))
	w.sync()
	w.answer("EZ", "")
	if other.find([]byte("b")) != nil {
		t.Error("defined by a Parse that was skipped")
	}
}

// plansWentBad has a server say so of another statement.
func (w *world) plansWentBad() {
	w.last = Entry{Kind: Bind, named: &Name{stmt: &Stmt{}}}
	w.Failed("0A000", "RevalidateCachedQuery")
}

// "cached plan must not change result type": whoever uses the statement next, on
// whatever server, has it prepared again.
func TestCachedPlan(t *testing.T) {
	w := newWorld(t)
	w.Parse(nil, []byte("a"), text("q"))
	w.sync()
	w.answer("1Z", "")
	elsewhere := New(w.stmts)
	elsewhere.Begin(&Session{})
	elsewhere.Parse(nil, []byte("x"), text("q"))

	w.Bind(nil, nil, []byte("a"))
	w.sync()
	w.Received('E', 0)
	w.Failed("0A000", "RevalidateCachedQuery")
	w.answer("Z", "")
	w.wants("here", w.Bind(nil, nil, []byte("a")), "p3 d3 as3")
	if got := toServer(elsewhere.Bind(nil, nil, []byte("x"))); got != "p3 d3 as3" {
		t.Errorf("elsewhere: %s", got)
	}
	w.wants("once", w.Bind(nil, nil, []byte("a")), "as3")
	w.sync()
	w.answer("1tT22Z", "")
	for _, other := range [][2]string{{"0A000", "somewhere"}, {"42P01", "RevalidateCachedQuery"}} {
		w.Bind(nil, nil, []byte("a"))
		w.sync()
		w.Received('E', 0)
		w.Failed(other[0], other[1])
		w.answer("Z", "")
		w.wants("another error", w.Bind(nil, nil, []byte("a")), "as3")
		w.sync()
		w.answer("2Z", "")
	}
}

// A statement that was dropped unseen, by a function say, is prepared again
// when that has shown.
func TestDroppedUnseen(t *testing.T) {
	w := newWorld(t)
	w.Parse(nil, []byte("a"), text("q"))
	w.sync()
	w.answer("1Z", "")
	w.Bind(nil, nil, []byte("a"))
	w.sync()
	w.Received('E', 0)
	if server, client, ok := w.Naming(); !ok || client != "a" || server != 2 {
		t.Errorf("%d %q %v", server, client, ok)
	}
	w.Failed("26000", "FetchPreparedStatement")
	w.answer("Z", "")
	w.wants("next", w.Bind(nil, nil, []byte("a")), "p3 d3 as3")
	w.sync()
	w.answer("1tT2Z", "")

	// Worse, a name is free that was thought to be taken.
	w.wants("taken", w.Parse(nil, []byte("a"), text("other")), "as3")
	w.Parse(nil, []byte("b"), text("more")) // behind it, as if nothing were wrong
	w.sync()
	w.answer("11Z", "")
	w.wants("it means the other now", w.Bind(nil, nil, []byte("a")), "p5 d5 as5")
	if st := w.s.find([]byte("a")).stmt; st.Body != string(text("other")) {
		t.Errorf("%q", st.Body)
	}
}

// What the client said is sent, and what touches statements waits until it is
// known what came of it.
func TestWait(t *testing.T) {
	w := newWorld(t)
	w.wants("Parse", w.Parse(nil, []byte("a"), text("q")), "as2")
	w.wants("in its segment", w.Bind(nil, nil, []byte("a")), "d2 as2")
	w.sync()
	for what, p := range map[string]func() Plan{
		"Parse":                func() Plan { return w.Parse(nil, []byte("b"), text("q")) },
		"Bind":                 func() Plan { return w.Bind(nil, nil, []byte("a")) },
		"Describe":             func() Plan { return w.DescribeStatement(nil, []byte("a")) },
		"Close":                func() Plan { return w.CloseStatement([]byte("a")) },
		"DEALLOCATE":           func() Plan { return w.Query([]byte("deallocate a"), sqltext.Deallocates) },
		"DEALLOCATE, extended": func() Plan { return w.Parse(nil, nil, text("deallocate a")) },
	} {
		w.wants(what, p(), "wait")
	}
	w.wants("what touches none", w.Parse(nil, nil, text("q")), "pass")
	w.wants("the unnamed one", w.Bind(nil, nil, nil), "pass")
	w.answer("1tT2Z", "")
	w.wants("afterwards", w.Bind(nil, nil, []byte("a")), "as2")
	w.sync()
	w.answer("122Z", "")

	// Behind an Execute the server must be told to answer, once.
	w.Parse(nil, nil, text("deallocate all"))
	w.Bind(nil, nil, nil)
	w.Execute(nil)
	w.wants("behind it", w.Bind(nil, nil, []byte("a")), "wait flush")
	w.wants("asked again", w.Bind(nil, nil, []byte("a")), "wait")
	w.answer("12C", "DEALLOCATE ALL")
	w.wants("dropped", w.Bind(nil, nil, []byte("a")), "pass")
}

// A client that leaves in the middle leaves no reference behind, and what the
// server will hold is known.
func TestEndInTheMiddleOfNamed(t *testing.T) {
	for id, do := range map[string]func(*world){
		"defined":     func(w *world) { w.Parse(nil, []byte("b"), text("r")) },
		"stood in":    func(w *world) { w.Parse(nil, []byte("b"), text("q")) },
		"taken":       func(w *world) { w.Parse(nil, []byte("a"), text("r")) },
		"closed":      func(w *world) { w.CloseStatement([]byte("a")) },
		"evicted":     func(w *world) { w.Limit = 1; w.Parse(nil, []byte("b"), text("r")) },
		"used":        func(w *world) { w.Bind(nil, nil, []byte("a")) },
		"deallocated": func(w *world) { w.Query([]byte("deallocate a"), sqltext.Deallocates) },
		"redefined":   func(w *world) { w.CloseStatement([]byte("a")); w.Parse(nil, []byte("a"), text("r")) },
		"and deallocated by Execute": func(w *world) {
			w.Parse(nil, nil, text("deallocate a"))
			w.Bind(nil, nil, nil)
			w.Execute(nil)
		},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprint(id, " fails ", fails), func(t *testing.T) {
				w := newWorld(t)
				w.Parse(nil, []byte("a"), text("q"))
				w.sync()
				w.answer("1Z", "")
				if do(w); w.NeedsSync() {
					w.sync()
				}
				w.End()
				w.s.Release(w.stmts)
				for w.Outstanding() > 0 {
					e := w.queue[w.head]
					typ := map[Kind]byte{Parse: '1', Bind: '2', Describe: 'n', Close: '3', Execute: 'C', Sync: 'Z', Query: 'Z'}[e.Kind]
					if fails && e.Kind.extended() {
						typ = 'E'
					}
					if v := w.Received(typ, 'I'); v != Swallow {
						t.Fatalf("%c for nobody: %d", typ, v)
					}
				}
				if !w.Free() || w.changes != 0 || w.sealed || w.drops != 0 {
					t.Errorf("%+v", w.Link)
				}
				w.Close()
				if w.stmts.unused != w.stmts.Len() {
					t.Errorf("%d of %d are unused", w.stmts.unused, w.stmts.Len())
				}
			})
		}
	}
}

func TestRemoveOnlyItself(t *testing.T) {
	s := &Session{}
	old, n := &Name{text: "n", stmt: &Stmt{Body: "x"}}, &Name{text: "n", stmt: &Stmt{Body: "yy"}}
	s.add(n)
	if s.remove(old) || s.find([]byte("n")) != n || s.bytes != 3 {
		t.Errorf("%+v", s)
	}
	if !s.remove(n) || s.named != nil || s.bytes != 0 {
		t.Errorf("%+v", s)
	}
}

// Bound says what an Execute may run.
func TestBound(t *testing.T) {
	w := newWorld(t)
	if s, names := w.Bound(nil); s != 0 || names != nil {
		t.Error("nothing is bound")
	}
	w.Parse(nil, nil, text("create temp table x()"))
	w.Parse(nil, []byte("a"), text("select pg_advisory_lock(1)"))
	w.Parse(nil, []byte("b"), text("select 1"))
	w.Bind(nil, nil, nil)
	if s, _ := w.Bound(nil); s != sqltext.StateTemp|sqltext.StateMakes {
		t.Errorf("unnamed: %d", s)
	}
	w.Bind(nil, nil, []byte("a"))
	if s, _ := w.Bound(nil); s != sqltext.StateLock {
		t.Errorf("named: %d", s)
	}
	w.Bind(nil, []byte("p"), nil)
	w.Bind(nil, []byte("q"), []byte("b"))
	if s, _ := w.Bound([]byte("q")); s != sqltext.StateTemp|sqltext.StateMakes {
		t.Errorf("any of the portals: %d", s)
	}
	if s, _ := w.Bound(nil); s != sqltext.StateLock {
		t.Errorf("another portal: %d", s)
	}
	w.sync()
	w.answer("1112tT22tT2Z", "")
	w.turn(w.s)
	if w.Bind(nil, nil, nil); w.bound.state != sqltext.StateTemp|sqltext.StateMakes {
		t.Errorf("the unnamed one of an earlier lease: %d", w.bound.state)
	}
	w.Bind(nil, nil, []byte("none"))
	if s, _ := w.Bound(nil); s != sqltext.StateSequence|sqltext.StateReads {
		t.Errorf("of a statement that only the server knows: %d", s)
	}
}

// TestNoFlushBehindASync: what waits for the answers up to a Sync asks for no others. A Flush would have the server answer the
// unnamed Parse at once, which Postgres does with the next Sync.
func TestNoFlushBehindASync(t *testing.T) {
	w := newWorld(t)
	w.Parse(nil, []byte("s"), text("select 1"))
	w.Sent(Entry{Kind: Sync})
	w.Parse(nil, nil, text("select 2"))
	w.wants("behind the Sync", w.Parse(nil, []byte("t"), text("select 3")), "wait")
	// With nothing to answer by itself it must be told to.
	w = newWorld(t)
	w.Parse(nil, []byte("s"), text("deallocate x"))
	w.Bind(nil, nil, []byte("s"))
	w.Execute(nil)
	w.wants("behind an Execute", w.Parse(nil, []byte("t"), text("select 3")), "wait flush")
}
