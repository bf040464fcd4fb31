// Cancel keys: what clients prove their sessions with when they cancel.

package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"sync"
)

const (
	// ownPID is set in the process ids that Postern makes up. No process has one of
	// them: those of Linux end at 1<<22.
	ownPID = 1 << 30
	// maxSharing bounds the sessions that have one process id, since whoever guesses
	// a secret of 4 bytes has that many chances; and maxTenantSharing those of one
	// tenant, whose servers may say anything, so that it leaves some for others.
	maxSharing       = 64
	maxTenantSharing = 4
)

// cancelKey is what a client proves its session with: a process id, sign bit
// clear, and a secret of 4 bytes in protocol 3.0 and 32 in 3.2, which is random
// or, in a cluster, mostly so: see Cluster.CancelSecret.
// The id is the server's where a session has a server of its own, and made up
// where servers change. Tenants' servers know nothing of each other, so several
// sessions may have the same; it is the secret that proves.
type cancelKey struct {
	pid    uint32
	secret []byte
}

// secretOf makes a secret, unlike those before it, that goes with a process id; long is for protocol 3.2.
type secretOf func(pid uint32, long bool) []byte

// newCancelKey makes a key with a process id that is made up. taken says which ids are those of sessions that are open.
func newCancelKey(long bool, secret secretOf, taken func(pid uint32) bool) cancelKey {
	pid := uint32(0)
	for pid == 0 || taken(pid) {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		pid = binary.BigEndian.Uint32(b[:])&^(1<<31) | ownPID
	}
	return cancelKey{pid, secret(pid, long)}
}

// newSecret is the secretOf of a gate without other nodes.
func newSecret(_ uint32, long bool) []byte {
	secret := make([]byte, 4)
	if long {
		secret = make([]byte, 32)
	}
	_, _ = rand.Read(secret)
	return secret
}

// is reports whether a cancel request has the key's secret.
func (k cancelKey) is(secret []byte) bool { return subtle.ConstantTimeCompare(k.secret, secret) == 1 }

// cancelKeys finds sessions by their key. Safe for concurrent use.
type cancelKeys struct {
	secret secretOf // static
	mu     sync.Mutex
	byPID  map[uint32][]keyed
}

// keyed is a session, a *client or a *replica, and its key.
type keyed struct {
	key     cancelKey
	tenant  *tenant
	session any
}

// add makes a key for a session of a tenant's, unlike those of all that are
// open. pid is the id of the server that is the session's own; 0: it has none.
// What a server says may be anything.
func (k *cancelKeys) add(session any, t *tenant, long bool, pid uint32) cancelKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID == nil {
		k.byPID = make(map[uint32][]keyed)
	}
	var key cancelKey
	if k.mayShare(t, pid) {
		key = cancelKey{pid, k.secret(pid, long)}
		for k.at(pid, key.secret) >= 0 {
			key.secret = k.secret(pid, long)
		}
	} else {
		key = newCancelKey(long, k.secret, func(pid uint32) bool { return k.byPID[pid] != nil })
	}
	k.byPID[key.pid] = append(k.byPID[key.pid], keyed{key, t, session})
	return key
}

// mayShare reports whether one more session of a tenant's may have a server's
// process id.
func (k *cancelKeys) mayShare(t *tenant, pid uint32) bool {
	if pid == 0 || pid>>31 != 0 {
		return false
	}
	own := 0
	for _, other := range k.byPID[pid] {
		if other.tenant == t {
			own++
		}
	}
	return own < maxTenantSharing && len(k.byPID[pid]) < maxSharing
}

// at is where the key is among those with its process id; -1: there is none.
func (k *cancelKeys) at(pid uint32, secret []byte) int {
	return slices.IndexFunc(k.byPID[pid], func(s keyed) bool { return s.key.is(secret) })
}

// remove forgets a key, if there is one.
func (k *cancelKeys) remove(key cancelKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.at(key.pid, key.secret)
	if i < 0 {
		return
	}
	if k.byPID[key.pid] = slices.Delete(k.byPID[key.pid], i, i+1); len(k.byPID[key.pid]) == 0 {
		delete(k.byPID, key.pid)
	}
}

// find returns the session that a request has the key of; one without a
// session: there is none.
func (k *cancelKeys) find(pid uint32, secret []byte) keyed {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.at(pid, secret); i >= 0 {
		return k.byPID[pid][i]
	}
	return keyed{}
}
