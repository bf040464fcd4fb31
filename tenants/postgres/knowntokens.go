// What the store has said of tokens, for a while: so that not every request asks it, and known tokens work while it is away.

package postgres

import (
	"crypto/subtle"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern/postern/tenants"
)

const (
	knownFresh = time.Second // so that a token that was revoked on another node ends within it
	knownStale = time.Minute // while the store is away, and so nobody can revoke anything. Then the token file is what works
	maxKnown   = 10_000
)

// knownTokens are tokens that were valid when the store was asked. The zero value is ready.
type knownTokens struct {
	mu       sync.Mutex
	byDigest map[[32]byte]knownToken
	ended    atomic.Uint64 // how many were found to be good no more; what was asked before the last one is not kept
}

type knownToken struct {
	tenants.Token
	digest [32]byte
	said   time.Time // before the store was asked
	ask    time.Time // when to ask again
}

// find returns a token that the store has said is valid. ask: it was not asked for a while, and what is returned is good only if it is
// away.
func (k *knownTokens) find(digest [32]byte, now time.Time) (t tenants.Token, known, ask bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	is, ok := k.byDigest[digest]
	if !ok || subtle.ConstantTimeCompare(is.digest[:], digest[:]) != 1 || now.Sub(is.said) >= knownStale || !is.Expires.IsZero() && !now.Before(is.Expires) {
		return tenants.Token{}, false, true
	}
	return is.Token, true, !now.Before(is.ask)
}

// valid keeps what the store has said, unless a token has ended since it was asked: it may have been this one.
func (k *knownTokens) valid(digest [32]byte, t tenants.Token, asked time.Time, ended uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended.Load() != ended {
		return
	}
	if k.byDigest == nil || len(k.byDigest) >= maxKnown {
		k.byDigest = make(map[[32]byte]knownToken)
	}
	k.byDigest[digest] = knownToken{t, digest, asked, asked.Add(knownFresh)}
}

// away says that the store did not answer, so that not every request waits for that.
func (k *knownTokens) away(digest [32]byte, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if is, ok := k.byDigest[digest]; ok {
		is.ask = now.Add(knownFresh)
		k.byDigest[digest] = is
	}
}

// invalid drops what is known of a token: it must not be good again when the store goes away. Who guesses ends none.
func (k *knownTokens) invalid(digest [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, was := k.byDigest[digest]; was {
		k.ended.Add(1)
		delete(k.byDigest, digest)
	}
}

// revoked drops what is known of a token, and what somebody is asking about it now.
func (k *knownTokens) revoked(digest [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended.Add(1)
	delete(k.byDigest, digest)
}
