// Check recounts the books; tests call it after every step, and the gate after a panic.

package pool

import (
	"errors"
	"fmt"
)

// Check walks over all lists of the tenant and returns everything that is counted or linked wrongly by the
// invariants in doc.go, or nil. It takes time in proportion to the number of servers and waiting clients.
func (t *Tenant) Check() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	groups, parked := map[*Group]*[numStates]int{&t.all: {}}, map[*Group]int{}
	waiting, queued := 0, 0
	checkList(&t.queued, func(p *Pool) *node[Pool] { return &p.queued }, fail)
	for p := range t.Pools() {
		if p.tenant != t {
			fail("%v: stands in the list of another tenant", p)
		}
		p.check(fail)
		for scope, g := range p.groups {
			if groups[g] == nil {
				groups[g] = new([numStates]int)
			}
			if p.places[scope].list != &g.pools || g.scope != Scope(scope) {
				fail("%v: does not stand in its group", p)
			}
			for state := range p.servers {
				groups[g][state] += p.servers[state].n
			}
			parked[g] += p.parked
		}
		waiting += p.waiters.n
		if p.queued.list == &t.queued {
			queued++
		}
		if inQueue := p.queued.list != nil; inQueue != (p.waiters.n > 0) {
			fail("%v: among the pools with waiters: %v", p, inQueue)
		}
	}
	for g, servers := range groups {
		checkList(&g.pools, func(p *Pool) *node[Pool] { return &p.places[g.scope] }, fail)
		if *servers != g.servers {
			fail("servers by state: pools have %v, their group counts %v", *servers, g.servers)
		}
		if parked[g] != g.parked {
			fail("dials that do not connect yet: pools have %d, their group counts %d", parked[g], g.parked)
		}
	}
	checkList(&t.parked, func(s *Server) *node[Server] { return &s.parking }, fail)
	if t.parked.n != t.all.parked {
		fail("dials that do not connect yet: %d, tenant lists %d", t.all.parked, t.parked.n)
	}
	if waiting != t.waiting {
		fail("waiting clients: pools have %d, tenant counts %d", waiting, t.waiting)
	}
	if queued != t.queued.n {
		fail("pools with waiters: %d, tenant lists %d", queued, t.queued.n)
	}
	return errors.Join(errs...)
}

func (p *Pool) check(fail func(string, ...any)) {
	parked := 0
	for state := range p.servers {
		checkList(&p.servers[state], func(s *Server) *node[Server] { return &s.node }, fail)
		for n := p.servers[state].head; n != nil; n = n.next {
			s := n.item
			if s.pool != p || s.state != State(state) {
				fail("%v: a server that says it is %v stands among the %v", p, s.state, State(state))
			}
			if s.parking.list != nil {
				if parked++; s.state != Dialing {
					fail("%v: a %v server is yet to connect", p, s.state)
				}
			}
			if (s.client != nil) != (s.state == Active) {
				fail("%v: a %v server has a client: %v", p, s.state, s.client != nil)
			}
			if s.client != nil && (s.client.server != s || s.client.Waiting()) {
				fail("%v: a server's client is not served by it alone", p)
			}
		}
	}
	if parked != p.parked {
		fail("%v: %d dials do not connect yet, counted are %d", p, parked, p.parked)
	}
	for n := p.servers[Idle].head; n != nil && n.next != nil; n = n.next {
		if n.item.idleSince.Before(n.next.item.idleSince) {
			fail("%v: idle servers are out of order", p)
		}
	}
	checkList(&p.waiters, func(c *Client) *node[Client] { return &c.node }, fail)
	for n := p.waiters.head; n != nil; n = n.next {
		if n.item.server != nil {
			fail("%v: a waiting client has a server", p)
		}
		if n.next != nil && n.next.item.since.Before(n.item.since) {
			fail("%v: waiting clients are out of order", p)
		}
	}
	if p.servers[Closed].n > 0 {
		fail("%v: keeps closed servers", p)
	}
	if p.servers[Idle].n > 0 && p.waiters.n > 0 {
		fail("%v: has idle servers and waiting clients", p)
	}
}

// checkList checks one list's links; nodeOf finds the node that a member uses for this list.
func checkList[T any](l *list[T], nodeOf func(*T) *node[T], fail func(string, ...any)) {
	count := 0
	var prev *node[T]
	for n := l.head; n != nil; n = n.next {
		count++
		if count > l.n {
			break
		}
		if n.list != l || n.prev != prev || n.item == nil || nodeOf(n.item) != n {
			fail("list of %T: member %d is linked wrongly", *new(*T), count)
		}
		prev = n
	}
	if count != l.n || count <= l.n && l.tail != prev {
		fail("list of %T: counts %d members, has %d, ends right: %v", *new(*T), l.n, count, l.tail == prev)
	}
}
