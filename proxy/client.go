// A client session on its loop: from the greeting to the last byte.

package proxy

import (
	"time"

	"github.com/postern/postern/pool"
	"github.com/postern/postern/proxy/lease"
	"github.com/postern/postern/proxy/link"
	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/sqltext"
)

// lingerFor is how long a closed session waits for its client to read the last words.
const lingerFor = 2 * time.Second

type poolMode uint8

const (
	sessionMode poolMode = iota
	transactionMode
	statementMode
)

func (m poolMode) String() string {
	return [...]string{sessionMode: "session", transactionMode: "transaction", statementMode: "statement"}[m]
}

func parseMode(s string) poolMode {
	switch s {
	case "transaction":
		return transactionMode
	case "statement":
		return statementMode
	}
	return sessionMode
}

// stage is how far a session has come.
type stage uint8

const (
	stageGreeting stage = iota // it is not greeted yet
	stageOpen
	stageLeaving // it has said its last: it goes when what it asked for is done
	stageGone
)

// intake is what is done with a client's input.
type intake uint8

const (
	flowing intake = iota // it is dealt with as it comes
	blocked               // it is not read: the client waits for a server, or something is full
	ahead                 // it is read nevertheless, and kept; see readAhead
	goodbye               // it is not read: all that will come is here, and ends in a goodbye; see saidGoodbye
)

// client is one session. Everything is the loop's thread's.
type client struct {
	books    pool.Client
	tenant   *tenant
	pool     *serverPool
	conn     *loop.Conn
	listener *Listener
	peer     proxyproto.Peer
	database string
	secure   bool  // nobody could read along on its way here
	place    place // what it counts against
	params   *params.Set
	told     *params.Reports     // of its server's parameters, last
	came     *params.Set         // what it came with
	has      lease.Holder        // what is known of its session, for its leases
	parsed   sqltext.Note        // of the texts that it has parsed, in session mode; see mayReset
	vacating map[string][]string // by prepared statement, in session mode: the databases that it wants for itself
	id       uint64              // in the console
	key      cancelKey           // from the greeting on
	long     bool                // its secret is a long one
	away     bool                // it goes between two transactions, as if this node drained
	index    int                 // in tenant.clients
	mode     poolMode

	stage    stage
	intake   intake
	farewell *pgwire.Error // what it is told then; nil: nothing
	revoked  *pgwire.Error // to be sent away at the next message boundary
	reason   string        // why, for the log
	refused  *pgwire.Error // what a server said to the client's parameters

	server  *server
	in      []byte // borrowed: input that was read and not dealt with
	charged int    // what that takes, if it counts
	partial int    // bytes of the current message that are passed on unseen
	discard int    // bytes of the current message that are dropped
	cut     int    // see insert
	sess    link.Session

	timeouts *sessionTimeouts // in force
	due      *sessionTimeouts // from its next request on
	quiet    time.Time        // since when it has been idle, if it is

	started        time.Time
	received, sent uint64
	seen           uint64 // of received, when it was last found blocked
	queries        uint64
}

func (c *client) greeting() bool { return c.stage == stageGreeting }
func (c *client) leaving() bool  { return c.stage == stageLeaving }
func (c *client) gone() bool     { return c.stage == stageGone }
func (c *client) blocked() bool  { return c.intake != flowing }

// block stops dealing with input, until resume.
func (c *client) block() {
	if c.intake == flowing {
		c.intake = blocked
	}
}

// Ready implements loop.Handler.
func (c *client) Ready(*loop.Conn) {
	if c.gone() {
		return
	}
	if c.conn.Pending() == 0 && c.server != nil && c.server.stalled {
		c.server.resume()
	}
	switch {
	case c.gone():
	case c.blocked():
		if c.resume(); c.intake == ahead && !c.gone() {
			c.readAhead()
		}
	default:
		c.pump()
	}
	if !c.gone() && c.blocked() && c.left() {
		c.end(goneBecause(c.conn.Err()))
	}
}

