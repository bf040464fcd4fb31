// The login: startup message, authentication, and what a server says until it is ready.

package backend

import (
	"encoding/binary"

	"github.com/postern/postern/proxy/pgwire"
)

// Limits of one login. Postgres sends about fifteen parameters.
const (
	maxParameters     = 200
	maxParameterBytes = 64 << 10
	maxNotices        = 100
	maxSecret         = 256 // bytes of a cancel key, in protocol 3.2; 3.0 has 4
)

// login is the state of one login on a wire.
type login struct {
	*wire
	t        *Target
	notices  int
	answered bool // the server asked for proof and the exchange is complete
	proven   bool // AuthenticationOk followed

	pid        uint32
	secret     []byte
	parameters []Parameter
}

// run logs in and returns after ReadyForQuery.
func (l *login) run() error {
	if err := l.send(startupMessage(l.t)); err != nil {
		return err
	}
	if err := l.authenticate(); err != nil {
		return err
	}
	l.proven = true
	return l.settle()
}

// message returns the next message that is not a notice. Notices are counted
// and dropped: no client is there to read them. An ErrorResponse is an error.
func (l *login) message() (typ byte, body []byte, err error) {
	for {
		typ, body, err := l.next()
		if err != nil {
			return 0, nil, err
		}
		switch typ {
		case pgwire.NoticeResponse:
			if l.notices++; l.notices > maxNotices {
				return 0, nil, violation("more than %d notices during login", maxNotices)
			}
		case pgwire.ErrorResponse:
			return 0, nil, &ServerError{Response: pgwire.ParseError(body), Proven: l.proven}
		default:
			return typ, body, nil
		}
	}
}

// settle collects what a server tells about itself until it is ready.
func (l *login) settle() error {
	size := 0
	for {
		typ, body, err := l.message()
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.ParameterStatus:
			p, ok := pgwire.ParseParameterStatus(body)
			if !ok || p.Name == "" {
				return violation("malformed ParameterStatus")
			}
			size += len(p.Name) + len(p.Value)
			if len(l.parameters) == maxParameters || size > maxParameterBytes {
				return violation("more than %d parameters or %d bytes of them", maxParameters, maxParameterBytes)
			}
			l.parameters = append(l.parameters, p)
		case pgwire.BackendKeyData:
			if l.secret != nil || len(body) < 8 || len(body) > 4+maxSecret {
				return violation("second or malformed BackendKeyData")
			}
			l.pid = binary.BigEndian.Uint32(body)
			l.secret = append([]byte(nil), body[4:]...)
		case pgwire.ReadyForQuery:
			if len(body) != 1 || body[0] != 'I' {
				return violation("the first ReadyForQuery is not an idle one")
			}
			return nil
		default:
			return violation("message of type 0x%02x during login", typ)
		}
	}
}
