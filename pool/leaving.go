// Places that are not free yet: a server that was closed here may still be there, and whoever takes its place connects when it is gone.

package pool

// Linger says that a server that has left its pool, or whose dial was given up, may still be there at its end. Until Gone is called
// it takes a place from those that are to connect.
func (p *Pool) Linger(s *Server) { p.set(s, Closed, Leaving, nil) }

// Gone says that nothing is left of a server. One that does not linger is left alone.
func (p *Pool) Gone(s *Server) {
	if s.state == Leaving {
		p.set(s, Leaving, Closed, nil)
	}
}

// left says whether s has left the pool while it was dialed.
func (p *Pool) left(s *Server) bool { return (s.state == Closed || s.state == Leaving) && s.pool == p }

// park has a server that is to be dialed wait for its turn.
func (t *Tenant) park(s *Server) {
	t.parked.pushBack(&s.parking, s)
	s.pool.countParked(1)
}

func (t *Tenant) unpark(s *Server) {
	t.parked.remove(&s.parking)
	s.pool.countParked(-1)
}

func (p *Pool) countParked(by int) {
	p.parked += by
	for _, g := range p.groups {
		g.parked += by
	}
}

// used returns how many servers of the pool there are, or may be, at the other end.
func (p *Pool) used() int { return p.Servers() - p.parked + p.servers[Leaving].n }

// used is likewise.
func (g *Group) used() int { return g.Servers() - g.parked + g.servers[Leaving] }

// Used returns how many servers of all pools there are, or may be, at the other end.
func (t *Tenant) Used() int { return t.all.used() }

// NextConnect returns the server that is to connect now, or nil: of those whose dials were started and that may not yet, the first for
// which all limits have a place that is really free. Ask whenever a server is gone, a dial has ended or a limit was raised, until there
// is none.
func (t *Tenant) NextConnect() *Server {
	if t.allDialing() {
		return nil
	}
	for n := t.parked.head; n != nil; n = n.next {
		if s := n.item; s.pool.hasPlace() {
			t.unpark(s)
			return s
		}
	}
	return nil
}

// hasPlace says whether one server of the pool more may be at the other end.
func (p *Pool) hasPlace() bool {
	if p.used() >= p.most() {
		return false
	}
	for _, g := range p.groups {
		if g.used() >= g.most() {
			return false
		}
	}
	return true
}

// lastParked returns the server that has waited shortest for its turn, of those in g, or nil.
func (t *Tenant) lastParked(in func(*Pool) bool) *Server {
	for n := t.parked.tail; n != nil; n = n.prev {
		if in(n.item.pool) {
			return n.item
		}
	}
	return nil
}
