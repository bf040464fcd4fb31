// Bearer tokens: where they come from, and who has one.

package admin

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/postern/postern/files"
)

// maxTokenFile bounds the token file, in bytes.
const maxTokenFile = 64 << 10

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

// authorized lets through requests with a token of the token file.
//
// The file is read for every request: that is cheap beside the answers behind it, and a watcher would add a state in which a
// revoked token still works.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.opts.TokenFile == "" {
			unauthorized(w, "this needs a bearer token, and none is configured: see admin.token_file")
			return
		}
		tokens, err := readTokens(s.lane, s.opts.TokenFile)
		if err != nil {
			s.unreadable.Do(func() { s.opts.Log.Error("admin: the token file cannot be read, requests are refused", "error", err) })
			fail(w, http.StatusServiceUnavailable, "tokens cannot be checked now; the log says why")
			return
		}
		token, err := bearer(r)
		if err == nil && !oneOf(tokens, token) {
			err = errors.New("the bearer token is not a valid one")
		}
		if err != nil {
			s.refused.Do(func() {
				s.opts.Log.Warn("admin: request refused; further ones are not logged for a while",
					"error", err, "route", r.Pattern, "peer", r.RemoteAddr)
			})
			unauthorized(w, err.Error())
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer returns the token of a request (RFC 6750 §2.1, the header only: a token in a URL ends in logs).
func bearer(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", errors.New("this needs a bearer token in the Authorization header")
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errors.New("the Authorization header must be one, of the form: Bearer TOKEN")
	}
	return token, nil
}

// oneOf compares with every token, so that the time depends on their number alone.
func oneOf(tokens []digest, token string) bool {
	got, found := sha256.Sum256([]byte(token)), 0
	for i := range tokens {
		found |= subtle.ConstantTimeCompare(got[:], tokens[i][:])
	}
	return found == 1
}

func unauthorized(w http.ResponseWriter, message string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="postern"`)
	fail(w, http.StatusUnauthorized, message)
}
