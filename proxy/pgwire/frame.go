// Message framing: which types exist, how long each may be.

package pgwire

import "encoding/binary"

// HeaderSize is the length of a message header: one type byte and four length bytes.
const HeaderSize = 5

// Length limits, counted as the protocol counts them: with the four length bytes.
const (
	// MaxMessage bounds messages that carry data (1 GiB - 1, Postgres's own limit).
	MaxMessage = 1<<30 - 1
	// MaxSmallMessage bounds client messages that carry only names (PQ_SMALL_MESSAGE_LIMIT).
	MaxSmallMessage = 10_000
	// MaxPassword bounds password and SASL messages before authentication.
	MaxPassword = 1_100
)

// Frontend message types.
const (
	Bind         = 'B'
	Close        = 'C'
	CopyData     = 'd'
	CopyDone     = 'c'
	CopyFail     = 'f'
	Describe     = 'D'
	Execute      = 'E'
	Flush        = 'H'
	FunctionCall = 'F'
	Parse        = 'P'
	Password     = 'p'
	Query        = 'Q'
	Sync         = 'S'
	Terminate    = 'X'
)

// Backend message types.
const (
	Authentication       = 'R'
	BackendKeyData       = 'K'
	BindComplete         = '2'
	CloseComplete        = '3'
	CommandComplete      = 'C'
	CopyInResponse       = 'G'
	CopyOutResponse      = 'H'
	CopyBothResponse     = 'W'
	DataRow              = 'D'
	EmptyQueryResponse   = 'I'
	ErrorResponse        = 'E'
	FunctionCallResponse = 'V'
	NegotiateVersion     = 'v'
	NoData               = 'n'
	NoticeResponse       = 'N'
	NotificationResponse = 'A'
	ParameterDescription = 't'
	ParameterStatus      = 'S'
	ParseComplete        = '1'
	PortalSuspended      = 's'
	ReadyForQuery        = 'Z'
	RowDescription       = 'T'
)

// clientMax is the longest legal length per frontend type once a client is in
// its query phase; 0 means the type is not legal there.
var clientMax = [256]int32{
	Query: MaxMessage, FunctionCall: MaxMessage, Parse: MaxMessage, Bind: MaxMessage, CopyData: MaxMessage,
	Close: MaxSmallMessage, Describe: MaxSmallMessage, Execute: MaxSmallMessage, Flush: MaxSmallMessage,
	Sync: MaxSmallMessage, Terminate: MaxSmallMessage, CopyDone: MaxSmallMessage, CopyFail: MaxSmallMessage,
}

// serverKnown marks the backend types that may follow a login.
var serverKnown = [256]bool{
	BindComplete: true, CloseComplete: true, CommandComplete: true, CopyInResponse: true, CopyOutResponse: true,
	CopyBothResponse: true, DataRow: true, EmptyQueryResponse: true, ErrorResponse: true, FunctionCallResponse: true,
	NoData: true, NoticeResponse: true, NotificationResponse: true, ParameterDescription: true, ParameterStatus: true,
	ParseComplete: true, PortalSuspended: true, ReadyForQuery: true, RowDescription: true, CopyData: true, CopyDone: true,
}

// FrameStatus says what ClientFrame and ServerFrame found.
type FrameStatus uint8

// The outcomes of looking at a header.
const (
	FrameOK      FrameStatus = iota // a legal header; size is the whole message's length in bytes
	FrameShort                      // fewer than HeaderSize bytes; the type byte, if there, is legal
	FrameBadType                    // no such message in this phase
	FrameBadLength
)

// ClientFrame looks at the header of a query-phase frontend message at the
// start of b and returns the message's total size, header included.
func ClientFrame(b []byte) (size int, status FrameStatus) {
	if len(b) == 0 {
		return 0, FrameShort
	}
	limit := clientMax[b[0]]
	if limit == 0 {
		return 0, FrameBadType
	}
	if len(b) < HeaderSize {
		return 0, FrameShort
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > uint32(limit) {
		return 0, FrameBadLength
	}
	return int(n) + 1, FrameOK
}

// ServerFrame looks at the header of a backend message, after login, at the
// start of b and returns the message's total size, header included.
func ServerFrame(b []byte) (size int, status FrameStatus) {
	if len(b) == 0 {
		return 0, FrameShort
	}
	if !serverKnown[b[0]] {
		return 0, FrameBadType
	}
	if len(b) < HeaderSize {
		return 0, FrameShort
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > MaxMessage {
		return 0, FrameBadLength
	}
	return int(n) + 1, FrameOK
}

// AppendHeader appends a message header for a body of n bytes.
func AppendHeader(dst []byte, typ byte, n int) []byte {
	dst = append(dst, typ)
	return binary.BigEndian.AppendUint32(dst, uint32(n+4))
}

// CString splits b after its first NUL. ok is false when there is none.
func CString(b []byte) (s, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return b[:i], b[i+1:], true
		}
	}
	return nil, nil, false
}
