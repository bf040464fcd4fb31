// What the proxy does around links, in miniature: clients take turns on servers, and the unnamed statement follows them.

package link

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"

	"github.com/postern/postern/proxy/sqltext"
)

// rig is a proxy in transaction mode with models for servers.
type rig struct {
	stmts   Statements
	limit   int // named statements per server; 0: many
	clients []*peer
	servers []*lease
	// pinned keeps clients on their servers, so that Free can be compared while
	// they go on.
	pinned bool
	// over is set when a link gave up on a server where it may, because nobody
	// can know what is owed. A real proxy closes both.
	over bool
	// doubtful says where it may.
	doubtful func() bool
}

// peer is a client.
type peer struct {
	Session
	server  *lease
	env     int
	pending []sent   // what the proxy has not dealt with
	got     []answer // what it was sent
	direct  *pgServer
}

// lease is a server and what the proxy knows of it.
type lease struct {
	*pgServer
	link     *Link
	client   *peer
	cleaning bool // its client has left
	reset    bool // the last step of that has been sent
}

func newRig(clients, servers int) *rig {
	r := &rig{}
	for i := range clients {
		d := newServer()
		d.dropsUnread = true
		r.clients = append(r.clients, &peer{direct: d, env: i % 2})
	}
	for range servers {
		r.servers = append(r.servers, r.newLease())
	}
	return r
}

// setLimit bounds the named statements of each server.
func (r *rig) setLimit(n int) {
	r.limit = n
	for _, s := range r.servers {
		s.link.Limit = n
	}
}

func (r *rig) newLease() *lease {
	s := &lease{pgServer: newServer(), link: New(&r.stmts)}
	s.link.Limit = r.limit
	return s
}

// send has a client send a message. What a server of its own would answer is
// known at once.
func (r *rig) send(c *peer, m sent) {
	c.direct.in = append(c.direct.in, m)
	c.direct.step()
	c.pending = append(c.pending, m)
	r.pump(c)
}

// want is what a client of its own server would have been sent in all; what is
// still buffered there is included.
func (c *peer) want() []answer {
	return append(append([]answer(nil), c.direct.out...), c.direct.buffered...)
}

// pump deals with what a client has sent, as far as possible.
func (r *rig) pump(c *peer) {
	for len(c.pending) > 0 {
		m := c.pending[0]
		if c.server == nil {
			switch m.typ {
			case 'd', 'c', 'f', 'H':
				c.pending = c.pending[1:]
				continue
			case 'S':
				c.pending = c.pending[1:]
				c.got = append(c.got, answer{'Z', "I"})
				continue
			}
			if !r.lend(c) {
				return
			}
		}
		if !c.judge(m) {
			return
		}
		c.pending = c.pending[1:]
	}
	r.release(c)
}

func (r *rig) lend(c *peer) bool {
	for _, s := range r.servers {
		if s.client == nil && !s.cleaning && !s.dead {
			s.client, c.server = c, s
			s.link.Begin(&c.Session)
			return true
		}
	}
	return false
}

// release ends a lease where the link allows it.
func (r *rig) release(c *peer) {
	if s := c.server; s != nil && !r.pinned && !c.Fixed() && s.link.Free() {
		if !s.idle() {
			panic(fmt.Sprintf("released too early: %+v", s.pgServer))
		}
		s.link.End()
		s.client, c.server = nil, nil
	}
}

// judge sends a message on; false holds it.
func (c *peer) judge(m sent) bool {
	s := c.server
	l := s.link
	e := Entry{}
	plan := Plan{Do: Pass}
	switch m.typ {
	case 'Q':
		plan = l.Query([]byte(sql(m.text)), scanNote([]byte(sql(m.text))))
	case 'F':
		e.Kind = FunctionCall
		l.Sent(e)
	case 'P':
		plan = l.Parse(c.env, []byte(m.name), []byte("\x00"+sql(m.text)+"\x00"+fmt.Sprint(m.bad)))
	case 'E':
		plan = l.Execute(nil)
	case 'S':
		l.Sent(Entry{Kind: Sync})
	case 'c', 'f':
		l.Sent(Entry{Kind: CopyEnd})
	case 'C':
		plan = l.CloseStatement([]byte(m.name))
	case 'B':
		if m.bad { // which one cannot be seen
			l.BindUnseen()
			break
		}
		plan = l.Bind(c.env, nil, []byte(m.name))
	case 'D':
		if m.bad {
			l.Sent(Entry{Kind: Describe})
			break
		}
		plan = l.DescribeStatement(c.env, []byte(m.name))
	case 'H':
		l.SentFlush()
	}
	for _, p := range plan.Puts {
		put := sent{typ: 'C', name: named(p.Name)}
		switch p.Kind {
		case Parse:
			put.typ = 'P'
			put.text, put.bad = unSQL(p.Stmt)
		case Describe:
			put.typ = 'D'
		}
		s.in = append(s.in, put)
	}
	switch plan.Do {
	case Wait:
		if plan.Flush {
			s.in = append(s.in, sent{typ: 'H'})
		}
		return false
	case Rename:
		m.name = named(plan.Name)
	case StandIn:
		m = sent{typ: 'C', name: named(plan.Name)}
	case Rewrite:
		if m.typ == 'Q' {
			m.text = "prepare#" + named(plan.Name) + ";dealloc#" + named(plan.Name)
			break
		}
		m.name = named(plan.Name)
		m.text, m.bad = unSQL(plan.Stmt)
	case TooMany:
		panic("too many")
	case Changed:
		panic("changed, though nothing changes")
	}
	s.in = append(s.in, m)
	return true
}

