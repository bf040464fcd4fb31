// The messages that Postern itself sends to clients and servers.

package pgwire

import "encoding/binary"

// AppendReady appends ReadyForQuery with a transaction status of 'I', 'T' or 'E'.
func AppendReady(dst []byte, status byte) []byte {
	return append(dst, ReadyForQuery, 0, 0, 0, 5, status)
}

// AppendAuthenticationOk appends AuthenticationOk.
func AppendAuthenticationOk(dst []byte) []byte {
	return append(dst, Authentication, 0, 0, 0, 8, 0, 0, 0, 0)
}

// AppendSASL appends AuthenticationSASL with the mechanisms offered.
func AppendSASL(dst []byte, mechanisms []string) []byte {
	start := len(dst)
	dst = append(dst, Authentication, 0, 0, 0, 0, 0, 0, 0, 10)
	for _, m := range mechanisms {
		dst = append(append(dst, m...), 0)
	}
	dst = append(dst, 0)
	PutLength(dst[start:])
	return dst
}

// AppendSASLContinue appends AuthenticationSASLContinue.
func AppendSASLContinue(dst, data []byte) []byte { return appendAuth(dst, 11, data) }

// AppendSASLFinal appends AuthenticationSASLFinal.
func AppendSASLFinal(dst, data []byte) []byte { return appendAuth(dst, 12, data) }

func appendAuth(dst []byte, code byte, data []byte) []byte {
	dst = AppendHeader(dst, Authentication, 4+len(data))
	dst = append(dst, 0, 0, 0, code)
	return append(dst, data...)
}

// AppendParameterStatus appends ParameterStatus.
func AppendParameterStatus(dst []byte, p Param) []byte {
	dst = AppendHeader(dst, ParameterStatus, len(p.Name)+len(p.Value)+2)
	dst = append(append(dst, p.Name...), 0)
	return append(append(dst, p.Value...), 0)
}

// ParseParameterStatus reads a ParameterStatus body.
func ParseParameterStatus(body []byte) (Param, bool) {
	name, rest, ok := CString(body)
	if !ok {
		return Param{}, false
	}
	value, rest, ok := CString(rest)
	if !ok || len(rest) != 0 {
		return Param{}, false
	}
	return Param{string(name), string(value)}, true
}

// AppendBackendKeyData appends BackendKeyData; a 3.0 secret is 4 bytes.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst = AppendHeader(dst, BackendKeyData, 4+len(secret))
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}

// AppendNegotiate appends NegotiateProtocolVersion: the newest version of the
// major asked for, as Postgres writes it (with the major number in it), and
// the _pq_. options that were not understood.
func AppendNegotiate(dst []byte, version uint32, unrecognized []string) []byte {
	start := len(dst)
	dst = AppendHeader(dst, NegotiateVersion, 0)
	dst = binary.BigEndian.AppendUint32(dst, version)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(unrecognized)))
	for _, o := range unrecognized {
		dst = append(append(dst, o...), 0)
	}
	PutLength(dst[start:])
	return dst
}

// AppendQuery appends a simple Query.
func AppendQuery(dst []byte, text string) []byte {
	dst = AppendHeader(dst, Query, len(text)+1)
	return append(append(dst, text...), 0)
}

// AppendSync appends Sync.
func AppendSync(dst []byte) []byte { return append(dst, Sync, 0, 0, 0, 4) }

// AppendTerminate appends Terminate.
func AppendTerminate(dst []byte) []byte { return append(dst, Terminate, 0, 0, 0, 4) }

// AppendCopyFail appends CopyFail with a reason.
func AppendCopyFail(dst []byte, reason string) []byte {
	dst = AppendHeader(dst, CopyFail, len(reason)+1)
	return append(append(dst, reason...), 0)
}

// AppendRefusal appends a message that every server answers with an ERROR and
// nothing else: a Describe of neither a statement nor a portal. It puts the
// server into the state that a failing message of the client would have.
func AppendRefusal(dst []byte) []byte { return append(dst, Describe, 0, 0, 0, 6, '!', 0) }

// AppendParse appends Parse.
func AppendParse(dst []byte, name, text string) []byte {
	dst = AppendHeader(dst, Parse, len(name)+len(text)+4)
	dst = append(append(dst, name...), 0)
	dst = append(append(dst, text...), 0)
	return append(dst, 0, 0)
}

// AppendBind appends Bind with text parameters, nil for NULL, and default
// result formats.
func AppendBind(dst []byte, portal, statement string, params ...[]byte) []byte {
	start := len(dst)
	dst = AppendHeader(dst, Bind, 0)
	dst = append(append(dst, portal...), 0)
	dst = append(append(dst, statement...), 0)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
	for _, p := range params {
		if p == nil {
			dst = binary.BigEndian.AppendUint32(dst, 1<<32-1)
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
		dst = append(dst, p...)
	}
	dst = append(dst, 0, 0)
	PutLength(dst[start:])
	return dst
}

// AppendExecute appends Execute without a row limit.
func AppendExecute(dst []byte, portal string) []byte {
	dst = AppendHeader(dst, Execute, len(portal)+5)
	return append(append(dst, portal...), 0, 0, 0, 0, 0)
}
