// What is wanted in a cluster: roles and databases, and which of them are there already.

package local

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/postern/postern/files"
)

// appliedName is a file in the data directory with a digest of each thing that was made there. It is where a copy of the
// data takes it along, and a new data directory begins without it.
const appliedName = "postern.applied"

// maxName is the length of a name in PostgreSQL, in bytes (NAMEDATALEN - 1). It cuts longer ones off. (As sqltext.MaxName, which
// is behind a wall.)
const maxName = 63

// A Role may log in to a cluster.
type Role struct {
	Name string
	// Secret is a SCRAM verifier, which is stored as it is, or a password. "": it cannot log in with a password.
	Secret string
}

// String is the role without its secret.
func (r Role) String() string { return "role " + r.Name }

// Format keeps the secret out of every verb.
func (r Role) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

// LogValue keeps the secret out of logs.
func (r Role) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText keeps the secret out of JSON, YAML and what slog's handlers make of nested values. There is no way back.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// wanted is what a cluster shall hold. What it holds beyond is left alone.
type wanted struct {
	roles     []Role
	databases []string // owned by the first role
}

func (w wanted) clone() wanted { return wanted{slices.Clone(w.roles), slices.Clone(w.databases)} }

// check finds what PostgreSQL would refuse, misunderstand, or should better not be asked for.
func (w wanted) check(superuser string) error {
	names := make(map[string]bool)
	for _, r := range w.roles {
		switch {
		case r.Name == superuser:
			return fmt.Errorf("role %q: the superuser's password is nobody else's", r.Name)
		case names[r.Name]:
			return fmt.Errorf("role %q is wanted twice", r.Name)
		case strings.ContainsRune(r.Secret, 0) || !utf8.ValidString(r.Secret):
			return fmt.Errorf("role %q: the secret is no text", r.Name)
		}
		if err := checkName(r.Name); err != nil {
			return fmt.Errorf("role %q: %w", r.Name, err)
		}
		names[r.Name] = true
	}
	for _, d := range w.databases {
		if err := checkName(d); err != nil {
			return fmt.Errorf("database %q: %w", d, err)
		}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("no name")
	case len(name) > maxName:
		return fmt.Errorf("a name has at most %d bytes", maxName)
	case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return errors.New("the name is no text")
	}
	return nil
}

// missing is the part of w that was not applied yet.
func (w wanted) missing(key string, applied map[string]bool) wanted {
	return wanted{
		roles:     slices.DeleteFunc(slices.Clone(w.roles), func(r Role) bool { return applied[r.digest(key)] }),
		databases: slices.DeleteFunc(slices.Clone(w.databases), func(d string) bool { return applied[databaseDigest(key, d)] }),
	}
}

// digests is the text of the file that says that all of w was applied.
func (w wanted) digests(key string) string {
	var text strings.Builder
	for _, r := range w.roles {
		text.WriteString(r.digest(key) + "\n")
	}
	for _, d := range w.databases {
		text.WriteString(databaseDigest(key, d) + "\n")
	}
	return text.String()
}

func (r Role) digest(key string) string { return digest(key, "role", r.Name, r.Secret) }

func databaseDigest(key, name string) string { return digest(key, "database", name) }

// digest is keyed with the superuser's password, so that it alone is no help for guessing a role's.
func digest(key string, parts ...string) string {
	mac := hmac.New(sha256.New, []byte(key))
	for _, p := range parts {
		fmt.Fprintf(mac, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// applied reads the digests of what was made in the cluster.
func (c *Cluster) applied() (map[string]bool, error) {
	text, err := files.Read(c.path(dataName, appliedName), maxApplied)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := make(map[string]bool)
	for digest := range strings.Lines(string(text)) {
		all[strings.TrimSuffix(digest, "\n")] = true
	}
	return all, nil
}
