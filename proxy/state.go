// Session state in shared servers: what a transaction may have left is asked of the server itself, then tracked, pinned or reset.

package proxy

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/tenants"
)

// maxTracked bounds the parameters that a session may have set.
const maxTracked = 256

// policies are what a tenant has done about the kinds of session state.
type policies struct {
	track, pin, reset, refuse link.State
	always                    bool // a server is reset after every transaction
}

// policiesOf compiles a tenant's. What is allowed is in none of the sets.
func policiesOf(conf *tenants.Tenant) (p policies) {
	p.always = conf.ResetAlways
	for i, name := range link.StateNames() {
		kind := link.State(1) << i
		switch conf.State[tenants.StateKind(name)] {
		case tenants.PolicyTrack:
			p.track |= kind
		case tenants.PolicyPin:
			p.pin |= kind
		case tenants.PolicyReset:
			p.reset |= kind
		case tenants.PolicyRefuse:
			p.refuse |= kind
		}
	}
	return p
}

// inspection is a look at what a server's session has in it.
type inspection struct {
	running bool
	kinds   link.State // asked for
	found   link.State
	params  []pgwire.Param
	failed  bool
}

// completed notes what a command has left, by its tag. A server that is one
// client's may keep it all; only what it came with is to be there again after
// a reset.
func (s *server) completed(tag []byte, note link.Note) {
	c := s.client
	switch {
	case c.mode != sessionMode:
		s.noted |= link.TagState(tag, note)
		c.hidden = c.hidden && string(tag) != "DISCARD ALL"
	case len(c.came.list) > 0 && (string(tag) == "RESET" || string(tag) == "DISCARD ALL"):
		s.noted |= link.StateSet
	}
}

// inspect asks the server, between two transactions of its client, what there
// is of the kinds that may have changed. It returns false if there is nothing
// to ask. Meanwhile the client waits.
func (s *server) inspect() bool {
	c := s.client
	p := &s.tenant.policies
	kinds := s.noted & (p.track | p.pin)
	if s.noted&link.StateEnds != 0 {
		kinds |= c.pins
	}
	switch {
	case c.mode == sessionMode:
		kinds = s.noted
	case s.noted&p.reset != 0 || p.always:
		s.dirty = true
	}
	hidden := s.noted&link.StateHidden != 0 && p.track&link.StateSet != 0
	s.noted = 0
	if hidden && c.mode != sessionMode {
		c.hidden = true
		c.pin(link.StateSet) // it cannot be read, so it cannot be set again elsewhere
	}
	if kinds&link.StateLoad != 0 {
		c.pin(link.StateLoad) // nothing would show it
		kinds &^= link.StateLoad
	}
	if kinds == 0 {
		return false
	}
	s.look = inspection{running: true, kinds: kinds}
	s.link.Forget()
	for _, k := range [...]link.Kind{link.Parse, link.Bind, link.Execute, link.Sync} {
		s.link.Sent(link.Entry{Kind: k, Mode: link.Internal})
	}
	s.conn.Write(appendInspection(nil, kinds, c.names))
	c.blocked = true
	return true
}

// pin keeps the server for the client.
func (c *client) pin(kinds link.State) {
	for _, reason := range (kinds &^ c.pins).Names() {
		c.tenant.counters.pins.add(reason)
	}
	c.pins |= kinds
}

// The parts of the question, by kind. Everything is qualified: whose session
// it is may have put anything into its search_path.
const (
	askSet = `SELECT 'set', name, setting FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'` +
		` UNION ALL SELECT 'set', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n`
	askListen = `SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())`
	askTemp   = `SELECT 'temp', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())` +
		` OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())` +
		` OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())`
	askLock = `SELECT 'advisory_lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'` +
		` AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())`
	askCursor  = `SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)`
	askPrepare = `SELECT 'prepare', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`
	askNothing = `SELECT 'none', n, NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n WHERE false`
)

// appendInspection builds the question. names are parameters that pg_settings does not show.
func appendInspection(dst []byte, kinds link.State, names []string) []byte {
	parts := []string{askNothing}
	for _, part := range [...]struct {
		kind link.State
		text string
	}{{link.StateSet, askSet}, {link.StateListen, askListen}, {link.StateTemp, askTemp}, {link.StateLock, askLock},
		{link.StateCursor, askCursor}, {link.StatePrepared, askPrepare}} {
		if kinds&part.kind != 0 {
			parts = append(parts, part.text)
		}
	}
	dst = pgwire.AppendParse(dst, "", strings.Join(parts, " UNION ALL "))
	dst = pgwire.AppendBind(dst, "", "", textArray(names))
	return pgwire.AppendSync(pgwire.AppendExecute(dst, ""))
}

