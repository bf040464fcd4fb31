// The names of sessions outside: one that was told is good for that session of this process, and for nothing else.

package proxy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
)

// sessionIDs makes ids of the numbers that sessions have inside. An id is a number and eight zeros, encrypted under a key that
// only this process has: so nobody can guess one or tell from one how many sessions others have, and one of another process,
// or of an earlier run, is known for none. Safe for concurrent use.
type sessionIDs struct{ block cipher.Block }

func newSessionIDs() sessionIDs {
	var key [16]byte
	_, _ = rand.Read(key[:]) // which never fails
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return sessionIDs{block}
}

func (s sessionIDs) id(number uint64) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:], number)
	s.block.Encrypt(b[:], b[:])
	return hex.EncodeToString(b[:])
}

// number is what id has made an id of.
func (s sessionIDs) number(id string) (uint64, bool) {
	var b [aes.BlockSize]byte
	if len(id) != hex.EncodedLen(len(b)) {
		return 0, false
	}
	if _, err := hex.Decode(b[:], []byte(id)); err != nil {
		return 0, false
	}
	s.block.Decrypt(b[:], b[:])
	number := binary.BigEndian.Uint64(b[:])
	return number, s.id(number) == id // with the zeros, and not in capitals
}
