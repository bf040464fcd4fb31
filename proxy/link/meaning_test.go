// What becomes of statements that were parsed behind texts that change what later ones mean.

package link

import "testing"

// replies has the server answer; status is that of its transaction then.
func (w *world) replies(types string, status byte, tag string) {
	w.t.Helper()
	for _, c := range types {
		body := says[c]
		if c == 'Z' {
			body = string(rune(status))
		}
		if w.receives(byte(c), body) == Broken {
			w.t.Fatalf("%c is broken: %+v", c, w.Link)
		}
		if c == 'C' {
			w.Completed([]byte(tag))
		}
	}
}

// query has a Query of the client's run.
func (w *world) query(sql string, status byte, tag string) {
	w.t.Helper()
	w.wants(sql, w.Query([]byte(sql), scanNote([]byte(sql))), "pass")
	w.replies("CZ", status, tag)
}

// block begins and ends a transaction for f.
func (w *world) block(first, tag string, f func()) {
	w.t.Helper()
	w.query("begin", 'T', "BEGIN")
	w.query(first, 'T', tag)
	f()
	w.query("commit", 'I', "COMMIT")
}

// parsed has a named statement parsed with success.
func (w *world) parsed(id, name, sql, want string) {
	w.t.Helper()
	p := w.Parse(nil, []byte(name), text(sql))
	w.wants(id, p, want)
	w.sync()
	w.replies(putsAnswers(p)+map[bool]string{true: "3Z", false: "1Z"}[p.Do == StandIn], w.Status(), "")
}

// used has one bound with success.
func (w *world) used(id, name, want string) {
	w.t.Helper()
	p := w.Bind(nil, nil, []byte(name))
	w.wants(id, p, want)
	answers := putsAnswers(p)
	if p.Do == Wait { // to know whether it is what the client was told of
		w.replies(answers, 0, "")
		p, answers = w.Bind(nil, nil, []byte(name)), ""
		w.wants(id+", then", p, "as"+short(p.Name))
	}
	w.sync()
	w.replies(answers+"2Z", w.Status(), "")
}

// putsAnswers are the answers to what is put in.
func putsAnswers(p Plan) (types string) {
	for _, put := range p.Puts {
		types += map[Kind]string{Parse: "1", Describe: "tT", Close: "3"}[put.Kind]
	}
	return types
}

// What is parsed under settings of a transaction is the client's alone, while
// what was parsed before serves as ever.
func TestParsedUnderOtherSettings(t *testing.T) {
	for _, first := range []struct{ text, tag string }{
		{"set local search_path = x", "SET"}, {"select set_config($1, $2, true)", "SELECT 1"}, {"create temp table t() on commit drop", "CREATE TABLE"},
		{"create table t as select 1", "SELECT 1"}, {"drop table t", "DROP TABLE"}, {"what nobody saw", "CREATE TABLE"}, {"do $$ begin end $$", "DO"},
	} {
		t.Run(first.text, func(t *testing.T) {
			w, other := newWorld(t), &Session{}
			w.parsed("before", "old", "old", "as2")
			w.block(first.text, first.tag, func() {
				w.parsed("in the block", "a", "q", "as3")
				w.parsed("again", "b", "q", "as4")
				w.parsed("a text from before", "c", "old", "as5")
				w.used("from before", "old", "d2 as2")
				w.used("its own", "a", "d3 as3")
			})
			mine := w.client
			w.turn(other)
			w.parsed("another's", "a", "q", "as6")
			w.parsed("another's once more", "b", "q", "stand-in")
			w.turn(mine)
			w.used("its own, later", "a", "as3")
			w.wants("closed for good", w.CloseStatement([]byte("a")), "as3")
			w.sync()
			w.replies("3Z", 'I', "")
			if w.cache.named(3) != nil {
				t.Error("it is still held")
			}
		})
	}
}

// A statement that is the client's alone is parsed again elsewhere: for itself
// where settings differ, else for all.
func TestParsedUnderOtherSettingsElsewhere(t *testing.T) {
	w := newWorld(t)
	w.block("set local role x", "SET", func() { w.parsed("in the block", "a", "q", "as2") })
	mine := w.client
	w.End()

	there := &world{Link: New(w.stmts), t: t, stmts: w.stmts, s: mine}
	there.Begin(mine)
	there.block("set local role x", "SET", func() { there.used("in a block", "a", "p2 d2 as2") })
	there.used("outside", "a", "as2")
	there.End()

	there.Link = New(w.stmts)
	there.Begin(mine)
	there.used("outside first", "a", "p2 d2 wait flush")
	there.turn(&Session{})
	there.parsed("another's", "b", "q", "stand-in")
}

// A statement of others is not put in for the client's in a block that it may
// mean something else in.
func TestMissingUnderOtherSettings(t *testing.T) {
	w, other := newWorld(t), &Session{}
	w.parsed("here", "a", "q", "as2")
	mine := w.client
	w.End()
	there := &world{Link: New(w.stmts), t: t, stmts: w.stmts, s: mine}
	there.Begin(mine)
	there.block("set local search_path = x", "SET", func() { there.used("there", "a", "p2 d2 as2"); there.used("again", "a", "as2") })
	there.turn(other)
	there.parsed("another's", "a", "q", "as3")
}

// Where it is settled otherwise which characters end a literal, the client keeps
// its server, and that the statement.
func TestFixed(t *testing.T) {
	w := newWorld(t)
	w.Limit = 2
	w.block("set local standard_conforming_strings = off", "SET", func() {
		w.parsed("none", "a", "select 'a'", "as2")
		if w.client.Fixed() {
			t.Error("for nothing")
		}
		w.parsed("one", "b", `select '\'a'`, "as3")
	})
	if !w.client.Fixed() {
		t.Fatal("the client may go")
	}
	w.parsed("more", "c", "q", "c2 as4")
	w.parsed("and more", "d", "r", "c4 as5")
	w.used("the one", "b", "d3 as3")
	w.wants("closed", w.CloseStatement([]byte("b")), "as3")
	if w.client.Fixed() {
		t.Error("it is still there")
	}
}
