// A scripted server: each test says what it sends, and it checks that the client closes in the end.

package backend

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPassword = "correct horse"

// patience bounds what must happen soon but has no event to wait for.
const patience = 40 * time.Second

// script plays the server on one connection. Its errors are only the client
// hanging up, which many scripts provoke, so they are not looked at.
type script func(c net.Conn)

// serve runs the script on every connection and returns a target for it. When
// the test ends, every connection must have been closed by the client.
func serve(t *testing.T, s script) Target {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	conns := make(chan struct{}, 64)
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { conns <- struct{}{} }()
				defer c.Close()
				s(c)
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the client left its connection open")
				}
			}()
			select {
			case <-conns:
			case <-time.After(2 * patience):
				t.Error("the script hangs")
			}
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return Target{
		Host: "127.0.0.1", Port: uint16(n), TLS: TLSDisable,
		User: "app", Database: "db", Credentials: scram.Credentials{Password: testPassword},
	}
}

// hangUp ends the connection at once, without waiting for the client.
func hangUp(c net.Conn) { _ = c.Close() }

// startup reads the startup message.
func startup(c net.Conn) { _, _, _ = pgwire.ReadPacket(c) }

// readMessage reads a client message and returns its body.
func readMessage(c io.Reader) []byte {
	var head [pgwire.HeaderSize]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, _ = io.ReadFull(c, body)
	return body
}

// saslBegin offers the mechanisms and returns the client's first message.
func saslBegin(c net.Conn, mechanisms ...string) string {
	startup(c)
	_, _ = c.Write(pgwire.AppendSASL(nil, mechanisms))
	_, rest, ok := pgwire.CString(readMessage(c))
	if !ok || len(rest) < 4 {
		return ""
	}
	return string(rest[4:])
}

// honestSCRAM proves to know the test password's verifier, up to but without AuthenticationOk.
func honestSCRAM(c net.Conn) {
	first := saslBegin(c, scram.Mechanism)
	v, err := scram.NewVerifier(testPassword, 16, []byte("pepper"))
	if err != nil {
		panic(err)
	}
	s, err := scram.NewServer(v, true, scram.ChannelBinding{})
	if err != nil {
		panic(err)
	}
	challenge, err := s.First(scram.Mechanism, []byte(first))
	if err != nil {
		return
	}
	_, _ = c.Write(pgwire.AppendSASLContinue(nil, challenge))
	if reply, _, err := s.Final(readMessage(c)); err == nil {
		_, _ = c.Write(pgwire.AppendSASLFinal(nil, reply))
	}
}

// afterProof plays an honest server up to AuthenticationOk and then sends the bytes.
func afterProof(b []byte) script {
	return func(c net.Conn) {
		honestSCRAM(c)
		_, _ = c.Write(append(pgwire.AppendAuthenticationOk(nil), b...))
	}
}

// greeting is what follows AuthenticationOk on an honest server.
func greeting() []byte {
	b := pgwire.AppendParameterStatus(nil, pgwire.Param{Name: "server_version", Value: "15.3"})
	b = pgwire.AppendParameterStatus(b, pgwire.Param{Name: "TimeZone", Value: "UTC"})
	b = pgwire.AppendBackendKeyData(b, 4711, []byte{1, 2, 3, 4})
	return pgwire.AppendReady(b, 'I')
}

// inTLS answers the TLS request and plays the script inside, with the certificate.
func inTLS(cert tls.Certificate, s script) script {
	return func(c net.Conn) {
		startup(c)
		_, _ = c.Write([]byte("S"))
		inner := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		if inner.Handshake() == nil {
			s(inner)
		}
	}
}

// message builds a message of any type.
func message(typ byte, body string) []byte {
	return append(pgwire.AppendHeader(nil, typ, len(body)), body...)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
