// When the same SQL must be parsed again: after settings that parsing looks at, changes of tables, and with the time.

package link

import "github.com/postern/postern/proxy/sqltext"

// Statements are shared under the settings that Postern knows their client to
// have. It does not know what holds for a transaction only (SET LOCAL, a table
// that may yet be rolled back), nor what a lease has just changed. What is
// parsed then is the client's alone: it is held under its Name, where nobody
// else finds it. Elsewhere it is parsed again, as Postgres itself does with any
// statement, under the settings of that moment, when the search_path or a table
// has changed, or a schema anywhere. Only where its words and literals end is
// settled for good: a client with a statement of which that was settled under
// such settings keeps its server.

// unlike is what may make a Parse now come to something else than under the
// settings that the client is known to have: Alters, Rereads or both.
func (l *Link) unlike() sqltext.Note {
	n := l.altered
	if l.alters > 0 {
		for i := l.head; i < len(l.queue); i++ {
			if e := &l.queue[i]; e.alters() {
				n |= e.Note
			}
		}
	}
	return n & (sqltext.Alters | sqltext.Rereads)
}

// define returns a client's new name for st, whose reference it takes over.
func (l *Link) define(env any, name []byte, st *Stmt) *Name {
	n := &Name{text: string(name), stmt: st, env: env}
	unlike := l.unlike()
	if unlike != 0 || st.Note&sqltext.Timed != 0 {
		n.alone, n.env = true, n
	}
	n.fixed = unlike&sqltext.Rereads != 0 && sqltext.Escapes(st.Body[1:])
	return n
}

// places returns where what the server holds of a client's statement is looked
// for, and where it is kept if it is parsed now.
func (l *Link) places(n *Name, env any) (first, then any) {
	first, then = env, env
	if unlike := l.unlike() != 0; n.alone || unlike {
		if first = n.env; unlike || n.stmt.Note&sqltext.Timed != 0 {
			then = n
		}
	}
	return first, then
}

// lookup returns what the server holds of a client's statement, with types given
// for its parameters; nil for nothing that can be used.
func (l *Link) lookup(n *Name, env any, types string) *held {
	first, then := l.places(n, env)
	h := l.cache.find(n.stmt, first, types)
	if !h.fresh() && then != first {
		h = l.cache.find(n.stmt, then, types)
	}
	if !h.fresh() {
		return nil
	}
	l.cache.touch(h)
	return h
}

// prepare has the server hold a client's statement.
func (l *Link) prepare(n *Name, env any, types string) *held {
	_, then := l.places(n, env)
	h := l.insert(l.stmts.Keep(n.stmt), then, types)
	l.put(Put{Kind: Parse, Name: h.name, Stmt: n.stmt, Types: types}, Entry{held: h})
	return h
}

// ensure has the server hold a client's statement in any shape.
func (l *Link) ensure(n *Name, env any) *held {
	if h := l.lookup(n, env, ""); h != nil {
		return h
	}
	return l.prepare(n, env, "")
}

// fresh reports whether what is held can be used: no server has said that the
// statement must be prepared again. What others were told says nothing of what
// is one client's alone.
func (h *held) fresh() bool {
	if h == nil || h.stale {
		return false
	}
	_, alone := h.env.(*Name)
	return alone || h.version == h.stmt.version
}

// fixed reports whether the client keeps the server for the sake of what is held.
func (l *Link) fixed(h *held) bool {
	n, ok := h.env.(*Name)
	return ok && n.fixed && l.client != nil && l.client.named[n.key()] == n
}

// changed records a command after which an equal Parse may mean something else,
// and, if its transaction has not ended, will again.
func (l *Link) changed() {
	l.stmts.changes++
	l.altered |= sqltext.Alters
	l.unended = true
}
