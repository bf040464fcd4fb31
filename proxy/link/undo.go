// How changes to the books of named statements become final or are taken back.

package link

import "github.com/postern/postern/proxy/sqltext"

// changes reports whether the entry has changed what client or server hold.
func (e *Entry) changes() bool {
	return (e.Kind == Parse || e.Kind == Close) && (e.named != nil || e.held != nil)
}

// drops reports whether the entry may drop statements by SQL.
func (e *Entry) drops() bool {
	return (e.Kind == Query || e.Kind == Execute) && e.Note&sqltext.Deallocates != 0
}

// alters reports whether the entry may change what a Parse behind it comes to.
func (e *Entry) alters() bool {
	return (e.Kind == Query || e.Kind == Execute) && e.Note&(sqltext.Alters|sqltext.Rereads) != 0
}

// confirm makes the change of an entry final.
func (l *Link) confirm(e *Entry) {
	if e.named != nil && (e.Kind == Close || e.Mode == Doomed) {
		l.stmts.Drop(e.named.stmt)
	}
	if e.held != nil && e.Kind == Close {
		l.stmts.Drop(e.held.stmt) // the cache has it no more
	}
	l.resolved(e)
}

// undo takes the change of an entry back. Later ones must have been undone.
func (l *Link) undo(e *Entry) {
	if e.Kind == Describe && e.held != nil {
		e.held.asked = false
	}
	if e.Kind == Describe && e.Mode == Quiet && e.name == Unnamed {
		l.restored = agrees
		l.Forget()
	}
	if !e.changes() {
		return
	}
	switch {
	case e.Kind == Close:
		if e.named != nil {
			l.client.add(e.named)
		}
		if e.held != nil {
			l.cache.add(e.held)
		}
	case e.Mode == Doomed:
		l.stmts.Drop(e.named.stmt)
	default:
		if e.named != nil && l.client.remove(e.named) {
			l.stmts.Drop(e.named.stmt)
		}
		if e.held != nil && e.held.stmt != nil {
			l.cache.forget(e.held, l.stmts)
		}
	}
	l.resolved(e)
}

func (l *Link) resolved(e *Entry) {
	e.named, e.held = nil, nil
	if l.changes--; l.changes == 0 {
		l.sealed = false
	}
}

// orphan takes an entry's client away. What the server will hold is still true.
func (l *Link) orphan(e *Entry) {
	had := e.changes()
	if had && e.named != nil && (e.Kind == Close || e.Mode == Doomed) {
		l.stmts.Drop(e.named.stmt)
	}
	e.named = nil
	if had && !e.changes() {
		l.resolved(e)
	}
	if e.Mode == Stand {
		e.Kind = Close // that is what was sent
	}
}

// usurped records that a Parse has succeeded under a name which was taken: the
// server has lost its statements by something that nobody could see. What it
// still holds has names that are not used again.
func (l *Link) usurped(h Entry) {
	l.cache.clear(l.stmts)
	if l.client == nil || h.named == nil {
		return
	}
	if old := l.client.find([]byte(h.named.text)); old != nil && l.client.remove(old) {
		l.stmts.Drop(old.stmt)
	}
	l.stmts.Keep(h.named.stmt)
	l.client.add(h.named)
}
