// A ClientKey is the one thing that a proof gives away, and all that is needed to log in elsewhere with the same verifier.

package scram

import (
	"crypto/sha256"
	"crypto/subtle"
)

// ClientKey is the key that a SCRAM client proves to own (RFC 5802 section 3). Whoever has it can log in wherever the
// same verifier is stored, so treat it like a password: keep it in memory only, next to its verifier, and Zero it when
// the verifier changes. Every usual way of printing it yields a placeholder.
type ClientKey [KeySize]byte

// Matches says, in constant time, whether k is the key behind v's StoredKey.
func (k ClientKey) Matches(v Verifier) bool {
	sum := sha256.Sum256(k[:])
	return subtle.ConstantTimeCompare(sum[:], v.StoredKey) == 1
}

// Zero overwrites the key.
func (k *ClientKey) Zero() { clear(k[:]) }
