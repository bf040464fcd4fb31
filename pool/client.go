// A Client is one client session's place in the books: away, in a queue, or with a server.

package pool

import "time"

// Client is the pool's part of a client session. It is made to be a field of the owner's own struct and must not be
// copied. It may use one pool after another, but only one at a time.
type Client struct {
	Owner any // whose field this is; set once by the owner, never touched here
	// Noticed is a mark for the owner, such as "was told that it waits". Acquire clears it.
	Noticed bool

	node   node[Client] // its place in the queue of the pool that it waits for
	server *Server      // who serves it
	since  time.Time    // when it last asked for a server
}

// Waiting says whether the client stands in a queue.
func (c *Client) Waiting() bool { return c.node.list != nil }

// Server returns the server that is lent to the client, or nil.
func (c *Client) Server() *Server { return c.server }

// WaitedSince returns when the client last called Acquire. It stays valid while the client is served, so that the
// time it waited can be told.
func (c *Client) WaitedSince() time.Time { return c.since }

// expectAway panics unless the client neither waits nor is served.
func (c *Client) expectAway() {
	if c.Waiting() {
		panic("BUG: pool: client waits already")
	}
	if c.server != nil {
		panic("BUG: pool: client has a server already")
	}
}
