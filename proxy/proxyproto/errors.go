// Why a connection has no Peer, in a closed set of reasons.

package proxyproto

import (
	"errors"
	"io"
	"os"
)

// Reason is what became of a header: the label of the counter of headers, so the set is closed.
type Reason string

const (
	ReasonOK          Reason = "ok"          // a client is named; never in an Error
	ReasonLocal       Reason = "local"       // LOCAL, UNKNOWN or UNSPEC: the balancer's health check. Close quietly, never serve
	ReasonUntrusted   Reason = "untrusted"   // the sender may not name clients; for callers, Read does not judge that
	ReasonMissing     Reason = "missing"     // the first bytes are another protocol's
	ReasonMalformed   Reason = "malformed"   // begins like a header and is none
	ReasonOversize    Reason = "oversize"    // longer than any header we take
	ReasonTruncated   Reason = "truncated"   // the peer went away inside the header
	ReasonChecksum    Reason = "checksum"    // the CRC32C does not fit
	ReasonUnsupported Reason = "unsupported" // a valid header, but for UDP or a UNIX socket: no TCP client is behind it
	ReasonTimeout     Reason = "timeout"     // the connection's deadline passed first
	ReasonEmpty       Reason = "empty"       // the peer went away without a byte
)

// Reasons lists the whole set.
func Reasons() []Reason {
	return []Reason{ReasonOK, ReasonLocal, ReasonUntrusted, ReasonMissing, ReasonMalformed, ReasonOversize, ReasonTruncated,
		ReasonChecksum, ReasonUnsupported, ReasonTimeout, ReasonEmpty}
}

// Error says why there is no Peer. Whatever the reason, the connection is to be closed without an answer.
type Error struct {
	Reason    Reason
	FirstByte byte  // the first byte received; 0 if there was none, which only timeout and empty can mean
	Err       error // the cause, never nil, free of the peer's bytes unless it comes from a library (quoted, then)
}

// Error implements error.
func (e *Error) Error() string { return "PROXY header: " + string(e.Reason) + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint tells an operator what is probably configured wrong; "" if that cannot be told. The first byte serves this
// guess only: it must never lead to serving the connection without a header.
func (e *Error) Hint() string {
	const cure = "; enable proxy_proto on the load balancer's port, or let such clients use a listener with proxy_protocol: off"
	switch {
	case e.Reason != ReasonMissing:
		return ""
	case e.FirstByte == 0x00:
		return "this looks like a PostgreSQL client that was passed on without a PROXY header" + cure
	case e.FirstByte == 0x16:
		return "this looks like a TLS client that was passed on without a PROXY header" + cure
	case 'A' <= e.FirstByte && e.FirstByte <= 'Z', 'a' <= e.FirstByte && e.FirstByte <= 'z':
		return "this looks like HTTP or another text protocol; check what the load balancer sends to this port, health checks included"
	default:
		return "this is neither a PROXY header nor a PostgreSQL client" + cure
	}
}

// ioError classifies a failed read after n bytes of the header.
func ioError(err error, n int) *Error {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return &Error{Reason: ReasonTimeout, Err: err}
	case n == 0:
		return &Error{Reason: ReasonEmpty, Err: err}
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &Error{Reason: ReasonTruncated, Err: err}
}

func malformed(why string) *Error { return &Error{Reason: ReasonMalformed, Err: errors.New(why)} }