// left reports whether a blocked client is gone, as far as can be told without
// dealing with its input. Who has said its last is answered first, though
// nobody may read that: as with Postgres, what it asked for is done.
func (c *client) left() bool { return !c.leaving() && c.conn.HalfClosed() && !c.saidGoodbye() }

// saidGoodbye reports whether a client whose input is not dealt with has asked
// for all that it will and said goodbye, so that it is waited for although it
// may be gone: what was asked for before a Terminate is done.
func (c *client) saidGoodbye() bool {
	if c.intake == flowing || c.intake == goodbye {
		return c.intake == goodbye
	}
	for c.conn.Readable() { // what it has sent ahead is all here, in the socket
		more, err := c.readOn()
		if c.gone() || !more && c.conn.Readable() {
			return true // or its turn is over: asked again in the next
		}
		if err != nil {
			break
		}
	}
	if !endsInGoodbye(c.in[min(c.begun(), len(c.in)):]) {
		return false
	}
	c.intake = goodbye
	return true
}

// endsInGoodbye reports whether a Terminate is among whole messages.
func endsInGoodbye(in []byte) bool {
	for {
		size, status := pgwire.ClientFrame(in)
		if status != pgwire.FrameOK || size > len(in) {
			return false
		}
		if in[0] == pgwire.Terminate {
			return true
		}
		in = in[size:]
	}
}

// Panicked implements loop.Handler.
func (c *client) Panicked(*loop.Conn) {
	defer c.tenant.verify() // whatever becomes of the next line
	c.end("panic")
}

// pump reads and deals with what is there.
func (c *client) pump() {
	for !c.blocked() && !c.gone() {
		buf := c.tenant.loop.Scratch()
		held := len(c.in)
		collecting := held > len(buf)/2
		if !collecting {
			buf = buf[held:]
		}
		n, err := c.conn.Read(buf)
		if n > 0 {
			c.arrived(n)
			if collecting {
				c.in = c.tenant.loop.Append(c.in, buf[:n])
				if c.charge() {
					c.process(c.in)
				}
			} else {
				full := c.tenant.loop.Scratch()[:held+n]
				copy(full, c.in)
				c.keep(nil)
				c.process(full)
			}
		}
		if err == loop.ErrWouldBlock {
			return
		}
		if err != nil {
			c.end(goneBecause(err))
			return
		}
	}
}

func (c *client) arrived(n int) {
	c.received += uint64(n)
	c.tenant.counters.bytesIn.Add(uint64(n))
}

// process deals with data and holds what is left. data may be c.in itself.
func (c *client) process(data []byte) {
	n := c.feed(data)
	if c.gone() {
		return
	}
	rest := data[n:]
	if len(c.in) > 0 { // data is c.in
		switch {
		case n == 0:
			return
		case len(rest) > loop.ScratchSize: // nor worth moving
			c.in = rest
			return
		case len(rest) > cap(c.in)/4: // not worth a smaller buffer
			c.in = c.in[:copy(c.in, rest)]
			return
		}
	}
	c.keep(rest)
}

// keep replaces what is held by a copy of rest.
func (c *client) keep(rest []byte) {
	c.tenant.loop.Free(c.in)
	c.in = c.tenant.loop.Append(nil, rest)
	if c.charged > 0 || cap(c.in) > pendingFrom {
		c.charge()
	}
}

// resume goes on with input after something that blocked it may be over.
func (c *client) resume() {
	if c.gone() || !c.blocked() || !c.mayGoOn() {
		return
	}
	left := c.intake == goodbye // and its end, which the loop has told of, is to be read
	c.intake = flowing
	if len(c.in) > 0 {
		c.process(c.in)
	}
	if c.gone() {
		return
	}
	if !c.blocked() && c.conn.Readable() || left {
		c.conn.Again()
	}
}

// begun is how much is missing of a message that was dealt with already.
func (c *client) begun() int { return c.partial + c.discard }

