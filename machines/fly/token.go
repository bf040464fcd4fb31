// The API tokens: the process's, read from its file, and a machine's own. Nobody prints them.

package fly

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/postern/postern/files"
)

const (
	tokenLimit = 16 << 10 // macaroons are long
	redacted   = "[token]"
)

// token is a secret. Only header and scrub look inside.
type token string

// String returns a placeholder.
func (token) String() string { return redacted }

// Format prints a placeholder for every verb.
func (token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder; there is no way back.
func (token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// header is the value of the Authorization header. A macaroon has a scheme of its own.
func (t token) header() string {
	if strings.HasPrefix(string(t), "fm1") || strings.HasPrefix(string(t), "fm2_") {
		return "FlyV1 " + string(t)
	}
	return "Bearer " + string(t)
}

// scrub takes the token, or a part of a list of macaroons, out of a text that somebody else wrote.
func (t token) scrub(text string) string {
	if t == "" {
		return text
	}
	text = strings.ReplaceAll(text, string(t), redacted)
	for part := range strings.SplitSeq(string(t), ",") {
		if len(part) >= 8 { // a shorter one is no secret, and would tear words apart
			text = strings.ReplaceAll(text, part, redacted)
		}
	}
	return text
}

// parseToken accepts what `fly tokens create` prints, with its scheme or without.
func parseToken(content []byte) (token, error) {
	words := strings.Fields(string(content))
	if len(words) > 0 && (words[0] == "FlyV1" || words[0] == "Bearer") {
		words = words[1:]
	}
	switch len(words) {
	case 0:
		return "", errors.New("it is empty")
	case 1:
	default:
		return "", errors.New("it holds more than one word")
	}
	text := words[0]
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return "", errors.New("it is no token")
		}
	}
	return token(text), nil
}

// tokens is where a token comes from. Without one it is empty, and err says why. Safe for concurrent use.
type tokens interface {
	current() (token, error)
	reread() (token, error) // for one that was just refused
}

// noToken is for who has only machines with tokens of their own.
type noToken struct{}

func (noToken) current() (token, error) {
	return "", errors.New("the machine has no token, and there is none for all")
}

func (n noToken) reread() (token, error) { return n.current() }

// ownToken is a machine's own, or where it has none, all's.
type ownToken struct {
	own func() string
	all tokens
}

func (o ownToken) current() (token, error) { return o.or(o.all.current) }
func (o ownToken) reread() (token, error)  { return o.or(o.all.reread) }

func (o ownToken) or(all func() (token, error)) (token, error) {
	text := o.own()
	if text == "" {
		return all()
	}
	t, err := parseToken([]byte(text))
	if err != nil {
		return "", fmt.Errorf("the machine's own token: %w", err)
	}
	return t, nil
}

// tokenFile reads the token again when its file has changed. Safe for concurrent use.
type tokenFile struct {
	path string
	lane *files.Lane

	mu   sync.Mutex // guards what follows
	seen fs.FileInfo
	last token
}

// Format names the file and keeps its content out of every verb: fmt does not ask an unexported field how it prints.
func (f *tokenFile) Format(out fmt.State, _ rune) { fmt.Fprint(out, "token in "+f.path) }

// current returns the token. While its file is away or unreadable the last good one is used, and err says why; without
// a good one the token is empty.
func (f *tokenFile) current() (token, error) { return f.read(false) }

// reread reads the file whatever its times say: they are coarse, and the token was just refused.
func (f *tokenFile) reread() (token, error) { return f.read(true) }

// content is a token file's, and how it looked from outside before that: a change after it is seen next time.
type content struct {
	info fs.FileInfo
	text []byte
}

func (f *tokenFile) read(always bool) (token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := f.seen
	c, err := files.Do(f.lane, "reading "+f.path, func() (c content, err error) {
		if c.info, err = os.Stat(f.path); err != nil {
			return c, err
		}
		if !always && seen != nil && os.SameFile(c.info, seen) && c.info.ModTime().Equal(seen.ModTime()) && c.info.Size() == seen.Size() {
			return content{}, nil
		}
		c.text, err = files.Read(f.path, tokenLimit)
		return c, err
	})
	if err != nil {
		return f.last, fmt.Errorf("fly: token file: %w", err)
	}
	if c.info == nil { // as it was
		return f.last, nil
	}
	t, err := parseToken(c.text)
	if err != nil {
		return f.last, fmt.Errorf("fly: token file %s: %w", f.path, err)
	}
	f.seen, f.last = c.info, t
	return t, nil
}