// textArray is a list in the text form of text[].
func textArray(list []string) []byte {
	out := []byte{'{'}
	for i, s := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		for j := range len(s) {
			if s[j] == '"' || s[j] == '\\' {
				out = append(out, '\\')
			}
			out = append(out, s[j])
		}
		out = append(out, '"')
	}
	return append(out, '}')
}

// sees takes note of a row of the answer.
func (l *inspection) sees(row []byte, login string) {
	fields, ok := textRow(row)
	if !ok || len(fields) != 3 || fields[0] == nil {
		l.failed = true
		return
	}
	kind := string(fields[0])
	if kind != "set" {
		for i, name := range link.StateNames() {
			if name == kind {
				l.found |= 1 << i
			}
		}
		return
	}
	if fields[1] == nil || fields[2] == nil {
		return // no such parameter in this session
	}
	name, value := string(fields[1]), string(fields[2])
	if name == "role" && value == "none" || name == "session_authorization" && value == login {
		return
	}
	if len(l.params) >= maxTracked {
		l.failed = true
		return
	}
	l.params = append(l.params, pgwire.Param{Name: name, Value: value})
}

// textRow splits the body of a DataRow; nil stands for NULL.
func textRow(body []byte) (fields [][]byte, ok bool) {
	if len(body) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	for body = body[2:]; n > 0; n-- {
		if len(body) < 4 {
			return nil, false
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if size == -1 {
			fields = append(fields, nil)
			continue
		}
		if size < 0 || int(size) > len(body) {
			return nil, false
		}
		fields = append(fields, body[:size:size])
		body = body[size:]
	}
	return fields, len(body) == 0
}

// inspected acts on the answer. last says that nothing was received behind it.
// False: the server is no longer feed's.
func (s *server) inspected(last bool) bool {
	c, l := s.client, s.look
	s.look = inspection{}
	p := &s.tenant.policies
	switch {
	case l.failed:
		// Not known: then it stays where it is.
		c.pin(l.kinds)
	default:
		if l.kinds&link.StateSet != 0 {
			s.params = s.pool.sets.intern(l.params)
			c.params = c.wants(l.params)
			if c.hidden || p.pin&link.StateSet != 0 && s.params != s.pool.fresh {
				l.found |= link.StateSet
			}
		}
		c.pins = c.pins&^l.kinds | c.pins&l.found
		c.pin(l.found & (p.pin | c.pins))
	}
	if !s.params.same(c.params) {
		s.restoring = true // what it came with, in the place of what was reset
		s.prepare(c.params)
		return true
	}
	return !s.mayRelease() || s.part(last) != stop
}

// wants is what a client's session has set, with what it came with in the
// place of what was reset: in Postgres, RESET goes back to the startup packet.
func (c *client) wants(set []pgwire.Param) *params {
	all := append([]pgwire.Param(nil), c.came.list...)
	for _, p := range set {
		if p.Name != clientAddressName { // which is not for the client to set
			all = append(all, p)
		}
	}
	return c.pool.sets.intern(all)
}

// tracksState reports whether anything of what a lease did is to be looked at.
func (s *server) tracksState() bool {
	return s.noted != 0 || s.tenant.policies.always && s.client.mode != sessionMode
}

// mayLeave notes what a text that goes to the server may leave there. names
// tells the parameters that it sets; nil: unknown.
func (c *client) mayLeave(state link.State, names func() []string) {
	c.server.noted |= state &^ link.StateNamed
	if names == nil || state&link.StateNamed == 0 || c.tenant.policies.track&link.StateSet == 0 {
		return
	}
	for _, name := range names() {
		if len(c.names) < maxTracked && !slices.Contains(c.names, name) {
			c.names = append(c.names, name)
		}
	}
}

// refuses reports whether the tenant does not want what a text would leave.
func (c *client) refuses(text []byte) bool {
	refuse := c.tenant.policies.refuse
	return refuse != 0 && link.Refusable(text)&refuse != 0
}
