// A Server is one server connection's place in the books, and Pool.set is the only function that moves it.

package pool

import (
	"fmt"
	"time"
)

// State says which list a server stands in.
type State uint8

// The states of a server; doc.go has the diagram.
const (
	Closed   State = iota // in no list: not yet dialed, or gone for good
	Dialing               // a goroutine connects and logs in, or will when its turn comes
	Idle                  // ready to be lent
	Active                // lent to a client
	Cleaning              // without a client: being rolled back or reset, or a cancel is aimed at it
	Leaving               // closed here, and perhaps still there at its other end
	numStates
)

// String returns the state's name in lower case, as logs and metric labels use it.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Dialing:
		return "dialing"
	case Idle:
		return "idle"
	case Active:
		return "active"
	case Cleaning:
		return "cleaning"
	case Leaving:
		return "leaving"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Server is the pool's part of a server connection. It is made to be a field of the owner's own struct and must not be
// copied or used for a second dial.
type Server struct {
	Owner any // whose field this is; set once by the owner, never touched here

	node    node[Server] // its place in pool.servers[state]
	parking node[Server] // its place in tenant.parked, while it is Dialing and does not connect yet
	pool    *Pool        // set by StartDial, kept after it closed
	state   State
	client  *Client // whom it is lent to; non-nil exactly while Active

	retired     bool      // to be closed instead of released
	jitter      float64   // in [0, 1): which share of lifetimeSpread its life is shorter by
	dialStart   time.Time // when the dial began
	connectedAt time.Time // when the login was done
	idleSince   time.Time // when it last became Idle
}

// State returns where the server stands.
func (s *Server) State() State { return s.state }

// Pool returns the pool that the server was dialed for, also after it closed; nil before the dial.
func (s *Server) Pool() *Pool { return s.pool }

// Client returns the client that the server is lent to, or nil.
func (s *Server) Client() *Client { return s.client }

// ConnectedAt returns when the server's login was done; zero before that.
func (s *Server) ConnectedAt() time.Time { return s.connectedAt }

// IdleSince returns when the server last became idle; zero if it never was.
func (s *Server) IdleSince() time.Time { return s.idleSince }

// Retired says whether the server will be closed instead of released, or was closed because it was retired, or before all were.
func (s *Server) Retired() bool { return s.retired }

// set is the one place where a server changes state and where servers and clients are tied together or parted. The
// client is given exactly when the new state is Active. From Active to Active is a hand-over.
func (p *Pool) set(s *Server, from, to State, c *Client) {
	p.expect(s, from)
	if (c != nil) != (to == Active) {
		panic(fmt.Sprintf("BUG: pool: server becomes %v with client %v", to, c != nil))
	}
	if c != nil {
		c.expectAway()
	}
	if s.client != nil {
		s.client.server = nil
		s.client = nil
	}
	if from != to {
		if s.parking.list != nil {
			p.tenant.unpark(s)
		}
		if from != Closed {
			p.servers[from].remove(&s.node)
			p.count(from, -1)
		}
		if to != Closed {
			// At the front: this makes idle servers last in, first out; the other lists' order means nothing.
			p.servers[to].pushFront(&s.node, s)
			p.count(to, 1)
		}
		s.state = to
	}
	if c != nil {
		s.client = c
		c.server = s
	}
}

// expectConnected panics if nobody was told that s may connect.
func (s *Server) expectConnected() {
	if s.parking.list != nil {
		panic("BUG: pool: server has not had its turn to connect")
	}
}

// expect panics unless s is a server of p in the given state.
func (p *Pool) expect(s *Server, want State) {
	if s.pool != p {
		panic("BUG: pool: server of another pool")
	}
	if s.state != want {
		panic(fmt.Sprintf("BUG: pool: server is %v, not %v", s.state, want))
	}
}
