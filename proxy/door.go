// The way in for who comes by another way than a listener: a caller has an address, a startup message and a proof, and no socket.

package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/proxyproto"
	"github.com/postern/postern/proxy/scram"
)

// Door lets in callers that whoever has the door brings, by the rules that hold for connections: routing, admission, throttle,
// proof and places are the same steps. Make it with Gate.Door. Safe for concurrent use.
type Door struct {
	gate *Gate
	via  Listener
}

// Door makes a way in, to be kept: one for all callers of a kind. Of via count the name, the mode and the timeouts. Nothing
// listens, and there is no admin console.
func (g *Gate) Door(via Listener) *Door { return &Door{g, via} }

// Caller is somebody at a door. Whoever brings a caller answers for Client and Secure, and for nothing else.
type Caller struct {
	Client netip.AddrPort // its own address, from a source that is trusted
	Secure bool           // nobody could read along on its way here: it may be let in where TLS is required
	Host   string         // the host name that it wants to reach, which may name its tenant as SNI does; "": none
	// Version and Startup are what stands in a startup message: the protocol's version, 0 for pgwire.Version30, and the
	// parameters. See pgwire.StartupBody.
	Version uint32
	Startup []byte
	Proof   Proof
}

// Exchange carries the messages of a SASL conversation, as bytes. Deadlines end it, as those of a net.Conn do.
type Exchange interface {
	io.ReadWriter
	SetDeadline(time.Time) error
}

// SASL is the proof of who holds a SCRAM conversation as clients of Postgres do, without channel binding. What the caller says
// behind it is left unread.
func SASL(e Exchange) Proof { return dialogue{sasl{in: e, out: e}, e} }

// dialogue is a conversation that ends with its context.
type dialogue struct {
	sasl
	over Exchange
}

// prove implements Proof.
func (e dialogue) prove(ctx context.Context, v *visitor, verifier scram.Verifier, genuine bool) (scram.ClientKey, []byte, error) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = e.over.SetDeadline(v.started)
		close(ended)
	})
	defer func() {
		if !stop() {
			<-ended
		}
	}()
	return e.sasl.prove(ctx, v, verifier, genuine)
}

// What a caller cannot be told in Postgres's words.
var (
	ErrHandshakes  = errors.New("too many logins are under way, from everywhere or from this address")
	ErrReplication = errors.New("replication needs a connection to a listener")
	ErrCaller      = errors.New("the caller has no address, no proof, or a startup message that is too long")
)

// Admit does for a caller what a handshake does up to the password, and reserves a place. The error of a caller that is refused is
// a *pgwire.Error, which it may be told as it is; refusals are counted and logged as for connections. Any other error is nobody's
// business but the log's: ErrHandshakes, ErrReplication, ErrCaller, ErrGateClosed, io.ErrUnexpectedEOF if the caller has left in
// the middle of its proof, or that of ctx.
//
// Nothing is left behind when Admit fails or ctx ends. Timeouts.Login bounds it.
func (d *Door) Admit(ctx context.Context, c Caller) (*Seat, error) {
	g := d.gate
	switch {
	case g.draining.Load():
		return nil, errDraining
	case !c.Client.IsValid() || c.Proof == nil || len(c.Startup) > pgwire.MaxStartup:
		return nil, ErrCaller
	case !g.enterHandshake(&d.via):
		return nil, ErrHandshakes
	}
	defer g.leaveHandshake()
	peer := proxyproto.Direct(c.Client)
	client := peer.Client.Addr()
	if !g.enterAddress(client) {
		g.count(denyHandshakes, "")
		return nil, ErrHandshakes
	}
	defer g.leaveAddress(client)

	v := &visitor{gate: g, via: &d.via, peer: peer, secure: c.Secure, shown: identity{asked: true}, host: c.Host, started: time.Now()}
	within, cancel := context.WithDeadline(ctx, v.started.Add(g.opts.Timeouts.Login))
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	var seat *Seat
	err := v.addressRate()
	if err == nil {
		seat, err = v.takeSeat(within, c)
	}
	switch {
	case err == nil && ctx.Err() != nil:
		seat.Leave()
		return nil, ctx.Err()
	case err == nil:
		return seat, nil
	case errors.Is(err, errQuiet):
		return nil, d.gone(within)
	}
	return nil, v.turnAway(err)
}

// gone is why a caller has not proved anything.
func (d *Door) gone(ctx context.Context) error {
	switch {
	case d.gate.ctx.Err() != nil:
		return ErrGateClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return io.ErrUnexpectedEOF
}

// takeSeat is the way from a startup message to a place.
func (v *visitor) takeSeat(ctx context.Context, c Caller) (*Seat, error) {
	version := c.Version
	if version == 0 {
		version = pgwire.Version30
	}
	var err error
	if v.startup, err = pgwire.ParseStartup(version, c.Startup); err != nil {
		return nil, denyMessage(err)
	}
	if v.startup.Replication != "" {
		return nil, ErrReplication
	}
	conf, err := v.admit()
	if err != nil {
		return nil, err
	}
	r, final, err := v.prove(ctx, conf, c.Proof)
	if err != nil {
		return nil, err
	}
	if err := v.refusal(r); err != nil {
		r.release()
		return nil, err
	}
	return &Seat{visitor: v, reservation: r, owed: pgwire.AppendAuthenticationOk(final)}, nil
}

// turnAway counts a refusal and returns what the caller may be told. The log comes after the answer, as with connections: it is
// nobody's to hear how long it takes.
func (v *visitor) turnAway(err error) error {
	d := v.denied(err)
	if d == nil {
		return err
	}
	if !v.gate.spawn(func() { v.logDenial(d) }) {
		v.logDenial(d)
	}
	return d.told
}

// Seat is the place of a caller that has proved its password. It is for one session: Open begins it, and Leave is called in any
// case.
type Seat struct {
	visitor     *visitor
	reservation reservation
	owed        []byte
	used        atomic.Bool
}

// Open begins the session on its tenant's loop and returns the caller's end of it, on which Postgres's protocol goes on where the
// proof ended: with AuthenticationOk, after the last SASL message if there was a conversation. To close it is to leave as a client
// does. It is a socket, with another one in the loop: whoever brings callers makes room for both among the files that may be open.
func (s *Seat) Open() (net.Conn, error) {
	if s.used.Swap(true) {
		return nil, errors.New("this seat has been used")
	}
	fd, far, err := loop.Pair()
	if err != nil {
		s.reservation.release()
		return nil, err
	}
	if !s.visitor.begin(s.reservation, fd, handover{owed: s.owed}) {
		far.Close()
		return nil, ErrGateClosed
	}
	return far, nil
}

// Leave gives the place back if no session has it.
func (s *Seat) Leave() {
	if !s.used.Swap(true) {
		s.reservation.release()
	}
}
