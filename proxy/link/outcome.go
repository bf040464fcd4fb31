// What command tags and errors say about statements.

package link

import (
	"bytes"

	"github.com/postern/postern/proxy/sqltext"
)

// Naming returns the names to be exchanged in the texts of the error that was
// judged latest: the server's, which it may contain, and the client's.
func (l *Link) Naming() (server ServerName, client string, ok bool) {
	if l.last.named == nil {
		return 0, "", false
	}
	return l.last.name, l.last.named.text, true
}

// Completed takes note of the tag of the CommandComplete that was judged latest.
// unasked says that the client has not asked for this command and must not be
// told of it.
func (l *Link) Completed(tag []byte) (unasked bool) {
	e := l.last
	if len(tag) == 0 {
		return false
	}
	l.altered |= e.Note & (sqltext.Alters | sqltext.Rereads)
	switch tag[0] {
	case 'A', 'C':
		if bytes.HasPrefix(tag, []byte("ALTER ")) || bytes.HasPrefix(tag, []byte("CREATE ")) {
			l.changed()
		}
	case 'D':
		switch {
		case bytes.HasPrefix(tag, []byte("DROP ")):
			l.changed()
		case string(tag) == "DEALLOCATE" && e.named != nil:
			if l.client != nil && l.client.remove(e.named) {
				l.stmts.Drop(e.named.stmt)
			}
		case string(tag) == "DISCARD ALL":
			l.altered |= sqltext.Alters | sqltext.Rereads
			l.discarded()
		case string(tag) == "DEALLOCATE ALL":
			l.discarded()
		}
	case 'G', 'R':
		if string(tag) == "GRANT" || string(tag) == "REVOKE" {
			l.changed()
		}
	case 'P':
		switch {
		case string(tag) != "PREPARE":
		case e.named != nil:
			return true
		case l.client != nil:
			l.client.prepares = true
		}
	}
	return false
}

// discarded records that the server has dropped all its named statements. None
// are on their way: they wait behind whatever may do this.
func (l *Link) discarded() {
	l.cache.clear(l.stmts)
	if l.client != nil && l.last.Mode == Forward {
		l.client.clear(l.stmts)
	}
}

// Failed takes note of the error that was judged latest: its SQLSTATE, and the
// function of the server that has raised it.
func (l *Link) Failed(code, routine string) {
	e := l.last
	switch {
	case e.named == nil:
	case code == "0A000" && routine == "RevalidateCachedQuery":
		// "cached plan must not change result type": all servers prepare it again,
		// unless it is one client's and says nothing of the others'. A table was
		// changed, perhaps unseen: what is parsed from here on is not taken to be as before.
		l.stmts.changes++
		if h := l.cache.named(e.name); h != nil && h.env == any(e.named) {
			h.stale = true
		} else {
			e.named.stmt.version++
		}
	case code == "26000":
		// Dropped by something that nobody could see, such as a function's body.
		if h := l.cache.named(e.name); h != nil {
			l.cache.forget(h, l.stmts)
		}
	}
}
