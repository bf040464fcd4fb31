// Marked secrets, all that was ever said where one could hear it, and the search of the latter for the former.

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/postern/postern/proxy/scram"
)

// canaries are secrets by name, and what was heard, by place. Both may grow at any time; the search is at the end.
type canaries struct {
	mu      sync.Mutex
	secrets map[string][]byte
	heard   map[string]*strings.Builder
}

func newCanaries() *canaries {
	return &canaries{secrets: make(map[string][]byte), heard: make(map[string]*strings.Builder)}
}

// mark makes a secret. It has a character that URLs, JSON and quotes spell otherwise; what is looked for is the rest.
func (c *canaries) mark(name string) string {
	text := rand.Text()
	c.keep(name, []byte(text))
	return text + "/&"
}

func (c *canaries) keep(name string, secret []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets[name] = secret
}

// keepVerifier has a verifier's parts as secrets.
func (c *canaries) keepVerifier(t *testing.T, name, text string) string {
	t.Helper()
	v, err := scram.ParseVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	c.keep(name+"'s salt", v.Salt)
	c.keep(name+"'s stored key", v.StoredKey)
	c.keep(name+"'s server key", v.ServerKey)
	return text
}

func (c *canaries) hear(where, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard[where] == nil {
		c.heard[where] = new(strings.Builder)
	}
	c.heard[where].WriteString(text + "\n")
}

// spellings are the ways in which a program would print a secret, by name; within base64 it may begin at any of three places. In
// lower case, as what is searched is, but for base64.
func spellings(secret []byte) (lower, exact map[string]string) {
	lower = map[string]string{"plain": strings.ToLower(string(secret)), "hex": hex.EncodeToString(secret), "URL-escaped": strings.ToLower(url.QueryEscape(string(secret))),
		"decimal": strings.Trim(fmt.Sprint(secret), "[]"), "quoted": strings.ToLower(strings.Trim(fmt.Sprintf("%q", secret), `"`))}
	exact = make(map[string]string)
	for shift := range 3 {
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		text = text[(shift*8+5)/6 : len(text)-1] // without characters that have bits of something else
		exact[fmt.Sprint("base64 ", shift)] = text
		exact[fmt.Sprint("base64 for URLs ", shift)] = strings.NewReplacer("+", "-", "/", "_").Replace(text)
	}
	return lower, exact
}

// found names the secrets that were heard, and where.
func (c *canaries) found() (all []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for where, said := range c.heard {
		text := said.String()
		small := strings.ToLower(text)
		for name, secret := range c.secrets {
			lower, exact := spellings(secret)
			for how, spelled := range lower {
				if at := strings.Index(small, spelled); at >= 0 {
					all = append(all, fmt.Sprintf("%s (%s) in %s: %q", name, how, where, around(small, at)))
				}
			}
			for how, spelled := range exact {
				if at := strings.Index(text, spelled); at >= 0 {
					all = append(all, fmt.Sprintf("%s (%s) in %s: %q", name, how, where, around(text, at)))
				}
			}
		}
	}
	return all
}

func around(text string, at int) string { return text[max(0, at-200):min(len(text), at+100)] }

// TestCanariesAreFound: every spelling is.
func TestCanariesAreFound(t *testing.T) {
	secret := []byte("s3cret\xff?~and more?>")
	for name, text := range map[string]string{
		"plain": string(secret), "upper case": strings.ToUpper(string(secret)), "hex": fmt.Sprintf("\\x00%X11", secret), "URL": url.QueryEscape(" " + string(secret) + "&"),
		"bytes": fmt.Sprint(append([]byte{1}, secret...)), "quoted": fmt.Sprintf("%q", "\n"+string(secret)), "base64": base64.StdEncoding.EncodeToString(secret),
		"base64 after one": base64.StdEncoding.EncodeToString([]byte("a" + string(secret) + "b")), "base64 after two": base64.StdEncoding.EncodeToString([]byte("ab" + string(secret) + "b")),
		"base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte("abc" + string(secret))),
	} {
		c := newCanaries()
		c.keep("it", secret)
		c.hear("before", "nothing")
		if all := c.found(); len(all) > 0 {
			t.Errorf("found %q", all)
		}
		c.hear("there", "before "+text+" after")
		if len(c.found()) == 0 {
			t.Errorf("%s: %q is not found", name, text)
		}
	}
}
