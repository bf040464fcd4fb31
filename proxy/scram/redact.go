// Redaction: no secret of this package can be printed by accident.

package scram

import (
	"fmt"
	"io"
	"log/slog"
)

// Each type implements fmt.Formatter, not only Stringer, because verbs such as %x and %d would otherwise print the
// bytes, and encoding.TextMarshaler, which JSON, YAML and slog's handlers use for nested values.
const (
	redactedVerifier = "[SCRAM verifier, redacted]"
	redactedKey      = "[SCRAM client key, redacted]"
	redactedServer   = "[SCRAM conversation, redacted]"
)

// String returns a placeholder.
func (v Verifier) String() string { return redactedVerifier }

// GoString returns a placeholder.
func (v Verifier) GoString() string { return redactedVerifier }

// Format writes a placeholder, whatever the verb.
func (v Verifier) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedVerifier) }

// LogValue returns a placeholder.
func (v Verifier) LogValue() slog.Value { return slog.StringValue(redactedVerifier) }

// MarshalText returns a placeholder; there is no way back.
func (v Verifier) MarshalText() ([]byte, error) { return []byte(redactedVerifier), nil }

// String returns a placeholder.
func (k ClientKey) String() string { return redactedKey }

// GoString returns a placeholder.
func (k ClientKey) GoString() string { return redactedKey }

// Format writes a placeholder, whatever the verb.
func (k ClientKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedKey) }

// LogValue returns a placeholder.
func (k ClientKey) LogValue() slog.Value { return slog.StringValue(redactedKey) }

// MarshalText returns a placeholder; there is no way back.
func (k ClientKey) MarshalText() ([]byte, error) { return []byte(redactedKey), nil }

// Format writes a placeholder: fmt would print the unexported verifier inside without asking it.
func (s *Server) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedServer) }

// LogValue returns a placeholder.
func (s *Server) LogValue() slog.Value { return slog.StringValue(redactedServer) }
