// What is let through to memberlist: a message that it does not survive, whoever has the gossip's key could send.

package cluster

import (
	"encoding/binary"
	"errors"
)

// How memberlist seals: behind a header with the label stands, in a stream, a type and a length; then a version, a nonce, what is sealed, and
// a tag. Of version 0, which no node uses, it trusts the padding; of a stream, that there is something in it.
const (
	labelHeader  = 2 + len(label)
	streamHeader = 1 + 4
	sealedAs     = 1
	sealedLeast  = 1 + 12 + 1 + 16
)

var errSealed = errors.New("is not sealed as nodes do")

// soundPacket reports whether a packet may be opened. Those with another label are not, anyhow.
func soundPacket(b []byte) bool {
	return len(b) >= labelHeader+sealedLeast && b[labelHeader] == sealedAs
}

// streamHead looks at the first bytes of a stream while they pass. Of its reader.
type streamHead struct {
	skip int // bytes of a header before: that of who has dialed has one
	seen []byte
}

// pass looks at what was read next.
func (h *streamHead) pass(p []byte) error {
	if h.skip > 0 {
		n := min(h.skip, len(p))
		h.skip, p = h.skip-n, p[n:]
	}
	if len(h.seen) > streamHeader {
		return nil
	}
	h.seen = append(h.seen, p[:min(len(p), streamHeader+1-len(h.seen))]...)
	if len(h.seen) > streamHeader && (binary.BigEndian.Uint32(h.seen[1:]) < sealedLeast || h.seen[streamHeader] != sealedAs) {
		return errSealed
	}
	return nil
}
