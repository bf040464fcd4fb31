// What a session has set: asked of its server, and set on another.

package proxy

import (
	"net/netip"
	"slices"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// maxSettings bounds what a session may have set and be lent different servers,
// in bytes of the answer about it.
const maxSettings = 4 << 20

// withAddress adds the client's address to what it came with, in the way that
// its tenant wants. What a client claims about its address is dropped.
func withAddress(list []pgwire.Param, how tenants.ClientAddress, client netip.AddrPort) []pgwire.Param {
	switch how {
	case tenants.AddressGUC:
		return params.WithAddress(list, client)
	case tenants.AddressName:
		return params.WithAddressInName(list, client)
	}
	return params.WithoutAddress(list)
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

// mayReset takes note of a text in session mode: what came with the client is to
// be there again after a reset, and a server that not even a reset gets clean is
// to be nobody else's. It returns whether there may be a reset, and the databases
// that the text wants for itself.
func (c *client) mayReset(text []byte) (note sqltext.Note, databases []string) {
	note, state := sqltext.Scan(text)
	databases = c.vacates(note, text)
	c.server.soil(state & sqltext.StateLoad)
	if c.came.Empty() {
		return 0, databases
	}
	if note&sqltext.Resets != 0 {
		c.server.noted |= state & sqltext.StateSet // set_config, which no tag shows
	}
	if state&sqltext.StateNamed == 0 {
		return note & sqltext.Resets, databases
	}
	for _, name := range sqltext.ParameterNames(text) {
		c.resets.Mention(name)
		if name == params.ClientAddress { // which is not for the client to set
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
	if s.params.Told() != nil {
		s.pool.learn(s.params, s.shown)
	}
}

// change carries changes out in one transaction. Values travel as Bind
// parameters, so that nothing needs quoting in whatever encoding and syntax the
// session has. set_config reads a value as a startup packet does (a list stays a
// list), and NULL means the default.
func (o *own) change(have *params.Set, list []params.Change) {
	if have.Defers() {
		o.parse(unhindered)
		o.execute()
	}
	o.parse("SELECT pg_catalog.set_config($1, $2, false)")
	for _, c := range list {
		if c.Value != nil {
			o.execute([]byte(c.Name), []byte(*c.Value))
		} else {
			o.execute([]byte(c.Name), nil)
		}
	}
	o.end()
}

// replay is the setting of a client's parameters on its server.
type replay struct {
	list      []params.Change
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
		r.inherited = c.Value == nil || c.Name == "temp_buffers" && routine == "call_int_check_hook"
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