func named(n ServerName) string { return string(n.Append(nil)) }

// sql is a script as the link reads it: it knows some commands by their texts.
func sql(script string) string {
	return strings.NewReplacer("dealloc#", "deallocate ", "dealloc-all", "deallocate all",
		"local#", "set local standard_conforming_strings = ", "look", `look \`).Replace(script)
}

// unSQL is the script of a definition, and whether it cannot be read.
func unSQL(st *Stmt) (text string, bad bool) {
	if st == nil {
		return "", false
	}
	text, after, _ := strings.Cut(st.Body[1:], "\x00")
	if target, ok := strings.CutPrefix(text, "DEALLOCATE "); ok {
		target, _, _ = strings.Cut(target, " --")
		return "dealloc#" + target, after == "true"
	}
	return strings.NewReplacer("deallocate all", "dealloc-all", "deallocate ", "dealloc#",
		"set local standard_conforming_strings = ", "local#", `look \`, "look").Replace(text), after == "true"
}

// deliver hands one answer of a server to its client.
func (r *rig) deliver(t rapid.TB, s *lease) {
	t.Helper()
	a := s.out[0]
	s.out = s.out[1:]
	if r.receive(s, a) != Broken {
		return
	}
	if r.over = s.link.doubt && r.doubtful(); !r.over {
		t.Fatalf("%v is said to be broken: %+v", a, s.link)
	}
}

// receive judges an answer.
func (r *rig) receive(s *lease, a answer) Verdict {
	var status byte
	if a.typ == 'Z' {
		status = a.detail[0]
	}
	v := s.link.Received(a.typ, status)
	if s.link.Heeds() {
		s.link.Heed([]byte(map[byte]string{'t': "\x00\x00", 'T': column("a", 23)}[a.typ]), true)
	}
	switch {
	case v == Broken:
		return v
	case v == AsParse:
		a, v = answer{'1', ""}, ToClient
	case a.typ == 'C' && s.link.Completed([]byte(a.detail)):
		v = Swallow
	case a.typ == 'E':
		a.detail = s.fails(a.detail)
	}
	if c := s.client; c != nil {
		if v == ToClient {
			c.got = append(c.got, a)
		}
		r.release(c)
	} else if s.cleaning {
		s.clean()
	}
	r.serve()
	return v
}

// fails has the link look at an error, and exchanges names in its text.
func (s *lease) fails(why string) string {
	if strings.HasPrefix(why, "unknown ") {
		s.link.Failed("26000", "")
	}
	if server, client, ok := s.link.Naming(); ok {
		if what, name, _ := strings.Cut(why, " "); name == named(server) {
			return what + " " + client
		}
	}
	return why
}

// serve lends servers to whoever waits.
func (r *rig) serve() {
	for _, c := range r.clients {
		r.pump(c)
	}
}

// leave has a client disappear, and another one come in its place.
func (r *rig) leave(c *peer) {
	if s := c.server; s != nil {
		s.link.End()
		s.client, s.cleaning, s.reset = nil, true, false
		s.clean()
	}
	c.Release(&r.stmts)
	*c = peer{direct: newServer(), env: c.env}
	c.direct.dropsUnread = true
	r.serve()
}

func (s *lease) internal(k Kind, m sent) {
	s.link.Sent(Entry{Kind: k, Mode: Internal})
	s.in = append(s.in, m)
}

// clean goes on with the cleaning of a server whose client has left.
func (s *lease) clean() {
	switch {
	case s.link.CopyIn():
		s.internal(CopyEnd, sent{typ: 'f'})
		if s.link.NeedsSync() {
			s.internal(Sync, sent{typ: 'S'})
		}
	case s.link.NeedsSync() && !s.link.AwaitsReady():
		s.internal(Sync, sent{typ: 'S'})
	case !s.link.Quiet():
	case s.reset:
		s.cleaning = false
	default: // ends a transaction, and resets
		s.reset = true
		s.link.Forget()
		s.internal(Query, sent{typ: 'Q', text: "commit;dealloc-all"})
	}
}

// settle lets everything arrive that can. It fails if a server is said to be broken.
func (r *rig) settle(t rapid.TB) {
	t.Helper()
	for again := true; again && !r.over; {
		again = false
		for _, s := range r.servers {
			for len(s.in) > 0 {
				s.step()
				again = true
			}
			for len(s.out) > 0 && !r.over {
				r.deliver(t, s)
				again = true
			}
		}
	}
}

// closeDoubtful closes the servers that nobody gets any more because of what
// may be owed, and reports whether there were any. A real proxy does so some
// time after the client has left.
func (r *rig) closeDoubtful() (any bool) {
	for _, s := range r.servers {
		c := s.client
		switch {
		case r.pinned || len(s.in)+len(s.buffered)+len(s.out) > 0:
		case s.cleaning, c != nil && s.link.doubt && len(c.pending) == 0:
			if !s.link.doubt && s.link.slack == 0 {
				panic(fmt.Sprintf("cannot be cleaned: %+v", s.link))
			}
			s.link.Close()
			if c != nil {
				c.server = nil
			}
			*s = *r.newLease()
			r.serve()
			any = true
		}
	}
	return any
}

// scanNote is what Scan says of a text besides what it leaves.
func scanNote(text []byte) sqltext.Note {
	note, _ := sqltext.Scan(text)
	return note
}
