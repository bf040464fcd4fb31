// The admin console's way in: its login, its sessions, and what they share.

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/postern/postern/proxy/console"
	"github.com/postern/postern/proxy/params"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
	"github.com/postern/postern/tenants"
)

const (
	// maxConsoles bounds the console's sessions, each of which has a goroutine.
	maxConsoles = 32
	// consoleIdle is how long one may say nothing.
	consoleIdle = time.Hour
	// consoleMessage is how long a message may take that has begun, either way.
	consoleMessage = 30 * time.Second
	// consoleVersion is what drivers are told: the version of the console that
	// this one resembles. A number of today would have them send what only a
	// database understands.
	consoleVersion = "1.25.0/postern"
)

// Console says who may use the admin console, and what it can do that the
// gate cannot. It is only read.
type Console struct {
	Users    map[string]scram.Verifier
	Version  string
	Settings []console.Setting     // what SHOW CONFIG shows
	Reload   func() error          // reads tenants and certificates again
	Shutdown func()                // begins to drain the process, and returns
	Nodes    func() []console.Node // what SHOW NODES shows; nil: nothing
	// Keep writes down what a command says of a tenant where all nodes read it, and returns when they have, or with ctx: then it
	// names those that have not. nil: that cannot be written, and a command says it to this process alone.
	Keep func(ctx context.Context, by tenants.Actor, action, tenant string, edit func(*tenants.Tenant)) (missing []string, err error)
}

// isConsole reports whether a database of this name is the console, where there is one.
func isConsole(database string) bool { return database == "postern" || database == "pgbouncer" }

// consoles is what the sessions share. Safe for concurrent use.
type consoles struct {
	slots chan struct{}

	pausing sync.Mutex // held while everything is paused or resumed, before mu

	mu       sync.Mutex
	disabled map[string]bool
	paused   []string // tenants that a PAUSE of everything has paused
	all      bool     // it is in force
	samples  samples
	sessions map[uint32]*consoleSession // by what stands for their process id
}

func newConsoles() *consoles {
	return &consoles{slots: make(chan struct{}, maxConsoles), disabled: make(map[string]bool), sessions: make(map[uint32]*consoleSession)}
}

func (c *consoles) enter(s *consoleSession) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[s.key.pid] = s
}

func (c *consoles) has(pid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[pid] != nil
}

func (c *consoles) leave(s *consoleSession) {
	<-c.slots
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[s.key.pid] == s {
		delete(c.sessions, s.key.pid)
	}
}

// closed reports whether the tenant takes no new logins.
func (c *consoles) closed(tenant string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.disabled[tenant]
}

// wantsConsole reports whether the client asks for the console and may.
func (h *handshake) wantsConsole() bool {
	return h.via.Console && !h.passed && h.gate.opts.Console != nil && isConsole(h.startup.Database)
}

// loginConsole authenticates a user of the console, who belongs to no tenant,
// and starts the session.
func (h *handshake) loginConsole() error {
	g, s := h.gate, h.startup
	h.route = tenants.Route{User: s.User}
	if s.Replication != "" {
		return deny(denyConsoleReplication)
	}
	if err := h.throttled(); err != nil {
		return err
	}
	verifier, genuine := g.consoleVerifier(s.User)
	_, final, err := h.sasl().prove(g.ctx, &h.visitor, verifier, genuine)
	if err != nil {
		return blame(err, true, genuine)
	}
	select {
	case g.consoles.slots <- struct{}{}:
	default:
		return deny(denyConsoles)
	}
	c := &consoleSession{gate: g, conn: h.stream(), tcp: h.tcp, tls: h.tls, br: h.br, interrupt: make(chan struct{}, 1),
		user: s.User, from: h.peer.Client,
		log: g.log.With("console_user", clip(s.User), "client", h.peer.Client.String())}
	h.tcp = nil
	hello := c.greeting(pgwire.AppendAuthenticationOk(final), s)
	if !g.spawn(func() { c.run(hello) }) {
		c.tcp.Close()
		<-g.consoles.slots
	}
	return nil
}

// consoleVerifier finds what to judge a user by; unknown ones get a mock.
func (g *Gate) consoleVerifier(user string) (scram.Verifier, bool) {
	users := g.opts.Console.Users
	if v, ok := users[user]; ok {
		return v, true
	}
	known := countRounds(func(count func(int)) {
		for _, v := range users {
			count(v.Iterations)
		}
	})
	return g.mock("", user, known), false
}

// consoleSession is one session, in one goroutine, which owns the connection.
type consoleSession struct {
	gate *Gate
	conn net.Conn // tcp, or TLS over it
	tcp  socket
	tls  *tls.Conn     // nil in plaintext
	br   *bufio.Reader // of conn
	log  *slog.Logger
	user string
	from netip.AddrPort

	key       cancelKey
	interrupt chan struct{} // a cancel request came
}

