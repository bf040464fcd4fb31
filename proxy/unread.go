// What a session may have that nothing shows, such as parameters of computed names: when it counts, and how others do not see it.

package proxy

import (
	"encoding/binary"

	"github.com/postern/postern/proxy/sqltext"
)

// unreadable is what cannot be asked about, and is over if its transaction is
// rolled back.
const unreadable = sqltext.StateHidden | sqltext.StateNameUnknown

// conclusion is how a transaction goes, for the sake of what is unreadable.
type conclusion struct {
	unsure     sqltext.State // what was done in it
	failed     bool          // something since the last ReadyForQuery
	rolledBack bool          // by the command that was completed last
}

// concluded is at a ReadyForQuery.
func (s *server) concluded() {
	e := &s.ending
	if s.link.Status() == 'I' {
		if !e.failed && !e.rolledBack {
			s.noted |= e.unsure
		}
		e.unsure = 0
	}
	e.failed, e.rolledBack = false, false
}

// soil marks a server for what must be gone before anybody else has it, and
// what nothing shows.
func (s *server) soil(noted sqltext.State) {
	p := &s.tenant.policies
	minded := p.track | p.pin | p.reset | p.refuse
	s.dirty = s.dirty || noted&(p.reset|p.refuse) != 0 || noted&sqltext.StateNameUnknown != 0 && minded&(sqltext.StateSet|sqltext.StateSeed) != 0
	s.loaded = s.loaded || noted&minded&sqltext.StateLoad != 0
}

// mayName notes the parameters that a Bind may name: what follows the name of
// the statement in it. whole says that all of it is there.
func (c *client) mayName(portal, rest []byte, whole bool) {
	if state, _ := c.server.link.Bound(portal); state&sqltext.StateNameInBind == 0 {
		return
	}
	if whole && c.mayNameValues(rest) {
		return
	}
	c.server.noted |= sqltext.StateNameUnknown
}

// mayNameValues reads the values of a Bind.
func (c *client) mayNameValues(rest []byte) (ok bool) {
	if len(rest) < 2 {
		return false
	}
	formats := 2 + 2*int(binary.BigEndian.Uint16(rest))
	if len(rest) < formats {
		return false
	}
	list, _, ok := values(rest[formats:])
	for _, v := range list {
		if name, ok := sqltext.ParameterName(v); ok {
			c.mayHave(name)
		}
	}
	return ok
}
