// Cancel keys and cancel requests.

package proxy

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"

	"github.com/postern/postern/proxy/pgwire"
)

// cancelKey is what a client proves its session with: a number that stands
// for a process id, sign bit clear, and a secret of 4 bytes in protocol 3.0 and
// 32 in 3.2. All of it is random.
type cancelKey struct {
	pid    uint32
	secret []byte
}

// cancelKeys finds sessions by their key. Safe for concurrent use.
type cancelKeys struct {
	mu    sync.Mutex
	byPID map[uint32]*client
}

// add makes a key for a session, unique among those that are open.
func (k *cancelKeys) add(c *client, long bool) cancelKey {
	n := 4
	if long {
		n = 32
	}
	key := cancelKey{secret: make([]byte, n)}
	_, _ = rand.Read(key.secret)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byPID == nil {
		k.byPID = make(map[uint32]*client)
	}
	for key.pid == 0 || k.byPID[key.pid] != nil {
		var b [4]byte
		_, _ = rand.Read(b[:])
		key.pid = binary.BigEndian.Uint32(b[:]) &^ (1 << 31)
	}
	c.key = key
	k.byPID[key.pid] = c
	return key
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
	if c == nil || subtle.ConstantTimeCompare(c.key.secret, secret) != 1 {
		return nil
	}
	return c
}

// cancel deals with a CancelRequest. The client gets no answer, whatever comes
// of it; the allowlist of the session's tenant holds for it too.
func (h *handshake) cancel(body []byte) {
	g := h.gate
	count := func(result string) { g.metrics.cancels.WithLabelValues(result).Inc() }
	pid, secret, ok := pgwire.CancelKey(body)
	if !ok {
		count("unknown")
		return
	}
	c := g.keys.find(pid, secret)
	if c == nil {
		count("unknown")
		return
	}
	conf, known := g.opts.Directory.Current().Tenant(c.tenant.id)
	if !known || !conf.Allow.Allows(h.peer.Client.Addr()) {
		count("refused")
		g.metrics.refusals.WithLabelValues(refusedAddress).Inc()
		return
	}
	c.tenant.post(func() { c.cancel(count) })
}
