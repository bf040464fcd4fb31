// What is let through to memberlist: what nodes say. Whoever has the gossip's key could send messages that it does not survive, or that cost it
// much memory.

package cluster

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"io"
	"slices"

	"github.com/hashicorp/memberlist"
)

// How memberlist seals: behind a header with the label stands, in a stream, a type and a length; then a version, a nonce, what is sealed, and
// a tag. Of version 0, which no node uses, it trusts the padding; of a stream, that there is something in it.
const (
	labelHeader  = "\xf4\x07" + label
	streamHeader = 1 + 4
	sealedStream = 10
	sealedAs     = 1
	nonceSize    = 12
	sealedLeast  = 1 + nonceSize + 1 + 16
)

// The types of messages that nodes send. Compressed ones (9) are not among them: 2 KB can become 40 MB. Nor are users' (8).
const (
	typePing         = 0
	typeIndirectPing = 1
	typeAck          = 2
	typeSuspect      = 3
	typeAlive        = 4
	typeDead         = 5
	typePushPull     = 6
	typeCompound     = 7
	typeNack         = 11
	typeChecksum     = 12
	typeError        = 13
)

// fault is why something is refused.
type fault string

func (f fault) Error() string { return string(f) }

const (
	errForm  fault = "not sealed as nodes do"
	errNoKey fault = "sealed with none of the keys here"
	errSaid  fault = "not what nodes say"
	errLong  fault = "longer than a cluster's state can be"
)

// judgePacket says why a packet may not be given to memberlist.
func judgePacket(b []byte, ring *memberlist.Keyring) error {
	sealed, ours := bytes.CutPrefix(b, []byte(labelHeader))
	if !ours {
		return errForm
	}
	plain, err := unseal(sealed, []byte(label), ring)
	if err == nil && !soundPacket(plain) {
		err = errSaid
	}
	return err
}

func soundPacket(plain []byte) bool {
	if len(plain) >= 5 && plain[0] == typeChecksum {
		plain = plain[5:]
	}
	if len(plain) > 0 && plain[0] == typeCompound {
		return soundCompound(plain[1:])
	}
	return soundPart(plain)
}

// soundCompound looks at several messages in one: a number, the length of each, and they. Nodes put none into another.
func soundCompound(b []byte) bool {
	if len(b) == 0 || len(b) < 1+2*int(b[0]) {
		return false
	}
	lengths, parts := b[1:1+2*int(b[0])], b[1+2*int(b[0]):]
	for length := range slices.Chunk(lengths, 2) {
		n := int(binary.BigEndian.Uint16(length))
		if n > len(parts) || !soundPart(parts[:n]) {
			return false
		}
		parts = parts[n:]
	}
	return true
}

func soundPart(b []byte) bool {
	return len(b) > 0 && slices.Contains([]byte{typePing, typeIndirectPing, typeAck, typeSuspect, typeAlive, typeDead, typeNack}, b[0])
}

// readSealed reads the one message of a stream, the label before it if the other side has dialed, and returns all of it if it may be given to
// memberlist.
func readSealed(r io.Reader, labelled bool, ring *memberlist.Keyring) ([]byte, error) {
	skip := 0
	if labelled {
		skip = len(labelHeader)
	}
	head := make([]byte, skip+streamHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	outside := head[skip:]
	size := binary.BigEndian.Uint32(outside[1:])
	switch {
	case labelled && string(head[:skip]) != labelHeader, outside[0] != sealedStream, size < sealedLeast:
		return nil, errForm
	case int(size) > maxStream-len(head):
		return nil, errLong
	}
	all := bytes.NewBuffer(head)
	if _, err := io.CopyN(all, r, int64(size)); err != nil {
		return nil, err
	}
	outside, sealed := all.Bytes()[skip:skip+streamHeader], all.Bytes()[skip+streamHeader:]
	plain, err := unseal(sealed, append(bytes.Clone(outside), label...), ring)
	switch {
	case err != nil:
		return nil, err
	case !soundStream(plain):
		return nil, errSaid
	}
	return all.Bytes(), nil
}

func soundStream(plain []byte) bool {
	if len(plain) == 0 {
		return false
	}
	switch plain[0] {
	case typePing, typeAck, typeError:
		return true
	case typePushPull:
		return soundState(plain[1:])
	}
	return false
}

// soundState looks at what a state of members claims to be, since memberlist makes room for that before it reads it. That is a map of three in
// msgpack. Nodes have no state of their own.
func soundState(b []byte) bool {
	const nodes, user, join = "\xa5Nodes", "\xacUserStateLen", "\xa4Join"
	b, ok := bytes.CutPrefix(b, []byte("\x83"))
	if !ok {
		return false
	}
	for range 3 {
		if rest, ok := bytes.CutPrefix(b, []byte(nodes)); ok {
			var n int
			if n, b = smallNumber(rest); n < 0 || n > maxMembers {
				return false
			}
		} else if rest, ok := bytes.CutPrefix(b, []byte(user+"\x00")); ok {
			b = rest
		} else if rest, ok := bytes.CutPrefix(b, []byte(join)); ok && len(rest) > 0 && (rest[0] == 0xc2 || rest[0] == 0xc3) {
			b = rest[1:]
		} else {
			return false
		}
	}
	return true
}

// smallNumber reads a number in msgpack of at most 16 bits; -1: it is none.
func smallNumber(b []byte) (n int, rest []byte) {
	switch {
	case len(b) >= 1 && b[0] < 0x80:
		return int(b[0]), b[1:]
	case len(b) >= 2 && b[0] == 0xcc:
		return int(b[1]), b[2:]
	case len(b) >= 3 && (b[0] == 0xcd || b[0] == 0xd1):
		return int(int16(binary.BigEndian.Uint16(b[1:]))), b[3:]
	}
	return -1, nil
}

// unseal returns what is sealed with one of the keys.
func unseal(sealed, with []byte, ring *memberlist.Keyring) ([]byte, error) {
	if len(sealed) < sealedLeast || sealed[0] != sealedAs {
		return nil, errForm
	}
	for _, key := range ring.GetKeys() {
		block, err := aes.NewCipher(key)
		if err != nil {
			continue
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			continue
		}
		if plain, err := gcm.Open(nil, sealed[1:1+nonceSize], sealed[1+nonceSize:], with); err == nil {
			return plain, nil
		}
	}
	return nil, errNoKey
}
