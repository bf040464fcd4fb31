// Whatever bytes a server sends that does not know the password, no login comes of it.

package backend

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// replay is a connection whose peer says the same whatever it is told, and then closes.
type replay struct {
	net.Conn // nil: every method that is not below would panic
	said     *bytes.Reader
	closed   bool
}

func (r *replay) Read(b []byte) (int, error)       { return r.said.Read(b) }
func (r *replay) Write(b []byte) (int, error)      { return len(b), nil }
func (r *replay) Close() error                     { r.closed = true; return nil }
func (r *replay) SetDeadline(time.Time) error      { return nil }
func (r *replay) SetReadDeadline(time.Time) error  { return nil }
func (r *replay) SetWriteDeadline(time.Time) error { return nil }
func (r *replay) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

func FuzzDial(f *testing.F) {
	ok := pgwire.AppendAuthenticationOk(nil)
	f.Add(false, append(ok, greeting()...))
	f.Add(false, append(pgwire.AppendSASL(nil, []string{scram.Mechanism}), pgwire.AppendSASLContinue(nil, []byte("r=x,s=AAAA,i=1"))...))
	f.Add(false, (&pgwire.Error{Severity: pgwire.Fatal, Code: "57P03", Message: "no"}).Append(nil))
	f.Add(true, []byte("S"))
	f.Add(true, []byte("Eno\x00"))
	f.Fuzz(func(t *testing.T, overTLS bool, said []byte) {
		conn := &replay{said: bytes.NewReader(said)}
		target := Target{
			Host: "h", Port: 1, TLS: TLSDisable, User: "u", Credentials: scram.Credentials{Password: "p"},
			Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		}
		if overTLS {
			target.TLS = TLSRequire
		}
		if c, err := Dial(t.Context(), target); err == nil || c != nil {
			t.Fatalf("a login without proof: %v", c)
		}
		if !conn.closed {
			t.Fatal("the connection was left open")
		}
	})
}
