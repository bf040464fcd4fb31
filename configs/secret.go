// Secret: a text that no log and no message prints.

package configs

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is text that must not reach a log: it prints as a placeholder with every verb of fmt, in slog, JSON and YAML.
// Convert it to a string to use it.
type Secret string

// String returns a placeholder.
func (s Secret) String() string { return redacted }

// GoString returns a placeholder.
func (s Secret) GoString() string { return redacted }

// Format writes a placeholder: verbs such as %x and %q would otherwise print the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue returns a placeholder.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder; there is no way back.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
