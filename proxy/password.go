// A password in the clear, as a proof: derived in bounded numbers, outside the throttle's lock.

package proxy

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/postern/postern/proxy/pgwire"
	"github.com/postern/postern/proxy/scram"
)

// password is one that a visitor has told. It prints as a placeholder.
type password struct{ text string }

// Password is the proof of who has told the password itself.
func Password(text string) Proof { return password{text} }

// Format writes a placeholder, whatever the verb.
func (password) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[password]") }

// prove implements Proof. What a right, a wrong and a mock's password cost is the same.
func (p password) prove(ctx context.Context, v *visitor, verifier scram.Verifier, genuine bool) (key scram.ClientKey, final []byte, err error) {
	if key, err = p.derive(ctx, v, verifier); err != nil {
		return scram.ClientKey{}, nil, err
	}
	matches := key.Matches(verifier)
	err = v.judge(func() error {
		if !matches || !genuine || !p.usable() {
			return deny(denyPassword, clip(v.route.User))
		}
		return nil
	})
	if err != nil {
		return scram.ClientKey{}, nil, err
	}
	return key, nil, nil
}

// usable reports whether it may be anybody's: Postgres takes an empty one as none.
func (p password) usable() bool {
	return p.text != "" && len(p.text) <= pgwire.MaxPassword && !strings.ContainsRune(p.text, 0)
}

// derive waits for its turn. Who has used up its guesses meanwhile is not worth the work.
func (p password) derive(ctx context.Context, v *visitor, verifier scram.Verifier) (key scram.ClientKey, err error) {
	select {
	case v.gate.proofs <- struct{}{}:
		defer func() { <-v.gate.proofs }()
	case <-ctx.Done():
		return key, errQuiet
	}
	if ctx.Err() != nil {
		return key, errQuiet
	}
	if err := v.throttled(); err != nil {
		return key, err
	}
	return verifier.KeyOf(p.text[:min(len(p.text), pgwire.MaxPassword)])
}
