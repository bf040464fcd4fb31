// What the proxy does around links, in miniature: clients take turns on servers, and the unnamed statement follows them.

package link

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// rig is a proxy in transaction mode with models for servers.
type rig struct {
	stmts   Statements
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
	for range clients {
		d := newServer()
		d.dropsUnread = true
		r.clients = append(r.clients, &peer{direct: d})
	}
	for range servers {
		r.servers = append(r.servers, &lease{pgServer: newServer(), link: New(&r.stmts)})
	}
	return r
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
		if !c.judge(&r.stmts, m) {
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
	if s := c.server; s != nil && !r.pinned && s.link.Free() {
		if !s.idle() {
			panic(fmt.Sprintf("released too early: %+v", s.pgServer))
		}
		s.link.End()
		s.client, c.server = nil, nil
	}
}

// judge sends a message on; false holds it.
func (c *peer) judge(stmts *Statements, m sent) bool {
	s := c.server
	e := Entry{}
	switch m.typ {
	case 'Q':
		e.Kind = Query
	case 'F':
		e.Kind = FunctionCall
	case 'P':
		e.Kind = Parse
		if !m.named {
			e.Stmt = stmts.Intern([]byte("\x00" + m.text + "\x00" + fmt.Sprint(m.bad)))
		}
	case 'E':
		e.Kind = Execute
	case 'S':
		e.Kind = Sync
	case 'c', 'f':
		e.Kind = CopyEnd
	case 'C':
		e.Kind = Close
		if !m.named {
			e.Note = DropsUnnamed
		}
	case 'B', 'D':
		if e.Kind = Bind; m.typ == 'D' {
			e.Kind = Describe
		}
		if m.named || m.bad { // which one cannot be seen
			break
		}
		if s.link.Unsure() {
			return false
		}
		if st, needed := s.link.Restore(); needed {
			if st == nil {
				s.link.Sent(Entry{Kind: Close, Mode: Quiet})
				s.in = append(s.in, sent{typ: 'C', quiet: true})
			} else {
				s.link.Sent(Entry{Kind: Parse, Mode: Quiet, Stmt: stmts.Keep(st)})
				text, bad, _ := strings.Cut(st.Body[1:], "\x00")
				s.in = append(s.in, sent{typ: 'P', text: text, bad: bad == "true", quiet: true})
			}
		}
	case 'H':
		s.link.SentFlush()
		s.in = append(s.in, m)
		return true
	case 'd':
		s.in = append(s.in, m)
		return true
	}
	s.link.Sent(e)
	s.in = append(s.in, m)
	return true
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
	if v == Broken {
		return v
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
	c.Session.drop(&r.stmts)
	*c = peer{direct: newServer()}
	c.direct.dropsUnread = true
	r.serve()
}

// drop gives back what a client holds.
func (s *Session) drop(stmts *Statements) { stmts.Drop(s.Unnamed) }

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
		s.internal(Query, sent{typ: 'Q', text: "commit;cmd"})
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
			s.link.End()
			if c != nil {
				c.server = nil
			}
			*s = lease{pgServer: newServer(), link: New(&r.stmts)}
			r.serve()
			any = true
		}
	}
	return any
}
