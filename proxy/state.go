// Session state in shared servers: what a transaction may have left is asked of the server itself, then tracked, pinned or reset.

package proxy

import (
	"encoding/binary"
	"strings"

	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/sqltext"
	"github.com/postern/postern/tenants"
)

// maxLooks is how often a server is asked what it has, if it fails to answer: a
// statement_timeout of its client's holds for the question, too.
const maxLooks = 8

// policies are what a tenant has done about the kinds of session state.
type policies struct {
	track, pin, reset, refuse sqltext.State
	unnoted                   sqltext.State // what need not be noted
	forget                    sqltext.State // before what a server forgets the numbers of others; 0: never
	always                    bool          // a server is reset after every transaction
}

// policiesOf compiles a tenant's. What is allowed is in none of the sets.
func policiesOf(conf *tenants.Tenant) (p policies) {
	p.always = conf.ResetAlways
	p.unnoted = sqltext.StateNamed | sqltext.StateNameInBind | sqltext.StateReads | sqltext.StateMakes
	for i, name := range sqltext.StateNames() {
		kind := sqltext.State(1) << i
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
	// Numbers are not taken away after a transaction, but before others would see
	// them; and who does not want them read does not mind that they are drawn.
	switch drawn := sqltext.StateSequence; {
	case p.pin&drawn != 0:
		p.forget = drawn | sqltext.StateReads
	case p.reset&drawn != 0:
		p.reset, p.unnoted, p.forget = p.reset&^drawn, p.unnoted|drawn, sqltext.StateReads
	case p.refuse&drawn != 0:
		p.refuse, p.unnoted = p.refuse&^drawn|sqltext.StateReads, p.unnoted|drawn
	default:
		p.unnoted |= drawn
	}
	return p
}

// inspection is a look at what a server's session has in it.
type inspection struct {
	running bool
	tries   int
	kinds   sqltext.State // asked for
	found   sqltext.State
	params  []pgwire.Param // what is set, as pg_settings shows it
	named   []pgwire.Param // what was asked for by name
	unset   []string       // of these, what pg_settings shows and is not set
	failed  bool
	row     []byte // what has come of a long row
	size    int    // of all rows, in bytes
}

// completed notes what a command has left, by its tag. A server that is one
// client's may keep it all; only what it came with is to be there again after
// a reset.
func (s *server) completed(tag []byte, note sqltext.Note) {
	c := s.client
	switch {
	case c.mode != sessionMode:
		left := sqltext.TagState(tag, note)
		s.noted |= left &^ (s.tenant.policies.unnoted | unreadable)
		s.ending.unsure |= left & unreadable
		s.ending.rolledBack = string(tag) == "ROLLBACK"
		s.sequences.drawn = s.sequences.drawn || left&sqltext.StateSequence != 0
		s.discarded(tag)
		switch string(tag) {
		case "COMMIT", "PREPARE TRANSACTION":
			s.noted |= s.ending.unsure
			s.ending.unsure = 0
		case "DISCARD ALL":
			c.hidden, s.ending.unsure = false, 0
			s.noted &^= unreadable
		}
	case string(tag) == "LOAD":
		s.soil(sqltext.StateLoad)
	case !c.came.Empty() && (string(tag) == "RESET" || string(tag) == "DISCARD ALL"),
		!c.came.Base().Empty() && string(tag) == "SET",   // later it counts what was set and what came
		note&sqltext.Resets != 0 && string(tag) == "SET": // perhaps TO DEFAULT
		s.noted |= sqltext.StateSet
	}
	c.resets.Completed(tag)
}

// inspect asks the server, between two transactions of its client, what there
// is of the kinds that may have changed. It returns false if there is nothing
// to ask. Meanwhile the client waits.
func (s *server) inspect() bool {
	c, kinds := s.client, s.noted
	s.noted = 0
	if c.mode != sessionMode {
		s.soil(kinds)
		kinds = c.suspected(kinds)
	}
	c.pin(kinds & sqltext.StateUnasked)
	kinds &^= sqltext.StateUnasked
	if kinds == 0 {
		return false
	}
	s.examine(kinds, 1)
	return true
}

// suspected returns what is to be asked after a lease that may have left noted.
func (c *client) suspected(noted sqltext.State) sqltext.State {
	p := &c.tenant.policies
	asked := p.track | p.pin
	kinds := noted & asked
	if noted&sqltext.StateEnds != 0 {
		kinds |= c.pins
		if c.pins&sqltext.StatePrepared != 0 {
			kinds |= sqltext.StateAny & asked // what it has run by EXECUTE did not say what it does
		}
	}
	if noted&sqltext.StateHidden != 0 && asked&sqltext.StateSet != 0 {
		c.hidden = true
		c.pin(sqltext.StateSet) // it cannot be read, so it cannot be set again elsewhere
	}
	return kinds
}

// examine sends the question.
func (s *server) examine(kinds sqltext.State, tries int) {
	c := s.client
	s.look = inspection{running: true, tries: tries, kinds: kinds}
	question := s.own()
	question.inspect(kinds, c.names)
	s.askOwn(question)
	c.blocked = true
}

// pin keeps the server for the client.
func (c *client) pin(kinds sqltext.State) {
	for _, reason := range (kinds &^ c.pins).Names() {
		c.tenant.counters.pins.add(reason)
	}
	c.pins |= kinds
}

// The parts of the question, by kind. Everything is qualified: whose session
// it is may have put anything into its search_path.
const (
	askSet = `SELECT CASE WHEN source OPERATOR(pg_catalog.=) 'session' THEN 'set' ELSE 'unset' END, name, setting FROM pg_catalog.pg_settings` +
		` WHERE source OPERATOR(pg_catalog.=) 'session' OR name OPERATOR(pg_catalog.=) ANY ($1)` +
		` UNION ALL SELECT 'named', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n`
	askListen = `SELECT 'listen', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())`
	askTemp   = `SELECT 'temp', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend` + // all that a schema has, as for its DROP
		` WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())`
	askLock = `SELECT 'advisory_lock', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory'` +
		` AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())`
	askCursor  = `SELECT 'cursor', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)`
	askPrepare = `SELECT 'prepare', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)`
	askNothing = `SELECT 'none', n, NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) AS n WHERE false`
)

// inspect is the question. names are parameters that pg_settings does not show.
func (o *own) inspect(kinds sqltext.State, names []string) {
	parts := []string{askNothing}
	for _, part := range [...]struct {
		kind sqltext.State
		text string
	}{{sqltext.StateSet, askSet}, {sqltext.StateListen, askListen}, {sqltext.StateTemp, askTemp}, {sqltext.StateLock, askLock},
		{sqltext.StateCursor, askCursor}, {sqltext.StatePrepared, askPrepare}} {
		if kinds&part.kind != 0 {
			parts = append(parts, part.text)
		}
	}
	o.parse(unhindered)
	o.execute()
	o.parse(strings.Join(parts, " UNION ALL "))
	o.execute(textArray(names))
	o.end()
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
	if kind != "set" && kind != "unset" && kind != "named" {
		for i, name := range sqltext.StateNames() {
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
	switch {
	case params.AsNotSet(name, value, login):
	case len(l.params) >= params.MaxTracked || len(l.named) >= 2*params.MaxTracked:
		l.size = maxSettings + 1 // too many is too much
	case kind == "set":
		l.params = append(l.params, pgwire.Param{Name: name, Value: value})
	case kind == "named":
		l.named = append(l.named, pgwire.Param{Name: name, Value: value})
	default:
		l.unset = append(l.unset, name)
	}
}

// textRow splits the body of a DataRow; nil stands for NULL.
func textRow(body []byte) (fields [][]byte, ok bool) {
	fields, rest, ok := values(body)
	return fields, ok && len(rest) == 0
}

// values splits what has a number and so many values with their lengths.
func values(body []byte) (fields [][]byte, rest []byte, ok bool) {
	if len(body) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(body))
	for body = body[2:]; n > 0; n-- {
		if len(body) < 4 {
			return nil, nil, false
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if size == -1 {
			fields = append(fields, nil)
			continue
		}
		if size < 0 || int(size) > len(body) {
			return nil, nil, false
		}
		fields = append(fields, body[:size:size])
		body = body[size:]
	}
	return fields, body, true
}

// inspected acts on the answer. last says that nothing was received behind it.
// False: the server is no longer feed's.
func (s *server) inspected(last bool) bool {
	c, l := s.client, s.look
	s.look = inspection{}
	p := &s.tenant.policies
	switch {
	case l.huge():
		c.pin(l.found | sqltext.StateSet) // too much to be set again elsewhere
	case l.failed && l.tries < maxLooks:
		s.examine(l.kinds, l.tries+1)
		return true
	case l.failed:
		s.dirty = true // not known: then nobody else is to see it
	default:
		if l.kinds&sqltext.StateSet != 0 {
			s.params = s.pool.sets.Intern(l.settings())
			c.params = c.resets.Wanted(&s.pool.sets, c.came, c.params, s.params, l.unset)
			c.resets = params.Resets{}
			c.names.Prune(c.came, l.named)
			s.relearn()
			if c.hidden || p.pin&sqltext.StateSet != 0 && s.params != s.pool.fresh {
				l.found |= sqltext.StateSet
			}
		}
		c.pins = c.pins&^l.kinds | c.pins&l.found
		c.pin(l.found & (p.pin | c.pins))
	}
	s.agreed = c.params
	if !l.huge() && !s.params.Same(c.params) {
		s.restoring = true // what it came with, in the place of what was reset
		s.prepare(c.params)
		return true
	}
	return s.rest(last) != stop
}

// tracksState reports whether anything of what a lease did is to be looked at.
func (s *server) tracksState() bool {
	if s.client.mode != sessionMode && !s.client.params.Same(s.agreed) {
		s.noted |= sqltext.StateSet // or its default has changed
	}
	return s.noted != 0
}

// mayLeave notes what a text that goes to the server may leave there. names
// tells the parameters that it sets; nil: unknown.
func (c *client) mayLeave(state sqltext.State, names func() []string) {
	if state&sqltext.StateMakes != 0 && (c.params.Temporary() || c.server.noted&sqltext.StateSet != 0) {
		state |= sqltext.StateTemp
	}
	c.server.noted |= state &^ c.tenant.policies.unnoted
	if names == nil || state&sqltext.StateNamed == 0 || (c.tenant.policies.track|c.tenant.policies.pin)&sqltext.StateSet == 0 {
		return
	}
	for _, name := range names() {
		c.mayHave(name)
	}
}

// mayHave notes the name of a parameter that pg_settings does not show.
func (c *client) mayHave(name string) {
	c.resets.Mention(name)
	if !c.names.Add(name) {
		c.server.noted |= sqltext.StateHidden
	}
}

// refuses reports whether the tenant does not want what a text would leave.
func (c *client) refuses(text []byte) bool {
	refuse := c.tenant.policies.refuse
	return refuse != 0 && sqltext.Refusable(text)&refuse != 0
}
