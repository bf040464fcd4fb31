// Keys in their one spelling: encoding/json takes them in any case.

package document

import (
	"bytes"
	"fmt"
)

// exactKeys refuses a key that is not spelled as ours are, in small letters and _; text is valid JSON. A key that encoding/json has
// found a field for, and that has no other characters, is spelled as the field's is.
func exactKeys(text []byte) error {
	for len(text) > 0 {
		start := bytes.IndexByte(text, '"')
		if start < 0 {
			return nil
		}
		text = text[start+1:]
		end := 0
		for text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		key := text[:end]
		text = bytes.TrimLeft(text[end+1:], " \t\r\n")
		if bytes.HasPrefix(text, []byte(":")) && bytes.ContainsFunc(key, func(c rune) bool { return c != '_' && (c < 'a' || c > 'z') }) {
			return fmt.Errorf("json: unknown field %q", key) // as encoding/json says it
		}
	}
	return nil
}
