// The first packet of a connection: requests for encryption or cancel, and the startup message.

package pgwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Request codes that stand where a protocol version would (protocol section
// "Message Formats").
const (
	CodeCancel = 1234<<16 | 5678
	CodeSSL    = 1234<<16 | 5679
	CodeGSSENC = 1234<<16 | 5680
)

// Protocol versions that Postern speaks towards clients.
const (
	Version30 = 3 << 16
	Version32 = 3<<16 | 2
)

// MaxStartup is the longest startup packet, without its own length field
// (Postgres's MAX_STARTUP_PACKET_LENGTH).
const MaxStartup = 10_000

// ErrStartupLength is a first packet whose length cannot be one. Postgres
// closes such connections without a word, and so do we.
var ErrStartupLength = errors.New("invalid length of startup packet")

// ReadPacket reads one startup-phase packet and returns its code and what
// follows. It reads not one byte more than the packet, and allocates only
// after the length was checked.
func ReadPacket(r io.Reader) (code uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 8 || n > MaxStartup+4 {
		return 0, nil, ErrStartupLength
	}
	if _, err := io.ReadFull(r, head[4:]); err != nil {
		return 0, nil, fmt.Errorf("startup packet: %w", err)
	}
	body = make([]byte, n-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, fmt.Errorf("startup packet: %w", err)
	}
	return binary.BigEndian.Uint32(head[4:]), body, nil
}

// AppendPacket appends what ReadPacket reads.
func AppendPacket(dst []byte, code uint32, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(dst, code), body...)
}

// CancelKey splits the body of a CancelRequest. Secrets are 4 bytes in
// protocol 3.0 and up to 256 in 3.2.
func CancelKey(body []byte) (pid uint32, secret []byte, ok bool) {
	if len(body) < 8 || len(body) > 4+256 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint32(body), body[4:], true
}

// Param is one run-time parameter: a GUC's name and its value.
type Param struct{ Name, Value string }

// Startup is what a client asks for in its startup message.
type Startup struct {
	Version      uint32   // the version to speak: Version30 or Version32
	Negotiate    bool     // whether NegotiateProtocolVersion must be sent
	Unrecognized []string // the _pq_. options to list in it
	User         string
	Database     string // "" when the client named none
	Replication  string // "", "true" or "database"
	References   []string
	Params       []Param // GUCs, those from the options string first; the last of a name wins
}

// ParseStartup judges and splits a startup message. Every error is a *Error
// that can be sent to the client as it is.
func ParseStartup(code uint32, body []byte) (*Startup, error) {
	major, minor := code>>16, code&0xffff
	if major != 3 {
		return nil, &Error{Severity: Fatal, Code: "0A000",
			Message: fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", major, minor)}
	}
	s := &Startup{Version: Version30}
	switch {
	case minor == 0:
	case minor == 1: // never released, so its clients speak 3.0
		s.Negotiate = true
	case minor == 2:
		s.Version = Version32
	default:
		s.Version, s.Negotiate = Version32, true
	}
	if err := s.parseParams(body); err != nil {
		return nil, err
	}
	if s.User == "" {
		return nil, &Error{Severity: Fatal, Code: "28000", Message: "no PostgreSQL user name specified in startup packet"}
	}
	return s, nil
}

func (s *Startup) parseParams(body []byte) error {
	var seen struct{ user, database, options, replication bool }
	once := func(flag *bool, name string) error {
		if *flag {
			// Two readers of one packet must never see different users.
			return violation("invalid startup packet layout: %q occurs twice", name)
		}
		*flag = true
		return nil
	}
	var rest []Param
	for {
		if len(body) == 0 {
			return violation("invalid startup packet layout: expected terminator as last byte")
		}
		if body[0] == 0 {
			break
		}
		name, after, ok := CString(body)
		if !ok {
			return violation("invalid startup packet layout: expected terminator as last byte")
		}
		value, after, ok := CString(after)
		if !ok || len(after) == 0 {
			return violation("invalid startup packet layout: expected terminator as last byte")
		}
		body = after
		var err error
		switch n, v := string(name), string(value); {
		case n == "user":
			err, s.User = once(&seen.user, n), v
		case n == "database":
			err, s.Database = once(&seen.database, n), v
		case n == "replication":
			if err = once(&seen.replication, n); err == nil {
				s.Replication, err = parseReplication(v)
			}
		case n == "options":
			if err = once(&seen.options, n); err == nil {
				s.References, s.Params, err = ParseOptions(v)
			}
		case strings.HasPrefix(n, "_pq_."):
			s.Unrecognized, s.Negotiate = append(s.Unrecognized, n), true
		default:
			rest = append(rest, Param{n, v})
		}
		if err != nil {
			return err
		}
	}
	if len(body) != 1 {
		return violation("invalid startup packet layout: expected terminator as last byte")
	}
	s.Params = append(s.Params, rest...)
	return nil
}

// parseReplication reads the value as Postgres's parse_bool does, plus "database".
func parseReplication(v string) (string, error) {
	if v == "database" {
		return v, nil
	}
	l := strings.ToLower(v)
	for _, yes := range []string{"true", "yes", "on", "1"} {
		if isPrefix(l, yes) {
			return "true", nil
		}
	}
	for _, no := range []string{"false", "no", "off", "0"} {
		if isPrefix(l, no) {
			return "", nil
		}
	}
	return "", &Error{Severity: Fatal, Code: "22023", Message: fmt.Sprintf("invalid value for parameter \"replication\": %q", v),
		Hint: `Valid values are: "false", 0, "true", 1, "database".`}
}

// isPrefix reports whether v abbreviates word unambiguously: "on" and "off"
// share their first letter.
func isPrefix(v, word string) bool {
	return v != "" && v != "o" && strings.HasPrefix(word, v)
}

func violation(format string, args ...any) *Error {
	return &Error{Severity: Fatal, Code: "08P01", Message: fmt.Sprintf(format, args...)}
}

// StartupBody encodes parameters as the body of a startup message, for the
// side that sends one. A NUL inside a name or value would smuggle in further
// parameters, so it is an error.
func StartupBody(params []Param) ([]byte, error) {
	var b bytes.Buffer
	for _, p := range params {
		if strings.IndexByte(p.Name, 0) >= 0 || strings.IndexByte(p.Value, 0) >= 0 || p.Name == "" {
			return nil, errors.New("startup parameter with a NUL byte or without a name")
		}
		b.WriteString(p.Name)
		b.WriteByte(0)
		b.WriteString(p.Value)
		b.WriteByte(0)
	}
	b.WriteByte(0)
	return b.Bytes(), nil
}
