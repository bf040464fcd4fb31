// A client that says exactly what a test wants: well-formed messages by pgproto3/v2, which the product does not use, or any
// bytes at all.

package harness

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"
)

// Protocol versions and request codes of the first packet (PostgreSQL documentation, "Message Formats").
const (
	Protocol30 uint32 = 3 << 16
	Protocol32 uint32 = 3<<16 | 2
	sslRequest uint32 = 1234<<16 | 5679
)

// maxBody is more than any answer a test asks for.
const maxBody = 64 << 20

// A Script is one raw connection. Anything unexpected fails the test.
type Script struct {
	t    testing.TB
	conn net.Conn
}

// Dial connects to address and first sends header, if any. The connection is closed when the test ends.
func Dial(t testing.TB, address string, header ...byte) *Script {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	conn, err := ProxyDialer{Header: header}.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Script{t, conn}
}

// Conn is the connection, inside TLS after StartTLS.
func (s *Script) Conn() net.Conn { return s.conn }

// Close closes the connection.
func (s *Script) Close() { s.conn.Close() }

// Raw sends bytes as they are.
func (s *Script) Raw(b []byte) {
	s.t.Helper()
	_ = s.conn.SetWriteDeadline(time.Now().Add(Patience))
	if _, err := s.conn.Write(b); err != nil {
		s.t.Fatalf("sending: %v", err)
	}
}

// Send sends messages in one write.
func (s *Script) Send(messages ...pgproto3.FrontendMessage) {
	s.t.Helper()
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			s.t.Fatalf("encoding %T: %v", m, err)
		}
	}
	s.Raw(b)
}

// Startup sends a startup packet.
func (s *Script) Startup(version uint32, params map[string]string) {
	s.t.Helper()
	s.Send(&pgproto3.StartupMessage{ProtocolVersion: version, Parameters: params})
}

// SSLRequest sends one and returns the answer, S or N.
func (s *Script) SSLRequest() byte {
	s.t.Helper()
	s.Raw(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest))
	return s.bytes(1)[0]
}

// StartTLS goes on in TLS: after SSLRequest, or at once for direct TLS (with ALPN postgresql in conf).
func (s *Script) StartTLS(conf *tls.Config) {
	s.t.Helper()
	conn := tls.Client(s.conn, conf)
	ctx, cancel := context.WithTimeout(s.t.Context(), Patience)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		s.t.Fatalf("TLS handshake: %v", err)
	}
	s.conn = conn
}

func (s *Script) bytes(n int) []byte {
	s.t.Helper()
	b := make([]byte, n)
	_ = s.conn.SetReadDeadline(time.Now().Add(Patience))
	if _, err := io.ReadFull(s.conn, b); err != nil {
		s.t.Fatalf("reading %d bytes: %v", n, err)
	}
	return b
}

// ReadMessage reads one message: its type and its body.
func (s *Script) ReadMessage() (kind byte, body []byte) {
	s.t.Helper()
	head := s.bytes(5)
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > maxBody {
		s.t.Fatalf("message %q claims a length of %d", head[0], n)
	}
	return head[0], s.bytes(int(n) - 4)
}

// Expect reads one message of a type and returns its body. An ErrorResponse instead is told in full.
func (s *Script) Expect(kind byte) []byte {
	s.t.Helper()
	got, body := s.ReadMessage()
	if got == kind {
		return body
	}
	if got == 'E' {
		e := s.decodeError(body)
		s.t.Fatalf("want message %q, got %s %s: %s", kind, e.Severity, e.Code, e.Message)
	}
	s.t.Fatalf("want message %q, got %q %q", kind, got, body)
	return nil
}

// Until reads up to and including the first message of a type and returns all that was read as types, in order.
func (s *Script) Until(kind byte) string {
	s.t.Helper()
	var kinds []byte
	for {
		got, _ := s.ReadMessage()
		kinds = append(kinds, got)
		if got == kind {
			return string(kinds)
		}
	}
}

// ExpectError reads an ErrorResponse with a SQLSTATE.
func (s *Script) ExpectError(sqlstate string) pgproto3.ErrorResponse {
	s.t.Helper()
	e := s.decodeError(s.Expect('E'))
	if e.Code != sqlstate {
		s.t.Fatalf("want SQLSTATE %s, got %s %s: %s", sqlstate, e.Severity, e.Code, e.Message)
	}
	return e
}

func (s *Script) decodeError(body []byte) (e pgproto3.ErrorResponse) {
	s.t.Helper()
	if err := e.Decode(body); err != nil {
		s.t.Fatalf("ErrorResponse %q: %v", body, err)
	}
	return e
}

// ExpectClosed reads the end of the connection, in order or by reset, and nothing before it.
func (s *Script) ExpectClosed() {
	s.t.Helper()
	_ = s.conn.SetReadDeadline(time.Now().Add(Patience))
	var b [1]byte
	n, err := s.conn.Read(b[:])
	if n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		s.t.Fatalf("want a closed connection, got %q, %v", b[:n], err)
	}
}

// Password answers the server's SCRAM-SHA-256 request and reads up to AuthenticationOk.
func (s *Script) Password(password string) {
	s.t.Helper()
	var request pgproto3.AuthenticationSASL
	if err := request.Decode(s.Expect('R')); err != nil {
		s.t.Fatal(err)
	}
	if all := strings.Join(request.AuthMechanisms, " ") + " "; !strings.Contains(all, "SCRAM-SHA-256 ") {
		s.t.Fatalf("no SCRAM-SHA-256 among %s", all)
	}
	client, err := scram.SHA256.NewClientUnprepped("", password, "") // the user is in the startup packet
	if err != nil {
		s.t.Fatal(err)
	}
	talk := client.NewConversation()
	step := func(challenge []byte) []byte {
		s.t.Helper()
		answer, err := talk.Step(string(challenge))
		if err != nil {
			s.t.Fatalf("SCRAM: %v", err)
		}
		return []byte(answer)
	}
	s.Send(&pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: step(nil)})
	var first pgproto3.AuthenticationSASLContinue
	if err := first.Decode(s.Expect('R')); err != nil {
		s.t.Fatal(err)
	}
	s.Send(&pgproto3.SASLResponse{Data: step(first.Data)})
	var final pgproto3.AuthenticationSASLFinal
	if err := final.Decode(s.Expect('R')); err != nil {
		s.t.Fatal(err)
	}
	step(final.Data)
	if !talk.Valid() {
		s.t.Fatal("SCRAM: the server has not proved itself")
	}
	if err := new(pgproto3.AuthenticationOk).Decode(s.Expect('R')); err != nil {
		s.t.Fatal(err)
	}
}

// Login is Startup with protocol 3.0, Password, and everything up to the first ReadyForQuery.
func (s *Script) Login(user, password, database string) {
	s.t.Helper()
	s.Startup(Protocol30, map[string]string{"user": user, "database": database})
	s.Password(password)
	s.Until('Z')
}
