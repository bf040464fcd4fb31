// Databases that a statement wants for itself, such as DROP DATABASE: the tenant's idle servers in them are closed first.

package proxy

import (
	"slices"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// maxVacating bounds the statements of a session that are known to want a
// database for themselves.
const maxVacating = 64

// vacate closes what nobody uses of the tenant's servers in these databases, for
// a statement that is about to run: Postgres gives the others five seconds to
// leave. What is in use is closed when it is released. What is known of a
// database that may be gone in a moment is forgotten.
func (t *tenant) vacate(databases []string) {
	if len(databases) == 0 {
		return
	}
	for p := range t.books.Pools() {
		if sp := p.Owner.(*serverPool); slices.Contains(databases, sp.key.database) {
			sp.forget()
			p.Vacate(func(s *pool.Server) { s.Owner.(*server).shut("somebody wants the database for himself") })
		}
	}
}

// forgetDatabase drops what is known of a database that is not there.
func (t *tenant) forgetDatabase(name string) {
	for p := range t.books.Pools() {
		if sp := p.Owner.(*serverPool); sp.key.database == name {
			sp.forget()
		}
	}
}

// vacates judges a text of which sqltext.Scan has said note.
func (c *client) vacates(note sqltext.Note, text []byte) []string {
	if note&sqltext.Alters == 0 {
		return nil
	}
	databases := sqltext.Vacates(text)
	c.tenant.vacate(databases)
	return databases
}

// vacatesLater remembers, in session mode, that a statement wants databases for
// itself, for those that run it more than once.
func (c *client) vacatesLater(name []byte, databases []string) {
	switch {
	case len(databases) == 0:
		delete(c.vacating, string(name))
	case c.vacating == nil:
		c.vacating = map[string][]string{string(name): databases}
	case len(c.vacating) < maxVacating:
		c.vacating[string(name)] = databases
	}
}

// vacatesNow is when a statement is bound, which may be one of those.
func (c *client) vacatesNow(message []byte) {
	if _, rest, ok := pgwire.CString(message[pgwire.HeaderSize:]); ok {
		if name, _, ok := pgwire.CString(rest); ok {
			c.tenant.vacate(c.vacating[string(name)])
		}
	}
}
