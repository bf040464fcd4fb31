// What a session has set: read from its server, and told apart from what it was started with and has reset.

package proxy

import (
	"slices"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
)

// maxSettings bounds what a session may have set and be lent different servers,
// in bytes of the answer about it.
const maxSettings = 4 << 20

// resets is what may have been reset since a server was looked at. The server
// tells it of most parameters; of those that it hides it shows values only, and
// the default may have been set, too.
type resets struct {
	some, all bool     // by RESET, by DISCARD ALL
	names     []string // that texts have mentioned
	sure      []string // that the server does show
}

func (r *resets) mention(name string) {
	if len(r.names) < maxTracked && !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
}

// hiddenNames returns what must be asked for by name from the beginning.
func (c *client) hiddenNames() (names []string) {
	for _, p := range c.came.list {
		if hidden(p.Name) && p.Name != clientAddressName && len(names) < maxTracked {
			names = append(names, p.Name)
		}
	}
	return names
}

// whole takes a row that came in one piece.
func (l *inspection) whole(row []byte, login string) {
	if l.size += len(row); l.size <= maxSettings {
		l.sees(row, login)
	}
}

// begins takes the first piece of a long row, of size bytes in all.
func (l *inspection) begins(piece []byte, size int) {
	if l.size += size; l.size <= maxSettings {
		l.row = append(make([]byte, 0, size), piece...)
	}
}

// goesOn takes another.
func (l *inspection) goesOn(piece []byte, last bool, login string) {
	if l.row == nil {
		return
	}
	if l.row = append(l.row, piece...); last {
		l.sees(l.row, login)
		l.row = nil
	}
}

// huge reports whether the answer was too long to be kept.
func (l *inspection) huge() bool { return l.size > maxSettings }

// settings returns what the session has set.
func (l *inspection) settings() []pgwire.Param {
	all := l.params
	for _, p := range l.named {
		if !slices.Contains(l.unset, p.Name) {
			all = append(all, p)
		}
	}
	return all
}

// wants is what a client's session has set, with what it came with in the
// place of what was reset: in Postgres, RESET goes back to the startup packet.
func (c *client) wants(set []pgwire.Param) *params {
	found := c.pool.sets.intern(set)
	var all []pgwire.Param
	for _, p := range c.came.list {
		if !hidden(p.Name) || p.Name == clientAddressName || c.wasReset(p.Name, found) {
			all = append(all, p)
		}
	}
	for _, p := range found.list {
		_, came := c.came.get(p.Name)
		switch {
		case p.Name == clientAddressName: // which is not for the client to set
		case came && c.wasReset(p.Name, found):
		default:
			all = append(all, p)
		}
	}
	return c.pool.sets.intern(all)
}

// wasReset reports whether a hidden parameter of the startup packet has gone
// back to its default and was not set to it.
func (c *client) wasReset(name string, found *params) bool {
	if value, _ := found.get(name); value != "" || !hidden(name) {
		return false
	}
	set := func(name string) bool {
		value, _ := c.params.get(name)
		return value != ""
	}
	switch {
	case c.resets.all, slices.Contains(c.resets.sure, name):
		return true
	case name == role && set(sessionAuthorization):
		_, still := found.get(sessionAuthorization)
		return !still
	}
	return c.resets.some && (set(name) || slices.Contains(c.resets.names, name))
}

// mayReset takes note of a text in session mode: what came with the client is to
// be there again after a reset, and a server that not even a reset gets clean is
// to be nobody else's. It returns whether there may be a reset, and the databases
// that the text wants for itself.
func (c *client) mayReset(text []byte) (note sqltext.Note, databases []string) {
	note, state := sqltext.Scan(text)
	databases = c.vacates(note, text)
	c.server.soil(state & sqltext.StateLoad)
	if len(c.came.list) == 0 {
		return 0, databases
	}
	if note&sqltext.Resets != 0 {
		c.server.noted |= state & sqltext.StateSet // set_config, which no tag shows
	}
	if state&sqltext.StateNamed == 0 {
		return note & sqltext.Resets, databases
	}
	for _, name := range sqltext.ParameterNames(text) {
		c.resets.mention(name)
		if name == clientAddressName { // which is not for the client to set
			note |= sqltext.Resets
		}
	}
	return note & sqltext.Resets, databases
}

// agree takes note that the server has its client's parameters.
func (s *server) agree() {
	s.params, s.agreed = s.client.params, s.client.params
	s.relearn()
}

// relearn is called when a server has a known set of parameters. If it shows
// others than clients with that set are greeted with, defaults have changed.
func (s *server) relearn() {
	if !s.reported || s.failed {
		return
	}
	s.reported = false
	if s.params.base.told != nil {
		s.pool.learn(s.params.base, s.shown)
	}
}

// replay is the setting of a client's parameters on its server.
type replay struct {
	list      []change
	done      int
	refused   bool // an error has undone all of it
	inherited bool // which is not the client's
}

// completed takes note of a change that was made, by its tag: what else may be
// on its way has others.
func (r *replay) completed(tag []byte) {
	if string(tag) == "SELECT 1" {
		r.done++
	}
}

// failed takes note of an error and the routine that it came from. It is the
// fault of whoever had the server before if something of theirs cannot be taken
// back, or if they have used temporary tables, whose buffers have a size then.
func (r *replay) failed(routine string) {
	if r.refused = r.done < len(r.list); r.refused {
		c := r.list[r.done]
		r.inherited = c.value == nil || c.name == "temp_buffers" && routine == "call_int_check_hook"
	}
}

// refused is called when a server has not taken a client's parameters. What
// others have left there is no reason to send the client away: it gets another
// server. Its own faults it is told, and the server, which has rolled all of it
// back, is reset for others.
func (s *server) refused() outcome {
	c := s.client
	e, inherited := c.refused, s.replay.inherited
	c.refused, s.failed, s.replay, s.restoring = nil, false, replay{}, false
	c.server, s.client = nil, nil
	s.link.End()
	if !inherited {
		s.pool.books.BeginCleaning(&s.books)
		s.dirty = true
		s.within(resetFor)
		c.fail(e, "parameters")
		return taken // and feed goes on with the cleaning
	}
	s.pool.books.RemoveServer(&s.books)
	s.shut("an earlier client's settings cannot be taken back")
	if c.acquire() {
		c.resume()
	}
	s.tenant.dialMore()
	return stop
}

// longReport deals with a ParameterStatus that is too long to be looked into:
// the server is asked for what it says.
func (s *server) longReport() link.Verdict {
	c := s.client
	if c == nil || s.preparing && !s.restoring || s.punishing {
		return link.Swallow
	}
	if c.mode != sessionMode {
		s.noted |= sqltext.StateSet
	}
	return link.ToClient
}
