// ErrorResponse and NoticeResponse: building ours, reading a server's.

package pgwire

import (
	"strings"
)

// Severities that Postern uses.
const (
	Fatal  = "FATAL"
	Err    = "ERROR"
	Notice = "NOTICE"
)

// Error is the body of an ErrorResponse or NoticeResponse, and a Go error.
type Error struct {
	Severity string // FATAL, ERROR, NOTICE ...
	Code     string // SQLSTATE
	Message  string
	Detail   string
	Hint     string

	// Of the server's source, where drivers tell errors apart by it.
	File, Routine string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Severity)
	b.WriteString(" ")
	b.WriteString(e.Code)
	b.WriteString(": ")
	b.WriteString(e.Message)
	return b.String()
}

// Append appends the error as a complete message: NoticeResponse where the
// severity is NOTICE, ErrorResponse otherwise. NUL bytes, which would end a
// field early, are dropped.
func (e *Error) Append(dst []byte) []byte {
	typ := byte(ErrorResponse)
	if e.Severity == Notice {
		typ = NoticeResponse
	}
	start := len(dst)
	dst = AppendHeader(dst, typ, 0)
	field := func(code byte, v string) {
		if v == "" {
			return
		}
		dst = append(dst, code)
		for i := 0; i < len(v); i++ {
			if v[i] != 0 {
				dst = append(dst, v[i])
			}
		}
		dst = append(dst, 0)
	}
	field('S', e.Severity)
	field('V', e.Severity)
	field('C', e.Code)
	field('M', e.Message)
	field('D', e.Detail)
	field('H', e.Hint)
	field('F', e.File)
	field('R', e.Routine)
	dst = append(dst, 0)
	PutLength(dst[start:])
	return dst
}

// AppendV2 appends the error in protocol 2's form, which is what Postgres
// answers to a client that asked for a major version below 3.
func (e *Error) AppendV2(dst []byte) []byte {
	dst = append(dst, ErrorResponse)
	dst = append(dst, e.Severity...)
	dst = append(dst, ":  "...)
	dst = append(dst, e.Message...)
	return append(dst, '\n', 0)
}

// PutLength fills in the length of the message that b holds, in whole.
func PutLength(b []byte) {
	n := uint32(len(b) - 1)
	b[1], b[2], b[3], b[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// ParseError reads the body of an ErrorResponse or NoticeResponse. It never
// fails: what is missing or malformed is left empty, because a server may
// send anything.
func ParseError(body []byte) *Error {
	e := &Error{}
	for len(body) > 0 && body[0] != 0 {
		code := body[0]
		v, rest, ok := CString(body[1:])
		if !ok {
			break
		}
		body = rest
		switch code {
		case 'S':
			if e.Severity == "" {
				e.Severity = string(v)
			}
		case 'V': // never localized, so it wins
			e.Severity = string(v)
		case 'C':
			e.Code = string(v)
		case 'M':
			e.Message = string(v)
		case 'D':
			e.Detail = string(v)
		case 'H':
			e.Hint = string(v)
		}
	}
	return e
}

// IsFatal reports whether the error ends its connection.
func (e *Error) IsFatal() bool { return e.Severity == Fatal || e.Severity == "PANIC" }
