// The startup message's options string, split and read as Postgres does.

package pgwire

import (
	"fmt"
	"strings"
)

// SplitOptions splits a command line at white space; a backslash takes the
// next character literally (Postgres's pg_split_opts).
func SplitOptions(s string) []string {
	var words []string
	for i := 0; i < len(s); {
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		if i == len(s) {
			break
		}
		var w strings.Builder
		for i < len(s) && !isSpace(s[i]) {
			if s[i] == '\\' {
				i++
				if i == len(s) {
					break
				}
			}
			w.WriteByte(s[i])
			i++
		}
		words = append(words, w.String())
	}
	return words
}

func isSpace(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

// ParseOptions reads the options string: "-c name=value", "-cname=value" and
// "--name=value" set parameters; "reference=tenant" and "project=tenant", with
// or without such a prefix, name the tenant. Any other switch is refused
// rather than ignored: a setting must never be lost silently. Errors are
// *Error.
func ParseOptions(s string) (references []string, params []Param, err error) {
	words := SplitOptions(s)
	for i := 0; i < len(words); i++ {
		w := words[i]
		var setting string
		switch {
		case w == "-c":
			i++
			if i == len(words) {
				return nil, nil, badOption("-c requires a value")
			}
			setting = words[i]
		case strings.HasPrefix(w, "--"):
			setting = w[2:]
		case strings.HasPrefix(w, "-c"):
			setting = w[2:]
		case strings.HasPrefix(w, "reference="), strings.HasPrefix(w, "project="):
			setting = w
		default:
			return nil, nil, &Error{Severity: Fatal, Code: "0A000",
				Message: fmt.Sprintf("startup option %q is not supported", w),
				Hint:    "Only -c name=value, --name=value and reference=tenant are."}
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, nil, badOption(fmt.Sprintf("%q requires a value", setting))
		}
		name = strings.ReplaceAll(name, "-", "_")
		switch name {
		case "":
			return nil, nil, badOption(fmt.Sprintf("%q has no name", setting))
		case "reference", "project":
			references = append(references, value)
		default:
			params = append(params, Param{name, value})
		}
	}
	return references, params, nil
}

func badOption(what string) *Error {
	return &Error{Severity: Fatal, Code: "42601", Message: "invalid startup options: " + what}
}
