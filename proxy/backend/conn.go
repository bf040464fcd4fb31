// Dial makes a Conn, a server connection that is ready for its first query.

package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/postern/postern/proxy/loop"
	"github.com/postern/postern/proxy/pgwire"
)

// closeTimeout bounds the farewell to a server that does not read.
const closeTimeout = time.Second

// Parameter is a setting that a server reported.
type Parameter = pgwire.Param

// Conn is a server connection after login: idle, in no transaction, with no
// unread bytes in user space and no deadline. Whoever holds it owns it and
// closes it. It prints as its process id only, because its Secret is one.
type Conn struct {
	Net *loop.Swap // around the *net.TCPConn
	TLS *tls.Conn  // over Net; nil in plaintext

	PID    uint32 // the server's process id, 0 where it gave none
	Secret []byte // what a CancelRequest needs; empty where the server gave none

	// Parameters are the server's ParameterStatus messages in the order of
	// their arrival. Of a name that comes twice, the last counts.
	Parameters []Parameter
}

// Dial connects and logs in. It returns after ReadyForQuery, when ctx no longer
// has a hold on the connection; ctx must carry the deadline for all of it.
// On error everything is closed. The errors are *ServerError, *ProtocolError,
// those of this package's variables, and wrapped ones of net, crypto/tls and
// ctx; Retryable tells the passing ones apart.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	if err := t.checkServer(); err != nil {
		return nil, err
	}
	if err := t.checkLogin(); err != nil {
		return nil, err
	}
	w, err := open(ctx, &t)
	if err != nil {
		return nil, err
	}
	l := &login{wire: w, t: &t}
	if t.Permit != nil {
		err = t.Permit()
	}
	if err == nil {
		err = l.run()
	}
	if err == nil {
		err = w.release()
	}
	if err != nil {
		w.close()
		return nil, w.failed("login", passwordRefused(&t, err))
	}
	return &Conn{Net: w.swap, TLS: w.tls, PID: l.pid, Secret: l.secret, Parameters: l.parameters}, nil
}

// Close says Terminate, as far as the server listens, and closes. It may be
// called only while nobody else uses the connection, and takes at most a second.
func (c *Conn) Close() error {
	_ = c.Net.SetDeadline(time.Now().Add(closeTimeout))
	farewell := pgwire.AppendTerminate(nil)
	if c.TLS != nil {
		_, _ = c.TLS.Write(farewell)
	} else {
		_, _ = c.Net.Write(farewell)
	}
	return c.Net.Close()
}

// String names the connection by its server process.
func (c *Conn) String() string { return fmt.Sprintf("server process %d", c.PID) }

// Format writes String, whatever the verb.
func (c *Conn) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue is String.
func (c *Conn) LogValue() slog.Value { return slog.StringValue(c.String()) }
