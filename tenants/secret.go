// Secrets that do not print.

package tenants

import (
	"fmt"
	"io"
	"log/slog"
	"unique"
)

const redacted = "[redacted]"

// Secret is a password or a verifier. It prints as a placeholder in fmt, slog and JSON; only Reveal gives the text.
// Secrets of one text are equal (==). The zero Secret means that there is none.
//
// The text is behind a pointer, not in a string type, because fmt prints some values without asking them: those in
// unexported fields, and what a pointer leads to when the verb does not fit, as in Printf("%s", tenant).
type Secret struct{ text unique.Handle[string] }

// NewSecret makes text a Secret; the empty text is the zero Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{unique.Make(text)}
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.text.Value()
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// String returns a placeholder.
func (s Secret) String() string { return redacted }

// GoString returns a placeholder.
func (s Secret) GoString() string { return redacted }

// Format writes a placeholder, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder; there is no way back.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
