// The secrets of cancel keys: each says, to whoever has the cluster's key, which node has made it.

package cluster

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"slices"
)

// A secret is noise with a mark behind it: a MAC over the noise, the process id that it goes with, and the boot of the node that
// has made it. The mark says whom to ask and proves nothing else: what a request may do the node alone knows that has the session.
// So most of the 4 bytes of protocol 3.0 are noise: a process id that a tenant's server says comes again, and what was the key of a
// session that is over must not be that of another one, least of all of another tenant's. Nobody else can tell the two parts apart,
// and of guesses as many are right as if all of it was noise.
const (
	noiseShort, markShort = 3, 1   // of protocol 3.0
	noiseLong, markLong   = 16, 16 // of protocol 3.2
)

// CancelNoise is how many bytes of noise a secret has.
func CancelNoise(long bool) int {
	if long {
		return noiseLong
	}
	return noiseShort
}

// CancelSecret is the secret of a node's for a process id, made of as much noise as CancelNoise says.
func CancelSecret(key [32]byte, boot string, pid uint32, noise []byte) []byte {
	return append(slices.Clone(noise), cancelMark(key, boot, pid, noise)...)
}

// cancelMark is what stands behind noise.
func cancelMark(key [32]byte, boot string, pid uint32, noise []byte) []byte {
	mac := hmac.New(sha256.New, key[:])
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], pid)
	head[4] = byte(len(noise)) // so that all that is hashed can be taken apart again
	mac.Write(head[:])
	mac.Write(noise)
	mac.Write([]byte(boot))
	if len(noise) == noiseLong {
		return mac.Sum(nil)[:markLong]
	}
	return mac.Sum(nil)[:markShort]
}

// CancelMade reports whether the node with this boot may have made a secret, under one of the cluster's keys. Of secrets of protocol
// 3.0 that nobody has made one in 256 looks like that for each key.
func CancelMade(keys [][32]byte, boot string, pid uint32, secret []byte) bool {
	noise := 0
	switch len(secret) {
	case noiseShort + markShort:
		noise = noiseShort
	case noiseLong + markLong:
		noise = noiseLong
	default:
		return false
	}
	return slices.ContainsFunc(keys, func(key [32]byte) bool {
		return subtle.ConstantTimeCompare(cancelMark(key, boot, pid, secret[:noise]), secret[noise:]) == 1
	})
}