// greeting appends what follows the login.
func (c *consoleSession) greeting(dst []byte, s *pgwire.Startup) []byte {
	name := ""
	for _, p := range s.Params {
		if p.Name == params.ApplicationName {
			name = p.Value
		}
	}
	for _, p := range []pgwire.Param{{Name: "server_version", Value: consoleVersion}, {Name: "server_encoding", Value: "UTF8"},
		{Name: "client_encoding", Value: "UTF8"}, {Name: "DateStyle", Value: "ISO, MDY"}, {Name: "TimeZone", Value: "UTC"},
		{Name: "integer_datetimes", Value: "on"}, {Name: "standard_conforming_strings", Value: "on"},
		{Name: "session_authorization", Value: params.CleanName(s.User)}, {Name: params.ApplicationName, Value: params.CleanName(name)}} {
		dst = pgwire.AppendParameterStatus(dst, p)
	}
	c.key = newCancelKey(s.Version == pgwire.Version32, c.gate.keys.secret, c.gate.consoles.has)
	dst = pgwire.AppendBackendKeyData(dst, c.key.pid, c.key.secret)
	return pgwire.AppendReady(dst, 'I')
}

// cancel takes a CancelRequest for a session of the console, and reports whether it was one.
func (c *consoles) cancel(r cancelRequest) (result string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[r.pid]
	if s == nil || !s.key.is(r.secret) {
		return "", false
	}
	if r.late() {
		return "late", true
	}
	select {
	case s.interrupt <- struct{}{}:
		return "sent", true
	default:
		return "repeated", true
	}
}

// run is the session from the greeting to the end.
func (c *consoleSession) run(hello []byte) {
	g := c.gate
	started, reason := time.Now(), "client_closed"
	g.consoles.enter(c)
	defer g.consoles.leave(c)
	defer func() {
		if r := recover(); r != nil {
			reason = "panic"
			g.metrics.panics.Inc()
			c.log.Error("panic in console", "panic", r, "stack", string(debug.Stack()))
		}
		c.conn.Close()
		c.tcp.Close()
		c.log.Info("console session ended", "reason", reason, "seconds", time.Since(started).Seconds())
	}()
	defer context.AfterFunc(g.ctx, func() { _ = c.tcp.SetDeadline(started) })() // the gate closes
	c.log.Info("console session began")
	if _, err := c.Write(hello); err != nil {
		return
	}
	var last *pgwire.Error
	switch err := c.serve(); {
	case g.ctx.Err() != nil:
		reason, last = "shutdown", errDraining
	case errors.Is(err, console.ErrEnded):
		reason = "terminated"
	case errors.As(err, &last):
		reason = "refused"
	}
	if last != nil {
		_ = farewell(c.tcp, c.tls, func() error {
			_, err := c.conn.Write(last.Append(nil))
			return err
		})
		linger(c.tcp)
	}
}

// serve reads messages and has them answered, until there is a reason to end.
func (c *consoleSession) serve() error {
	s := console.NewSession(&consoleGate{c.gate, c}, c)
	body := make([]byte, 0, 512)
	for {
		if err := c.await(consoleIdle); err != nil {
			return err
		}
		if _, err := c.br.Peek(1); err != nil {
			if isTimeout(err) {
				return errClientIdle
			}
			return err
		}
		if err := c.await(consoleMessage); err != nil {
			return err
		}
		head, err := c.br.Peek(pgwire.HeaderSize)
		size, status := pgwire.ClientFrame(head)
		switch {
		case status == pgwire.FrameBadType:
			return errViolation("invalid frontend message type " + itoa(int(head[0])))
		case err != nil:
			return err
		case status != pgwire.FrameOK:
			return errViolation("invalid message length")
		case size > console.MaxMessage:
			return errConsoleLong
		}
		typ := head[0]
		_, _ = c.br.Discard(pgwire.HeaderSize)
		body = slices.Grow(body[:0], size-pgwire.HeaderSize)[:size-pgwire.HeaderSize]
		if _, err := io.ReadFull(c.br, body); err != nil {
			return err
		}
		if err := s.Handle(typ, body); err != nil {
			return err
		}
	}
}

// await bounds the next reads and writes. It fails once the gate closes, whose
// own deadline must not be put off.
func (c *consoleSession) await(d time.Duration) error {
	_ = c.tcp.SetDeadline(time.Now().Add(d))
	return c.gate.ctx.Err()
}

// Write implements io.Writer for the session's answers.
func (c *consoleSession) Write(p []byte) (int, error) {
	if err := c.await(consoleMessage); err != nil {
		return 0, err
	}
	return c.conn.Write(p)
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// until asks done twenty times a second until it says yes. It fails with
// errCancelled if the client asks for that, and with errQuiet when the client
// leaves or the gate closes.
func (c *consoleSession) until(done func() bool) error {
	select {
	case <-c.interrupt: // it was for what is over
	default:
	}
	if done() {
		return nil
	}
	_ = c.tcp.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if c.leaves() {
			close(gone)
		}
	})
	defer watcher.Wait()
	defer func() { _ = c.tcp.SetReadDeadline(time.Unix(1, 0)) }() // the watcher's end; the next read sets its own
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-gone:
			return errQuiet
		case <-c.interrupt:
			return errCancelled
		case <-c.gate.ctx.Done():
			return errQuiet
		case <-tick.C:
		}
	}
	return nil
}

// leaves reads ahead until the client hangs up or says goodbye, and reports
// whether it does; false: the read was ended, or the client has more to say
// than there is room for.
func (c *consoleSession) leaves() bool {
	goodbye := pgwire.AppendTerminate(nil)
	for {
		ahead, _ := c.br.Peek(c.br.Buffered())
		if bytes.HasSuffix(ahead, goodbye) {
			return true
		}
		if _, err := c.br.Peek(len(ahead) + 1); err != nil {
			return !isTimeout(err) && !errors.Is(err, bufio.ErrBufferFull)
		}
	}
}