// mayGoOn reports whether nothing blocks the client's input. The rest of a
// message that has begun waits for the server's socket only: it is what the
// server waits for, and no rule about the next message concerns it.
func (c *client) mayGoOn() bool {
	if c.greeting() || c.leaving() || c.books.Waiting() {
		return false
	}
	s := c.server
	switch {
	case s == nil:
		return true
	case s.conn.Pending() > 0:
		return false
	case c.begun() > 0:
		return true
	}
	return s.takes() && !c.awaits()
}

// acquire asks the pool for a server. False: the client waits, or is gone.
func (c *client) acquire() bool {
	t := c.tenant
	if s := c.pool.books.Acquire(&c.books, nil, t.loop.Now()); s != nil {
		return c.lent(s.Owner.(*server))
	}
	c.block()
	c.timeouts = c.due
	t.keepSweeping()
	t.dialMore()
	if c.books.Waiting() {
		if err := c.pool.books.Failing(c.books.WaitedSince(), t.loop.Now()); err != nil {
			c.fail(errDial(err), "no_server")
		}
		return false
	}
	return c.server != nil && !c.blocked()
}

// greet sends the rest of the login: parameters, cancel key, ReadyForQuery.
func (c *client) greet() {
	c.stage, c.quiet = stageOpen, c.tenant.loop.Now()
	out := append(c.tenant.insert[:0], c.told.Messages()...)
	name, _ := c.params.Get(params.ApplicationName)
	out = pgwire.AppendParameterStatus(out, pgwire.Param{Name: params.ApplicationName, Value: params.CleanName(name)})
	pid := uint32(0)
	if c.mode == sessionMode {
		pid = c.server.pid // which is its own until it leaves
	}
	c.key = c.tenant.gate.keys.add(c, c.tenant, c.long, pid)
	out = pgwire.AppendBackendKeyData(out, c.key.pid, c.key.secret)
	out = pgwire.AppendReady(out, 'I')
	c.tenant.insert = out
	c.write(out)
}

// write sends bytes of a complete message or more.
func (c *client) write(b []byte) {
	c.sent += uint64(len(b))
	c.tenant.counters.bytesOut.Add(uint64(len(b)))
	c.conn.Write(b)
}

// query counts a query or an execution that goes to the server.
func (c *client) query(state sqltext.State) {
	c.server.sequences.Sent(state)
	if c.tenant.policies.Always {
		c.server.traces.MarkDirty()
	}
	c.queries++
	c.tenant.counters.queries.Add(1)
}

// admit brings a client that has proved who it is to the loop.
func (t *tenant) admit(c *client, fd int, h handover) {
	conn, err := t.loop.Attach(fd, h.tls, h.swap, c)
	if err != nil {
		t.log.Warn("client not attached", "error", err)
		t.gate.release(t, c.place)
		return
	}
	c.conn = conn
	conn.Write(h.owed) // one system call with the greeting, if that can be sent in this turn
	c.books.Owner = c
	c.block() // not greeted yet
	c.index = len(t.clients)
	t.clients = append(t.clients, c)
	c.in = t.loop.Append(nil, h.early)
	c.pool = t.pool(h.key)
	list := params.Effective(h.params)
	if t.conf != nil {
		list = withAddress(list, t.conf.ClientAddress, c.peer.Client)
	}
	c.params = c.pool.sets.Intern(list)
	c.came = c.params
	c.has.Names = c.came.Names()
	if c.mode == sessionMode {
		c.has.Alone = true
		t.machine.sessions++
	}
	c.due = t.timeoutsOf(c)
	c.timeouts = c.due
	t.keepSweeping()
	revoked := c.standing().revoked(t.conf, time.Now()) // changed since it was asked
	switch {
	case revoked == "address_revoked":
		c.fail(denyAddress.tell(c.peer.Client.Addr(), t.id), revoked)
	case revoked != "":
		c.fail(errRevoked, revoked)
	case t.draining:
		c.fail(errDraining, "drain")
	case c.params.Told() != nil && c.mode != sessionMode: // that is told its server's process id
		c.confirm()
	default:
		c.login() // which wakes a machine
	}
}
