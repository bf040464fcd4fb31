// Cancel keys: what clients prove their sessions with when they cancel.

package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// cancelKey is what a client proves its session with: a number that stands
// for a process id, sign bit clear, and a secret of 4 bytes in protocol 3.0 and
// 32 in 3.2. All of it is random.
type cancelKey struct {
	pid    uint32
	secret []byte
}

// newCancelKey makes a key; long is for protocol 3.2. taken says which numbers
// are those of sessions that are open.
func newCancelKey(long bool, taken func(pid uint32) bool) cancelKey {
	key := cancelKey{secret: make([]byte, 4)}
	if long {
		key.secret = make([]byte, 32)
	}
	_, _ = rand.Read(key.secret) // never fails
	for key.pid == 0 || taken(key.pid) {
		var b [4]byte
		_, _ = rand.Read(b[:])
		key.pid = binary.BigEndian.Uint32(b[:]) &^ (1 << 31)
	}
	return key
}

// is reports whether a cancel request has the key's secret.
func (k cancelKey) is(secret []byte) bool { return subtle.ConstantTimeCompare(k.secret, secret) == 1 }

// cancelKeys finds sessions by their key. Safe for concurrent use.
type cancelKeys struct {
	mu    sync.Mutex
	byPID map[uint32]*client
}

// add makes a key for a session, unique among those that are open.
func (k *cancelKeys) add(c *client, long bool) cancelKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID == nil {
		k.byPID = make(map[uint32]*client)
	}
	c.key = newCancelKey(long, func(pid uint32) bool { return k.byPID[pid] != nil })
	k.byPID[c.key.pid] = c
	return c.key
}

func (k *cancelKeys) remove(key cancelKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byPID, key.pid)
}

func (k *cancelKeys) find(pid uint32, secret []byte) *client {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.byPID[pid]
	if c == nil || !c.key.is(secret) {
		return nil
	}
	return c
}
