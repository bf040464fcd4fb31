// Bearer tokens: where they come from, and who has one.

package admin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/postern/postern/files"
	"github.com/postern/postern/netrestrict"
	"github.com/postern/postern/tenants"
)

// maxTokenFile bounds the token file, in bytes.
const maxTokenFile = 64 << 10

// tokenForm is what tokens look like that the registry has: ours, and those that Supabase's command line takes.
var tokenForm = regexp.MustCompile(`^(postern_[A-Za-z0-9]{26,64}|sbp_[0-9a-f]{40})$`) // immutable, safe for concurrent use

// digest is all that is known of a token once it was read. Digests have one length, so that comparing them says nothing
// about a token's.
type digest [sha256.Size]byte

// readTokens returns the digests of the tokens in a file. A file without a token is an error. No error repeats a token.
func readTokens(lane *files.Lane, path string) ([]digest, error) {
	data, err := lane.Read(path, maxTokenFile)
	if err != nil {
		return nil, err
	}
	var tokens []digest
	lines := bufio.NewScanner(bytes.NewReader(data))
	for number := 1; lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		for _, b := range line {
			if b <= ' ' || b > '~' { // what a header cannot carry could never match
				return nil, fmt.Errorf("%s, line %d: a token is printable ASCII without spaces, and has a line of its own", path, number)
			}
		}
		tokens = append(tokens, sha256.Sum256(line))
	}
	if err := lines.Err(); err != nil { // a line of 64 KiB
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s has no token", path)
	}
	return tokens, nil
}

// identify says whose token a request has.
//
// The file is read for every request: that is cheap beside the answers behind it, and a watcher would add a state in which a
// revoked token still works.
func (s *Server) identify(r *http.Request) (*caller, error) {
	var inFile []digest
	if s.opts.TokenFile != "" {
		var err error
		if inFile, err = readTokens(s.lane, s.opts.TokenFile); err != nil {
			s.unreadable.Do(func() { s.opts.Log.Error("admin: the token file cannot be read, requests are refused", "error", err) })
			return nil, errUnchecked()
		}
	} else if s.opts.Registry == nil {
		return nil, unauthorized("this needs a bearer token, and none is configured: see admin.token_file")
	}
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	got := digest(sha256.Sum256([]byte(token)))
	c := &caller{Actor: tenants.Actor{Name: "file", Address: peer(r)}, scope: tenants.ScopeOperator}
	if !oneOf(inFile, got) {
		t, err := s.find(r, token, got)
		if err != nil {
			return nil, err
		}
		c.Name, c.Token, c.scope, c.tenant = t.Name, t.ID, t.Scope, t.Tenant
	}
	c.meter = s.tokens.get(got, func() *meter { return newMeter(c.scope) })
	return c, nil
}

// find asks the registry for a token. Who guesses is soon not asked for any more, unless the token was a good one lately: a
// guesser locks out nobody who comes from the same address.
func (s *Server) find(r *http.Request, token string, got digest) (tenants.Token, error) {
	const wrong = "the bearer token is not a valid one"
	if s.opts.Registry == nil || !tokenForm.MatchString(token) {
		return tenants.Token{}, unauthorized(wrong)
	}
	from := s.strangers.get(netrestrict.Subscriber(peer(r).Addr()), func() *stranger { return &stranger{perMinute(wrongTokens)} })
	if from.wrong.Tokens() < 1 && !s.tokens.has(got) {
		return tenants.Token{}, &tooOften{tooMany, time.Second}
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	t, err := s.opts.Registry.FindToken(ctx, got)
	if errors.Is(err, tenants.ErrNoSuchToken) {
		from.wrong.Allow()
		s.tokens.drop(got) // it was good once, perhaps
		return tenants.Token{}, unauthorized(wrong)
	}
	if err != nil {
		s.unreadable.Do(func() { s.opts.Log.Error("admin: tokens of the store cannot be checked", "error", err) })
		return tenants.Token{}, errUnchecked()
	}
	return t, nil
}

// errUnchecked refuses everybody: who cannot be told from a stranger is one.
func errUnchecked() error {
	return &refusal{http.StatusServiceUnavailable, "tokens cannot be checked now; the log says why"}
}

func unauthorized(message string) error { return &refusal{http.StatusUnauthorized, message} }

// bearer returns the token of a request (RFC 6750 §2.1, the header only: a token in a URL ends in logs).
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", unauthorized("this needs a bearer token in the Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", unauthorized("the Authorization header must be one, of the form: Bearer TOKEN")
	}
	return token, nil
}

// oneOf compares with every token, so that the time depends on their number alone.
func oneOf(tokens []digest, got digest) bool {
	found := 0
	for i := range tokens {
		found |= subtle.ConstantTimeCompare(got[:], tokens[i][:])
	}
	return found == 1
}
