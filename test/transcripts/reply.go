// Replies as lines of a transcript: everything that a client can see, less what differs from session to session anyway.

package transcripts

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/jackc/pgproto3/v2"
)

// closed stands in a transcript where the connection ended.
const closed = "closed"

// firstUserOID is where the ids of a user's own tables and types begin (access/transam.h, FirstNormalObjectId).
const firstUserOID = 16384

// clip is how long a value may be before its hash stands for it.
const clip = 300

// render writes a backend message as one line. Masked are: file, line and routine of errors, the process ids of
// notifications, ids of tables and types that a user has made.
func render(kind byte, body []byte) string {
	switch kind {
	case '1':
		return "ParseComplete"
	case '2':
		return "BindComplete"
	case '3':
		return "CloseComplete"
	case 'n':
		return "NoData"
	case 's':
		return "PortalSuspended"
	case 'c':
		return "CopyDone"
	case 'I':
		return "EmptyQueryResponse"
	case 'Z':
		return "ReadyForQuery " + string(body)
	case 'C':
		return "CommandComplete " + show(bytes.TrimSuffix(body, []byte{0}))
	case 'd':
		return "CopyData " + show(body)
	case 'E':
		return "ErrorResponse " + fields(body)
	case 'N':
		return "NoticeResponse " + fields(body)
	}
	line, err := decode(kind, body)
	if err != nil {
		return fmt.Sprintf("%q that does not decode (%v): %q", kind, err, body)
	}
	return line
}

// decode renders the messages with a structure.
func decode(kind byte, body []byte) (string, error) {
	switch kind {
	case 'T':
		var m pgproto3.RowDescription
		err := m.Decode(body)
		words := []string{"RowDescription"}
		for _, f := range m.Fields {
			words = append(words, fmt.Sprintf("%s:table=%s/%d:type=%s/%d/%d:format=%d", f.Name, oid(f.TableOID), f.TableAttributeNumber,
				oid(f.DataTypeOID), f.DataTypeSize, f.TypeModifier, f.Format))
		}
		return strings.Join(words, " "), err
	case 'D':
		var m pgproto3.DataRow
		err := m.Decode(body)
		words := []string{"DataRow"}
		for _, v := range m.Values {
			words = append(words, show(v))
		}
		return strings.Join(words, " "), err
	case 't':
		var m pgproto3.ParameterDescription
		err := m.Decode(body)
		return "ParameterDescription " + list(m.ParameterOIDs, oid), err
	case 'S':
		var m pgproto3.ParameterStatus
		err := m.Decode(body)
		return status(m.Name, m.Value), err
	case 'A':
		var m pgproto3.NotificationResponse
		err := m.Decode(body)
		return fmt.Sprintf("NotificationResponse %q %q", m.Channel, m.Payload), err
	case 'G':
		var m pgproto3.CopyInResponse
		err := m.Decode(body)
		return fmt.Sprintf("CopyInResponse %d %v", m.OverallFormat, m.ColumnFormatCodes), err
	case 'H':
		var m pgproto3.CopyOutResponse
		err := m.Decode(body)
		return fmt.Sprintf("CopyOutResponse %d %v", m.OverallFormat, m.ColumnFormatCodes), err
	case 'V':
		var m pgproto3.FunctionCallResponse
		err := m.Decode(body)
		return "FunctionCallResponse " + show(m.Result), err
	}
	return fmt.Sprintf("%q %q", kind, body), nil
}

func status(name, value string) string { return fmt.Sprintf("ParameterStatus %s=%q", name, value) }

func oid(n uint32) string {
	if n >= firstUserOID {
		return "user"
	}
	return number(n)
}

// show writes a value, or the beginning and the hash of a long one.
func show(v []byte) string {
	switch {
	case v == nil:
		return "null"
	case len(v) > clip:
		return fmt.Sprintf("%q... %d bytes, SHA-256 %.8x", v[:20], len(v), sha256.Sum256(v))
	}
	return quote(string(v))
}

// fields writes an error's or notice's fields in the order in which they came.
func fields(body []byte) string {
	var words []string
	for len(body) > 1 {
		text, rest, _ := bytes.Cut(body[1:], []byte{0})
		switch field := body[0]; field {
		case 'F', 'L', 'R': // the place in PostgreSQL's source
		case 'V':
			if len(words) == 0 || words[0] != "S="+quote(string(text)) {
				words = append(words, "V="+quote(string(text)))
			}
		default:
			words = append(words, string(field)+"="+quote(string(text)))
		}
		body = rest
	}
	return strings.Join(words, " ")
}
