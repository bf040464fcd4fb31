// What can go wrong on the way to a server, and whether trying again may help.

package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

var (
	// ErrTarget means that the target cannot be used as it is configured; nothing was sent.
	ErrTarget = errors.New("backend: unusable target")
	// ErrTLSRefused means that TLS is wanted and the server does not offer it.
	ErrTLSRefused = errors.New("the server does not offer TLS, which the tenant's tls setting asks for")
	// ErrNoProof means that the server did not take part in the authentication asked for, or failed its own part of it. It may be an impostor.
	ErrNoProof = errors.New("the server did not prove its identity")
	// ErrNoCancelKey means that a server gave no key to cancel with.
	ErrNoCancelKey = errors.New("backend: the server gave no cancel key")
	// ErrPassword means that the server refused the password; a client's key is no password.
	ErrPassword = errors.New("the password is another one there")
	// ErrVerifierMismatch means that the server keeps another verifier for the role than the one that the client's key belongs to.
	ErrVerifierMismatch = scram.ErrVerifierMismatch
)

// ServerError is the server's own ErrorResponse during login. The pgwire.Error
// is not unwrapped, so that nobody passes it on to a client by accident.
type ServerError struct {
	Response *pgwire.Error
	// Proven says whether authentication was complete before. If not, the text
	// may be anybody's.
	Proven bool
	Query  bool // it was no login that was refused, but a query of our own
}

// Error quotes and shortens the server's text, because it may hold anything.
func (e *ServerError) Error() string {
	what := "login"
	if e.Query {
		what = "query"
	}
	return fmt.Sprintf("the server refused the %s: %.16q %.8q: %.200q", what, e.Response.Severity, e.Response.Code, e.Response.Message)
}

// ProtocolError means that the server does not speak the protocol, or exceeds
// the limits of a login. Reason repeats nothing that the server sent beyond
// single bytes and numbers.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string {
	return "protocol violation by the server: " + e.Reason
}

func violation(format string, args ...any) error {
	return &ProtocolError{Reason: fmt.Sprintf(format, args...)}
}

// Retryable says whether the same attempt may succeed a little later without
// anybody changing anything: the server is starting, stopping or unreachable.
// Everything about identity, configuration and the protocol is final, and so
// is a cancelled context.
func Retryable(err error) bool {
	var server *ServerError
	var protocol *ProtocolError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &server):
		// cannot_connect_now, and a postmaster that ends its children meanwhile.
		code := server.Response.Code
		return code == "57P03" || code == "57P01" || code == "57P02"
	case errors.As(err, &protocol):
		return false
	}

	var timeout interface{ Timeout() bool }
	var dns *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(): // context.DeadlineExceeded is one
		return true
	case errors.As(err, &dns): // a machine's name appears when it starts
		return true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // an early close
		return true
	case errors.As(err, &errno):
		switch errno {
		case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
			syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ETIMEDOUT:
			return true
		}
	}
	return false
}

// Answered says whether the server has let the login prove itself and then refused it, in words that are about this user
// and database alone: a statement there may change that at any moment. One that has no room left is not among them, because
// asking often does not make any.
func Answered(err error) bool {
	var server *ServerError
	return errors.As(err, &server) && server.Proven && !Retryable(err) && !strings.HasPrefix(server.Response.Code, "53")
}

// passwordRefused marks the server's refusal of a password.
func passwordRefused(t *Target, err error) error {
	var server *ServerError
	if t.Credentials.Key == nil && errors.As(err, &server) && server.Response.Code == "28P01" {
		return fmt.Errorf("%w: %w", ErrPassword, err)
	}
	return err
}

// scramError tells the ways apart in which a SCRAM conversation can fail.
func scramError(err error) error {
	switch {
	case errors.Is(err, scram.ErrServerMessage):
		return violation("%s", strings.TrimPrefix(err.Error(), "scram: "))
	case errors.Is(err, scram.ErrServerSignature):
		return fmt.Errorf("%w: %w", ErrNoProof, err)
	default:
		return err
	}
}
